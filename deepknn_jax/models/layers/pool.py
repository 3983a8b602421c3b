"""Pooling: max-pooling in the form that runs best on the platform, and the mean over positions.

GPUs and TPUs get XLA's own. Its gradient is a scatter, which on a CPU is slow; that of maxima of
slices is fused (3x3 with stride 2 on 112 px of 64 channels, forward + backward: 370 -> 140 ms).
"""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

MAP = "map"  # what `mean_pool` calls its input among a module's intermediates


def mean_pool(module: nn.Module, x: Array) -> Array:
    """The mean over all positions of an image, [B, H, W, C] -> [B, C].

    Who applies the `module` with mutable=["intermediates"] finds x there, under MAP: what an
    embedding is the mean of (answers/heat.py). Else nothing is kept.
    """
    module.sow("intermediates", MAP, x)
    # The mean of many bfloat16 values is summed in float32 (jnp.mean does so by itself).
    return jnp.mean(x, axis=(1, 2))


def max_pool(x: Array, size: int, stride: int, padding: tuple[int, int] = (0, 0)) -> Array:
    """The largest of each size x size window: [B, H, W, C] -> [B, H', W', C]; volumes likewise.

    `padding` counts the rows (columns, slices) of -inf before and after;
    H' = (H + before + after - size) // stride + 1, so a last window that is not whole is dropped.
    Where values tie for the largest, torch and XLA give the gradient to the first, a CPU shares it
    between them; after a ReLU that shows only where equal values are above 0.
    """
    return lax.platform_dependent(
        x,
        cpu=partial(_maxima, size=size, stride=stride, padding=padding),
        default=partial(_native, size=size, stride=stride, padding=padding),
    )


def _native(x: Array, size: int, stride: int, padding: tuple[int, int]) -> Array:
    axes = x.ndim - 2
    return nn.max_pool(x, (size,) * axes, strides=(stride,) * axes, padding=(padding,) * axes)


def _maxima(x: Array, size: int, stride: int, padding: tuple[int, int]) -> Array:
    if any(padding):
        around = ((0, 0), *[padding] * (x.ndim - 2), (0, 0))
        x = jnp.pad(x, around, constant_values=-jnp.inf)
    for axis in range(1, x.ndim - 1):
        reach = (x.shape[axis] - size) // stride * stride + 1
        largest = lax.slice_in_dim(x, 0, reach, stride, axis)
        for i in range(1, size):
            largest = jnp.maximum(largest, lax.slice_in_dim(x, i, i + reach, stride, axis))
        x = largest
    return x
