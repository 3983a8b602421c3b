"""What makes the search by a product exact: its error bound, a test by it, and what is left over.

The product ranks rows by |y|^2 - 2xy of rows that were scaled, so that no square leaves the
dtype's range, and centred. Its error is at most c (|x|^2 + |y|^2), c from
`distances.product_error`. The norms are taken (1 - c) times, so that each score is a lower bound
of the squared distance less |x|^2. Candidates are those of the least bounds; where the least
bound that was left out is no nearer than the k-th candidate, no neighbour was missed. The other
queries are searched again by differences.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from deepknn_jax.knn.distances import coarse, power_of_two, product_error

_TILE = 2**20  # numbers whose mean is taken at a time: XLA on a CPU writes down what it sums
_ON_GRID = 64  # rows looked at first: most data are not whole numbers, and are not read for it


class Frame(NamedTuple):
    """How two sets of rows are measured, scalars but for `centre` [D] and `finite` [G].

    `unit` and `wide` are powers of two: times `unit` the largest number is about 1, so that the
    product stays in range; times `wide` it stays where differences do, untouched in most data.
    `centre` is the gallery's, times `unit`. `error` is c of the bound, and `lost` what else a
    score may lack: what underflows. `finite` tells the rows that can be neighbours.
    """

    unit: Array
    wide: Array
    centre: Array
    error: Array
    lost: Array
    finite: Array


# Of each column [D]: the sum, how many there are, the least and the largest.
_Columns = tuple[Array, Array, Array, Array]


def far(dtype: jnp.dtype) -> float:
    """The score of what is no neighbour: above all scores, and finite, as no score of data is."""
    return float(jnp.finfo(dtype).max)


def row_reach(x_NxD: Array) -> Array:
    """The largest |x| of each row [N]; inf where the row is not finite."""
    # XLA's maximum of many rows on a CPU loses NaN.
    known_NxD = jnp.where(jnp.isnan(x_NxD), jnp.inf, jnp.abs(x_NxD))
    return jnp.max(known_NxD, axis=1, initial=0.0)


def without_infinite(x: Array) -> Array:
    """The same with 0 where it is not finite."""
    return jnp.where(jnp.isfinite(x), x, 0.0)


def frame_of(queries_QxD: Array, gallery_GxD: Array, *, p: float) -> Frame:
    """The frame of these queries, all finite, and this gallery."""
    dtype, width = gallery_GxD.dtype, gallery_GxD.shape[1]
    reach_G = _reach_in_tiles(gallery_GxD)
    finite_G = reach_G <= far(dtype)
    largest = jnp.maximum(
        jnp.max(row_reach(queries_QxD), initial=0.0),
        jnp.max(jnp.where(finite_G, reach_G, 0.0), initial=0.0),
    )
    unit, wide = power_of_two(largest), power_of_two(largest, low=-20, high=100)
    zero = jnp.zeros((), dtype)
    if p != 2.0:
        return Frame(unit, wide, jnp.zeros(width, dtype), zero, zero, finite_G)
    centre_D = _centre(gallery_GxD, finite_G, unit)
    step = 2.0 ** jnp.ceil(jnp.log2(jnp.sqrt(jnp.asarray(width, dtype)) * 2.0**-8)).astype(dtype)
    whole = _on_grid(queries_QxD, gallery_GxD, unit, centre_D, step)
    info = jnp.finfo(dtype)
    error = jnp.where(whole, 0.0, product_error(width, dtype)).astype(dtype)
    # On a grid two squared distances differ by a step's square, or not at all.
    lost = jnp.where(whole, -0.5 * step**2, 4.0 * width * float(info.tiny)).astype(dtype)
    return Frame(unit, wide, centre_D, error, lost, finite_G)


def _tile_size(rows_GxD: Array) -> int:
    count, width = rows_GxD.shape
    return max(1, min(count, _TILE // max(1, width)))


def _reach_in_tiles(gallery_GxD: Array) -> Array:
    """`row_reach` of the gallery [G], a tile at a time."""
    count, size = gallery_GxD.shape[0], _tile_size(gallery_GxD)

    def visit(reach_G: Array, first: Array) -> tuple[Array, None]:
        start = jnp.minimum(first, count - size)  # the last tile begins early
        found_S = row_reach(lax.dynamic_slice_in_dim(gallery_GxD, start, size))
        return lax.dynamic_update_slice_in_dim(reach_G, found_S, start, 0), None

    starts = jnp.arange(0, count, size, dtype=jnp.int32)
    return lax.scan(visit, jnp.zeros(count, gallery_GxD.dtype), starts)[0]


def _centre(gallery_GxD: Array, finite_G: Array, unit: Array) -> Array:
    """`distances.centre_of` the gallery times `unit`, a tile at a time."""
    # Leaving out what is not finite takes as long again: what selects is written down first.
    columns = functools.partial(_columns, gallery_GxD, unit)
    total_D, seen_D, low_D, high_D = lax.cond(
        jnp.all(finite_G), lambda: columns(all_finite=True), lambda: columns(all_finite=False)
    )
    mean_D = total_D / jnp.maximum(seen_D, 1)
    reach = jnp.max(jnp.maximum(high_D - mean_D, mean_D - low_D), initial=0.0)
    return coarse(mean_D, reach)


def _columns(gallery_GxD: Array, unit: Array, *, all_finite: bool) -> _Columns:
    """Of the gallery's finite numbers, times `unit`."""
    (count, width), size = gallery_GxD.shape, _tile_size(gallery_GxD)
    dtype = gallery_GxD.dtype
    most = far(dtype)

    def visit(state: _Columns, first: Array) -> tuple[_Columns, None]:
        total_D, seen_D, low_D, high_D = state
        start = jnp.minimum(first, count - size)
        rows_SxD = lax.dynamic_slice_in_dim(gallery_GxD, start, size) * unit
        # The last tile begins early: what was seen before is not added again.
        counted_SxD = new_Sx1 = (start + jnp.arange(size, dtype=jnp.int32) >= first)[:, None]
        low_SxD = high_SxD = rows_SxD
        if not all_finite:
            there_SxD = jnp.isfinite(rows_SxD)
            low_SxD, high_SxD = (jnp.where(there_SxD, rows_SxD, x) for x in (most, -most))
            counted_SxD = there_SxD & new_Sx1
        return (
            total_D + jnp.sum(rows_SxD, axis=0, where=counted_SxD),
            seen_D + jnp.sum(counted_SxD, axis=0, dtype=dtype),
            jnp.minimum(low_D, jnp.min(low_SxD, axis=0)),
            jnp.maximum(high_D, jnp.max(high_SxD, axis=0)),
        ), None

    zero_D = jnp.zeros(width, dtype)
    nothing = (zero_D, zero_D, zero_D + most, zero_D - most)
    starts = jnp.arange(0, count, size, dtype=jnp.int32)
    return lax.scan(visit, nothing, starts)[0]


def _on_grid(
    queries_QxD: Array, gallery_GxD: Array, unit: Array, centre_D: Array, step: Array
) -> Array:
    """Whether all finite numbers are multiples of a step that makes the product exact.

    Centred numbers are below 2 in size: D products of them and their sums then have at most
    D (4 / step)^2 <= 2^20 steps' squares, which float32 counts exactly. Ties are then ties among
    the scores, and go to the lower index without a second search, however many there are.
    """

    def whole(x_NxD: Array) -> Array:
        steps = (without_infinite(x_NxD) * unit - centre_D[None, :]) / step
        return jnp.all(steps == jnp.round(steps))

    return lax.cond(
        whole(gallery_GxD[:_ON_GRID]),
        lambda: whole(queries_QxD) & whole(gallery_GxD),
        lambda: jnp.zeros((), bool),
    )


def nothing_hidden(frame: Frame, left_out_B: Array, centred_BxD: Array, kth_B: Array) -> Array:
    """Which queries [B] have their k nearest among the candidates, by the bound.

    Args:
        left_out_B: the worst score that was kept; all that was left out is no better.
        centred_BxD: the queries in the frame's units.
        kth_B: distance of the k-th candidate, times `frame.wide`.
    """
    norm_B = (1.0 - frame.error) * jnp.sum(jnp.square(centred_BxD), axis=1)
    limit_B = (1.0 + frame.error) * jnp.square(kth_B * (frame.unit / frame.wide))
    everything_kept_B = left_out_B >= far(left_out_B.dtype)
    return everything_kept_B | (left_out_B + norm_B - frame.lost >= limit_B)


def search_again(
    doubtful_Q: Array,
    found: tuple[Array, Array],
    search: Callable[[Array], tuple[Array, Array]],
    *,
    at_a_time: int,
) -> tuple[Array, Array]:
    """`found` [Q, k] with the doubtful rows taken from `search(rows [at_a_time])`.

    A loop over as many rows as are doubtful: none costs nothing.
    """
    at_a_time = min(at_a_time, doubtful_Q.shape[0])
    dtype = found[0].dtype  # for top_k, which is quicker to compile than a sort

    def again(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        left_Q, distances, indices = state
        flags, rows = lax.top_k(left_Q.astype(dtype), at_a_time)
        left_Ax1 = flags[:, None] > 0
        new_distances, new_indices = search(rows)
        return (
            left_Q.at[rows].set(False),
            distances.at[rows].set(jnp.where(left_Ax1, new_distances, distances[rows])),
            indices.at[rows].set(jnp.where(left_Ax1, new_indices, indices[rows])),
        )

    _, distances, indices = lax.while_loop(
        lambda state: jnp.any(state[0]), again, (doubtful_Q, *found)
    )
    return distances, indices
