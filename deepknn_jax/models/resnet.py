"""ResNet (He et al., 2016, arXiv:1512.03385) as torchvision builds it, without its fc layer.

ResNet-50 is torchvision's "v1.5": a bottleneck's stride is in its 3x3 convolution. Parameters carry
torchvision's names with "_" for "." inside a block's name (layer1.0.conv1.weight is
params/layer1_0/conv1/kernel). One difference in training: linen's running variance is the biased
one (divided by n), torch's the unbiased (n - 1); what a step computes is the same.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from deepknn_jax.models.layers.conv import Conv
from deepknn_jax.models.layers.norm import batch_norm
from deepknn_jax.models.layers.pool import max_pool, mean_pool


class ResNet(nn.Module):
    """Images [B, H, W, 3] -> embeddings [B, D] in `dtype`, D = 512 (basic) or 2048 (bottleneck).

    The embedding is the global average of the last block; with `embedding_size` a linear
    projection ("projection") of it. `depths` counts the blocks of each of the four layers; `block`
    makes one. `caffe` is the stem of networks that came from Caffe: its names begin with layer0,
    its max-pooling pads at the bottom and right only (torch's ceil_mode=True).
    `bn_axis` names the mapped axis over which BatchNorm takes its statistics in training.
    """

    depths: tuple[int, ...]
    block: Callable[..., nn.Module]
    caffe: bool = False
    embedding_size: int | None = None
    dtype: DTypeLike = jnp.float32
    bn_axis: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """[B, H, W, 3] -> [B, D] in `dtype`; `train`: normalise by the batch's statistics."""
        conv = partial(Conv, dtype=self.dtype)
        norm = batch_norm(train, self.dtype, self.bn_axis)
        stem, pad = ("layer0_", (0, 1)) if self.caffe else ("", (1, 1))
        x = conv(64, 7, stride=2, name=f"{stem}conv1")(x)
        x = nn.relu(norm(name=f"{stem}bn1")(x))
        x = max_pool(x, 3, stride=2, padding=pad)
        for i, depth in enumerate(self.depths):
            for j in range(depth):
                stride = 2 if i > 0 and j == 0 else 1
                x = self.block(64 * 2**i, stride, conv, norm, name=f"layer{i + 1}_{j}")(x)
        x = mean_pool(self, x)
        if self.embedding_size is not None:
            x = nn.Dense(self.embedding_size, dtype=self.dtype, name="projection")(x)
        return x


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut."""

    features: int
    stride: int
    conv: Any
    norm: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, I] -> [B, H / stride, W / stride, features]."""
        y = self.conv(self.features, 3, stride=self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.features, 3, name="conv2")(y)
        y = self.norm(name="bn2")(y)
        return nn.relu(y + shortcut(self, x, y.shape[-1]))


class BottleneckBlock(nn.Module):
    """A 1x1, a 3x3 (which carries the stride) and a 1x1 convolution, and the shortcut."""

    features: int
    stride: int
    conv: Any
    norm: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, I] -> [B, H / stride, W / stride, 4 * features]."""
        y = nn.relu(self.norm(name="bn1")(self.conv(self.features, 1, name="conv1")(x)))
        y = self.conv(self.features, 3, stride=self.stride, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y))
        y = self.norm(name="bn3")(self.conv(4 * self.features, 1, name="conv3")(y))
        return nn.relu(y + shortcut(self, x, y.shape[-1]))


def shortcut(block: Any, x: Array, features: int) -> Array:
    """A block's input [B, H, W, I], projected where its shape is not that of the output.

    `features` are the output's; the block's own conv, norm and stride make the projection.
    """
    if block.stride == 1 and x.shape[-1] == features:
        return x
    x = block.conv(features, 1, stride=block.stride, name="downsample_0")(x)
    return block.norm(name="downsample_1")(x)


ResNet18 = partial(ResNet, depths=(2, 2, 2, 2), block=BasicBlock)
ResNet34 = partial(ResNet, depths=(3, 4, 6, 3), block=BasicBlock)
ResNet50 = partial(ResNet, depths=(3, 4, 6, 3), block=BottleneckBlock)
ResNet101 = partial(ResNet, depths=(3, 4, 23, 3), block=BottleneckBlock)
