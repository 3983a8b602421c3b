"""Nearest neighbours: in a batch by masks, in a gallery of any size by exact tiled search."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from deepknn_jax.knn.distances import at_least_float32, check_pairs
from deepknn_jax.knn.exact import far, frame_of, row_reach, without_infinite
from deepknn_jax.knn.tiles import Block, Shared, below, search, smallest

# (queries [Q, D], their ids and labels [Q], the gallery's [N, D], [N], [N]) -> distances, indices
# [Q, k]; and what maps such a search over the devices.
Search = Callable[..., tuple[Array, Array]]
MapSearch = Callable[[Search], Search]


class Examples(NamedTuple):
    """Embedded examples as the losses and the search see them.

    `embeddings` [B, D]; `labels` int [B]; `ids` int [B], equal for copies of one example; `where`
    bool [B], False removes an example as anchor and as neighbour; `logits` [B, C] where the
    network has a classifier head.
    """

    embeddings: Array
    labels: Array
    ids: Array
    where: Array
    logits: Array | None = None


class Neighbors(NamedTuple):
    """`indices` [A, K] into a gallery and `valid` [A, K]: False where no neighbour was left."""

    indices: Array
    valid: Array


def same_class_mask(anchors: Examples, gallery: Examples) -> Array:
    """Pairs [A, G] that may serve as positives: one class, two examples, both present."""
    same_AxG = anchors.labels[:, None] == gallery.labels[None, :]
    other_id_AxG = anchors.ids[:, None] != gallery.ids[None, :]
    return same_AxG & other_id_AxG & anchors.where[:, None] & gallery.where[None, :]


def cross_class_mask(anchors: Examples, gallery: Examples) -> Array:
    """Pairs [A, G] that may serve as negatives: two classes, both present."""
    other_AxG = anchors.labels[:, None] != gallery.labels[None, :]
    return other_AxG & anchors.where[:, None] & gallery.where[None, :]


def nearest_in(distances_AxG: Array, mask_AxG: Array, k: int) -> Neighbors:
    """The k nearest allowed columns of each row, ascending, ties to the lower index."""
    k = min(k, distances_AxG.shape[1])
    none = far(distances_AxG.dtype)
    score_AxK, indices_AxK = smallest(jnp.where(mask_AxG, below(distances_AxG), none), k)
    return Neighbors(indices_AxK, score_AxK != none)


def furthest_in(distances_AxG: Array, mask_AxG: Array) -> Neighbors:
    """The furthest allowed column [A, 1] of each row, ties to the lower index."""
    return nearest_in(-distances_AxG, mask_AxG, 1)


def nearest_neighbors(
    queries_QxD: Array,
    gallery_GxD: Array,
    *,
    k: int,
    p: float = 2.0,
    query_ids: Array | None = None,
    gallery_ids: Array | None = None,
    query_labels: Array | None = None,
    gallery_labels: Array | None = None,
    same_class: bool | None = None,
) -> tuple[Array, Array]:
    """Exact k nearest neighbours, in memory bounded by tiles whatever Q and G are.

    Candidates come from a matrix product (p = 2) tile by tile; their distances are recomputed
    from differences and ranked by (distance, index), so equal rows tie exactly and go to the lower
    index. Queries for which the product's error could hide a neighbour are searched again from
    differences (`knn.exact`). So the result is that of float64 on the same numbers, but for the
    rounding of each distance in the dtype, a few units in its last place, whatever the data's
    offset, scale, or spread.

    A row of the gallery that is not finite is nobody's neighbour; a query that is not finite has
    indices -1 and distances NaN.

    Args:
        queries_QxD: [Q, D].
        gallery_GxD: [G, D].
        k: neighbours wanted, static, 1 <= k <= G.
        p: order of the norm, static, >= 1, or inf.
        query_ids, gallery_ids: int [Q], [G]; pairs of equal ids are skipped. Give both or neither.
        query_labels, gallery_labels: int [Q], [G]; needed where `same_class` is set.
        same_class: static; True keeps only neighbours of the query's class, False only others.

    Returns:
        Distances [Q, k], at least float32, ascending, and indices int32 [Q, k]. A place with no
        neighbour left holds index -1 at distance inf.

    Raises:
        ValueError: k outside 1..G; p < 1; ids or labels given for one side only; shapes that do
            not fit.
    """
    check_pairs(queries_QxD, gallery_GxD, p)
    if not 1 <= k <= gallery_GxD.shape[0]:
        raise ValueError(f"k = {k} is outside 1..{gallery_GxD.shape[0]}, the size of the gallery")
    if (query_ids is None) != (gallery_ids is None):
        raise ValueError("give query_ids and gallery_ids both, or neither")
    if same_class is not None and (query_labels is None or gallery_labels is None):
        raise ValueError("same_class needs query_labels and gallery_labels")
    if same_class is None:
        query_labels = gallery_labels = None
    asked, given = (
        (queries_QxD, query_ids, query_labels),
        (gallery_GxD, gallery_ids, gallery_labels),
    )
    return _nearest(*jax.tree.map(jnp.asarray, (asked, given)), k=k, p=p, same_class=same_class)


def _nearest(
    asked: Block, given: Block, *, k: int, p: float, same_class: bool | None
) -> tuple[Array, Array]:
    """`nearest_neighbors` of checked arguments: rows, ids and labels of both sides."""
    queries, gallery = at_least_float32(asked[0]), at_least_float32(given[0])
    dtype = jnp.promote_types(queries.dtype, gallery.dtype)
    queries, gallery = queries.astype(dtype), gallery.astype(dtype)
    finite_Qx1 = (row_reach(queries) <= far(dtype))[:, None]
    queries = without_infinite(queries)
    frame = frame_of(queries, gallery, p=p)
    shared = Shared(gallery, given[1], given[2], frame, k, p, same_class)
    distances, indices = search((queries, *asked[1:]), shared)
    indices = jnp.where(finite_Qx1, indices, -1)
    distances = jnp.where(indices < 0, jnp.inf, distances / frame.wide)
    return jnp.where(finite_Qx1, distances, jnp.nan), indices


@functools.lru_cache
def class_search(k: int, p: float, same_class: bool) -> Search:
    """`nearest_neighbors` within the class, or outside of it, as a function of six arrays.

    The same function for the same arguments: however often it is mapped, it is compiled once.
    """

    def search(
        queries_QxD: Array, ids_Q: Array, labels_Q: Array, *gallery: Array
    ) -> tuple[Array, Array]:
        gallery_NxD, ids_N, labels_N = gallery
        return nearest_neighbors(
            queries_QxD,
            gallery_NxD,
            k=k,
            p=p,
            query_ids=ids_Q,
            gallery_ids=ids_N,
            query_labels=labels_Q,
            gallery_labels=labels_N,
            same_class=same_class,
        )

    return search


def ids_at(places: Array | np.ndarray, ids_N: np.ndarray) -> np.ndarray:
    """The ids int32 at these places of `ids_N`, whatever their shape; -1 stays -1."""
    places = np.asarray(places)
    return np.where(places < 0, -1, ids_N[places]).astype(np.int32)


def own_class_neighbors(
    x_NxD: Array, labels_N: Array, *, k: int, p: float = 2.0
) -> tuple[Array, Array]:
    """Of each example its k nearest others of the same class: distances, indices [N, min(k, N)].

    As `nearest_neighbors`: -1 at distance inf where the class has no more.

    Raises:
        ValueError: as `nearest_neighbors`; labels that are not [N].
    """
    x_NxD, labels_N = jnp.asarray(x_NxD), jnp.asarray(labels_N)
    rows_N = jnp.arange(x_NxD.shape[0], dtype=jnp.int32)
    if labels_N.shape != rows_N.shape:
        raise ValueError(f"expected labels {rows_N.shape}, got shape {labels_N.shape}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    examples = x_NxD, rows_N, labels_N
    return class_search(min(k, len(rows_N)), p, same_class=True)(*examples, *examples)
