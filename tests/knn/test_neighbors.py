import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from support.optional import require

from deepknn_jax import UserError, nearest_neighbors
from deepknn_jax.knn import selection, tiles

pytestmark = pytest.mark.usefixtures("strict_dtypes")
WAY = {"now": "few"}


@pytest.fixture(params=["few", "many"])
def small_tiles(request, monkeypatch):
    """Tiles of a few rows, so that small data cross many of them; selected as few or many are."""
    monkeypatch.setitem(WAY, "now", request.param)
    monkeypatch.setattr(tiles, "_tile_sizes", lambda k, gallery_size, width: (4, 8))
    monkeypatch.setattr(selection, "_GROUPS", (2,))
    if request.param == "many":
        monkeypatch.setattr(selection, "_HALVED", 1)
        monkeypatch.setattr(selection, "_HALVED_OF", 2**20)
        monkeypatch.setattr(selection, "_PACKED", 2)


def points(n, d, *, seed, offset=0.0):
    rng = np.random.default_rng(seed)
    return (offset + rng.normal(size=(n, d)) * rng.uniform(0.2, 2, d)).astype(np.float32)


def compiled(queries, gallery, **options):
    """One program for all data of a shape and a way of selecting; where `small_tiles` holds."""
    return _compiled(queries, gallery, way=WAY["now"], **options)


@functools.partial(jax.jit, static_argnames=("k", "p", "same_class", "way"))
def _compiled(queries, gallery, *, way, **options):
    del way  # part of the cache's key
    return nearest_neighbors(queries, gallery, **options)


def check(queries, gallery, k, *, p=2.0, skip=lambda q, g: False, rtol=1e-5, eager=True, **options):
    """Distances and indices against the loop, compiled and (but for `eager`) not."""
    expected_d, expected_i = reference.neighbors(
        queries.astype(np.float64), gallery.astype(np.float64), k, p, skip
    )
    static = {"k": k, "p": p, "same_class": options.pop("same_class", None)}
    for function in (compiled, *([nearest_neighbors] if eager and WAY["now"] == "few" else [])):
        distances, indices = function(queries, gallery, **static, **options)
        np.testing.assert_allclose(distances, expected_d, rtol=rtol, atol=1e-6)
        np.testing.assert_array_equal(indices, expected_i)
    assert indices.dtype == jnp.int32


@pytest.mark.usefixtures("small_tiles")
class TestAcrossTiles:
    @pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
    @pytest.mark.parametrize("k", [1, 5, 30])
    def test_matches_the_loop(self, p, k):
        check(points(11, 4, seed=0), points(30, 4, seed=1), k, p=p)

    def test_offset_of_1e3(self):
        check(points(9, 6, seed=2, offset=1e3), points(29, 6, seed=3, offset=1e3), 4)

    def test_equal_rows_go_to_the_lower_index(self):
        gallery = np.tile(points(3, 5, seed=4), (9, 1))  # each row in every tile
        check(gallery[:3] + np.float32(0.01), gallery, 12)

    def test_all_rows_equal(self):
        _, indices = nearest_neighbors(np.ones((3, 2)), np.ones((40, 2)), k=6)
        np.testing.assert_array_equal(indices, np.tile(np.arange(6), (3, 1)))

    def test_equal_ids_are_skipped(self):
        x, ids = points(20, 3, seed=5), np.arange(20) // 2  # every image twice
        check(x, x, 3, skip=lambda q, g: ids[q] == ids[g], query_ids=ids, gallery_ids=ids)

    @pytest.mark.parametrize("same_class", [True, False])
    def test_one_side_of_the_classes(self, same_class):
        x, y = points(9, 3, seed=6), points(22, 3, seed=7)
        rng = np.random.default_rng(8)
        a, b = rng.integers(0, 3, 9), rng.integers(0, 3, 22)
        check(
            x, y, 4, skip=lambda q, g: (a[q] == b[g]) != same_class,
            query_labels=a, gallery_labels=b, same_class=same_class,
        )  # fmt: skip

    def test_places_with_no_neighbour_left(self):
        x = points(12, 3, seed=9)
        labels = np.array([0, 0, 0] + [1] * 9)
        ids = np.arange(12)
        check(
            x, x, 5, skip=lambda q, g: q == g or labels[q] != labels[g], query_ids=ids,
            gallery_ids=ids, query_labels=labels, gallery_labels=labels, same_class=True,
        )  # fmt: skip

    def test_distances_too_large_for_float32_are_still_neighbours(self):
        gallery = np.array([[0, 0], [1e30, 0], [-1e30, 1e30], [3e38, 3e38], [3e38, 0]], np.float32)
        distances, indices = nearest_neighbors(gallery[:1], gallery, k=5)
        np.testing.assert_array_equal(indices, [[0, 1, 2, 4, 3]])
        expected = [[0, 1e30, np.sqrt(2) * 1e30, 3e38, np.inf]]
        np.testing.assert_allclose(distances, expected, rtol=1e-6)

    def test_near_duplicates_by_distance(self):
        x = points(10, 8, seed=10)
        gallery = np.concatenate([x + 1e-4 * points(10, 8, seed=s) for s in range(3)])
        distances, indices = nearest_neighbors(x, gallery, k=3)
        expected, _ = reference.neighbors(x.astype(np.float64), gallery.astype(np.float64), 3)
        np.testing.assert_allclose(distances, expected, rtol=1e-3)
        own = np.linalg.norm(x[:, None].astype(np.float64) - gallery[indices], axis=-1)
        np.testing.assert_allclose(distances, own, rtol=1e-3)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    @pytest.mark.parametrize("p", [1.0, 2.0])
    def test_a_row_that_is_not_finite_is_nobodys_neighbour(self, bad, p):
        x, gallery = points(4, 3, seed=11), points(21, 3, seed=12)
        clean, rows = nearest_neighbors(x, gallery, k=3, p=p)
        gallery = np.insert(gallery, 13, 0, axis=0)
        gallery[13, 1] = bad
        with pytest.raises(UserError, match="gallery has NaN or infinity in row 13"):
            nearest_neighbors(x, gallery, k=4, p=p)
        distances, indices = compiled(x, gallery, k=3, p=p)
        np.testing.assert_array_equal(distances, clean)
        np.testing.assert_array_equal(indices, np.where(rows < 13, rows, rows + 1))
        distances, indices = compiled(x, gallery, k=22, p=p)
        assert (indices[:, -1] == -1).all()
        assert (distances[:, -1] == np.inf).all()

    def test_nor_is_one_of_many(self):
        """XLA's maximum of 1,000 rows and more, which tells what is finite, loses NaN on a CPU."""
        rng = np.random.default_rng(5)
        rows, queries = rng.normal(size=(2000, 7)), rng.normal(size=(9, 7))
        marked = np.pad(rows, ((0, 300), (0, 0)), constant_values=np.nan)
        search = jax.jit(functools.partial(nearest_neighbors, k=4))
        found, wanted = (search(queries.astype("f4"), x.astype("f4")) for x in (marked, rows))
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)

    @pytest.mark.parametrize("bad", [np.nan, -np.inf])
    @pytest.mark.parametrize("p", [1.0, 2.0])
    def test_a_query_that_is_not_finite_has_no_neighbour_and_spoils_no_other(self, bad, p):
        x, gallery = points(4, 3, seed=11), points(21, 3, seed=12)
        clean, rows = nearest_neighbors(x, gallery, k=3, p=p)
        x[2, 1] = bad
        distances, indices = compiled(x, gallery, k=3, p=p)
        assert np.isnan(distances[2]).all()
        assert (indices[2] == -1).all()
        others = np.array([0, 1, 3])
        np.testing.assert_array_equal(distances[others], clean[others])
        np.testing.assert_array_equal(indices[others], rows[others])

    @settings(max_examples=30)
    @given(st.integers(0, 2**31), st.sampled_from([(1, 1), (9, 8), (33, 5)]))
    def test_grids_full_of_ties(self, seed, size_and_k):
        size, k = size_and_k
        rng = np.random.default_rng(seed)
        gallery = rng.integers(0, 3, (size, 2)).astype(np.float32)
        queries = rng.integers(0, 3, (5, 2)).astype(np.float32)
        check(queries, gallery, k, eager=False)


def test_full_tiles_match_the_loop():
    queries, gallery = points(40, 16, seed=13), points(9000, 16, seed=14)
    _, indices = nearest_neighbors(queries, gallery, k=7)
    exact = np.linalg.norm(queries[:, None].astype(np.float64) - gallery[None], axis=-1)
    np.testing.assert_array_equal(indices, np.argsort(exact, axis=1)[:, :7])


@pytest.mark.interop
def test_agrees_with_faiss():
    faiss = require("faiss")
    queries, gallery = points(40, 16, seed=13), points(9000, 16, seed=14)
    distances, indices = nearest_neighbors(queries, gallery, k=7)
    index = faiss.IndexFlatL2(16)
    index.add(gallery)
    squared, rows = index.search(queries, 7)
    np.testing.assert_allclose(np.square(distances), squared, rtol=1e-4)
    assert (rows == np.asarray(indices)).mean() > 0.99


def test_agrees_with_scikit_learn():
    from sklearn.neighbors import NearestNeighbors

    queries, gallery = points(30, 10, seed=15), points(500, 10, seed=16)
    for p in (1.0, 2.0, 3.0):
        judge = NearestNeighbors(n_neighbors=4, algorithm="brute", metric="minkowski", p=p)
        expected, rows = judge.fit(gallery).kneighbors(queries)
        distances, indices = nearest_neighbors(queries, gallery, k=4, p=p)
        np.testing.assert_array_equal(indices, rows)
        np.testing.assert_allclose(distances, expected, rtol=1e-5)


def test_memory_does_not_grow_with_the_gallery():
    def peak(gallery_size):
        shapes = [jax.ShapeDtypeStruct((n, 32), jnp.float32) for n in (2048, gallery_size)]
        compiled = jax.jit(functools.partial(nearest_neighbors, k=5)).lower(*shapes).compile()
        memory = compiled.memory_analysis()
        return memory.temp_size_in_bytes - 2 * shapes[1].size * 4  # the centred, tiled copy

    assert peak(2**18) < peak(2**17) + 2**22


def test_bad_arguments_are_named():
    x, y = np.ones((3, 2)), np.ones((4, 2))
    with pytest.raises(ValueError, match=r"k = 5 is outside 1\.\.4"):
        nearest_neighbors(x, y, k=5)
    with pytest.raises(ValueError, match="k = 0"):
        nearest_neighbors(x, y, k=0)
    with pytest.raises(ValueError, match="p must be"):
        nearest_neighbors(x, y, k=1, p=0.5)
    with pytest.raises(ValueError, match="both, or neither"):
        nearest_neighbors(x, y, k=1, query_ids=np.arange(3))
    with pytest.raises(ValueError, match="same_class needs"):
        nearest_neighbors(x, y, k=1, same_class=True)
    with pytest.raises(ValueError, match=r"\(3, 2\) and \(4, 3\)"):
        nearest_neighbors(x, np.ones((4, 3)), k=1)
