"""BatchNorm in training where devices hold unequal numbers of rows."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax


def masked_batch_norm(
    norm: nn.BatchNorm, x: Array, mask: Array, total: Callable[[Array], Array]
) -> Array:
    """The bound layer `norm` in training, where devices may hold unequal numbers of rows.

    Linen's own takes the mean over devices of their means; here each counts by its rows. With equal
    numbers it is linen's to the bit.

    Args:
        norm: its running statistics are updated.
        x: [b, ..., F] of this device.
        mask: bool [b, 1, ..., 1], False leaves a row out; at least one is True.
        total: the sum over devices.

    Returns:
        Like x, normalised, in the layer's dtype.
    """
    axes = tuple(range(x.ndim - 1))
    wide = x.astype(jnp.promote_types(norm.dtype or x.dtype, jnp.float32))
    own = jnp.sum(mask, dtype=wide.dtype)
    devices = total(jnp.ones_like(own))
    moments = jnp.stack([wide.mean(axes, where=mask), jnp.square(wide).mean(axes, where=mask)])
    mean, square = total(moments * (own * devices / total(own))) / devices
    variance = jnp.maximum(0.0, square - jnp.square(mean))
    for name, value in (("mean", mean), ("var", variance)):
        kept: Array = norm.get_variable("batch_stats", name)
        norm.put_variable("batch_stats", name, norm.momentum * kept + (1 - norm.momentum) * value)
    around = (1,) * (x.ndim - 1)
    scale: Array | None = norm.get_variable("params", "scale")
    bias: Array | None = norm.get_variable("params", "bias")
    factor = lax.rsqrt(variance.reshape(*around, -1) + norm.epsilon)
    if scale is not None:
        factor *= scale.reshape(*around, -1)
    y = (x - mean.reshape(*around, -1)) * factor
    if bias is not None:
        y += bias.reshape(*around, -1)
    return y.astype(norm.dtype or y.dtype)
