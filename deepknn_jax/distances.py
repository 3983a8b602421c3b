"""L_p distances between embeddings: of all pairs, and of selected pairs."""

import jax.numpy as jnp
from jax import Array, lax


def at_least_float32(x: Array) -> Array:
    """`x` in its own dtype, or in float32 where that is narrower (bfloat16, float16, integers)."""
    x = jnp.asarray(x)
    wide = jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits >= 32
    return x if wide else x.astype(jnp.float32)


def check_p(p: float) -> None:
    """Raises ValueError unless `p` is a finite number >= 1, for which L_p is a metric."""
    if not 1.0 <= p < float("inf"):
        raise ValueError(f"p must be a finite number of at least 1, got {p}")


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
    total = jnp.sum(jnp.square(x) if p == 2.0 else _power(jnp.abs(x), p), axis=-1)
    # Both branches of the outer where must be safe: the gradient of a root at 0 is infinite.
    zero = total == 0
    root = jnp.sqrt if p == 2.0 else lambda t: t ** (1.0 / p)
    return jnp.where(zero, 0.0, root(jnp.where(zero, 1.0, total)))


def _power(x: Array, p: float) -> Array:
    """Power x ** p for x >= 0, with a finite derivative at 0 also where 1 < p < 2."""
    zero = x == 0
    return jnp.where(zero, 0.0, jnp.where(zero, 1.0, x) ** p)


def robust_mean(x_NxD: Array) -> Array:
    """Mean [D] of the finite entries: a centre that one NaN row does not spoil for the others."""
    return lax.stop_gradient(jnp.mean(x_NxD, axis=0, where=jnp.isfinite(x_NxD)))


def squared_euclidean(x_QxD: Array, y_GxD: Array) -> Array:
    """Squared Euclidean distances [Q, G] by |x|^2 + |y|^2 - 2xy, for rows already centred.

    With u the unit roundoff of the dtype, the absolute error is at most about
    (D + 4) u (|x|^2 + |y|^2), in practice a few u times it. The product runs at full precision:
    TF32 or bfloat16 passes would find other neighbours.
    """
    x_Q = jnp.sum(jnp.square(x_QxD), axis=-1)
    y_G = jnp.sum(jnp.square(y_GxD), axis=-1)
    product_QxG = jnp.matmul(x_QxD, y_GxD.T, precision=lax.Precision.HIGHEST)
    # maximum, unlike where(d > 0, d, 0), lets a NaN through.
    return jnp.maximum(x_Q[:, None] + y_G[None, :] - 2.0 * product_QxG, 0.0)


def pairwise_distances(x_QxD: Array, y_GxD: Array, *, p: float = 2.0) -> Array:
    """L_p distances of all pairs.

    For p = 2 they come from one matrix product after the mean of `y_GxD` was subtracted from both
    sides, so that a common offset costs no digits; two rows nearer to each other than about 1e-3
    of their distance from that mean lose digits in float32 (`squared_euclidean` bounds the
    error). Gradients are finite everywhere, 0 where two rows are equal. For other p, exact
    differences, one query at a time: memory O(G D).

    Args:
        x_QxD: [Q, D], any real dtype.
        y_GxD: [G, D].
        p: order of the norm, a static number >= 1.

    Returns:
        Distances [Q, G], at least float32.

    Raises:
        ValueError: p < 1 or not finite; D differs.
    """
    check_p(p)
    if x_QxD.ndim != 2 or y_GxD.ndim != 2 or x_QxD.shape[1] != y_GxD.shape[1]:
        raise ValueError(
            f"expected [Q, D] and [G, D] with one D, got {x_QxD.shape} and {y_GxD.shape}"
        )
    x_QxD, y_GxD = at_least_float32(x_QxD), at_least_float32(y_GxD)
    if p != 2.0:
        return lax.map(lambda x_D: lp_norm(x_D[None, :] - y_GxD, p=p), x_QxD)
    centre_1xD = robust_mean(y_GxD)[None, :]
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
