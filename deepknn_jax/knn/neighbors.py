"""Nearest neighbours: in a batch by masks, in a gallery of any size by exact tiled search."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from deepknn_jax.errors import UserError
from deepknn_jax.knn.distances import (
    at_least_float32,
    centre_of,
    lp_norm,
    selected_distances,
    squared_euclidean,
)
from deepknn_jax.knn.intake import as_count, as_integers, as_order, as_rows, comparable

# Sizes measured on two CPU cores (docs/measurements.md, "Search in a gallery").
_GROUP = 32  # rows of which the minimum is taken first
_QUERY_TILE, _GALLERY_TILE = 128, 2**16  # at most
_RANKED_ELEMENTS = 2**24  # of one block's candidates, [queries, k + spare, D]
# Candidates kept beyond k, so that rounding in the product cannot push a true neighbour out.
_SPARE = 8

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
    # Not inf, which a user's JAX_DEBUG_INFS would take for a fault. NaN is no less than it.
    none = jnp.finfo(distances_AxG.dtype).max
    score_AxK, indices_AxK = _smallest(jnp.where(mask_AxG, distances_AxG, none), k)
    return Neighbors(indices_AxK, ~(score_AxK >= none))


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
    index. A neighbour may differ from the one that infinite precision would find only where the
    squares of the two distances differ by less than the product's error, about
    4 u (|x|^2 + |y|^2) with u the unit roundoff and x, y measured from about the gallery's mean.
    NaN and infinity are refused. Under jit, which cannot look, a NaN row of the gallery comes
    first, at distance NaN: it is never hidden.

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
    labels = None
    if same_class is not None:
        if query_labels is None or gallery_labels is None:
            raise UserError("same_class needs query_labels and gallery_labels")
        labels = _matched(*sizes, query_labels=query_labels, gallery_labels=gallery_labels)
    if not len(queries):
        return jnp.zeros((0, k), queries.dtype), jnp.zeros((0, k), jnp.int32)

    block_size, tile_size = _tile_sizes(k, *gallery.shape)
    tile_rows = _gallery_tiles(gallery, gallery_ids, labels and labels[1], tile_size)
    search = functools.partial(
        _search_block, gallery_GxD=gallery, tiles=tile_rows, k=k, p=p, same_class=same_class
    )
    blocks = _blocks((queries, query_ids, labels and labels[0]), block_size)
    distances, indices = lax.map(search, blocks)
    count = queries.shape[0]
    return distances.reshape(-1, k)[:count], indices.reshape(-1, k)[:count]


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
        UserError: as `nearest_neighbors`; labels that are not int [N].
    """
    k, p = as_count("k", k), as_order(p)
    (x_NxD,) = as_rows(finite=True, embeddings=x_NxD)
    rows_N = jnp.arange(len(x_NxD), dtype=jnp.int32)
    labels_N = as_integers("labels", labels_N, len(rows_N))
    examples = x_NxD, rows_N, labels_N
    return class_search(min(k, len(rows_N)), p, same_class=True)(*examples, *examples)


def _tile_sizes(k: int, gallery_size: int, width: int) -> tuple[int, int]:
    """Queries and gallery rows of one tile; the gallery is cut evenly, to be padded little."""
    queries = min(_QUERY_TILE, _RANKED_ELEMENTS // ((k + _SPARE) * width))
    return max(8, queries), -(-gallery_size // -(-gallery_size // _GALLERY_TILE))


def _blocks(arrays: Any, size: int) -> Any:
    """Each [N, ...] of the tree as [ceil(N / size), size, ...], filled up with zeros."""

    def split(x: Array) -> Array:
        block = min(size, x.shape[0])
        missing = -x.shape[0] % block
        padded = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1))
        return padded.reshape(-1, block, *x.shape[1:])

    return jax.tree.map(split, arrays)


class _Tiles(NamedTuple):
    """The gallery cut into T tiles of S rows, centred; `first` [T] is each tile's first index."""

    rows: Array
    centre: Array
    ids: Array | None
    labels: Array | None
    present: Array
    first: Array


def _gallery_tiles(
    gallery_GxD: Array, ids_G: Array | None, labels_G: Array | None, size: int
) -> _Tiles:
    # Full tiles of equal shape: equal rows then run through the same product kernel and tie.
    size += -size % _GROUP
    centre_1xD = centre_of(gallery_GxD)[None, :]
    count = gallery_GxD.shape[0]
    missing = -count % size
    padded = jnp.pad(gallery_GxD - centre_1xD, ((0, missing), (0, 0)))

    def cut(x_G: Array | None) -> Array | None:
        return None if x_G is None else jnp.pad(x_G, (0, missing)).reshape(-1, size)

    return _Tiles(
        rows=padded.reshape(-1, size, gallery_GxD.shape[1]),
        centre=centre_1xD,
        ids=cut(ids_G),
        labels=cut(labels_G),
        present=(jnp.arange(count + missing) < count).reshape(-1, size),
        first=jnp.arange(0, count + missing, size, dtype=jnp.int32),
    )


def _search_block(
    block: tuple[Array, Array | None, Array | None],
    *,
    gallery_GxD: Array,
    tiles: _Tiles,
    k: int,
    p: float,
    same_class: bool | None,
) -> tuple[Array, Array]:
    """Distances and indices [B, k] of one block of queries: candidates, then the exact ranking."""
    queries_BxD, ids_B, labels_B = block
    size = tiles.rows.shape[1]
    wanted = min(k + _SPARE, size)
    centred_BxD = queries_BxD - tiles.centre

    def visit(best: tuple[Array, Array], tile: tuple) -> tuple[tuple[Array, Array], None]:
        rows_SxD, ids_S, labels_S, present_S, first = tile
        allowed_BxS = present_S[None, :]
        if ids_B is not None:
            allowed_BxS &= ids_B[:, None] != ids_S[None, :]
        if labels_B is not None:
            allowed_BxS &= (labels_B[:, None] == labels_S[None, :]) == same_class
        score_BxS = jnp.where(allowed_BxS, _scores(centred_BxD, rows_SxD, p), jnp.inf)
        near, places = _smallest(score_BxS, wanted)
        # The best so far stand first: in a tie the lower index wins.
        merged = jnp.concatenate([best[0], near], axis=1)
        indices = jnp.concatenate([best[1], places + first], axis=1)
        keep = lax.top_k(-merged, best[0].shape[1])[1]
        take = functools.partial(jnp.take_along_axis, indices=keep, axis=1)
        return (take(merged), take(indices)), None

    kept = (queries_BxD.shape[0], k + _SPARE)
    start = (
        jnp.full(kept, jnp.inf, centred_BxD.dtype),
        jnp.full(kept, -1, jnp.int32),
    )
    visited = (tiles.rows, tiles.ids, tiles.labels, tiles.present, tiles.first)
    (scores, indices), _ = lax.scan(visit, start, visited)
    return _rank(queries_BxD, gallery_GxD, indices, scores != jnp.inf, k=k, p=p)


def _scores(queries_BxD: Array, rows_SxD: Array, p: float) -> Array:
    """Numbers [B, S] below inf that rank the rows by their distance to each query, NaN first."""
    if p == 2.0:
        scores_BxS = squared_euclidean(queries_BxD, rows_SxD)
    else:
        scores_BxS = lax.map(lambda x_D: lp_norm(x_D[None, :] - rows_SxD, p=p), queries_BxD)
    # inf means "no neighbour" to the caller; a distance that overflows is one all the same.
    scores_BxS = jnp.minimum(scores_BxS, jnp.finfo(scores_BxS.dtype).max)
    return jnp.where(jnp.isnan(scores_BxS), -jnp.inf, scores_BxS)


def _smallest(score_BxS: Array, count: int) -> tuple[Array, Array]:
    """The `count` smallest of each row, ascending, ties to the lower index.

    The minima of groups come first: the smallest scores lie in the groups of the smallest minima
    (ties included, as lower groups hold lower indices), and top_k over groups is far cheaper.
    """
    rows, size = score_BxS.shape
    groups = size // _GROUP
    if groups <= count or size % _GROUP:
        negative, places = lax.top_k(-score_BxS, count)
        return -negative, places
    grouped = score_BxS.reshape(rows, groups, _GROUP)
    chosen = jnp.sort(lax.top_k(-jnp.min(grouped, axis=2), count)[1], axis=1)
    members = jnp.take_along_axis(grouped, chosen[:, :, None], axis=1).reshape(rows, -1)
    negative, within = lax.top_k(-members, count)
    group = jnp.take_along_axis(chosen, within // _GROUP, axis=1)
    return -negative, group * _GROUP + within % _GROUP


def _rank(
    queries_BxD: Array,
    gallery_GxD: Array,
    indices_BxC: Array,
    valid_BxC: Array,
    *,
    k: int,
    p: float,
) -> tuple[Array, Array]:
    """The k best candidates by (distance from differences, index)."""
    distances = selected_distances(queries_BxD, gallery_GxD, indices_BxC, p=p)
    distances = jnp.where(valid_BxC, distances, jnp.inf)
    indices = jnp.where(valid_BxC, indices_BxC, -1)
    # NaN sorts first, as it did among the candidates: shown, not hidden.
    key = jnp.where(jnp.isnan(distances), -jnp.inf, distances)
    order = jnp.where(valid_BxC, indices, jnp.iinfo(jnp.int32).max)
    _, _, distances, indices = lax.sort((key, order, distances, indices), num_keys=2)
    return distances[:, :k], indices[:, :k]
