"""The convolution of every backbone, in the form that runs best on the platform.

GPUs and TPUs get XLA's own. On a CPU (jax 0.10.2, two cores, times of forward + backward):
- XLA's 1x1 convolution is slower than the matrix product that it is: batch 8, 56 px 64->64
  13 -> 4.5 ms, 64->256 73 -> 16, 256->512 stride 2 97 -> 30; 14 px 1024->256 21 -> 14.
- So are convolutions of small maps: batch 96, 3x3, 4 px 64->128 5.8 -> 1.6, 2 px 128->128
  15 -> 2.5. From about 7 px on patches lose what the product gains.
- So are depthwise ones as a grouped convolution: EfficientNet-Lite0 at 224 px, evaluation, batch
  16: 105 ms of CPU time an image, as sums of shifted slices 32.
- Inside a loop (the trainer scans over steps) the kernel's gradient falls to a naive
  implementation, since its dimensions are not in XLA's canonical order (jax issue 12868): batch 96,
  8 px 32->64, stride 2: 1.5 -> 80 ms. Written out in that order it keeps its 1.5 ms.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax
from jax.typing import DTypeLike

# torchvision's: variance 2 / fan_out.
kaiming_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

_SMALL_MAP = 16  # positions of an output map, up to which patches and a product win


Padding = tuple[tuple[int, int], tuple[int, int]]


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
    height, width = _positions(x_BxHxWxI, kernel, stride, padding)
    on_cpu: Callable[..., Array] = _in_loops
    if groups > 1:
        depthwise = groups == x_BxHxWxI.shape[3] == kernel.shape[3]
        on_cpu = _depthwise if depthwise else partial(_native, groups=groups)
    elif kernel.shape[:2] == (1, 1) or height * width <= _SMALL_MAP:
        on_cpu = _product
    # Chosen while lowering, so also right for a computation put on the CPU of a GPU machine.
    return lax.platform_dependent(
        x_BxHxWxI,
        kernel,
        cpu=partial(on_cpu, stride=stride, padding=padding),
        default=partial(_native, stride=stride, padding=padding, groups=groups),
    )


def _positions(x: Array, kernel: Array, stride: int, padding: Padding) -> tuple[int, int]:
    height, width = (
        (n + low + high - size) // stride + 1
        for n, size, (low, high) in zip(x.shape[1:3], kernel.shape[:2], padding, strict=True)
    )
    return height, width


def _native(x: Array, kernel: Array, stride: int, padding: Padding, groups: int = 1) -> Array:
    return _xla(x, kernel, strides=(stride, stride), padding=padding, groups=groups)


def _xla(
    x: Array,
    kernel: Array,
    *,
    padding: Sequence[tuple[int, int]],
    strides: tuple[int, int] = (1, 1),
    spread_x: tuple[int, int] = (1, 1),
    spread_kernel: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        lhs_dilation=spread_x,
        rhs_dilation=spread_kernel,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _product(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """All patches [B H' W', S T I] times the kernel [S T I, O]; autodiff gives products again."""
    patches = jnp.concatenate([part for *_, part in _shifted(x, kernel, stride, padding)], axis=-1)
    # Flat: a dot_general over a four-dimensional array loses most of the gain.
    rows = patches.reshape(-1, patches.shape[-1])
    out = lax.dot(rows, kernel.reshape(-1, kernel.shape[-1]))
    return out.reshape(*patches.shape[:3], -1)


def _depthwise(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """Each channel by its own kernel [S, T, 1, I]: a fused sum of shifted slices times weights."""
    y = jnp.zeros((), x.dtype)
    for i, j, part in _shifted(x, kernel, stride, padding):
        y += part * kernel[i, j, 0][None, None, None, :]
    return y


def _shifted(
    x: Array, kernel: Array, stride: int, padding: Padding
) -> Iterator[tuple[int, int, Array]]:
    """For each element i, j of the kernel what it sees of x at all positions, [B, H', W', I]."""
    batch, *_, channels = x.shape
    height, width = _positions(x, kernel, stride, padding)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    reach_h, reach_w = (height - 1) * stride + 1, (width - 1) * stride + 1
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            end = (batch, i + reach_h, j + reach_w, channels)
            yield i, j, lax.slice(x, (0, i, j, 0), end, (1, stride, stride, 1))


def _in_loops(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    # shard_map wants a hand-written gradient to have its argument's type. The kernel is the same on
    # all devices, its gradient is not: adding a zero that differs by device, as x does, makes
    # autodiff sum it. XLA folds the zero away.
    zero = jnp.where(False, x[0, 0, 0, 0], 0)
    return _loop_safe(x, kernel + zero, stride, padding)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _loop_safe(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    return _native(x, kernel, stride, padding)


def _loop_safe_forward(
    x: Array, kernel: Array, stride: int, padding: Padding
) -> tuple[Array, tuple[Array, Array]]:
    return _native(x, kernel, stride, padding), (x, kernel)


def _loop_safe_backward(
    stride: int, padding: Padding, kept: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
    """Gradients for x and kernel as convolutions in NHWC, HWIO order."""
    x, kernel = kept
    spread = (stride, stride)
    before = [low for low, _ in padding]
    # Each output's reach beyond x's end: how far dy, spread by the stride, falls short of it.
    short = [
        n + low - ((m - 1) * stride + 1)
        for n, m, low in zip(x.shape[1:3], dy.shape[1:3], before, strict=True)
    ]
    last = [size - 1 for size in kernel.shape[:2]]
    turned = jnp.flip(kernel, (0, 1)).transpose(0, 1, 3, 2)
    around = [(end - low, s) for end, low, s in zip(last, before, short, strict=True)]
    dx = _xla(dy, turned, padding=around, spread_x=spread)
    # The batch is summed over as a channel: x as [I, H, W, B], dy as a kernel [H', W', B, O].
    dk = _xla(
        x.transpose(3, 1, 2, 0),
        dy.transpose(1, 2, 0, 3),
        padding=[(low, end - s) for end, low, s in zip(last, before, short, strict=True)],
        spread_kernel=spread,
    )
    return dx, dk.transpose(1, 2, 0, 3)


_loop_safe.defvjp(_loop_safe_forward, _loop_safe_backward)
