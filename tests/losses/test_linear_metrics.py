import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.datasets import load_iris, load_wine
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, NeighborhoodComponentsAnalysis
from support.batches import batch

from deepknn_jax.knn.neighbors import Examples
from deepknn_jax.losses.base import Sums, mean
from deepknn_jax.losses.lmnn import lmnn_loss, lmnn_sums, target_neighbors
from deepknn_jax.losses.nca import nca_loss, nca_sums

pytestmark = pytest.mark.usefixtures("strict_dtypes")
BUNCHES = {"iris": load_iris, "wine": load_wine}
PUBLISHED = json.loads(Path(__file__).with_name("metric_learn_lmnn.json").read_text())
K = 3

find_targets = jax.jit(target_neighbors, static_argnames="k")


def targets_of(x, labels, k=K):
    """Targets from other inputs than the embeddings, as in training: here the first half of x."""
    return np.asarray(find_targets(x[:, : x.shape[1] // 2], labels, k=k))


# name -> (loss of this project, loop), each taking (x, labels, targets, **options)
LOSSES = {
    "nca": (
        lambda x, y, t, **options: nca_loss(x, y, temperature=1.5, **options),
        lambda x, y, t, **options: reference.nca_loop(x, y, temperature=1.5, **options),
    ),
    "log nca": (
        lambda x, y, t, **options: nca_loss(x, y, temperature=1.5, log=True, **options),
        lambda x, y, t, **options: reference.nca_loop(x, y, temperature=1.5, log=True, **options),
    ),
    "lmnn": (
        lambda x, y, t, **options: lmnn_loss(x, y, t, mu=0.3, margin=2.0, **options),
        lambda x, y, t, **options: reference.lmnn_loop(x, y, t, mu=0.3, margin=2.0, **options),
    ),
}
COMPILED = {name: jax.jit(jax.value_and_grad(loss)) for name, (loss, _) in LOSSES.items()}


def run(name, x, labels, targets, ids=None, where=None):
    """Value and gradient, compiled: one program for all batches of a shape."""
    ids = np.arange(len(x)) if ids is None else ids
    where = np.ones(len(x), bool) if where is None else where
    return COMPILED[name](jnp.asarray(x), labels, targets, ids=ids, where=where)


def run_without_arrays(name, x, labels, targets):
    return COMPILED[name](jnp.asarray(x), labels, targets)


def check(name, x, labels, *, targets=None, rtol=1e-5, atol=3e-6, function=run, **arrays):
    """Value and gradient against the loop."""
    targets = targets_of(x, labels) if targets is None else targets
    expected, expected_gradient = LOSSES[name][1](x, labels, targets, **arrays)
    value, gradient = function(name, x, labels, targets, **arrays)
    np.testing.assert_allclose(value, expected, rtol=rtol, atol=atol)
    atol *= max(1.0, np.abs(expected_gradient).max())
    np.testing.assert_allclose(gradient, expected_gradient, rtol=10 * rtol, atol=atol)


@pytest.mark.parametrize("name", LOSSES)
class TestEveryLoss:
    @pytest.mark.parametrize("seed", range(3))
    def test_matches_the_loop(self, name, seed):
        check(name, *batch(seed=seed))

    def test_matches_the_loop_in_float64_with_default_ids_and_where(self, name):
        x, labels = batch(seed=4)
        with jax.enable_x64(True):
            x = x.astype(np.float64)
            check(name, x, labels, rtol=1e-11, atol=1e-12, function=run_without_arrays)

    def test_offset_of_1e3(self, name):
        check(name, *batch(offset=1e3), rtol=1e-4, atol=1e-4)

    def test_offset_beside_removed_rows(self, name):
        """Removed rows must not move the centre of the product."""
        where = np.arange(24) % 2 == 0
        check(name, *batch(offset=1e3), where=where, rtol=1e-4, atol=1e-4)

    def test_equal_embeddings_give_finite_gradients(self, name):
        x, labels = batch()
        x[5] = x[9] = x[2]
        labels[[5, 9, 2]] = [0, 0, 1]
        check(name, x, labels)

    def test_all_embeddings_equal(self, name):
        check(name, np.ones((24, 6), np.float32), batch()[1])

    def test_a_class_of_one(self, name):
        x, labels = batch()
        labels[4] = 9
        check(name, x, labels)

    def test_a_batch_of_one_class(self, name):
        x, labels = batch()
        check(name, x, np.zeros_like(labels))

    def test_nobody_has_a_positive(self, name):
        x, labels = batch()[0], np.arange(24, dtype=np.int32)
        check(name, x, labels)
        assert run(name, x, labels, targets_of(x, labels))[0] == 0

    def test_copies_of_one_id_are_not_neighbours(self, name):
        x, labels = batch()
        x[7] = x[3] + 0.1
        labels[[3, 7]] = 9  # a class of nothing but the two copies
        ids = np.arange(24, dtype=np.int32) + 100
        ids[7] = ids[3]
        targets = targets_of(x, labels)
        renamed = np.where(targets < 0, -1, ids[targets])
        check(name, x, labels, targets=renamed, ids=ids)
        told, untold = run(name, x, labels, renamed, ids=ids)[0], run(name, x, labels, targets)[0]
        assert not np.isclose(told, untold)

    def test_where_removes_rows_nan_and_all(self, name):
        x, labels = batch()
        where = np.ones(24, bool)
        where[[0, 8, 9]] = False
        targets = targets_of(x, labels)
        check(name, x, labels, targets=targets, where=where)
        kept, gradient = run(name, x, labels, targets, where=where)
        x[~where] = np.nan
        value, spoiled = run(name, x, labels, targets, where=where)
        np.testing.assert_array_equal(value, kept)
        np.testing.assert_array_equal(spoiled, gradient)
        assert (spoiled[~where] == 0).all()

    def test_nothing_is_left(self, name):
        x, labels = batch()
        none = np.zeros(24, bool)
        value, gradient = run(name, x, labels, targets_of(x, labels), where=none)
        assert value == 0
        assert (gradient == 0).all()

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    @pytest.mark.parametrize("row", [0, 23])
    def test_nan_is_never_hidden(self, name, bad, row):
        """Also where the row, or every row, is alone in its class: neither positive nor target."""
        x, labels = batch()
        labels[row] = 9
        spoiled = x.copy()
        spoiled[row, 0] = bad
        for classes in (labels, np.arange(24, dtype=np.int32)):
            assert np.isnan(run(name, spoiled, classes, targets_of(x, classes))[0])

    def test_bfloat16_embeddings_give_a_float32_loss(self, name):
        x, labels = batch()
        x = jnp.asarray(x, jnp.bfloat16)
        exact = np.asarray(x.astype(jnp.float32))
        targets = targets_of(exact, labels)
        value, gradient = run(name, x, labels, targets)
        expected, _ = LOSSES[name][1](exact, labels, targets)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        assert (value.dtype, gradient.dtype) == (jnp.float32, jnp.bfloat16)

    def test_shapes_are_checked(self, name):
        x, labels = batch()
        with pytest.raises(ValueError, match=r"labels \[24\], got shape \(5,\)"):
            LOSSES[name][0](x, labels[:5], targets_of(x, labels))


def all_sums(name, anchors, gallery, targets):
    match name:
        case "nca":
            return nca_sums(anchors, gallery)
        case "log nca":
            return nca_sums(anchors, gallery, log=True)
    return lmnn_sums(anchors, gallery, targets)


@pytest.mark.parametrize("name", LOSSES)
def test_shards_of_the_anchors_add_up_to_the_batch(name):
    """Sums, and the gradient of their ratio; the first shard has no positives at all."""
    x, labels = batch()
    labels[:5] = [5, 6, 7, 8, 9]
    targets = targets_of(x, labels)
    where = np.arange(24) != 11
    parts = np.split(np.arange(24), [5, 12])
    with jax.enable_x64(True):
        x = x.astype(np.float64)

        def loss(x, shards):
            gallery = Examples(x, labels, np.arange(24), where)
            each = [
                all_sums(name, jax.tree.map(lambda a, p=p: a[p], gallery), gallery, targets[p])
                for p in shards
            ]
            sums = Sums(*map(sum, zip(*(own[:4] for own in each), strict=True)))
            return mean(sums), sums

        both = jax.value_and_grad(loss, has_aux=True)
        (value, sums), gradient, (whole, expected), whole_gradient = jax.jit(
            lambda x: (*both(x, parts), *both(x, [np.arange(24)]))
        )(x)
    np.testing.assert_allclose(value, whole, rtol=1e-12)
    np.testing.assert_allclose(sums[:4], expected[:4], rtol=1e-12)
    np.testing.assert_allclose(gradient, whole_gradient, rtol=1e-9, atol=1e-12)
    assert np.abs(gradient).max() > 1e-3


def test_log_of_a_p_that_underflows_still_pulls():
    """Positives at 40, others near: p_i is below exp(-800), 0 in any float; its log is not."""
    x, labels = batch()[0], np.arange(24, dtype=np.int32) % 2
    x[:, 0] += 40 * (np.arange(24) // 2)
    targets = np.full((24, K), -1, np.int32)
    check("log nca", x, labels, targets=targets, atol=1e-5)
    assert run("log nca", x, labels, targets)[0] > 800
    vanished, flat = run("nca", x, labels, targets)
    assert vanished == 0
    assert (flat == 0).all()


def test_counts_of_nca():
    """Two tight pairs of a class each, one pair whose nearer neighbour is of another class."""
    x = np.array([[0.0], [0.1], [9.0], [9.1], [20.0], [23.0], [20.2]], np.float32)
    labels = np.array([0, 0, 1, 1, 2, 2, 3], np.int32)
    everyone = Examples(x, labels, np.arange(7), np.ones(7, bool))
    counted, logs = jax.jit(
        lambda everyone: [nca_sums(everyone, everyone, log=log) for log in (False, True)]
    )(everyone)
    assert (counted.weight, counted.terms, counted.active) == (7, 7, 3)
    assert (logs.weight, logs.terms, logs.active) == (6, 6, 2)


def test_counts_of_lmnn():
    """Anchors 0 and 1 have each other and both impostors; the far one pushes nobody."""
    x = np.array([[0.0], [1.0], [1.5], [9.0]], np.float32)
    everyone = Examples(x, np.array([0, 0, 1, 2], np.int32), np.arange(4), np.ones(4, bool))
    targets = np.array([[1, -1], [0, -1], [-1, -1], [-1, -1]], np.int32)
    sums = jax.jit(lambda everyone: lmnn_sums(everyone, everyone, targets))(everyone)
    assert (sums.weight, sums.terms, sums.active) == (1, 4, 1)
    np.testing.assert_allclose(sums.loss, 0.5 * 2 + 0.5 * (1 + 1 - 0.25), rtol=1e-6)


def test_a_target_that_is_no_positive_is_left_out():
    x, labels = batch()
    of_others = np.argmax(labels[None] != labels[:, None], axis=1)[:, None].astype(np.int32)
    own = np.arange(24, dtype=np.int32)[:, None]
    targets = np.concatenate([of_others, own, own + 24], axis=1)
    assert run("lmnn", x, labels, targets)[0] == 0


@pytest.mark.parametrize(("mu", "margin"), [(0.0, 1.0), (1.0, 0.5)])
def test_mu_weighs_pull_against_push(mu, margin):
    x, labels = batch()
    targets = targets_of(x, labels)
    expected, _ = reference.lmnn_loop(x, labels, targets, mu=mu, margin=margin)
    np.testing.assert_allclose(
        lmnn_loss(x, labels, targets, mu=mu, margin=margin), expected, rtol=1e-5
    )


def test_wrong_options_are_refused():
    x, labels = batch()
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="temperature must be above 0"):
            nca_loss(x, labels, temperature=temperature)
    with pytest.raises(ValueError, match=r"mu must be in 0..1, got 1.5"):
        lmnn_loss(x, labels, targets_of(x, labels), mu=1.5)
    with pytest.raises(ValueError, match=r"targets \[24, K\], got \(5, 3\)"):
        lmnn_loss(x, labels, targets_of(x, labels)[:5])
    with pytest.raises(ValueError, match=r"k must be at least 1, got 0"):
        target_neighbors(x, labels, k=0)
    with pytest.raises(ValueError, match=r"expected labels \(24,\), got shape \(5,\)"):
        target_neighbors(x, labels[:5], k=1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 5.0))
def test_nca_is_a_share_and_bounds_its_logarithm(seed, scale):
    """0 <= mean p_i <= 1, and by Jensen mean -log p_i >= -log mean p_i where all have positives."""
    x = np.float32(scale) * batch(seed=seed)[0]
    labels = np.arange(24, dtype=np.int32) % 3
    targets = np.full((24, K), -1, np.int32)
    share, log = -run("nca", x, labels, targets)[0], run("log nca", x, labels, targets)[0]
    assert 0 <= share <= 1 + 1e-6
    assert log >= -jnp.log(share) - 1e-4


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(list(LOSSES)))
def test_a_rotation_and_a_shift_change_nothing(seed, name):
    x, labels = batch(seed=seed)
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))
    moved = (x @ turn + 5).astype(np.float32)
    targets = np.random.default_rng(seed).integers(0, 24, (24, K), np.int32)
    expected, _ = run(name, x, labels, targets)
    np.testing.assert_allclose(run(name, moved, labels, targets)[0], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("k", [1, 3, 30])
def test_targets_are_the_nearest_of_the_class(k):
    x, labels = batch()
    x[9] = x[2]  # equal rows are each other's targets, not their own
    labels[[2, 9]] = 0
    labels[:2] = [7, 8]
    labels[3:6] = 9  # classes of one and of three: of exactly k
    found = target_neighbors(x, labels, k=k)
    _, expected = reference.neighbors(x, x, k, skip=lambda i, j: i == j or labels[i] != labels[j])
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == jnp.int32
    assert (np.asarray(found) != np.arange(24)[:, None]).all()
    assert (found[:2] == -1).all()
    assert found[2, 0] == 9


def standardised(name):
    bunch = BUNCHES[name]()
    x = (bunch.data - bunch.data.mean(axis=0)) / bunch.data.std(axis=0)
    return x, bunch.target.astype(np.int32)


def descend(loss, width, **options):
    """L [D, D] from the identity by L-BFGS on `loss` of L; to be called in float64."""
    run = jax.jit(jax.value_and_grad(lambda flat: loss(flat.reshape(width, width))))

    def value_and_gradient(flat):
        return [np.asarray(a, np.float64) for a in run(jnp.asarray(flat))]

    found = minimize(
        value_and_gradient, np.eye(width).ravel(), jac=True, method="L-BFGS-B", **options
    )
    return found.x.reshape(width, width)


def accuracy_count(components, x, labels, x_test, labels_test):
    judge = KNeighborsClassifier(5).fit(x @ components.T, labels)
    return np.sum(judge.predict(x_test @ components.T) == labels_test)


@pytest.mark.parametrize("name", BUNCHES)
def test_nca_reaches_what_scikit_learn_reaches(name):
    x, labels = standardised(name)
    x, x_test, labels, labels_test = train_test_split(
        x, labels, test_size=0.3, random_state=0, stratify=labels
    )
    judge = NeighborhoodComponentsAnalysis(init="identity", max_iter=100, tol=1e-6)
    theirs = judge.fit(x, labels).components_
    with jax.enable_x64(True):
        ours = descend(
            lambda components: len(x) * nca_loss(x @ components.T, labels),
            x.shape[1],
            tol=1e-6,
            options={"maxiter": 100},
        )
    value, reached = (reference.nca_loop(x @ L.T, labels)[0] for L in (ours, theirs))
    start, _ = reference.nca_loop(x, labels)
    assert reached < start - 0.02
    np.testing.assert_allclose(value, reached, rtol=0.01)
    right, judged = (accuracy_count(L, x, labels, x_test, labels_test) for L in (ours, theirs))
    assert abs(right - judged) <= 1


@pytest.mark.parametrize("name", BUNCHES)
def test_lmnn_reaches_what_metric_learn_reaches(name):
    """By one definition, the loop's: it first confirms the figures in the file."""
    x, labels = standardised(name)
    published = PUBLISHED[name]
    with jax.enable_x64(True):
        targets = np.asarray(target_neighbors(x, labels, k=K))
        ours = descend(
            lambda components: lmnn_loss(x @ components.T, labels, targets),
            x.shape[1],
            options={"maxiter": 500},
        )

    def objective(components):
        return reference.lmnn_loop(x @ components.T, labels, targets)[0]

    np.testing.assert_allclose(objective(np.eye(x.shape[1])), published["at_identity"], rtol=1e-9)
    best = min(published["defaults"]["objective"], published["converged"]["objective"])
    theirs = np.array(published["converged"]["components"])
    # Iris lies on a grid: rounding breaks ties between targets differently there.
    np.testing.assert_allclose(objective(theirs), published["converged"]["objective"], rtol=5e-3)
    assert best < 0.5 * published["at_identity"]
    assert objective(ours) <= 1.01 * best
