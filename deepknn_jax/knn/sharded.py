"""Exact search in a gallery that is cut over the devices of a mesh, of one host or of many."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from deepknn_jax.knn.neighbors import nearest_neighbors
from deepknn_jax.knn.sizes import filled_to

# Neighbours that all shards together hand to each device at a time, [queries, S * k].
_MERGED = 2**22
# Queries at a time, which each device has whole: at most so many, and so many numbers of them.
_QUERIES, _NUMBERS = 4096, 2**26

# A search with the arguments of `nearest_neighbors`, wherever it runs.
Nearest = Callable[..., tuple[Any, Any]]
nearest_on_one_device: Nearest = jax.jit(
    nearest_neighbors, static_argnames=("k", "p", "same_class")
)


class _Gallery(NamedTuple):
    """S shards of equally many places; `rows_here` [S] are rows, from index `first` [S] on.

    A shard may have one place more than rows: that holds a copy.
    """

    rows: Array
    ids: Array | None
    labels: Array | None
    first: Array
    rows_here: Array


def searcher(mesh: Mesh) -> Nearest:
    """`nearest_neighbors` for the devices of `mesh`: on the only one, or cut over several."""
    if mesh.size == 1:
        return nearest_on_one_device
    return functools.partial(sharded_nearest_neighbors, mesh)


def sharded_nearest_neighbors(
    mesh: Mesh,
    queries_QxD: np.ndarray,
    gallery_GxD: np.ndarray,
    *,
    k: int,
    p: float = 2.0,
    query_ids: np.ndarray | None = None,
    gallery_ids: np.ndarray | None = None,
    query_labels: np.ndarray | None = None,
    gallery_labels: np.ndarray | None = None,
    same_class: bool | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`nearest_neighbors` with the gallery cut over all devices: the same neighbours, to the bit.

    Each device finds the k nearest of its own G / S rows; of all these, [queries, S k] on every
    device, the nearest by (distance, index) are kept. A device holds its shard of the gallery, some
    of the queries, and the search's tiles, but nothing of the size of Q, G or Q x G. Where a shard
    has fewer rows than the search keeps candidates, the last bit of a distance may be another: the
    compiler vectorises so small a program otherwise.

    Args:
        mesh: all its devices are used. Each process of the mesh calls this with the same arrays,
            and brings to its devices what they need.
        queries_QxD, gallery_GxD: on the host, as are the ids and labels [Q], [G].
        k, p, query_ids, gallery_ids, query_labels, gallery_labels, same_class: as of
            `nearest_neighbors`.

    Returns:
        Distances [Q, k] and indices int32 [Q, k], on the host of each process.

    Raises:
        ValueError: as `nearest_neighbors`.
    """
    sides = (
        (len(queries_QxD), {"query_ids": query_ids, "query_labels": query_labels}),
        (len(gallery_GxD), {"gallery_ids": gallery_ids, "gallery_labels": gallery_labels}),
    )
    _check(k, sides)
    if same_class is None:
        query_labels = gallery_labels = None
    gallery = _cut(mesh, np.asarray(gallery_GxD), gallery_ids, gallery_labels)
    search = _search(mesh, k, p, same_class, has_spare_places=len(gallery_GxD) % mesh.size > 0)
    width = max(1, np.shape(queries_QxD)[-1])
    most = max(1, min(_QUERIES, _MERGED // (mesh.size * k), _NUMBERS // width))
    found = []
    for start in range(0, len(queries_QxD), most):
        block = tuple(
            None if x is None else _filled(np.asarray(x)[start : start + most], most, start)
            for x in (queries_QxD, query_ids, query_labels)
        )
        found.append(jax.tree.map(np.asarray, search(block, gallery)))
    if not found:
        return np.zeros((0, k), np.float32), np.zeros((0, k), np.int32)
    distances, indices = (
        np.concatenate(parts)[: len(queries_QxD)] for parts in zip(*found, strict=True)
    )
    return distances, indices


def _check(k: int, sides: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
    """What the shards, which see places in place of rows, could not tell any more."""
    _, (count, _) = sides
    if not 1 <= k <= count:
        raise ValueError(f"k = {k} is outside 1..{count}, the size of the gallery")
    for rows, arrays in sides:
        for name, given in arrays.items():
            if given is not None and np.shape(given) != (rows,):
                raise ValueError(f"expected {name} {(rows,)}, got shape {np.shape(given)}")


def _filled(block: np.ndarray, size: int, start: int) -> np.ndarray:
    """The rows that come at `start`, as many as those before them: one program serves all."""
    return filled_to(block, size) if start else block


def _cut(
    mesh: Mesh, rows_GxD: np.ndarray, ids_G: np.ndarray | None, labels_G: np.ndarray | None
) -> _Gallery:
    """The gallery on the devices, of which each process brings its own parts only.

    Shard s has the rows s G // S to (s + 1) G // S - 1, so that none has over one row more than
    another: one neighbour more than wanted makes up for the copy that fills it up.
    """
    sharding = NamedSharding(mesh, P(mesh.axis_names))
    shards, total = mesh.size, len(rows_GxD)
    places = -(-total // shards)
    first_S = np.asarray([s * total // shards for s in range(shards)], np.int32)
    count_S = np.diff(np.append(first_S, total)).astype(np.int32)

    def put(array: np.ndarray) -> Array:
        def part(index: Any) -> np.ndarray:
            s = (index[0].start or 0) // places
            rows = np.minimum(first_S[s] + np.arange(places), total - 1)
            return array[rows]

        shape = (shards * places, *array.shape[1:])
        return jax.make_array_from_callback(shape, sharding, part)

    def each(values_S: np.ndarray) -> Array:
        return jax.make_array_from_callback((shards,), sharding, lambda index: values_S[index])

    return _Gallery(
        rows=put(rows_GxD),
        ids=None if ids_G is None else put(np.asarray(ids_G, np.int32)),
        labels=None if labels_G is None else put(np.asarray(labels_G, np.int32)),
        first=each(first_S),
        rows_here=each(count_S),
    )


@functools.lru_cache(maxsize=64)
def _search(
    mesh: Mesh, k: int, p: float, same_class: bool | None, *, has_spare_places: bool
) -> Callable[..., tuple[Array, Array]]:
    """The mapped search: (queries, their ids and labels, or None), gallery -> [Q, k], [Q, k]."""
    cut, whole = P(mesh.axis_names), P()
    body = functools.partial(
        _search_shard,
        k=k,
        p=p,
        same_class=same_class,
        has_spare_places=has_spare_places,
        axes=mesh.axis_names,
    )
    mapped = jax.shard_map(body, mesh=mesh, in_specs=(whole, cut), out_specs=whole, check_vma=False)
    return jax.jit(mapped)


def _search_shard(
    block: tuple[Array, Array | None, Array | None],
    gallery: _Gallery,
    *,
    k: int,
    p: float,
    same_class: bool | None,
    has_spare_places: bool,
    axes: tuple[str, ...],
) -> tuple[Array, Array]:
    """This device's nearest, and of those of all devices the k nearest."""
    queries_QxD, ids_Q, labels_Q = block
    distances, places = nearest_neighbors(
        queries_QxD,
        gallery.rows,
        k=min(k + has_spare_places, gallery.rows.shape[0]),
        p=p,
        query_ids=ids_Q,
        gallery_ids=gallery.ids,
        query_labels=labels_Q,
        gallery_labels=gallery.labels,
        same_class=same_class,
    )
    is_copy = places >= gallery.rows_here[0]
    distances = jnp.where(is_copy, jnp.inf, distances)
    indices = jnp.where(is_copy | (places < 0), -1, places + gallery.first[0])
    distances, indices = (lax.all_gather(x, axes, axis=1, tiled=True) for x in (distances, indices))
    # As nearest_neighbors ranks: a NaN is not hidden; "none left" comes last.
    key = jnp.where(jnp.isnan(distances), -jnp.inf, distances)
    order = jnp.where(indices < 0, jnp.iinfo(jnp.int32).max, indices)
    _, _, distances, indices = lax.sort((key, order, distances, indices), num_keys=2)
    return distances[:, :k], indices[:, :k]
