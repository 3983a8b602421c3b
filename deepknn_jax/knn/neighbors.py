"""Nearest neighbours: in a batch by masks, in a gallery of any size by exact tiled search."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from deepknn_jax.errors import UserError
from deepknn_jax.knn.distances import at_least_float32
from deepknn_jax.knn.exact import far, frame_of, row_reach, without_infinite
from deepknn_jax.knn.intake import as_count, as_integers, as_order, as_rows, comparable
from deepknn_jax.knn.selection import below, smallest
from deepknn_jax.knn.tiles import Block, Shared, search


class Examples(NamedTuple):
    """Embedded examples as the losses and the search see them.

    `embeddings` [B, D]; `labels` int [B]; `ids` int [B], equal for copies of one example; `where`
    bool [B], False removes an example as anchor and as neighbour; `logits` [B, C] where the
    network has a classifier head; `weights` float [B], how much each counts in a loss as an anchor,
    None for all alike.
    """

    embeddings: Array
    labels: Array
    ids: Array
    where: Array
    logits: Array | None = None
    weights: Array | None = None


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

    NaN and infinity are refused. Under jit, which cannot look, a row of the gallery that is not
    finite is nobody's neighbour; a query that is not finite has indices -1 and distances NaN.

    Args:
        queries_QxD: [Q, D]; Q may be 0.
        gallery_GxD: [G, D].
        k: neighbours wanted, static, 1 <= k <= G.
        p: order of the norm, static, >= 1 or infinity.
        query_ids, gallery_ids: int [Q], [G]; pairs of equal ids are skipped. Give both or neither.
        query_labels, gallery_labels: int [Q], [G]; needed where `same_class` is set.
        same_class: static; True keeps only neighbours of the query's class, False only others.

    Returns:
        Distances [Q, k], at least float32, ascending, and indices int32 [Q, k]. A place with no
        neighbour left holds index -1 at distance inf.

    Raises:
        UserError: k outside 1..G; p < 1; ids or labels of one side only; wrong shapes or dtypes.
    """
    p = as_order(p)
    queries, gallery, k = _searched(queries_QxD, gallery_GxD, k)
    sizes = len(queries), len(gallery)
    query_ids, gallery_ids = _matched(*sizes, query_ids=query_ids, gallery_ids=gallery_ids)
    labels: tuple[Array | None, Array | None] = (None, None)
    if same_class is not None:
        if query_labels is None or gallery_labels is None:
            raise UserError("same_class needs query_labels and gallery_labels")
        labels = _matched(*sizes, query_labels=query_labels, gallery_labels=gallery_labels)
    if not len(queries):
        return jnp.zeros((0, k), queries.dtype), jnp.zeros((0, k), jnp.int32)
    asked, given = (queries, query_ids, labels[0]), (gallery, gallery_ids, labels[1])
    return _nearest(asked, given, k=k, p=p, same_class=same_class)


def _nearest(
    asked: Block, given: Block, *, k: int, p: float, same_class: bool | None
) -> tuple[Array, Array]:
    """`nearest_neighbors` of checked arguments: rows, ids and labels of both sides."""
    queries, gallery = asked[0], given[0]
    dtype = queries.dtype
    finite_Qx1 = (row_reach(queries) <= far(dtype))[:, None]
    queries = without_infinite(queries)
    frame = frame_of(queries, gallery, p=p)
    shared = Shared(gallery, given[1], given[2], frame, k, p, same_class)
    distances, indices = search((queries, *asked[1:]), shared)
    indices = jnp.where(finite_Qx1, indices, -1)
    distances = jnp.where(indices < 0, jnp.inf, distances / frame.wide)
    return jnp.where(finite_Qx1, distances, jnp.nan), indices


def _searched(queries_QxD: Array, gallery_GxD: Array, k: int) -> tuple[Array, Array, int]:
    """The two sides in one dtype, at least float32, and how many neighbours; checked."""
    given = as_rows(finite=True, queries=queries_QxD, gallery=gallery_GxD)
    queries, gallery = map(at_least_float32, given)
    size, k = len(gallery), as_count("k", k, least=0)
    if not size:
        raise UserError("the gallery is empty: there is nobody to find")
    if not 1 <= k <= size:
        raise UserError(f"k = {k} is outside 1..{size}, the size of the gallery")
    dtype = jnp.promote_types(queries.dtype, gallery.dtype)
    return queries.astype(dtype), gallery.astype(dtype), k


def _matched(
    num_queries: int, gallery_size: int, **given: Array | None
) -> tuple[Array | None, Array | None]:
    """Integers of the queries and of the gallery that are compared, or None twice; checked."""
    (one, one_values), (other, other_values) = given.items()
    if one_values is None and other_values is None:
        return None, None
    if one_values is None or other_values is None:
        raise UserError(f"give {one} and {other} both, or neither")
    of_queries = as_integers(one, one_values, num_queries)
    of_gallery = as_integers(other, other_values, gallery_size)
    both = comparable(**{one: of_queries, other: of_gallery})
    return both[0], both[1]


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
        UserError: as `nearest_neighbors`; labels that are not int [N].
    """
    k, p = as_count("k", k), as_order(p)
    (x_NxD,) = as_rows(finite=True, embeddings=x_NxD)
    rows_N = jnp.arange(len(x_NxD), dtype=jnp.int32)
    labels_N = as_integers("labels", labels_N, len(rows_N))
    return nearest_neighbors(
        x_NxD,
        x_NxD,
        k=min(k, len(rows_N)),
        p=p,
        query_ids=rows_N,
        gallery_ids=rows_N,
        query_labels=labels_N,
        gallery_labels=labels_N,
        same_class=True,
    )
