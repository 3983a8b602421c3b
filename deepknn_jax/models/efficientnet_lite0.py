"""EfficientNet-Lite0 as timm builds it (tf_efficientnet_lite0), without its classifier.

EfficientNet-B0 (Tan and Le, 2019, arXiv:1905.11946) with ReLU6 for swish and without
squeeze-and-excitation, as TensorFlow's tpu/models/official/efficientnet/lite has it. Parameters
carry timm's names with "_" for "." (blocks.1.0.conv_dw.weight is params/blocks_1_0/conv_dw/kernel).
Drop path and dropout, which timm leaves off too unless asked, are not here. The variance that
linen keeps in training is the biased one (see resnet.py).
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from deepknn_jax.models.layers.conv import Conv, Padding
from deepknn_jax.models.layers.norm import batch_norm
from deepknn_jax.models.layers.pool import mean_pool

Stage = tuple[int, int, int, int, int]  # blocks, expansion, kernel, first block's stride, width

LITE0: tuple[Stage, ...] = (
    (1, 1, 3, 1, 16),
    (2, 6, 3, 2, 24),
    (2, 6, 5, 2, 40),
    (3, 6, 3, 2, 80),
    (3, 6, 5, 1, 112),
    (4, 6, 5, 2, 192),
    (1, 6, 3, 1, 320),
)

# timm's for depthwise kernels: variance 2 / (fan_out / groups), which is 2 / fan_in here.
_depthwise_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class EfficientNetLite0(nn.Module):
    """Images [B, H, W, 3] -> embeddings [B, 1280 or embedding_size] in `dtype`.

    The embedding is the global average after the head convolution, its BatchNorm and ReLU6; with
    `embedding_size` a linear projection ("projection") of it. `bn_axis` names the mapped axis over
    which BatchNorm takes its statistics in training.
    """

    stages: tuple[Stage, ...] = LITE0
    embedding_size: int | None = None
    dtype: DTypeLike = jnp.float32
    bn_axis: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """[B, H, W, 3] -> [B, D] in `dtype`; `train`: normalise by the batch's statistics."""
        conv = partial(Conv, dtype=self.dtype)
        norm = batch_norm(train, self.dtype, self.bn_axis, 1e-3)
        x = conv(32, 3, stride=2, padding=same_padding(x, 3, 2), name="conv_stem")(x)
        x = nn.relu6(norm(name="bn1")(x))
        for i, (blocks, expansion, size, stride, width) in enumerate(self.stages):
            for j in range(blocks):
                step = stride if j == 0 else 1
                x = Block(width, expansion, size, step, conv, norm, name=f"blocks_{i}_{j}")(x)
        x = nn.relu6(norm(name="bn2")(conv(1280, 1, name="conv_head")(x)))
        x = mean_pool(self, x)
        if self.embedding_size is not None:
            x = nn.Dense(self.embedding_size, dtype=self.dtype, name="projection")(x)
        return x


class Block(nn.Module):
    """The inverted residual: 1x1 to `expansion` times the width, depthwise, 1x1 without activation.

    With expansion 1 the first convolution is left out. The input is added where shapes allow.
    """

    features: int
    expansion: int
    size: int
    stride: int
    conv: Any
    norm: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, I] -> [B, ceil(H / stride), ceil(W / stride), features]."""
        if self.expansion == 1:  # timm numbers what is there, and calls its last one conv_pw
            y, depthwise_norm, last, last_norm = x, "bn1", "conv_pw", "bn2"
        else:
            depthwise_norm, last, last_norm = "bn2", "conv_pwl", "bn3"
            y = self.conv(self.expansion * x.shape[-1], 1, name="conv_pw")(x)
            y = nn.relu6(self.norm(name="bn1")(y))
        y = self.conv(
            y.shape[-1],
            self.size,
            stride=self.stride,
            padding=same_padding(y, self.size, self.stride),
            groups=y.shape[-1],
            kernel_init=_depthwise_init,
            name="conv_dw",
        )(y)
        y = nn.relu6(self.norm(name=depthwise_norm)(y))
        y = self.norm(name=last_norm)(self.conv(self.features, 1, name=last)(y))
        return y + x if y.shape == x.shape else y


def same_padding(x: Array, size: int, stride: int) -> Padding:
    """TensorFlow's "SAME" for x [B, H, W, C]: ceil(H / stride) rows, the odd zero at the end."""

    def pair(n: int) -> tuple[int, int]:
        total = max((-(-n // stride) - 1) * stride + size - n, 0)
        return total // 2, total - total // 2

    return pair(x.shape[1]), pair(x.shape[2])
