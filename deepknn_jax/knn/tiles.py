"""The tiled search: candidates by the product or by differences, ranked by (distance, index)."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from deepknn_jax.knn.distances import by_rows, products, sure_norm
from deepknn_jax.knn.exact import Frame, far, nothing_hidden, search_again, without_infinite
from deepknn_jax.knn.selection import At, ascending, below, in_order, smallest, whole_groups

# Sizes measured on two CPU cores (docs/measurements.md, "Search in a gallery").
_QUERY_TILE, _GALLERY_TILE = 128, 2**16  # at most
# What a tile costs beside its product grows with k: many candidates want larger tiles.
_TILE_FOR_EACH, _WIDEST = 2**11, 2**18
_SCORED_ELEMENTS = 2**24  # of one block's scores, [queries, tile]
_RANKED_ELEMENTS = 2**24  # of one block's candidates, [queries, k + spare, D]
# Candidates kept beyond k: the worst of them has to be further than the k-th neighbour by the
# product's error, or the query is searched again. At least so many, and a quarter of k: with 8 at
# k = 200 two thirds of the queries among 8,010 x 2,048 normal numbers were searched again.
_SPARE = 8
_DIFFERENCES = 2**20  # elements of one tile whose distances are taken from differences
_AGAIN = 8  # queries searched again at a time
_NONE = 2**31 - 1  # in the place of a candidate's index, above all


def _candidates(k: int) -> int:
    """How many rows the product keeps for k neighbours."""
    return k + max(_SPARE, k // 4)


def _tile_sizes(k: int, gallery_size: int, width: int) -> tuple[int, int]:
    """Queries and gallery rows of one tile; the gallery is cut evenly, to be padded little."""
    query_tile, ranked, scored = _QUERY_TILE, _RANKED_ELEMENTS, _SCORED_ELEMENTS
    if jax.default_backend() == "gpu":
        # On an H100, 2,005 x 8,010 x 2,048, the smaller tiles take 1.4 to 1.6 times as long
        # (docs/gpu.md).
        query_tile, ranked, scored = 4 * query_tile, 4 * ranked, 4 * scored
    tile = min(_WIDEST, max(_GALLERY_TILE, _TILE_FOR_EACH * _candidates(k)))
    size = -(-gallery_size // -(-gallery_size // tile))
    return max(8, min(query_tile, ranked // (_candidates(k) * width), scored // size)), size


def _blocks(arrays: Any, size: int) -> Any:
    """Each [N, ...] of the tree as [ceil(N / size), size, ...], filled up with zeros."""

    def split(x: Array) -> Array:
        block = min(size, x.shape[0])
        missing = -x.shape[0] % block
        padded = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1))
        return padded.reshape(-1, block, *x.shape[1:])

    return jax.tree.map(split, arrays)


# Rows [B, D], all finite if they are queries, their ids and labels [B] or None.
Block = tuple[Array, Array | None, Array | None]
_Found = tuple[Array, Array]


class Shared(NamedTuple):
    """What all queries share: the gallery, as it was given, and what is asked of it."""

    gallery: Array
    ids: Array | None
    labels: Array | None
    frame: Frame
    k: int
    p: float
    same_class: bool | None


class _Tile(NamedTuple):
    """S rows of the gallery in the frame's units, from index `first` on.

    `norms` [S] are what a score starts from, 0 where differences make it; `far` where no neighbour
    is.
    """

    rows: Array
    norms: Array
    ids: Array | None
    labels: Array | None
    first: Array


def search(queries: Block, shared: Shared) -> _Found:
    """Distances, in the frame's wide units, and indices [Q, k]; `far` and -1 for none."""
    count, k = queries[0].shape[0], shared.k
    block_size, tile_size = _tile_sizes(k, *shared.gallery.shape)
    by_differences = functools.partial(_by_differences, shared=shared, size=tile_size)
    blocks = _blocks(queries, block_size)
    if shared.p != 2.0:
        found = lax.map(by_differences, blocks)
        return jax.tree.map(lambda x: x.reshape(-1, k)[:count], found)
    candidates = _by_product(blocks, shared, tile_size)
    *found, sure = lax.map(lambda each: _sure(each[0], each[1], shared), (blocks, candidates))
    distances, indices = (x.reshape(-1, k)[:count] for x in found)
    return search_again(
        ~sure.reshape(-1)[:count],
        (distances, indices),
        lambda rows: by_differences(jax.tree.map(lambda x: x[rows], queries)),
        at_a_time=_AGAIN,
    )


def _by_product(blocks: Block, shared: Shared, size: int) -> _Found:
    """Scores and indices [n, B, k + spare] of the candidates of n blocks of queries.

    Each tile in turn meets all blocks, so that one tile alone is held centred.
    """
    size = whole_groups(size)

    def visit(best: _Found | None, first: Array) -> _Found:
        tile = _tile(shared, first, size)
        return lax.map(lambda each: _meet(each[0], each[1], tile, shared), (blocks, best))

    nothing = jax.vmap(lambda block: _nothing(block, _candidates(shared.k)))(blocks)
    return _visited(visit, nothing, shared.gallery.shape[0], size)


def _visited(
    visit: Callable[[_Found | None, Array], _Found], nothing: _Found, count: int, size: int
) -> _Found:
    """`visit(the best so far, first row)` of each tile in turn; of the only one with no best."""
    if count <= size:
        return visit(None, jnp.int32(0))
    starts = jnp.arange(0, count, size, dtype=jnp.int32)
    return lax.scan(lambda best, first: (visit(best, first), None), nothing, starts)[0]


def _tile(shared: Shared, first: Array, size: int) -> _Tile:
    """The tile from `first` on; the last one begins early, and what was seen before is left out."""
    frame, count = shared.frame, shared.gallery.shape[0]
    length = min(size, count)
    start = jnp.minimum(first, count - length)

    def cut(x: Any) -> Any:
        # Full tiles of equal shape: equal rows then run through the same product kernel and tie.
        def padded(x_G: Array) -> Array:
            rows = lax.dynamic_slice_in_dim(x_G, start, length)
            return jnp.pad(rows, [(0, whole_groups(length) - length)] + [(0, 0)] * (x_G.ndim - 1))

        return jax.tree.map(padded, x)

    rows_SxD = without_infinite(cut(shared.gallery)) * frame.unit - frame.centre[None, :]
    norms_S = (1.0 - frame.error) * jnp.sum(jnp.square(rows_SxD), axis=1)
    new_S = (start + jnp.arange(len(norms_S), dtype=jnp.int32) >= first) & cut(frame.finite)
    norms_S = jnp.where(new_S, norms_S, far(norms_S.dtype))
    return _Tile(rows_SxD, norms_S, cut(shared.ids), cut(shared.labels), start)


def _meet(block: Block, best: _Found | None, tile: _Tile, shared: Shared) -> _Found:
    """The best candidates of one block of queries so far and of a tile."""
    product_BxS = products(_centred(block, shared.frame), tile.rows)

    def score(product: Array, at: At) -> Array:
        return at(tile.norms) - 2.0 * product  # |x|^2, the same for all rows, is left out

    return _keep(best, block, product_BxS, score, tile, shared, _candidates(shared.k))


def _centred(block: Block, frame: Frame) -> Array:
    return block[0] * frame.unit - frame.centre[None, :]


def _sure(block: Block, candidates: _Found, shared: Shared) -> tuple[Array, Array, Array]:
    """Distances, indices [B, k] of one block of queries, and which queries are sure of them."""
    scores_BxC, indices_BxC = candidates
    distances, indices_Bxk = _rank(block, shared, indices_BxC)
    centred_BxD = _centred(block, shared.frame)
    worst_B = jnp.max(scores_BxC, axis=1)
    sure_B = nothing_hidden(shared.frame, worst_B, centred_BxD, distances[:, -1])
    return distances, indices_Bxk, sure_B


def _by_differences(block: Block, *, shared: Shared, size: int) -> _Found:
    """Distances, indices [B, k] of one block of queries, all distances from differences."""
    gallery_GxD, frame = shared.gallery, shared.frame
    count, width = gallery_GxD.shape
    size = max(1, min(size, count, max(256, _DIFFERENCES // width)))
    queries_BxD = block[0] * frame.wide

    def visit(best: _Found | None, first: Array) -> _Found:
        start = jnp.minimum(first, count - size)

        def cut(x: Any) -> Any:
            return jax.tree.map(lambda x_G: lax.dynamic_slice_in_dim(x_G, start, size), x)

        rows_SxD = without_infinite(cut(gallery_GxD)) * frame.wide
        distance_BxS = lax.map(
            lambda x_D: sure_norm(lambda: x_D[None, :] - rows_SxD, p=shared.p), queries_BxD
        )
        # The last tile begins early, to be full: what was seen before is left out.
        new_S = (start + jnp.arange(size, dtype=jnp.int32) >= first) & cut(frame.finite)
        least_S = jnp.where(new_S, 0.0, far(rows_SxD.dtype)).astype(rows_SxD.dtype)
        tile = _Tile(rows_SxD, least_S, cut(shared.ids), cut(shared.labels), start)

        def score(distance: Array, at: At) -> Array:
            return jnp.maximum(below(distance), at(least_S))

        return _keep(best, block, distance_BxS, score, tile, shared, shared.k)

    distances, indices = _visited(visit, _nothing(block, shared.k), count, size)
    return _nearest_in_order(distances, indices, shared.k)


def _nothing(block: Block, count: int) -> _Found:
    """The best `count` of no row."""
    shape = block[0].shape[0], count
    return jnp.full(shape, far(block[0].dtype), block[0].dtype), jnp.full(shape, _NONE, jnp.int32)


def _keep(
    best: _Found | None,
    block: Block,
    x_BxS: Array,
    score: Callable[[Array, At], Array],
    tile: _Tile,
    shared: Shared,
    count: int,
) -> _Found:
    """The `count` best of those so far and of a tile, in any order that has equals by index.

    `score` makes scores of x, `far` those of no pair.
    """
    _, ids_B, labels_B = block

    def allowed(x: Array, at: At) -> Array:
        pairs = jnp.ones((1,) * x.ndim, bool)
        if ids_B is not None and tile.ids is not None:
            pairs &= _as_rows(ids_B, x) != at(tile.ids)
        if labels_B is not None and tile.labels is not None:
            pairs &= (_as_rows(labels_B, x) == at(tile.labels)) == shared.same_class
        return jnp.where(pairs, score(x, at), far(x.dtype))

    near, places = smallest(x_BxS, min(count, x_BxS.shape[1]), allowed, ordered=False)
    found = near, jnp.where(near == far(near.dtype), _NONE, places + tile.first)
    # The best so far stand first: in a tie the lower index wins.
    best = _nothing(block, max(0, count - x_BxS.shape[1])) if best is None else best
    scores, indices = (jnp.concatenate(both, axis=1) for both in zip(best, found, strict=True))
    if scores.shape[1] == count:
        return scores, indices
    least, keep = smallest(scores, count, ordered=False)
    return least, jnp.take_along_axis(indices, keep, axis=1)


def _as_rows(x_B: Array, like: Array) -> Array:
    """[B, 1, ...] with as many axes as `like`."""
    return x_B.reshape(-1, *(1,) * (like.ndim - 1))


def _rank(block: Block, shared: Shared, indices_BxC: Array) -> _Found:
    """The product's k best candidates by (distance from differences, index)."""
    wide, none = shared.frame.wide, far(shared.gallery.dtype)
    indices_BxC = ascending(indices_BxC)
    valid_BxC = indices_BxC != _NONE

    def of(queries_AxD: Array, indices_AxC: Array) -> Array:
        def differences() -> Array:
            rows_AxCxD = jnp.take(shared.gallery, indices_AxC, axis=0, mode="clip")
            return queries_AxD[:, None, :] * wide - rows_AxCxD * wide

        return sure_norm(differences, p=shared.p, where=indices_AxC != _NONE)

    entries = indices_BxC.size * block[0].shape[1]
    distances = by_rows(of, (block[0], indices_BxC), entries=entries)
    distances = jnp.where(valid_BxC, below(distances), none)
    return _nearest_in_order(distances, indices_BxC, shared.k)


def _nearest_in_order(distances_BxC: Array, indices_BxC: Array, k: int) -> _Found:
    """The k nearest by (distance, index); from here on -1 stands for none."""
    distances, indices = in_order(distances_BxC, indices_BxC)
    return distances[:, :k], jnp.where(indices == _NONE, -1, indices)[:, :k]
