"""Triplets of k and m neighbours, and batch-hard ones: against the equations as loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from support.batches import batch
from support.optional import require

from deepknn_jax import batch_hard_triplet_loss, deep_knn_loss
from deepknn_jax.losses.triplet import hinge_sums

pytestmark = pytest.mark.usefixtures("strict_dtypes")
MARGIN = 0.7

deep = functools.partial(deep_knn_loss, margin=MARGIN)
hard = functools.partial(batch_hard_triplet_loss, margin=MARGIN)


@functools.cache
def compiled(loss, **static):
    """Value and gradient by x: one program for all batches of a shape."""
    return jax.jit(jax.value_and_grad(functools.partial(loss, **static)))


def run(loss, x, labels, ids=None, where=None, **static):
    """Value and gradient, compiled."""
    ids = np.arange(len(x)) if ids is None else ids
    where = np.ones(len(x), bool) if where is None else where
    return compiled(loss, **static)(jnp.asarray(x), labels, ids=ids, where=where)


def run_eagerly(loss, x, labels, **options):
    """The same, operation by operation and with what `options` leave out left out."""
    return jax.value_and_grad(functools.partial(loss, **options))(jnp.asarray(x), labels)


def check(loss, x, labels, *, function=run, rtol=1e-5, atol=1e-6, **options):
    """Value and gradient against the loop."""
    expected, expected_gradient = reference.triplet_loss(
        x, labels, margin=MARGIN, hard=loss is hard, **options
    )
    value, gradient = function(loss, x, labels, **options)
    np.testing.assert_allclose(value, expected, rtol=rtol, atol=atol)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=10 * rtol, atol=atol)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
def test_deep_knn_matches_the_equations(p):
    for seed in range(3):
        check(deep, *batch(seed=seed), k=3, m=4, p=p)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
def test_batch_hard_matches_the_loop(p):
    for seed in range(3):
        check(hard, *batch(seed=seed), p=p)


def test_defaults_are_the_papers_k_and_m():
    x, labels = batch(40)
    expected, _ = reference.triplet_loss(x, labels, k=5, m=5, margin=MARGIN)
    np.testing.assert_allclose(jax.jit(deep)(x, labels), expected, rtol=1e-5)


@pytest.mark.parametrize("loss", [deep, hard], ids=["deep", "hard"])
class TestEveryTripletLoss:
    def test_without_jit(self, loss):
        x, labels = batch()
        x[5] = x[9] = x[2]
        check(loss, x, labels, function=run_eagerly)
        check(loss, x, labels, function=run_eagerly, where=np.arange(24) % 5 > 0)

    def test_offset_of_1e3(self, loss):
        check(loss, *batch(offset=1e3), rtol=1e-4, atol=1e-5)

    def test_equal_embeddings_give_finite_gradients(self, loss):
        x, labels = batch()
        x[5] = x[9] = x[2]
        labels[[5, 9, 2]] = [0, 0, 1]
        check(loss, x, labels)

    def test_all_embeddings_equal(self, loss):
        x, labels = batch()
        check(loss, np.ones_like(x), labels)

    def test_near_duplicates(self, loss):
        x, labels = batch()
        x[12:] = x[:12] + 1e-4 * batch(12, seed=7)[0]
        labels[12:] = labels[:12]
        value, _ = run(loss, x, labels)
        expected, _ = reference.triplet_loss(x, labels, margin=MARGIN, hard=loss is hard)
        np.testing.assert_allclose(value, expected, rtol=1e-4)

    def test_copies_of_one_id_are_not_positives(self, loss):
        x, labels = batch()
        x[7] = x[3] + 0.1
        labels[[3, 7]] = 9  # a class of nothing but the two copies has no positives
        ids = np.arange(24) + 100
        ids[7] = ids[3]
        check(loss, x, labels, ids=ids)
        assert not np.isclose(run(loss, x, labels, ids=ids)[0], run(loss, x, labels)[0])

    def test_class_of_one(self, loss):
        x, labels = batch()
        labels[4] = 9
        check(loss, x, labels)

    def test_batch_of_one_class_is_zero(self, loss):
        x, labels = batch()
        check(loss, x, np.zeros_like(labels))
        assert run(loss, x, np.zeros_like(labels))[0] == 0

    def test_where_removes_rows_nan_and_all(self, loss):
        x, labels = batch()
        where = np.ones(24, bool)
        where[[0, 8, 9]] = False
        check(loss, x, labels, where=where)
        kept, gradient = run(loss, x, labels, where=where)
        alone = jax.jit(loss)(x[where], labels[where])
        np.testing.assert_allclose(kept, alone, rtol=1e-6)
        x[~where] = np.nan
        value, spoiled = run(loss, x, labels, where=where)
        np.testing.assert_array_equal(value, kept)
        np.testing.assert_array_equal(spoiled, gradient)
        assert (spoiled[~where] == 0).all()

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    @pytest.mark.parametrize("row", [0, 23])
    def test_nan_is_never_hidden(self, loss, bad, row):
        x, labels = batch()
        x[row, 0] = bad
        labels[row] = 9  # no positives: the row's own triplets do not exist
        assert np.isnan(run(loss, x, labels)[0])

    def test_permuting_the_batch_permutes_the_gradient(self, loss):
        x, labels = batch()
        order = np.random.default_rng(1).permutation(24)
        value, gradient = run(loss, x, labels)
        other, permuted = run(loss, x[order], labels[order])
        np.testing.assert_allclose(other, value, rtol=1e-6)
        np.testing.assert_allclose(permuted, gradient[order], rtol=1e-4, atol=1e-6)

    def test_bfloat16_embeddings_give_a_float32_loss(self, loss):
        x, labels = batch()
        x = jnp.asarray(x, jnp.bfloat16)
        value, gradient = run(loss, x, labels)
        exact = np.asarray(x.astype(jnp.float32))
        expected, _ = reference.triplet_loss(exact, labels, margin=MARGIN, hard=loss is hard)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        assert (value.dtype, gradient.dtype) == (jnp.float32, jnp.bfloat16)

    def test_wrong_arguments_are_refused(self, loss):
        x, labels = batch()
        with pytest.raises(ValueError, match=r"labels \[24\], got shape \(5,\)"):
            loss(x, labels[:5])
        with pytest.raises(ValueError, match="p must be"):
            loss(x, labels, p=0.5)


@pytest.mark.parametrize(("k", "m"), [(1, 1), (7, 2), (50, 3), (3, 50)])
def test_k_and_m_above_what_the_batch_has(k, m):
    check(deep, *batch(), k=k, m=m)


@pytest.mark.parametrize(("k", "m"), [(0, 5), (5, 0)])
def test_k_and_m_below_one_are_refused(k, m):
    with pytest.raises(ValueError, match="at least 1"):
        deep(*batch(), k=k, m=m)


def test_ties_go_to_the_lower_index():
    # Anchor 0 has two positives and two negatives at equal distances; k = m = 1 takes rows 1, 3.
    x = np.array([[0, 0], [1, 0], [-1, 0], [0, 1.2], [0, -1.2]], np.float32)
    check(deep, x, np.array([0, 0, 0, 1, 1]), k=1, m=1)


def test_a_margin_for_each_anchor():
    rng = np.random.default_rng(0)
    near, far = rng.uniform(0, 2, (4, 2)), rng.uniform(0, 2, (4, 3))
    near_valid, far_valid = rng.random((4, 2)) < 0.8, rng.random((4, 3)) < 0.8
    margin = rng.uniform(0, 1, 4)
    loss = count = active = 0
    for a in range(4):
        for k in range(2):
            for m in range(3):
                if near_valid[a, k] and far_valid[a, m]:
                    term = max(0.0, near[a, k] - far[a, m] + margin[a])
                    loss, count, active = loss + term, count + 1, active + (term > 0)
    arrays = (jnp.asarray(a, jnp.float32) for a in (near, far))
    sums = hinge_sums(*arrays, near_valid, far_valid, jnp.asarray(margin, jnp.float32))
    np.testing.assert_allclose(sums.loss, loss, rtol=1e-5)
    assert [float(x) for x in (sums.weight, sums.terms, sums.active)] == [count, count, active]


@pytest.mark.interop
def test_batch_hard_agrees_with_pytorch_metric_learning():
    torch = require("torch")
    require("pytorch_metric_learning")
    from pytorch_metric_learning import distances, losses, miners, reducers

    x, labels = batch(30, seed=5)
    metric = distances.LpDistance(normalize_embeddings=False, p=2)
    judge = losses.TripletMarginLoss(MARGIN, distance=metric, reducer=reducers.MeanReducer())
    tx, ty = torch.tensor(x), torch.tensor(labels.astype(np.int64))
    mined = miners.BatchHardMiner(distance=metric)(tx, ty)
    np.testing.assert_allclose(run(hard, x, labels)[0], judge(tx, ty, mined), rtol=1e-5)
