"""The extractors of Neighborhood Watch (Thammasorn et al., 2019, arXiv:1911.07940, "Setting").

The paper gives the layers' widths and kernels, max-pooling after each convolution and leaky ReLU
max(0.01 x, x) after every layer, the last included; no BatchNorm, no dropout. Left open there and
chosen here:

- convolutions have stride 1 and zeros around (size // 2), so that maps keep their size and small
  images survive four poolings;
- pooling takes windows of 2 with stride 2; an odd last row is left out;
- the maps are flattened in the order (D,) H, W, C;
- kernels start He-normal (variance 2 / fan_in, which suits leaky ReLU), biases zero;
- the sarcoma network's "3x3" kernels are 3x3x3, its scans being volumes;
- `embedding_size` adds a linear projection after the paper's 128.
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax
from jax.typing import DTypeLike

from deepknn_jax.errors import UserError
from deepknn_jax.models.layers.conv import Conv, convolve
from deepknn_jax.models.layers.pool import max_pool

_he_normal = nn.initializers.he_normal()
_conv2d = partial(Conv, use_bias=True, kernel_init=_he_normal)


class Extractor(nn.Module):
    """Convolutions (`kernel` wide, each with max-pooling), then dense layers, all leaky ReLU.

    Images [B, H, W, C], volumes [B, D, H, W, C] or, without convolutions, vectors [B, F] ->
    embeddings [B, dense[-1] or embedding_size] in `dtype`. The network fits the size of input it
    was made with. `bn_axis` is every backbone's option; there is no BatchNorm to use it.
    Raises a UserError for images that the poolings leave nothing of.
    """

    channels: tuple[int, ...]
    kernel: int
    dense: tuple[int, ...]
    embedding_size: int | None = None
    dtype: DTypeLike = jnp.float32
    bn_axis: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """[B, ..., C] -> [B, D] in `dtype`; `train` changes nothing."""
        least = 2 ** len(self.channels)
        if self.channels and min(x.shape[1:-1]) < least:
            size = " x ".join(map(str, x.shape[1:-1]))
            raise UserError(
                f"{len(self.channels)} poolings leave nothing of images of {size}:"
                f" this model takes {least} pixels and more, set `size`"
            )
        convolution: Any = Conv3D if x.ndim == 5 else _conv2d
        for i, features in enumerate(self.channels):
            y = convolution(features, self.kernel, dtype=self.dtype, name=f"conv{i + 1}")(x)
            # The activation is monotone: after the pooling it gives the same for less work.
            x = nn.leaky_relu(max_pool(y, 2, stride=2))
        x = x.reshape(x.shape[0], -1)
        layer = partial(nn.Dense, dtype=self.dtype)
        for i, width in enumerate(self.dense):
            x = layer(width, kernel_init=_he_normal, name=f"dense{i + 1}")(x)
            x = nn.leaky_relu(x)
        if self.embedding_size is not None:
            x = layer(self.embedding_size, name="projection")(x)
        return x


class Conv3D(nn.Module):
    """A 3-D convolution of stride 1, zeros around; kernel [size, size, size, I, O], bias [O].

    `size` is odd. GPUs and TPUs get XLA's own. On a CPU it is computed in two dimensions on slices
    that carry their neighbours' channels: there (one volume of 64^3 through the four layers of
    `sarcoma_cnn`, forward and backward, jax 0.10.2, two busy cores) XLA's own takes 1.2 s, and
    3.1 s a step in a loop, as training runs it; this 0.4 s in both.
    """

    features: int
    size: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, D, H, W, I] -> [B, D, H, W, features] in `dtype`."""
        shape = (self.size,) * 3 + (x.shape[-1], self.features)
        kernel = self.param("kernel", _he_normal, shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        y = lax.platform_dependent(
            x.astype(self.dtype), kernel, cpu=_convolve_slices, default=_convolve_volumes
        )
        return y + bias.astype(self.dtype)[None, None, None, None, :]


def _convolve_volumes(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )


def _convolve_slices(x: Array, kernel: Array) -> Array:
    batch, depth, height, width, _ = x.shape
    size = kernel.shape[0]
    pad = (size // 2,) * 2
    x = jnp.pad(x, ((0, 0), pad, (0, 0), (0, 0), (0, 0)))
    x = jnp.concatenate([x[:, i : i + depth] for i in range(size)], axis=-1)
    y = convolve(
        x.reshape(batch * depth, height, width, -1),
        kernel.transpose(1, 2, 0, 3, 4).reshape(size, size, -1, kernel.shape[-1]),
        1,
        (pad, pad),
    )
    return y.reshape(batch, depth, height, width, -1)


MnistCNN = partial(Extractor, channels=(32, 64), kernel=3, dense=(128,))
FeedForward = partial(Extractor, channels=(), kernel=0, dense=(1024, 128))
EpidCNN = partial(Extractor, channels=(32, 32, 32, 32), kernel=5, dense=(1024, 128))
SarcomaCNN = partial(Extractor, channels=(16, 32, 64, 128), kernel=3, dense=(1024, 128))
