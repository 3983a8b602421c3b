"""NCA's, LMNN's and soft deep kNN's losses: what all are tested for, by loops; a linear map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from scipy.optimize import minimize
from sklearn.datasets import load_iris, load_wine
from support.batches import batch

from deepknn_jax.knn.neighbors import Examples
from deepknn_jax.losses.base import Sums, mean
from deepknn_jax.losses.lmnn import lmnn_loss, lmnn_sums, target_neighbors
from deepknn_jax.losses.nca import nca_loss, nca_sums
from deepknn_jax.losses.soft_deep_knn import soft_deep_knn_loss, soft_deep_knn_sums

BUNCHES = {"iris": load_iris, "wine": load_wine}
K = 3

find_targets = jax.jit(target_neighbors, static_argnames="k")


def targets_of(x, labels, k=K):
    """Targets from other inputs than the embeddings, as in training: here the first half of x."""
    return np.asarray(find_targets(x[:, : x.shape[1] // 2], labels, k=k))


# Members of deep kNN's soft form, by name.
SOFT = {
    "soft, 3 against 4": {"k": 3, "m": 4, "temperature": 0.8, "margin": 0.6},
    "soft, each of 3 against all": {
        "k": 3, "m": 0, "temperature": 1.5, "margin": 0.3, "each_positive": True
    },
}  # fmt: skip


def _soft(options):
    """The pair that LOSSES holds, of one member."""
    return (
        lambda x, y, t, **arrays: soft_deep_knn_loss(x, y, **options, **arrays),
        lambda x, y, t, **arrays: reference.soft_deep_knn_loop(x, y, **options, **arrays),
    )


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
    **{name: _soft(options) for name, options in SOFT.items()},
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


class EveryMetricLoss:
    """Tests of each loss by its `name`: a Test class of a module inherits and parametrises them."""

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
        case str() if name in SOFT:
            return soft_deep_knn_sums(anchors, gallery, **SOFT[name])
    return lmnn_sums(anchors, gallery, targets)


def check_shards(name):
    """Shards of the anchors add up to the batch: sums, and the gradient of their ratio.

    The first shard has no positives at all.
    """
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


def check_rotation(seed, name):
    """A rotation and a shift change nothing."""
    x, labels = batch(seed=seed)
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))
    moved = (x @ turn + 5).astype(np.float32)
    targets = np.random.default_rng(seed).integers(0, 24, (24, K), np.int32)
    expected, _ = run(name, x, labels, targets)
    np.testing.assert_allclose(run(name, moved, labels, targets)[0], expected, rtol=1e-3, atol=1e-4)


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
