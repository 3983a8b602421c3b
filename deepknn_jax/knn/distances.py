"""L_p distances between embeddings: of all pairs, and of selected pairs."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from deepknn_jax.knn.intake import as_order, as_rows

_AT_ONCE = 2**22  # entries of differences; fewer are quicker made together
_IN_CACHE = 2**18  # entries of what is made a few rows at a time


def at_least_float32(x: Array) -> Array:
    """`x` in its own dtype, or in float32 where that is narrower (bfloat16, float16, integers)."""
    x = jnp.asarray(x)
    wide = jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits >= 32
    return x if wide else x.astype(jnp.float32)


def lp_norm(x: Array, *, p: float = 2.0) -> Array:
    """L_p norm over the last axis, with gradient 0 at the zero vector.

    Args:
        x: differences [..., D].
        p: the norm's order, a static number >= 1, or inf.

    Returns:
        Norms [...], in the dtype of `x`. Only for p = 2 can a power overflow or underflow on the
        way: `sure_norm`.
    """
    if p == 1.0:
        return jnp.sum(jnp.abs(x), axis=-1)
    if p == float("inf"):
        return jnp.max(jnp.abs(x), axis=-1, initial=0.0)
    if p == 2.0:
        return _root(jnp.sum(jnp.square(x), axis=-1), p)
    x = jnp.abs(x)
    unit = _unit(x, p)
    return unit * _root(jnp.sum(_power(x / unit[..., None], p), axis=-1), p)


def _root(total: Array, p: float) -> Array:
    # Both branches of the outer where must be safe: the gradient of a root at 0 is infinite.
    zero = total == 0
    root = jnp.sqrt if p == 2.0 else lambda t: t ** (1.0 / p)
    return jnp.where(zero, 0.0, root(jnp.where(zero, 1.0, total)))


def _unit(x: Array, p: float) -> Array:
    """What to measure x >= 0 in [...], so that its powers stay in range: 1, or its largest entry.

    Constant under differentiation, as the norm does not depend on it.
    """
    largest = lax.stop_gradient(jnp.max(x, axis=-1, initial=0.0))
    _, exponent = jnp.frexp(largest)
    moderate = jnp.abs(exponent) <= int(60 / p) - 1
    return jnp.where(moderate | (largest == 0), 1.0, largest).astype(x.dtype)


def _power(x: Array, p: float) -> Array:
    """Power x ** p for x >= 0, with a finite derivative at 0 also where 1 < p < 2."""
    zero = x == 0
    return jnp.where(zero, 0.0, jnp.where(zero, 1.0, x) ** p)


def sure_norm(x: Callable[[], Array], *, p: float, where: Array | None = None) -> Array:
    """`lp_norm` of the differences `x()`, also where their squares overflow or underflow.

    Such ones are seen by their sum, and then all are measured again, each in units of its largest
    entry. Otherwise this is `lp_norm` to the bit, at its price. Not made for differentiation.

    Args:
        x: makes the differences [..., D]; called twice, so that they need not be kept.
        p: order of the norm.
        where: bool [...], which norms matter.
    """
    if p != 2.0:
        return lp_norm(x(), p=p)
    differences = x()
    info = jnp.finfo(differences.dtype)
    # Squares below `least` are taken for it: the sum is 0 where all differences are, and else
    # tells whether what was lost could be seen in it.
    least = 2.0 ** (info.minexp + 6)
    squares = jnp.square(differences)
    total = jnp.sum(
        jnp.where(differences == 0, 0.0, jnp.maximum(squares, least)).astype(squares.dtype), axis=-1
    )
    low = least * max(1, differences.shape[-1]) / float(info.eps)
    sound = (total == 0) | ((total >= low) & (total <= info.max))
    if where is not None:
        sound |= ~where

    def in_units() -> Array:
        differences = x()
        unit = jnp.max(jnp.abs(differences), axis=-1, initial=0.0)
        unit = jnp.where(unit == 0, 1.0, unit).astype(differences.dtype)
        return unit * lp_norm(differences / unit[..., None])

    return lax.cond(jnp.all(sound), lambda: jnp.sqrt(total), in_units)


def centre_of(x_NxD: Array, where_N: Array | None = None) -> Array:
    """A point [D] near the mean of the finite entries, constant under differentiation.

    `where_N`: bool, False leaves a row out.

    Non-finite entries are left out: one NaN row must not spoil the others' distances. The mean is
    rounded to multiples of a power of two, about the data's reach: whole numbers, or any data on a
    coarse grid, stay on a grid when it is subtracted, and their exact ties stay ties.
    """
    x_NxD = lax.stop_gradient(x_NxD)
    finite_NxD = jnp.isfinite(x_NxD)
    if where_N is not None:
        finite_NxD &= where_N[:, None]
    mean_D = jnp.mean(x_NxD, axis=0, where=finite_NxD)
    reach = jnp.max(jnp.abs(x_NxD - mean_D[None, :]), where=finite_NxD, initial=0.0)
    return coarse(mean_D, reach)


def coarse(mean_D: Array, reach: Array) -> Array:
    """`mean_D` in multiples of the power of two below `reach`, the largest distance from it."""
    _, exponent = jnp.frexp(reach)
    unit = jnp.ldexp(jnp.ones_like(reach), exponent - 1)
    return jnp.round(mean_D / unit) * unit


def power_of_two(largest: Array, *, low: int = 0, high: int = 0) -> Array:
    """A power of two that brings `largest` into 2^(low - 1)..2^high; 1 where it is there, or 0.

    Multiplied by it, numbers of that size keep their digits, and squares of them stay in range.
    """
    info = jnp.finfo(largest.dtype)
    largest = jnp.where((largest > 0) & (largest <= info.max), largest, 1.0)
    _, exponent = jnp.frexp(largest.astype(info.dtype))
    wanted = jnp.clip(exponent, low, high) - exponent
    return jnp.ldexp(jnp.ones_like(largest), jnp.clip(wanted, info.minexp, -info.minexp))


def product_error(width: int, dtype: Any) -> float:
    """The c of the bound c (|x|^2 + |y|^2) on the error of |x|^2 + |y|^2 - 2xy for centred rows.

    With u the unit roundoff, sums of D products in any order err by D u in each of the three
    terms, 2 D u together since 2|x||y| <= |x|^2 + |y|^2; the centring, the last sums and the
    factors, which a TPU splits into three bfloat16, add less than 16 u. The product has to run at
    `lax.Precision.HIGHEST`: TF32 or one bfloat16 pass would need another u.
    """
    return (width + 8) * float(jnp.finfo(dtype).eps)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def squared_euclidean(x_QxD: Array, y_GxD: Array, centre_D: Array, own: bool = False) -> Array:
    """Squared Euclidean distances [Q, G] by one product of the rows less `centre_D`.

    What is small beside |x|^2 + |y|^2, so that the product's error could matter (`_doubtful`), is
    computed again from differences, a few rows at a time: other squares err by less than a
    sixteenth of themselves by the bound of `product_error`, and by about 1e-3 at most in practice.
    Where x is y, `own`, the diagonal is 0 and costs nothing. The derivative is made of products.
    """
    x, y = x_QxD - centre_D[None, :], y_GxD - centre_D[None, :]
    norms = _rows_dot(x, x), _rows_dot(y, y)
    doubt = _doubtful(x.shape[1], x.dtype)
    norms_QxG = norms[0][:, None] + norms[1][None, :]
    # maximum, unlike where(d > 0, d, 0), lets a NaN through.
    squared_QxG = jnp.maximum(norms_QxG - 2.0 * products(x, y), 0.0)
    doubtful_QxG = squared_QxG < doubt * norms_QxG
    columns_1xG = jnp.arange(y.shape[0], dtype=jnp.int32)[None, :]
    if own:
        place_Q = jnp.arange(x.shape[0], dtype=jnp.int32)
        found_Q = jnp.zeros_like(norms[0])
    else:
        # Most often the one doubtful row is the query itself: a copy of it is the nearest.
        place_Q = jnp.max(jnp.where(doubtful_QxG, columns_1xG, 0), axis=1)
        found_Q = jnp.sum(jnp.square(x_QxD - y_GxD[place_Q]), axis=1)
    first_QxG = columns_1xG == place_Q[:, None]
    left_Q = jnp.any(doubtful_QxG & ~first_QxG, axis=1)
    squared_QxG = jnp.where(first_QxG & doubtful_QxG, found_Q[:, None], squared_QxG)
    return _from_differences(squared_QxG, left_Q, x_QxD, y_GxD, norms, doubt)


def _doubtful(width: int, dtype: Any) -> float:
    """The part of |x|^2 + |y|^2 below which a squared distance is not left to the product."""
    return max(16 * product_error(width, dtype), 2.0**11 * float(jnp.finfo(dtype).eps))


def _from_differences(
    squared_QxG: Array,
    left_Q: Array,
    x_QxD: Array,
    y_GxD: Array,
    norms: tuple[Array, Array],
    doubt: float,
) -> Array:
    """The squares, the doubtful ones of rows `left_Q` computed again: a loop over these rows.

    What is doubtful is found anew from the norms of both sides: as bool [Q, G] it would be written
    and read again, which took as long as the product at B = 4,096.
    """
    at_a_time = min(8, x_QxD.shape[0])

    def again(state: tuple[Array, Array]) -> tuple[Array, Array]:
        left_Q, squared_QxG = state
        _, rows = lax.top_k(left_Q.astype(squared_QxG.dtype), at_a_time)
        exact = lax.map(lambda x_D: jnp.sum(jnp.square(x_D[None, :] - y_GxD), axis=1), x_QxD[rows])
        before = squared_QxG[rows]
        doubtful = before < doubt * (norms[0][rows][:, None] + norms[1][None, :])
        mended = jnp.where(doubtful, exact, before)
        return left_Q.at[rows].set(False), squared_QxG.at[rows].set(mended)

    return lax.while_loop(lambda state: jnp.any(state[0]), again, (left_Q, squared_QxG))[1]


@squared_euclidean.defjvp
def _squared_euclidean_jvp(own: bool, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """Tangent of d(i, j)^2: 2 (x_i - y_j) . (dx_i - dy_j)."""
    (x_QxD, y_GxD, centre_D), (dx_QxD, dy_GxD, _) = primals, tangents
    squared_QxG = squared_euclidean(x_QxD, y_GxD, centre_D, own)
    return squared_QxG, 2.0 * _moved(x_QxD, y_GxD, centre_D, dx_QxD, dy_GxD)


def pairwise_distances(x_QxD: Array, y_GxD: Array, *, p: float = 2.0) -> Array:
    """L_p distances of all pairs.

    For p = 2 they come from one matrix product after the centre of `y_GxD` was subtracted from both
    sides, and from differences where they are so small beside the distance from that centre that
    the product's error would be seen (`squared_euclidean`). Gradients are finite everywhere, 0
    where two rows are equal. For other p, exact differences, one query at a time: memory O(G D).

    Args:
        x_QxD: [Q, D], any real dtype.
        y_GxD: [G, D]. Pass one array twice for the distances within it: its diagonal is 0 then.
        p: order of the norm, a static number >= 1 or infinity.

    Returns:
        Distances [Q, G], at least float32. NaN in a row stays NaN.

    Raises:
        UserError: p < 1; not [Q, D] and [G, D] with one D; no numbers.
    """
    p, own = as_order(p), x_QxD is y_GxD
    x_QxD, y_GxD = map(at_least_float32, as_rows(finite=False, x=x_QxD, y=y_GxD))
    if 0 in (len(x_QxD), len(y_GxD)):
        return jnp.zeros((len(x_QxD), len(y_GxD)), jnp.promote_types(x_QxD.dtype, y_GxD.dtype))
    if p != 2.0:
        return lax.map(lambda x_D: lp_norm(x_D[None, :] - y_GxD, p=p), x_QxD)
    dtype = jnp.promote_types(x_QxD.dtype, y_GxD.dtype)
    scale = power_of_two(jnp.maximum(_reach(x_QxD).astype(dtype), _reach(y_GxD).astype(dtype)))
    x_QxD, y_GxD = x_QxD * scale, y_GxD * scale
    return _root(squared_euclidean(x_QxD, y_GxD, centre_of(y_GxD), own), 2.0) / scale


def _reach(x: Array) -> Array:
    """The largest of the finite |x|, constant under differentiation."""
    x = lax.stop_gradient(x)
    return jnp.max(jnp.abs(x), where=jnp.isfinite(x), initial=0.0)


def selected_distances(
    anchors_AxD: Array, gallery_GxD: Array, indices_AxK: Array, *, p: float = 2.0
) -> Array:
    """L_p distances [A, K] from each anchor to the gallery rows `indices_AxK`, from differences.

    Accurate to rounding whatever the offset and however near the two rows; differentiable in both.
    """

    def of(anchors_BxD: Array, indices_BxK: Array) -> Array:
        rows_BxKxD = jnp.take(gallery_GxD, indices_BxK, axis=0, mode="clip")
        return lp_norm(anchors_BxD[:, None, :] - rows_BxKxD, p=p)

    entries = indices_AxK.size * anchors_AxD.shape[1]
    return by_rows(of, (anchors_AxD, indices_AxK), entries=entries)


def by_rows(of: Callable[..., Array], arrays: tuple[Array, ...], *, entries: int) -> Array:
    """`of(*arrays)`, all [A, ...]; on a CPU a few rows at a time where it makes many entries.

    These then stay in the processor's cache, and no memory is taken from the system for them: 3.3
    ms in the place of 25 for the differences of 1,024 x 10 pairs of 2,048 numbers on two cores.
    """
    if entries < _AT_ONCE or jax.default_backend() != "cpu":
        return of(*arrays)
    count = len(arrays[0])
    most = max(1, _IN_CACHE * count // entries)
    together = next(each for each in (8, 4, 2, 1) if each <= most and count % each == 0)
    parts = jax.tree.map(lambda x: x.reshape(-1, together, *x.shape[1:]), arrays)
    found = lax.map(lambda part: of(*part), parts)
    return found.reshape(count, *found.shape[2:])


def batch_distances(
    anchors_AxD: Array, gallery_GxD: Array, indices_AxK: Array, *, p: float = 2.0
) -> Array:
    """`selected_distances` with, for p = 2, a derivative made of matrix products.

    The values are the same. Backwards, products of [A, G] matrices replace the scattering of A K
    rows of D numbers, which is slow on CPUs and not reproducible on GPUs (docs/measurements.md,
    "The gradient of the loss"). Made for batches: memory is O(A G). Pass one array twice where the
    anchors are the gallery: one product does then.
    """
    if p != 2.0:
        return selected_distances(anchors_AxD, gallery_GxD, indices_AxK, p=p)
    if anchors_AxD is gallery_GxD:
        return _own_euclidean(anchors_AxD, indices_AxK)
    return _euclidean(anchors_AxD, gallery_GxD, indices_AxK)


@jax.custom_jvp
def _euclidean(x_AxD: Array, y_GxD: Array, indices_AxK: Array) -> Array:
    return selected_distances(x_AxD, y_GxD, indices_AxK)


@_euclidean.defjvp
def _euclidean_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """Tangent of d(i, j): (x_i - y_j) . (dx_i - dy_j) / d(i, j); 0 where d is 0."""
    (x_AxD, y_GxD, indices_AxK), (dx_AxD, dy_GxD, _) = primals, tangents
    moved_AxG = _moved(x_AxD, y_GxD, centre_of(y_GxD), dx_AxD, dy_GxD)
    moved_AxK = jnp.take_along_axis(moved_AxG, indices_AxK, axis=1)
    return _with_tangent(_euclidean(*primals), moved_AxK)


def _moved(x_AxD: Array, y_GxD: Array, centre_D: Array, dx_AxD: Array, dy_GxD: Array) -> Array:
    """(x_i - y_j) . (dx_i - dy_j) of all pairs [A, G], by products."""
    x_AxD, y_GxD = x_AxD - centre_D[None, :], y_GxD - centre_D[None, :]
    moved_AxG = _rows_dot(x_AxD, dx_AxD)[:, None] + _rows_dot(y_GxD, dy_GxD)[None, :]
    return moved_AxG - (products(dx_AxD, y_GxD) + products(x_AxD, dy_GxD))


@jax.custom_jvp
def _own_euclidean(x_BxD: Array, indices_BxK: Array) -> Array:
    return selected_distances(x_BxD, x_BxD, indices_BxK)


@_own_euclidean.defjvp
def _own_euclidean_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """`_euclidean_jvp` for y = x, where the two products are each other's transpose.

    Of the transpose the selected are looked up, and not all added: on a CPU reading a transpose
    took half of the time of the loss with its gradient at B = 1,024, D = 128.
    """
    (x_BxD, indices_BxK), (dx_BxD, _) = primals, tangents
    x_BxD = x_BxD - centre_of(x_BxD)[None, :]
    dots_B, product_BxB = _rows_dot(x_BxD, dx_BxD), products(dx_BxD, x_BxD)
    moved_BxB = dots_B[:, None] + dots_B[None, :] - product_BxB
    rows_Bx1 = jnp.arange(len(x_BxD), dtype=jnp.int32)[:, None]
    turned_BxK = product_BxB.at[indices_BxK, rows_Bx1].get(mode="clip")
    moved_BxK = jnp.take_along_axis(moved_BxB, indices_BxK, axis=1) - turned_BxK
    return _with_tangent(_own_euclidean(*primals), moved_BxK)


def _with_tangent(d_AxK: Array, moved_AxK: Array) -> tuple[Array, Array]:
    zero_AxK = d_AxK == 0
    return d_AxK, jnp.where(zero_AxK, 0.0, moved_AxK / jnp.where(zero_AxK, 1.0, d_AxK))


def products(x_AxD: Array, y_GxD: Array) -> Array:
    """Inner products [A, G] at the dtype's full precision: not TF32, not one bfloat16 pass."""
    return jnp.matmul(x_AxD, y_GxD.T, precision=lax.Precision.HIGHEST)


def _rows_dot(x_AxD: Array, y_AxD: Array) -> Array:
    return jnp.sum(x_AxD * y_AxD, axis=-1)
