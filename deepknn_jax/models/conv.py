"""The convolution of every backbone, in the form that runs best on the platform.

GPUs and TPUs get XLA's own. On a CPU (jax 0.10.2, two cores, times of forward + backward):
- XLA's 1x1 convolution is slower than the matrix product that it is: batch 8, 56 px 64->64
  13 -> 4.5 ms, 64->256 73 -> 16, 256->512 stride 2 97 -> 30; 14 px 1024->256 21 -> 14.
- So are convolutions of small maps: batch 96, 3x3, 4 px 64->128 5.8 -> 1.6, 2 px 128->128
  15 -> 2.5. From about 7 px on patches lose what the product gains.
- Inside a loop (the trainer scans over steps) the kernel's gradient falls to a naive
  implementation, since its dimensions are not in XLA's canonical order (jax issue 12868): batch 96,
  8 px 32->64, stride 2: 1.5 -> 80 ms. Written out in that order it keeps its 1.5 ms.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax
from jax.typing import DTypeLike

# torchvision's: variance 2 / fan_out.
kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

_SMALL_MAP = 16  # positions of an output map, up to which patches and a product win


class Conv(nn.Module):
    """A square convolution without bias, NHWC; its one parameter is kernel [size, size, I, O].

    `padding` is in pixels on every side (None: size // 2, as torchvision), never "SAME", which
    differs from torch where the stride is 2. The parameter is float32, the product in `dtype`.
    """

    features: int
    size: int
    stride: int = 1
    padding: int | None = None
    dtype: DTypeLike = jnp.float32
    kernel_init: Callable[..., Array] = kaiming_fan_out

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, I] -> [B, H', W', features] in `dtype`."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        padding = self.size // 2 if self.padding is None else self.padding
        return convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, padding)


def convolve(x_BxHxWxI: Array, kernel: Array, stride: int, padding: int) -> Array:
    """Cross-correlation of x [B, H, W, I] with kernel [S, S, I, O] -> [B, H', W', O].

    `padding` zeros on every side; H' = (H + 2 padding - S) // stride + 1.
    """
    height, width = (_positions(n, kernel, stride, padding) for n in x_BxHxWxI.shape[1:3])
    as_product = kernel.shape[0] == 1 or height * width <= _SMALL_MAP
    # Chosen while lowering, so also right for a computation put on the CPU of a GPU machine.
    return lax.platform_dependent(
        x_BxHxWxI,
        kernel,
        cpu=partial(_product if as_product else _in_loops, stride=stride, padding=padding),
        default=partial(_native, stride=stride, padding=padding),
    )


def _positions(size: int, kernel: Array, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel.shape[0]) // stride + 1


def _native(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    return _xla(x, kernel, strides=(stride, stride), padding=[(padding, padding)] * 2)


def _xla(
    x: Array,
    kernel: Array,
    *,
    padding: Sequence[tuple[int, int]],
    strides: tuple[int, int] = (1, 1),
    spread_x: tuple[int, int] = (1, 1),
    spread_kernel: tuple[int, int] = (1, 1),
) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        lhs_dilation=spread_x,
        rhs_dilation=spread_kernel,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _product(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """All patches [B H' W', S S I] times the kernel [S S I, O]; autodiff gives products again."""
    size, batch = kernel.shape[0], x.shape[0]
    height, width = (_positions(n, kernel, stride, padding) for n in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    reach_h, reach_w = (height - 1) * stride + 1, (width - 1) * stride + 1
    patches = [
        lax.slice(
            x, (0, i, j, 0), (batch, i + reach_h, j + reach_w, x.shape[3]), (1, stride, stride, 1)
        )
        for i in range(size)
        for j in range(size)
    ]
    # Flat: a dot_general over a four-dimensional array loses most of the gain.
    rows = jnp.concatenate(patches, axis=-1).reshape(batch * height * width, -1)
    out = lax.dot(rows, kernel.reshape(-1, kernel.shape[-1]))
    return out.reshape(batch, height, width, -1)


def _in_loops(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    # shard_map wants a hand-written gradient to have its argument's type. The kernel is the same on
    # all devices, its gradient is not: adding a zero that differs by device, as x does, makes
    # autodiff sum it. XLA folds the zero away.
    zero = jnp.where(False, x[0, 0, 0, 0], 0)
    return _loop_safe(x, kernel + zero, stride, padding)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _loop_safe(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    return _native(x, kernel, stride, padding)


def _loop_safe_forward(
    x: Array, kernel: Array, stride: int, padding: int
) -> tuple[Array, tuple[Array, Array]]:
    return _native(x, kernel, stride, padding), (x, kernel)


def _loop_safe_backward(
    stride: int, padding: int, kept: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
    """Gradients for x and kernel as convolutions in NHWC, HWIO order."""
    x, kernel = kept
    size, spread = kernel.shape[0], (stride, stride)
    # Each output's reach beyond x's end: how far dy, spread by the stride, falls short of it.
    short = [
        n + padding - ((m - 1) * stride + 1)
        for n, m in zip(x.shape[1:3], dy.shape[1:3], strict=True)
    ]
    turned = jnp.flip(kernel, (0, 1)).transpose(0, 1, 3, 2)
    dx = _xla(dy, turned, padding=[(size - 1 - padding, s) for s in short], spread_x=spread)
    # The batch is summed over as a channel: x as [I, H, W, B], dy as a kernel [H', W', B, O].
    dk = _xla(
        x.transpose(3, 1, 2, 0),
        dy.transpose(1, 2, 0, 3),
        padding=[(padding, size - 1 - s) for s in short],
        spread_kernel=spread,
    )
    return dx, dk.transpose(1, 2, 0, 3)


_loop_safe.defvjp(_loop_safe_forward, _loop_safe_backward)
