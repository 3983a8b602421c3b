"""The search against float64 on data whose squares and products float32 cannot tell apart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from deepknn_jax import lmnn_loss, nearest_neighbors, pairwise_distances
from deepknn_jax.knn import tiles
from deepknn_jax.knn.distances import lp_norm, power_of_two

pytestmark = pytest.mark.usefixtures("strict_dtypes")
SIZE, QUERIES, K = 60, 12, 4
EPS = np.finfo(np.float32).eps
KINDS = ["plain", "clusters", "sentinel", "wild column", "rows of all scales", "copies", "offset"]


def data(kind, seed, scale):
    """Gallery [SIZE, 5] of that kind; its clusters, if any, up to 1e7 spreads apart."""
    rng = np.random.default_rng(seed)
    x, away = rng.normal(size=(SIZE, 5)), 10 ** rng.uniform(1, 7)
    half, some = rng.random(SIZE) < 0.5, rng.random(SIZE) < 0.3
    if kind == "clusters":
        x += np.where(half, 1, -1)[:, None] * away * rng.normal(size=5)
    elif kind == "sentinel":
        x[some] = -9999
    elif kind == "wild column":
        x[:, 2] = away * np.where(half, x[:, 2], 1.0)
    elif kind == "rows of all scales":
        x *= 10 ** rng.uniform(-6, 6, (SIZE, 1))
        scale = np.sqrt(scale)
    elif kind == "copies":
        x = x[rng.integers(0, 3, SIZE)]
    elif kind == "offset":
        x += away
    return (x * scale).astype(np.float32)


def float64_distances(queries, gallery, p):
    """[Q, G], each in units of its largest difference: nothing overflows."""
    x = np.abs(queries.astype(np.float64)[:, None] - gallery.astype(np.float64)[None])
    largest = x.max(-1)
    if p == np.inf:
        return largest
    unit = np.where(largest == 0, 1, largest)
    return unit * ((x / unit[..., None]) ** p).sum(-1) ** (1 / p)


def assert_exact(found, queries, gallery, p, *, skip=None):
    """The k distances, and those at the indices, are the k smallest but for float32's rounding."""
    distances, indices = (np.asarray(x) for x in found)
    truth = float64_distances(queries, gallery, p)
    if skip is not None:
        truth[skip] = np.inf
    best = np.sort(truth, axis=1)[:, : indices.shape[1]]
    assert (indices >= 0).all()
    own = np.take_along_axis(truth, indices, axis=1)
    units = 4 if p in (1.0, 2.0, np.inf) else 8  # powers, and a root of their sum
    for given_ in (own, distances):
        np.testing.assert_array_less(np.abs(given_ - best), units * EPS * best + 1e-300)
    assert all(len(set(row)) == len(row) for row in indices.tolist())
    ties = distances[:, 1:] == distances[:, :-1]
    assert (np.diff(indices, axis=1)[ties] > 0).all()


@functools.partial(jax.jit, static_argnames="p")
def search(queries, gallery, query_ids, gallery_ids, *, p):
    return nearest_neighbors(
        queries, gallery, k=K, p=p, query_ids=query_ids, gallery_ids=gallery_ids
    )


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 20.0, np.inf])
@settings(max_examples=60)
@given(st.integers(0, 2**31), st.sampled_from(KINDS), st.integers(-30, 30), st.booleans())
def test_every_query_is_that_of_float64(p, seed, kind, exponent, leave_one_out):
    gallery = data(kind, seed, 10.0**exponent)
    queries, rows = gallery[:QUERIES], np.arange(SIZE, dtype=np.int32)
    ids = rows[:QUERIES] if leave_one_out else np.full(QUERIES, -1, np.int32)
    found = search(queries, gallery, ids, rows, p=p)
    skip = (rows[:QUERIES], rows[:QUERIES]) if leave_one_out else None
    assert_exact(found, queries, gallery, p, skip=skip)
    if kind == "copies":
        _, expected = reference.neighbors(
            queries.astype(np.float64) / 10.0**exponent,
            gallery.astype(np.float64) / 10.0**exponent,
            K, p, lambda q, g: leave_one_out and q == g,
        )  # fmt: skip
        np.testing.assert_array_equal(found[1], expected)


def towns(size=500):
    """Two towns in geocentric metres."""
    rng = np.random.default_rng(0)
    x = 1e3 * rng.normal(size=(size, 3)) + np.where(np.arange(size) % 2, 6.4e6, -6.4e6)[:, None]
    return x.astype(np.float32)


def doubted(monkeypatch, queries, gallery, k=5):
    """Which queries the product leaves in doubt."""
    seen = []

    def spy(doubtful_Q, found, search, **options):
        seen.append(np.asarray(doubtful_Q))
        return found

    monkeypatch.setattr(tiles, "search_again", spy)
    nearest_neighbors(queries, gallery, k=k)
    (doubtful_Q,) = seen
    return doubtful_Q


@pytest.mark.parametrize(("width", "k"), [(8, 5), (128, 5), (512, 50)])
def test_ordinary_data_are_searched_once(monkeypatch, width, k):
    x = np.random.default_rng(1).normal(size=(1500, width)).astype(np.float32)
    assert not doubted(monkeypatch, x[:200], x, k).any()


def test_data_full_of_ties_on_a_grid_are_searched_once(monkeypatch):
    x = np.random.default_rng(2).integers(0, 2, (900, 6)).astype(np.float32)
    assert not doubted(monkeypatch, x[:100], x).any()


def test_what_the_product_cannot_tell_is_doubted(monkeypatch):
    assert doubted(monkeypatch, towns(), towns()).all()


def test_a_gallery_of_several_tiles_is_searched_again_in_tiles(monkeypatch):
    monkeypatch.setattr(tiles, "_tile_sizes", lambda k, gallery_size, width: (64, 130))
    x = towns()
    same = (np.arange(500) % 3).astype(np.int32)
    found = nearest_neighbors(
        x[:70], x, k=3, query_labels=same[:70], gallery_labels=same, same_class=True
    )
    assert_exact(found, x[:70], x, 2.0, skip=same[:70, None] != same[None])


def test_pairs_are_accurate_where_the_product_is_not_and_a_row_is_at_0_from_itself():
    x = towns(40)
    truth = float64_distances(x, x, 2.0)
    one, two = pairwise_distances(x, x), pairwise_distances(x, x.copy())
    np.testing.assert_allclose(one, truth, rtol=1e-3)
    np.testing.assert_allclose(two, truth, rtol=1e-3)
    assert (np.diagonal(one) == 0).all()
    assert (np.diagonal(two) == 0).all()
    order = np.argsort(truth, axis=1)[:, 1]
    masked = np.where(np.eye(40, dtype=bool), 1e30, one)
    np.testing.assert_array_equal(masked.argmin(1), order)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e18, 1e30])
def test_pairs_at_any_scale_and_their_gradients(scale):
    rng = np.random.default_rng(3)
    x, y = (rng.normal(size=(n, 4)).astype(np.float32) for n in (5, 7))
    far = (x * np.float32(scale), y * np.float32(scale))
    expected = float64_distances(*far, 2.0)
    np.testing.assert_allclose(pairwise_distances(*far), expected, rtol=1e-5)
    slope = jax.grad(lambda x: jnp.sum(pairwise_distances(x, far[1])))(jnp.asarray(far[0]))
    rows = [
        sum(reference.distance_gradient(a, b) for b in y.astype(float)) for a in x.astype(float)
    ]
    np.testing.assert_allclose(slope, rows, rtol=1e-4, atol=1e-5)


def test_the_sum_of_lmnn_is_that_of_float64():
    """A gap in one column, and margins of the size of the other columns."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(24, 6))
    x[::2, 0] += 1e4
    x = x.astype(np.float32)
    labels, targets = np.arange(24) // 2 % 3, np.argsort(float64_distances(x, x, 2.0), 1)[:, 1:4]
    expected, _ = reference.lmnn_loop(x, labels, targets)
    np.testing.assert_allclose(lmnn_loss(x, labels, targets), expected, rtol=1e-3)


def test_powers_stay_in_range_for_any_order():
    x = np.array([[240, 3, 0], [1e-30, 2e-30, 0], [1e30, 1e30, 1e30], [0, 0, 0]], np.float32)
    for p in (3.0, 20.0, 1000.0, np.inf):
        expected = float64_distances(x, np.zeros((1, 3), np.float32), p)[:, 0]
        np.testing.assert_allclose(lp_norm(jnp.asarray(x), p=p), expected, rtol=1e-5)


def test_a_power_of_two_costs_no_digits_and_bounds_what_it_scales():
    for x in (0.0, 1e-37, 0.3, 1.0, 240.0, 3e38, np.inf, np.nan):
        power = float(power_of_two(jnp.float32(x)))
        assert np.frexp(power)[0] == 0.5
        assert not (np.isfinite(x) and x > 0) or 0.5 <= x * power <= 4
    assert power_of_two(jnp.float32(240), low=-20, high=100) == 1


@pytest.mark.parametrize("p", [1.0, 2.0, 20.0])
def test_nothing_infinite_is_made_of_finite_data(p):
    x = data("plain", 5, 1.0)
    with jax.debug_infs(True):
        search(x[:QUERIES], x, np.arange(QUERIES), np.arange(SIZE), p=p)
        nearest_neighbors(x[:3], x, k=3, p=p)
        pairwise_distances(x, x, p=p)
