"""The smallest of each row, and rows in order: what a search makes of its scores."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from deepknn_jax.knn.exact import far

# Sizes measured on two CPU cores (docs/measurements.md, "Search in a gallery").
_GROUPS = (32, 16)  # columns of which the minimum is taken first
_PARTS = 16
_CUT = 2**15  # numbers
_HALVED, _HALVED_OF = 100, 25  # the least count, and how many columns for each
_PACKED = 100  # columns
_EXCHANGES = 4

# Of columns' numbers [S] those of the columns in question, to be joined with scores.
At = Callable[[Array], Array]


def below(distances: Array) -> Array:
    """What overflowed is a neighbour all the same: the largest number below `far`."""
    dtype = distances.dtype
    return jnp.minimum(distances, far(dtype) * (1.0 - float(jnp.finfo(dtype).eps)))


def whole_groups(columns: int) -> int:
    """So many columns, up to a multiple of the groups that `smallest` looks at first."""
    return columns + -columns % _GROUPS[0]


def beside(of: Callable[[Any], Any], rows: Any) -> Any:
    """`of` a tree of arrays [B, ...] in parts, whose results [B, ...] are joined.

    XLA on a CPU runs a top_k and a sort on one core, but operations that need nothing of each other
    on all, if they are many enough. Each part is compiled, so only large rows are cut.
    """
    leaves, tree = jax.tree.flatten(rows)
    count, size = len(leaves[0]), max(leaf.size for leaf in leaves)
    if jax.default_backend() != "cpu" or size < _CUT or count < _PARTS:
        return of(rows)
    ends = [count * part // _PARTS for part in range(1, _PARTS)]
    parts = zip(*(jnp.split(leaf, ends) for leaf in leaves), strict=True)
    found = [of(jax.tree.unflatten(tree, part)) for part in parts]
    return jax.tree.map(lambda *each: jnp.concatenate(each), *found)


def smallest(
    x_BxS: Array,
    count: int,
    score: Callable[[Array, At], Array] = lambda x, at: x,
    *,
    ordered: bool = True,
) -> tuple[Array, Array]:
    """The `count` smallest scores of each row and their columns, ties to the lower column.

    The minima of groups come first: the smallest scores lie in the groups of the smallest minima
    (ties included, as lower groups hold lower columns), and there are far fewer. None of them is
    above the worst of these minima: without those that are, the heap that top_k keeps on a CPU
    hardly changes.

    Args:
        x_BxS: [B, S], of which the scores are made.
        count: static, at most S.
        score: (x [B, ...], at) -> scores [B, ...]; it is taken once of all and once of the chosen
            groups, so that the scores of all need not be written down.
        ordered: static; ascending. Without, in any order that has equal ones by their columns.
    """
    rows, size = x_BxS.shape
    pick = _top if ordered else _any_order
    fitting = [each for each in _GROUPS if size % each == 0 and size // each >= 2 * count]
    if not fitting:
        return pick(score(x_BxS, lambda x_S: x_S[None, :]), count)
    group = fitting[0]
    grouped = x_BxS.reshape(rows, -1, group)
    minima = jnp.min(score(grouped, lambda x_S: x_S.reshape(1, -1, group)), axis=2)
    worst_Bx1, chosen = (_by_heap if ordered else _columns)(minima, count)
    members = score(
        jnp.take_along_axis(grouped, chosen[:, :, None], axis=1),
        lambda x_S: x_S.reshape(-1, group)[chosen],
    ).reshape(rows, -1)
    members = jnp.where(members <= worst_Bx1, members, far(members.dtype))
    least, within = pick(members, count)
    of_group = jnp.take_along_axis(chosen, within // group, axis=1)
    return least, of_group * group + within % group


def _top(x_BxS: Array, count: int) -> tuple[Array, Array]:
    negative, places = beside(lambda rows: lax.top_k(-rows, count), x_BxS)
    return -negative, places


def _any_order(x_BxS: Array, count: int) -> tuple[Array, Array]:
    if count == x_BxS.shape[1]:
        return x_BxS, jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32), x_BxS.shape)
    if not _halving_pays(x_BxS.shape[1], count):
        return _top(x_BxS, count)
    _, columns = _columns(x_BxS, count)
    return jnp.take_along_axis(x_BxS, columns, axis=1), columns


def _by_heap(x_BxS: Array, count: int) -> tuple[Array, Array]:
    """What `_columns` finds, in another way."""
    least, columns = _top(x_BxS, count)
    # Not least[:, -1:], for which XLA sorts all.
    return jnp.max(least, axis=1, keepdims=True), jnp.sort(columns, axis=1)


def _columns(x_BxS: Array, count: int) -> tuple[Array, Array]:
    """The `count`-th smallest of each row [B, 1], and the columns [B, count] of those up to it.

    The columns ascend. Of those equal to the worst the lower are taken. None of x is NaN.
    """
    if not _halving_pays(x_BxS.shape[1], count):
        return _by_heap(x_BxS, count)
    last_Bx1 = _nth_smallest(x_BxS, count)
    less_BxS, equal_BxS = _running_count(x_BxS < last_Bx1), _running_count(x_BxS == last_Bx1)
    so_many_BxS = less_BxS + jnp.minimum(equal_BxS, count - less_BxS[:, -1:])
    # Looked up, as a scatter goes through all S, and is given pairs of indices that are made first.
    numbers = jnp.arange(1, count + 1, dtype=so_many_BxS.dtype)
    columns = jax.vmap(lambda so_many_S: jnp.searchsorted(so_many_S, numbers))(so_many_BxS)
    return last_Bx1, columns.astype(jnp.int32)


def _halving_pays(size: int, count: int) -> bool:
    """Whether the interval of the count-th is halved: a heap's time grows with the count.

    On an H100 the loop's end is asked for at each turn: 26 ms in the place of 6 for the 200 nearest
    of 2,005 x 8,010 x 2,048.
    """
    return jax.default_backend() == "cpu" and count >= _HALVED and count * _HALVED_OF >= size


def _nth_smallest(x_BxS: Array, count: int) -> Array:
    """The `count`-th smallest of each row [B, 1]; S below 2^24, none of x is NaN.

    The interval that holds it is halved, of floats in the order of their bits, until it is alone or
    just so many are at most its upper end.
    """
    # Not jnp.min, which XLA joins with that of the groups, and then writes all scores down for.
    low_Bx1 = -jnp.max(-x_BxS, axis=1, keepdims=True)
    high_Bx1 = jnp.max(x_BxS, axis=1, keepdims=True)

    def halve(ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low & high) + ((low ^ high) >> 1)  # low + high may overflow
        # As floats, which XLA on a CPU compares and sums without writing anything down.
        up_to = jnp.sum((x_BxS <= _as_float(middle)).astype(x_BxS.dtype), axis=1, keepdims=True)
        low = jnp.where(up_to < count, middle + 1, low)
        high = jnp.where(up_to < count, high, middle)
        return jnp.where(up_to == count, high, low), high

    def unsure(ends: tuple[Array, Array]) -> Array:
        return jnp.any(ends[0] < ends[1])

    ends = _as_integer(low_Bx1), _as_integer(high_Bx1)
    high_Bx1 = _as_float(lax.while_loop(unsure, halve, ends)[1])
    return jnp.max(jnp.where(x_BxS <= high_Bx1, x_BxS, -jnp.inf), axis=1, keepdims=True)


def _as_integer(x: Array) -> Array:
    """Integers in the order of the floats x, none of them NaN; -0 is 0."""
    dtype = jnp.int64 if x.dtype.itemsize == 8 else jnp.int32
    bits = lax.bitcast_convert_type(jnp.where(x == 0, 0.0, x).astype(x.dtype), dtype)
    return jnp.where(bits < 0, bits ^ jnp.iinfo(dtype).max, bits)


def _as_float(bits: Array) -> Array:
    """The floats that `_as_integer` makes these integers of."""
    dtype = jnp.float64 if bits.dtype.itemsize == 8 else jnp.float32
    bits = jnp.where(bits < 0, bits ^ jnp.iinfo(bits.dtype).max, bits)
    return lax.bitcast_convert_type(bits, dtype)


def _running_count(flags_BxS: Array) -> Array:
    """How many of each row are set up to each column, float32 [B, S], S below 2^24."""
    rows, size = flags_BxS.shape
    part = _GROUPS[0]
    flags = jnp.pad(flags_BxS, ((0, 0), (0, -size % part))).astype(jnp.float32)
    # In a group by a product: a sum that runs on is several passes of XLA's.
    within = flags.reshape(rows, -1, part) @ jnp.triu(jnp.ones((part, part), jnp.float32))
    before = jnp.cumsum(within[:, :, -1], axis=1) - within[:, :, -1]
    return (before[:, :, None] + within).reshape(rows, -1)[:, :size]


def ascending(x_BxC: Array) -> Array:
    """Each row in ascending order."""
    return beside(lambda rows: jnp.sort(rows, axis=1), x_BxC)


def in_order(distances_BxC: Array, indices_BxC: Array) -> tuple[Array, Array]:
    """Distances >= 0 and indices, those of each row by (distance, index).

    Fewest operations where indices ascend, as equal distances are in order then.
    """
    sort = functools.partial(lax.sort, num_keys=2)
    given = distances_BxC, indices_BxC
    if jax.default_backend() != "cpu" or indices_BxC.shape[1] < _PACKED:
        return beside(sort, given)
    almost = _almost_in_order(*given)
    return lax.cond(jnp.any(_misplaced(*almost)), lambda: beside(sort, given), lambda: almost)


def _almost_in_order(distances_BxC: Array, indices_BxC: Array) -> tuple[Array, Array]:
    """In order, but where several distances are almost the same.

    On a CPU integers that bring nothing along are sorted in a fifth of the time. So each holds a
    distance, as a step between the row's ends, and its place. What is in one step is then exchanged
    with its neighbours.
    """
    dtype, width = distances_BxC.dtype, distances_BxC.shape[1]
    bits = (width - 1).bit_length()
    steps = 2 ** min(31 - bits, 24) - 1
    there = distances_BxC < far(dtype)
    low_Bx1 = jnp.min(distances_BxC, axis=1, keepdims=True)
    high_Bx1 = jnp.max(jnp.where(there, distances_BxC, low_Bx1), axis=1, keepdims=True)
    reach_Bx1 = jnp.where(high_Bx1 > low_Bx1, high_Bx1 - low_Bx1, 1.0)
    part = jnp.where(there, (distances_BxC - low_Bx1) / reach_Bx1, 1.0)
    step = jnp.minimum((part * steps).astype(jnp.int32), jnp.where(there, steps - 1, steps))
    packed = (step << bits) | jnp.arange(width, dtype=jnp.int32)[None, :]
    places = ascending(packed) & (2**bits - 1)
    distances = jnp.take_along_axis(distances_BxC, places, axis=1)
    indices = jnp.take_along_axis(indices_BxC, places, axis=1)
    for turn in range(_EXCHANGES):
        distances, indices = _exchanged(distances, indices, first=turn % 2)
    return distances, indices


def _misplaced(distances_BxC: Array, indices_BxC: Array) -> Array:
    """Which places [B, C - 1] and their next are in the wrong order."""
    d, i = distances_BxC, indices_BxC
    return (d[:, :-1] > d[:, 1:]) | ((d[:, :-1] == d[:, 1:]) & (i[:, :-1] > i[:, 1:]))


def _exchanged(distances_BxC: Array, indices_BxC: Array, *, first: int) -> tuple[Array, Array]:
    """Every second place from `first` on exchanged with its next where they are misplaced."""
    second = jnp.arange(indices_BxC.shape[1] - 1) % 2 == first
    wrong = _misplaced(distances_BxC, indices_BxC) & second[None, :]
    with_next = jnp.pad(wrong, ((0, 0), (0, 1)))
    with_last = jnp.pad(wrong, ((0, 0), (1, 0)))

    def exchange(x: Array) -> Array:
        kept = jnp.where(with_last, jnp.roll(x, 1, axis=1), x)
        return jnp.where(with_next, jnp.roll(x, -1, axis=1), kept)

    return exchange(distances_BxC), exchange(indices_BxC)
