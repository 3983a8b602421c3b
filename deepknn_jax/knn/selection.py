"""The smallest of each row, and rows in order: what a search makes of its scores."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from deepknn_jax.knn.exact import far

# Sizes measured on two CPU cores (docs/measurements.md, "Search in a gallery").
_GROUPS = (32, 16)  # columns of which the minimum is taken first
_PARTS = 16
_CUT = 2**16  # numbers

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
    x_BxS: Array, count: int, score: Callable[[Array, At], Array] = lambda x, at: x
) -> tuple[Array, Array]:
    """The `count` smallest scores of each row, ascending, ties to the lower column.

    The minima of groups come first: the smallest scores lie in the groups of the smallest minima
    (ties included, as lower groups hold lower columns), and top_k over groups is far cheaper. None
    of them is above the worst of these minima: without those that are, the heap that top_k keeps
    on a CPU hardly changes.

    Args:
        x_BxS: [B, S], of which the scores are made.
        count: static, at most S.
        score: (x [B, ...], at) -> scores [B, ...]; it is taken once of all and once of the chosen
            groups, so that the scores of all need not be written down.
    """
    rows, size = x_BxS.shape
    fitting = [each for each in _GROUPS if size % each == 0 and size // each >= 2 * count]
    if not fitting:
        return _top(score(x_BxS, lambda x_S: x_S[None, :]), count)
    group = fitting[0]
    grouped = x_BxS.reshape(rows, -1, group)
    minima = jnp.min(score(grouped, lambda x_S: x_S.reshape(1, -1, group)), axis=2)
    nearest, groups = _top(minima, count)
    chosen = jnp.sort(groups, axis=1)
    members = score(
        jnp.take_along_axis(grouped, chosen[:, :, None], axis=1),
        lambda x_S: x_S.reshape(-1, group)[chosen],
    ).reshape(rows, -1)
    # Not nearest[:, -1:], for which XLA sorts all.
    worst_Bx1 = jnp.max(nearest, axis=1, keepdims=True)
    members = jnp.where(members <= worst_Bx1, members, far(members.dtype))
    least, within = _top(members, count)
    of_group = jnp.take_along_axis(chosen, within // group, axis=1)
    return least, of_group * group + within % group


def _top(x_BxS: Array, count: int) -> tuple[Array, Array]:
    negative, places = beside(lambda rows: lax.top_k(-rows, count), x_BxS)
    return -negative, places
