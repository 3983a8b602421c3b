"""L_p distances between embeddings: of all pairs, and of selected pairs."""

import jax
import jax.numpy as jnp
from jax import Array, lax

from deepknn_jax.knn.intake import as_order, as_rows


def at_least_float32(x: Array) -> Array:
    """`x` in its own dtype, or in float32 where that is narrower (bfloat16, float16, integers)."""
    x = jnp.asarray(x)
    wide = jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits >= 32
    return x if wide else x.astype(jnp.float32)


def lp_norm(x: Array, *, p: float = 2.0) -> Array:
    """L_p norm over the last axis, with gradient 0 at the zero vector.

    Args:
        x: differences [..., D].
        p: the norm's order, a static number >= 1.

    Returns:
        Norms [...], in the dtype of `x`.
    """
    if p == 1.0:
        return jnp.sum(jnp.abs(x), axis=-1)
    if p == float("inf"):
        return jnp.max(jnp.abs(x), axis=-1, initial=0.0)
    total = jnp.sum(jnp.square(x) if p == 2.0 else _power(jnp.abs(x), p), axis=-1)
    # Both branches of the outer where must be safe: the gradient of a root at 0 is infinite.
    zero = total == 0
    root = jnp.sqrt if p == 2.0 else lambda t: t ** (1.0 / p)
    return jnp.where(zero, 0.0, root(jnp.where(zero, 1.0, total)))


def _power(x: Array, p: float) -> Array:
    """Power x ** p for x >= 0, with a finite derivative at 0 also where 1 < p < 2."""
    zero = x == 0
    return jnp.where(zero, 0.0, jnp.where(zero, 1.0, x) ** p)


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
    _, exponent = jnp.frexp(reach)
    unit = jnp.ldexp(jnp.ones_like(reach), exponent - 1)
    return jnp.round(mean_D / unit) * unit


def squared_euclidean(x_QxD: Array, y_GxD: Array) -> Array:
    """Squared Euclidean distances [Q, G] by |x|^2 + |y|^2 - 2xy, for rows already centred.

    With u the unit roundoff of the dtype, the absolute error is at most about
    (D + 4) u (|x|^2 + |y|^2), in practice a few u times it. The product runs at full precision:
    TF32 or bfloat16 passes would find other neighbours.
    """
    x_Q, y_G = _rows_dot(x_QxD, x_QxD), _rows_dot(y_GxD, y_GxD)
    # maximum, unlike where(d > 0, d, 0), lets a NaN through.
    return jnp.maximum(x_Q[:, None] + y_G[None, :] - 2.0 * _products(x_QxD, y_GxD), 0.0)


def pairwise_distances(x_QxD: Array, y_GxD: Array, *, p: float = 2.0) -> Array:
    """L_p distances of all pairs.

    For p = 2 they come from one matrix product after the centre of `y_GxD` was subtracted from both
    sides, so that a common offset costs no digits; two rows nearer to each other than about 1e-3
    of their distance from that centre lose digits in float32 (`squared_euclidean` bounds the
    error). Gradients are finite everywhere, 0 where two rows are equal. For other p, exact
    differences, one query at a time: memory O(G D).

    Args:
        x_QxD: [Q, D], any real dtype.
        y_GxD: [G, D].
        p: order of the norm, a static number >= 1 or infinity.

    Returns:
        Distances [Q, G], at least float32. NaN in a row stays NaN.

    Raises:
        UserError: p < 1; not [Q, D] and [G, D] with one D; no numbers.
    """
    p = as_order(p)
    x_QxD, y_GxD = map(at_least_float32, as_rows(finite=False, x=x_QxD, y=y_GxD))
    if 0 in (len(x_QxD), len(y_GxD)):
        return jnp.zeros((len(x_QxD), len(y_GxD)), jnp.promote_types(x_QxD.dtype, y_GxD.dtype))
    if p != 2.0:
        return lax.map(lambda x_D: lp_norm(x_D[None, :] - y_GxD, p=p), x_QxD)
    centre_1xD = centre_of(y_GxD)[None, :]
    squared_QxG = squared_euclidean(x_QxD - centre_1xD, y_GxD - centre_1xD)
    zero_QxG = squared_QxG == 0
    return jnp.where(zero_QxG, 0.0, jnp.sqrt(jnp.where(zero_QxG, 1.0, squared_QxG)))


def selected_distances(
    anchors_AxD: Array, gallery_GxD: Array, indices_AxK: Array, *, p: float = 2.0
) -> Array:
    """L_p distances [A, K] from each anchor to the gallery rows `indices_AxK`, from differences.

    Accurate to rounding whatever the offset and however near the two rows; differentiable in both.
    """
    rows_AxKxD = jnp.take(gallery_GxD, indices_AxK, axis=0, mode="clip")
    return lp_norm(anchors_AxD[:, None, :] - rows_AxKxD, p=p)


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
    centre_1xD = centre_of(y_GxD)[None, :]
    x_AxD, y_GxD = x_AxD - centre_1xD, y_GxD - centre_1xD
    moved_AxG = _rows_dot(x_AxD, dx_AxD)[:, None] + _rows_dot(y_GxD, dy_GxD)[None, :]
    moved_AxG -= _products(dx_AxD, y_GxD) + _products(x_AxD, dy_GxD)
    return _with_tangent(_euclidean(*primals), moved_AxG, indices_AxK)


@jax.custom_jvp
def _own_euclidean(x_BxD: Array, indices_BxK: Array) -> Array:
    return selected_distances(x_BxD, x_BxD, indices_BxK)


@_own_euclidean.defjvp
def _own_euclidean_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """`_euclidean_jvp` for y = x, where the two products are each other's transpose."""
    (x_BxD, indices_BxK), (dx_BxD, _) = primals, tangents
    x_BxD = x_BxD - centre_of(x_BxD)[None, :]
    dots_B, product_BxB = _rows_dot(x_BxD, dx_BxD), _products(dx_BxD, x_BxD)
    moved_BxB = dots_B[:, None] + dots_B[None, :] - (product_BxB + product_BxB.T)
    return _with_tangent(_own_euclidean(*primals), moved_BxB, indices_BxK)


def _with_tangent(d_AxK: Array, moved_AxG: Array, indices_AxK: Array) -> tuple[Array, Array]:
    moved_AxK = jnp.take_along_axis(moved_AxG, indices_AxK, axis=1)
    zero_AxK = d_AxK == 0
    return d_AxK, jnp.where(zero_AxK, 0.0, moved_AxK / jnp.where(zero_AxK, 1.0, d_AxK))


def _products(x_AxD: Array, y_GxD: Array) -> Array:
    return jnp.matmul(x_AxD, y_GxD.T, precision=lax.Precision.HIGHEST)


def _rows_dot(x_AxD: Array, y_AxD: Array) -> Array:
    return jnp.sum(x_AxD * y_AxD, axis=-1)
