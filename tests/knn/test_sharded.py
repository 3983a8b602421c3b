"""A gallery cut over four devices against one that is whole on one."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from deepknn_jax.knn import sharded
from deepknn_jax.knn.sharded import nearest_on_one_device, searcher, sharded_nearest_neighbors


@pytest.fixture(scope="module")
def mesh():
    return Mesh(np.array(jax.devices()[:4]), ("shards",))


def data(gallery, queries=29, width=5, *, tied=False):
    """Queries and gallery with ids and labels; `tied`: points on a grid, many of them equal."""
    rng = np.random.default_rng(gallery)
    if tied:
        rows = rng.integers(0, 3, (gallery + queries, 2)).astype(np.float32)
    else:
        rows = rng.normal(size=(gallery + queries, width)).astype(np.float32) * 3 + 100
    labels = np.minimum(rng.geometric(0.5, gallery + queries) - 1, 2).astype(np.int32)
    ids = rng.permutation(gallery + queries).astype(np.int32) // 2  # copies share an id
    return (rows[gallery:], rows[:gallery]), {
        "query_ids": ids[gallery:],
        "gallery_ids": ids[:gallery],
        "query_labels": labels[gallery:],
        "gallery_labels": labels[:gallery],
    }


def assert_same_bits(found, expected):
    for a, b in zip(found, expected, strict=True):
        b = np.asarray(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("same_class", [None, True, False])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("gallery", "k"), [(64, 5), (61, 5), (7, 7)])
def test_the_neighbours_are_those_of_one_device_to_the_bit(mesh, gallery, k, tied, same_class):
    """With ties, with shards of unequal size, and with more wanted than a shard or class has."""
    arrays, named = data(gallery, tied=tied)
    options = {**named, "k": k, "same_class": same_class}
    expected = nearest_on_one_device(*arrays, **options)
    assert_same_bits(sharded_nearest_neighbors(mesh, *arrays, **options), expected)
    if same_class and gallery == 7:
        assert (np.asarray(expected[1]) == -1).any()


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_fewer_rows_than_devices_and_other_norms(mesh, p):
    (queries, gallery), _ = data(3)
    expected = nearest_on_one_device(queries, gallery, k=2, p=p)
    assert_same_bits(sharded_nearest_neighbors(mesh, queries, gallery, k=2, p=p), expected)


def test_blocks_of_queries_and_a_last_one_that_is_not_full(mesh, monkeypatch):
    (queries, gallery), _ = data(41)
    monkeypatch.setattr(sharded, "_QUERIES", 12)
    expected = nearest_on_one_device(queries, gallery, k=3)
    assert_same_bits(sharded_nearest_neighbors(mesh, queries, gallery, k=3), expected)


def test_what_is_not_finite_and_what_overflows_is_treated_alike(mesh):
    (queries, gallery), _ = data(22)
    gallery[[3, 19], 0] = np.nan
    gallery[8] = 3e38  # its distance overflows
    queries[5, 2] = np.nan
    expected = nearest_on_one_device(queries, gallery, k=22)
    distances, indices = sharded_nearest_neighbors(mesh, queries, gallery, k=22)
    np.testing.assert_array_equal(indices, expected[1])
    # Of shards this small the compiler makes another program, which may round the last bit anew.
    np.testing.assert_allclose(distances, expected[0], rtol=1e-6)


def test_each_device_holds_its_shard_alone(mesh):
    _, gallery = data(64)[0]
    cut = sharded._cut(mesh, gallery, None, None)
    for s, shard in enumerate(cut.rows.addressable_shards):
        np.testing.assert_array_equal(shard.data, gallery[16 * s : 16 * (s + 1)])


def test_one_device_is_searched_as_before():
    assert searcher(Mesh(np.array(jax.devices()[:1]), ("shards",))) is nearest_on_one_device


def test_no_queries_and_what_does_not_fit(mesh):
    (queries, gallery), named = data(9)
    distances, indices = sharded_nearest_neighbors(mesh, queries[:0], gallery, k=2)
    assert distances.shape == indices.shape == (0, 2)
    for k in (0, 10):
        with pytest.raises(ValueError, match=f"k = {k} is outside 1..9"):
            sharded_nearest_neighbors(mesh, queries, gallery, k=k)
    with pytest.raises(ValueError, match="give query_ids and gallery_ids both"):
        sharded_nearest_neighbors(mesh, queries, gallery, k=1, query_ids=named["query_ids"])
    with pytest.raises(ValueError, match="expected gallery_labels"):
        sharded_nearest_neighbors(mesh, queries, gallery, k=1, gallery_labels=np.zeros(8))
