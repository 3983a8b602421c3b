"""SE-ResNet-50 (Hu et al., 2018, arXiv:1709.01507) in its two published forms, without fc.

- `SEResNet50` is timm's seresnet50: torchvision's ResNet-50 with a gate in every block.
- `LegacySEResNet50` is timm's legacy_seresnet50, which is Cadene's: the authors' Caffe weights, and
  so what was to be had when the Deep kNN paper was written. A block's stride is in its first
  convolution, and the stem differs (see ResNet's `caffe`).

Parameters carry timm's names (layer1.0.se.fc1.weight is params/layer1_0/se/fc1/kernel).
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from deepknn_jax.models.resnet import ResNet, shortcut


class SEBottleneckBlock(nn.Module):
    """A bottleneck whose channels are weighted by a gate before the shortcut is added.

    The stride is in the 3x3 convolution; with `caffe` in the first 1x1.
    """

    features: int
    stride: int
    conv: Any
    norm: Any
    caffe: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, I] -> [B, H / stride, W / stride, 4 * features]."""
        first, second = (self.stride, 1) if self.caffe else (1, self.stride)
        y = self.conv(self.features, 1, stride=first, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.features, 3, stride=second, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y))
        y = self.norm(name="bn3")(self.conv(4 * self.features, 1, name="conv3")(y))
        y = y * Gate(self.conv, name="se_module" if self.caffe else "se")(y)
        return nn.relu(y + shortcut(self, x, y.shape[-1]))


class Gate(nn.Module):
    """Squeeze and excitation (eq. 2-3): a weight in (0, 1) for each channel of each image."""

    conv: Any
    reduction: int = 16

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, C] -> [B, 1, 1, C]."""
        z = jnp.mean(x, axis=(1, 2), keepdims=True)
        z = self.conv(x.shape[-1] // self.reduction, 1, use_bias=True, name="fc1")(z)
        z = self.conv(x.shape[-1], 1, use_bias=True, name="fc2")(nn.relu(z))
        return nn.sigmoid(z)


SEResNet50 = partial(ResNet, depths=(3, 4, 6, 3), block=SEBottleneckBlock)
LegacySEResNet50 = partial(
    ResNet, depths=(3, 4, 6, 3), block=partial(SEBottleneckBlock, caffe=True), caffe=True
)
