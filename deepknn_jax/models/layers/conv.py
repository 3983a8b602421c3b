"""The convolution of every backbone, in the form that runs best on the platform.

GPUs and TPUs get XLA's own. A CPU gets the following; the milliseconds stand in
docs/measurements.md, "Convolutions on a CPU".
- A 1x1 convolution is the matrix product that it is. So is, over patches, one of maps of a few
  pixels (from about 7 px on they lose what the product gains) or of one direction (1x7, 7x1).
- A 3x3 convolution of stride 1 takes fewer multiplications (winograd.py), and always both cores.
- A depthwise one is a sum of shifted inputs.
- What remains (strides, 5x5, 7x7) stays XLA's. Inside a loop (the trainer scans over steps) the
  kernel's gradient would fall to a naive implementation, 80 ms in the place of 1.5 at batch 96,
  8 px, 32->64, stride 2 (jax issue 12868), so it is written out in XLA's canonical order.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax
from jax.typing import DTypeLike

from deepknn_jax.models.layers.winograd import Padding as Padding
from deepknn_jax.models.layers.winograd import held, winograd

kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")  # torchvision's

_SMALL_MAP = 16  # positions of an output map, up to which patches and a product win
_MANY_CHANNELS = 32  # of input and output each, from which the fewer multiplications win


class Conv(nn.Module):
    """A convolution, NHWC; its parameters are kernel [h, w, I / groups, O] and, if wanted, bias.

    `size` is the kernel's side, or its height and width. `padding` is in pixels on every side
    (None: size // 2, as torchvision), or ((top, bottom), (left, right)); never "SAME", which
    differs from torch where the stride is 2. Parameters are float32, the product in `dtype`.
    """

    features: int
    size: int | tuple[int, int]
    stride: int = 1
    padding: int | Padding | None = None
    groups: int = 1
    use_bias: bool = False
    dtype: DTypeLike = jnp.float32
    kernel_init: Callable[..., Array] = kaiming_fan_out

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, I] -> [B, H', W', features] in `dtype`."""
        height, width = (self.size,) * 2 if isinstance(self.size, int) else self.size
        shape = (height, width, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        padding = self.padding
        if padding is None:
            padding = (height // 2,) * 2, (width // 2,) * 2
        elif isinstance(padding, int):
            padding = (padding,) * 2, (padding,) * 2
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = convolve(x, kernel, self.stride, padding, self.groups)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
            y += bias.astype(self.dtype)[None, None, None, :]
        return y


def convolve(
    x_BxHxWxI: Array, kernel: Array, stride: int, padding: Padding, groups: int = 1
) -> Array:
    """Cross-correlation of x [B, H, W, I] with kernel [S, T, I / groups, O] -> [B, H', W', O].

    `padding` counts the zeros ((top, bottom), (left, right));
    H' = (H + top + bottom - S) // stride + 1. Output channels o of group g (O / groups each) see
    the input channels of that group only.
    """
    on_cpu = _form_on_cpu(x_BxHxWxI, kernel, stride, padding, groups)
    native = partial(_native, stride=stride, padding=padding, groups=groups)
    # Chosen while lowering, so also right for a computation put on the CPU of a GPU machine.
    return lax.platform_dependent(x_BxHxWxI, kernel, cpu=on_cpu, default=native)


def _form_on_cpu(
    x: Array, kernel: Array, stride: int, padding: Padding, groups: int
) -> Callable[[Array, Array], Array]:
    """The function of x and kernel that convolves arrays of these shapes fastest on a CPU."""
    size, (inputs, outputs) = kernel.shape[:2], kernel.shape[2:]
    if groups == outputs and inputs == 1:
        return lambda x, kernel: _depthwise(x, _varying(kernel, x), stride, padding)
    if groups > 1:
        return partial(_native, stride=stride, padding=padding, groups=groups)
    height, width = _positions(x, kernel, stride, padding)
    if 1 in size or height * width <= _SMALL_MAP:
        return partial(_product, stride=stride, padding=padding)
    if size == (3, 3) and stride == 1 and min(inputs, outputs) >= _MANY_CHANNELS:
        return lambda x, kernel: winograd(x, _varying(kernel, x), padding)
    return lambda x, kernel: _loop_safe(x, _varying(kernel, x), stride, padding)


def _varying(kernel: Array, x: Array) -> Array:
    """The kernel plus a zero that differs by device, as x does; XLA folds it away.

    shard_map wants a hand-written gradient to have its argument's type: autodiff then sums it.
    """
    return kernel + jnp.where(False, x[0, 0, 0, 0], 0)


def _positions(x: Array, kernel: Array, stride: int, padding: Padding) -> tuple[int, int]:
    height, width = (
        (n + low + high - size) // stride + 1
        for n, size, (low, high) in zip(x.shape[1:3], kernel.shape[:2], padding, strict=True)
    )
    return height, width


def _native(
    x: Array,
    kernel: Array,
    stride: int,
    padding: Sequence[tuple[int, int]],
    groups: int = 1,
    *,
    x_dilation: tuple[int, int] = (1, 1),
    kernel_dilation: tuple[int, int] = (1, 1),
) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        lhs_dilation=x_dilation,
        rhs_dilation=kernel_dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _product(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """All patches [B H' W', S T I] times the kernel [S T I, O]; autodiff gives products again."""
    shifted = [part for _, part in _shifted(x, kernel, stride, padding)]
    batch, height, width, _ = shifted[0].shape
    # Flat: a dot_general over a four-dimensional array loses most of the gain.
    rows = jnp.concatenate(shifted, axis=-1).reshape(batch * height * width, -1)
    out = lax.dot(rows, kernel.reshape(-1, kernel.shape[-1]))
    return out.reshape(batch, height, width, -1)


def _weighted(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """Each channel with its own kernel [S, T, 1, C]: the shifted inputs, weighted and summed."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    weighted = [
        part.astype(wide) * kernel[i, j, 0].astype(wide)[None, None, None, :]
        for (i, j), part in _shifted(x, kernel, stride, padding)
    ]
    return reduce(jnp.add, weighted).astype(x.dtype)


def _keeping(convolution: Callable[..., Array]) -> Callable[..., tuple[Array, tuple[Array, Array]]]:
    """The forward half of a gradient of its own, which keeps both arguments."""
    return lambda x, kernel, *how: (convolution(x, kernel, *how), (x, kernel))


_depthwise = jax.custom_vjp(_weighted, nondiff_argnums=(2, 3))


def _each_sum(sums: list[Array], more: list[Array]) -> list[Array]:
    return list(map(jnp.add, sums, more))


def _depthwise_backward(
    stride: int, padding: Padding, kept: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
    """Gradients for x, as autodiff has it, and kernel: an image at a time, all its sums at once.

    Autodiff's own writes down each shifted input of the batch (56 px, 144 channels: 31 -> 8 ms).
    """
    (x, kernel), dy = kept, held(dy)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    zeros = [jnp.zeros((), wide)] * math.prod(kernel.shape[:2])

    def of_image(pair: tuple[Array, Array]) -> Array:
        image, gradient = pair[0][None], pair[1][None].astype(wide)
        shifted = _shifted(image, kernel, stride, padding)
        products = [part.astype(wide) * gradient for _, part in shifted]
        return jnp.stack(lax.reduce(products, zeros, _each_sum, (0, 1, 2)))

    dk = jnp.sum(lax.map(of_image, (x, dy)), axis=0).reshape(kernel.shape)
    (dx,) = jax.vjp(lambda x: _weighted(x, kernel, stride, padding), x)[1](dy)
    return dx, dk.astype(kernel.dtype)


_depthwise.defvjp(_keeping(_weighted), _depthwise_backward)


def _shifted(
    x: Array, kernel: Array, stride: int, padding: Padding
) -> list[tuple[tuple[int, int], Array]]:
    """Each offset (i, j) into the kernel with the inputs [B, H', W', I] that it is applied to."""
    height, width = _positions(x, kernel, stride, padding)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    batch, _, _, channels = x.shape
    reach_h, reach_w = (height - 1) * stride + 1, (width - 1) * stride + 1
    strides = (1, stride, stride, 1)
    return [
        ((i, j), lax.slice(x, (0, i, j, 0), (batch, i + reach_h, j + reach_w, channels), strides))
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    ]


_loop_safe = jax.custom_vjp(
    lambda x, kernel, stride, padding: _native(x, kernel, stride, padding), nondiff_argnums=(2, 3)
)


def _loop_safe_backward(
    stride: int, padding: Padding, kept: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
    """Gradients for x and kernel as convolutions in NHWC, HWIO order."""
    x, kernel = kept
    strides = (stride, stride)
    before = [low for low, _ in padding]
    # Each output's reach beyond x's end: how far dy, dilated by the stride, falls short of it.
    short = [
        n + low - ((m - 1) * stride + 1)
        for n, m, low in zip(x.shape[1:3], dy.shape[1:3], before, strict=True)
    ]
    last = [size - 1 for size in kernel.shape[:2]]
    turned = jnp.flip(kernel, (0, 1)).transpose(0, 1, 3, 2)
    around = [(end - low, s) for end, low, s in zip(last, before, short, strict=True)]
    dx = _native(dy, turned, 1, around, x_dilation=strides)
    # The batch is summed over as a channel: x as [I, H, W, B], dy as a kernel [H', W', B, O].
    reach = [(low, end - s) for end, low, s in zip(last, before, short, strict=True)]
    images, kernels = x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3)
    dk = _native(images, kernels, 1, reach, kernel_dilation=strides)
    return dx, dk.transpose(1, 2, 0, 3)


_loop_safe.defvjp(_keeping(_native), _loop_safe_backward)
