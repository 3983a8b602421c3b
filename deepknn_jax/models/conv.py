"""The convolution of every backbone."""

from collections.abc import Callable

import jax
from flax import linen as nn
from jax import Array, lax
from jax.typing import DTypeLike

# torchvision's: variance 2 / fan_out.
kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

Padding = tuple[tuple[int, int], ...]


def convolve(x_BxHxWxI: Array, kernel: Array, *, stride: int, padding: Padding) -> Array:
    """Cross-correlation of x [B, H, W, I] with kernel [h, w, I, O] -> [B, H', W', O].

    `padding` gives ((top, bottom), (left, right)) in pixels. On a CPU a 1x1 convolution without
    padding is a matrix product; elsewhere, and for other kernels, XLA's convolution.
    """

    def native(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def product(x: Array, kernel: Array) -> Array:
        # Forward + backward, batch 8, two cores, jax 0.10.2, milliseconds (native -> product):
        # 56 px 64->64 13 -> 4.5, 64->256 73 -> 16, 256->512 stride 2 97 -> 30; 14 px 1024->256
        # 21 -> 14. A custom_vjp of the same products gains nothing over autodiff's; leaving x
        # four-dimensional loses most of the gain (64->256: 58), so it is flattened here.
        x = lax.slice(x, (0, 0, 0, 0), x.shape, (1, stride, stride, 1))
        out = lax.dot(x.reshape(-1, x.shape[-1]), kernel[0, 0])
        return out.reshape(*x.shape[:-1], kernel.shape[-1])

    if kernel.shape[:2] != (1, 1) or any(padding[0] + padding[1]):
        return native(x_BxHxWxI, kernel)
    # Chosen while lowering, so also right for a computation put on the CPU of a GPU machine.
    return lax.platform_dependent(x_BxHxWxI, kernel, cpu=product, default=native)


class Conv(nn.Module):
    """A square convolution without bias, NHWC; its one parameter is kernel [size, size, I, O].

    `padding` is in pixels on every side (None: size // 2, as torchvision), never "SAME", which
    differs from torch where the stride is 2. Parameters are float32, the product is in `dtype`.
    """

    features: int
    size: int
    stride: int = 1
    padding: int | None = None
    dtype: DTypeLike = jax.numpy.float32
    kernel_init: Callable[..., Array] = kaiming_fan_out

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, I] -> [B, H', W', features] in `dtype`."""
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        pad = self.size // 2 if self.padding is None else self.padding
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        return convolve(x, kernel, stride=self.stride, padding=((pad, pad), (pad, pad)))
