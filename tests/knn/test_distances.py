import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from deepknn_jax import pairwise_distances
from deepknn_jax.knn import distances
from deepknn_jax.knn.distances import batch_distances, lp_norm, selected_distances

pytestmark = pytest.mark.usefixtures("strict_dtypes")
ORDERS = [1.0, 1.5, 2.0, 3.0]


def points(n, d, *, seed, offset=0.0, scale=1.0):
    rng = np.random.default_rng(seed)
    return (offset + scale * rng.normal(size=(n, d)) * rng.uniform(0.2, 3, d)).astype(np.float32)


def loop(x, y, p):
    x, y = x.astype(np.float64), y.astype(np.float64)
    return np.array([[reference.distance(a, b, p) for b in y] for a in x])


@pytest.mark.parametrize("p", ORDERS)
def test_pairwise_distances_match_the_float64_loop(p):
    x, y = points(7, 5, seed=0), points(11, 5, seed=1)
    np.testing.assert_allclose(pairwise_distances(x, y, p=p), loop(x, y, p), rtol=2e-6)


@pytest.mark.parametrize("p", ORDERS)
def test_an_offset_of_1e3_costs_no_digits(p):
    # float32 numbers near 1e3 lie 6e-5 apart; the loop sees the same rounded numbers.
    x, y = points(9, 16, seed=2, offset=1e3), points(12, 16, seed=3, offset=1e3)
    np.testing.assert_allclose(pairwise_distances(x, y, p=p), loop(x, y, p), rtol=1e-5)


def test_near_duplicates_are_within_the_bound_that_the_docstring_gives():
    x = points(20, 32, seed=4)
    y = x + points(20, 32, seed=5, scale=1e-4)
    squared = np.square(loop(x, y, 2.0))
    centred = np.square(x - y.mean(0)).sum(1)
    bound = 8 * np.finfo(np.float32).eps * (centred[:, None] + np.square(y - y.mean(0)).sum(1))
    assert (np.abs(np.square(pairwise_distances(x, y)) - squared) <= bound).all()


@pytest.mark.parametrize("p", ORDERS)
def test_selected_distances_are_accurate_for_near_duplicates_and_offsets(p):
    x = points(10, 8, seed=6, offset=1e3)
    y = x + points(10, 8, seed=7, scale=1e-3)
    pick = np.random.default_rng(8).integers(0, 10, (10, 4))
    expected = np.take_along_axis(loop(x, y, p), pick, axis=1)
    np.testing.assert_allclose(selected_distances(x, y, pick, p=p), expected, rtol=1e-6)


@pytest.mark.parametrize("p", ORDERS)
def test_gradients_are_finite_where_two_rows_are_equal(p):
    x = np.zeros((3, 4), np.float32)
    x[2] = [1, 0, 0, -2]  # differences with zero entries, and a zero difference
    gradient = jax.grad(lambda x: jnp.sum(pairwise_distances(x, x, p=p)))(jnp.asarray(x))
    expected = sum(2 * np.stack([reference.distance_gradient(a, b, p) for a in x]) for b in x)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize("p", ORDERS)
def test_lp_norm_gradient_matches_the_loop(p):
    x = points(6, 5, seed=9)
    gradient = jax.grad(lambda x: jnp.sum(lp_norm(x, p=p)))(jnp.asarray(x))
    zero = np.zeros(5)
    expected = [reference.distance_gradient(row.astype(np.float64), zero, p) for row in x]
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_bfloat16_goes_in_and_float32_comes_out():
    x = jnp.asarray(points(4, 6, seed=10), jnp.bfloat16)
    distances = pairwise_distances(x, x)
    assert distances.dtype == jnp.float32
    exact = np.asarray(x.astype(jnp.float32))
    np.testing.assert_allclose(distances, loop(exact, exact, 2.0), rtol=1e-5, atol=2e-3)


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.sampled_from(ORDERS))
def test_distances_are_symmetric_and_obey_the_triangle_inequality(seed, p):
    x = points(6, 3, seed=seed)
    d = np.asarray(pairwise_distances(x, x, p=p), np.float64)
    np.testing.assert_allclose(d, d.T, rtol=1e-5, atol=1e-3)
    assert (d[:, None, :] <= d[:, :, None] + d[None, :, :] + 3e-3).all()


@pytest.mark.parametrize("p", [0.5, -np.inf, np.nan, True, "two"])
def test_an_order_that_is_no_metric_is_refused(p):
    with pytest.raises(ValueError, match="p must be"):
        pairwise_distances(np.ones((2, 2)), np.ones((2, 2)), p=p)


def test_a_metric_by_name_is_told_what_to_do():
    with pytest.raises(ValueError, match="normalise the rows"):
        pairwise_distances(np.ones((2, 2)), np.ones((2, 2)), p="cosine")


def test_different_widths_are_refused():
    with pytest.raises(ValueError, match=r"one width D, got \(2, 3\) and \(2, 4\)"):
        pairwise_distances(np.ones((2, 3)), np.ones((2, 4)))


def as_two(x, index):
    """The same distances with gallery and anchors as two arrays: the other derivative rule."""
    return batch_distances(x, x + 0.0, index)


def as_one(x, index):
    return batch_distances(x, x, index)


@pytest.mark.parametrize("function", [as_one, as_two])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_batch_distances_have_the_derivatives_of_differences(function, offset):
    rng = np.random.default_rng(11)
    x = jnp.asarray(points(12, 5, seed=12, offset=offset))
    index = jnp.asarray(rng.integers(0, 12, (12, 4)))  # with some rows beside themselves
    weight = jnp.asarray(rng.normal(size=(12, 4)), jnp.float32)
    direction = jnp.asarray(points(12, 5, seed=13))

    def total(x, distances):
        return jnp.sum(weight * distances(x, index))

    def plain(x, index):
        return selected_distances(x, x, index)

    np.testing.assert_array_equal(function(x, index), plain(x, index))
    expected, found = (jax.grad(total)(x, f) for f in (plain, function))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    expected, found = (
        jax.jvp(lambda x, f=f: total(x, f), (x,), (direction,))[1] for f in (plain, function)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_second_derivatives_of_batch_distances():
    x = jnp.asarray(points(4, 3, seed=14))
    index = jnp.asarray([[1, 2], [3, 0], [0, 1], [2, 2]])

    def total(x, distances):
        return jnp.sum(jnp.square(distances(x, index) - 1.0))

    def plain(x, index):
        return selected_distances(x, x, index)

    found, expected = (jax.hessian(total)(x, f) for f in (as_one, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_gradients_between_near_duplicates_keep_their_direction():
    x = points(6, 8, seed=15)
    y = x + points(6, 8, seed=16, scale=1e-4)
    index = np.arange(6)[:, None]
    found = jax.grad(lambda x: jnp.sum(batch_distances(x, jnp.asarray(y), index)))(jnp.asarray(x))
    pairs = zip(x.astype(np.float64), y.astype(np.float64), strict=True)
    expected = np.stack([reference.distance_gradient(a, b) for a, b in pairs])
    # As exact as the inputs: their own rounding turns these directions by about this much.
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_whole_numbers_tie_exactly():
    rng = np.random.default_rng(17)
    x, y = (rng.integers(0, 5, (n, 3)).astype(np.float32) for n in (8, 40))
    squared = np.square(x[:, None] - y[None]).sum(-1)
    found = np.asarray(pairwise_distances(x, y))
    np.testing.assert_allclose(found, np.sqrt(squared), rtol=1e-6)  # a GPU's root is rounded so
    for value in np.unique(squared):
        assert len(np.unique(found[squared == value])) == 1


def test_rows_measured_one_after_the_other_are_those_measured_at_once(monkeypatch):
    rng = np.random.default_rng(11)
    anchors, gallery = rng.normal(size=(5, 7)), rng.normal(size=(9, 7))
    indices = rng.integers(0, 9, (5, 3))
    wanted = np.linalg.norm(anchors[:, None] - gallery[indices], axis=2)
    arrays = (*map(jnp.float32, (anchors, gallery)), jnp.int32(indices))
    for at_once in (1, 5 * 3 * 7 + 1):
        monkeypatch.setattr(distances, "_AT_ONCE", at_once)
        np.testing.assert_allclose(selected_distances(*arrays), wanted, rtol=1e-6)
