"""DenseNet-BC (Huang et al., 2017, arXiv:1608.06993) as torchvision builds it, no classifier.

Parameters carry torchvision's names with "_" for "." (features.denseblock1.denselayer1.conv1.weight
is params/features_denseblock1_denselayer1/conv1/kernel). As in resnet.py, linen's running variance
is the biased one.
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from deepknn_jax.errors import UserError
from deepknn_jax.models.layers.conv import Conv
from deepknn_jax.models.layers.norm import batch_norm
from deepknn_jax.models.layers.pool import max_pool, mean_pool


class DenseNet(nn.Module):
    """Images [B, H, W, 3] -> embeddings [B, D] in `dtype`; D = 1024 for DenseNet-121.

    `depths` counts the layers of each block; a layer adds `growth` channels to the map, and half of
    the channels pass from one block to the next. The embedding is the global average of
    relu(norm5(last block)); with `embedding_size` a linear projection ("projection") of it.
    `bn_axis` names the mapped axis over which BatchNorm takes its statistics in training.
    """

    depths: tuple[int, ...]
    growth: int = 32
    stem_features: int = 64
    embedding_size: int | None = None
    dtype: DTypeLike = jnp.float32
    bn_axis: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """[B, H, W, 3] -> [B, D] in `dtype`; `train`: normalise by the batch's statistics.

        Raises:
            UserError: the poolings leave no pixel of images this small (DenseNet-121: below 29).
        """
        least = 4 * 2 ** (len(self.depths) - 1) - 3
        if min(x.shape[1:3]) < least:
            raise UserError(
                f"images of {x.shape[1]} x {x.shape[2]} px are too small for DenseNet: "
                f"{least} at least"
            )
        init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")  # torchvision's here
        conv = partial(Conv, dtype=self.dtype, kernel_init=init)
        norm = batch_norm(train, self.dtype, self.bn_axis)
        x = conv(self.stem_features, 7, stride=2, name="features_conv0")(x)
        x = nn.relu(norm(name="features_norm0")(x))
        x = max_pool(x, 3, stride=2, padding=(1, 1))
        for i, depth in enumerate(self.depths, 1):
            if i > 1:
                name = f"features_transition{i - 1}"
                x = nn.relu(norm(name=f"{name}_norm")(x))
                x = conv(x.shape[-1] // 2, 1, name=f"{name}_conv")(x)
                x = nn.avg_pool(x, (2, 2), strides=(2, 2))
            for j in range(1, depth + 1):
                name = f"features_denseblock{i}_denselayer{j}"
                new = DenseLayer(self.growth, conv, norm, name=name)(x)
                x = jnp.concatenate([x, new], axis=-1)
        x = mean_pool(self, nn.relu(norm(name="features_norm5")(x)))
        if self.embedding_size is not None:
            x = nn.Dense(self.embedding_size, dtype=self.dtype, name="projection")(x)
        return x


class DenseLayer(nn.Module):
    """A 1x1 convolution to 4 * growth channels and a 3x3 to growth, each after BatchNorm, ReLU."""

    growth: int
    conv: Any
    norm: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, I] -> [B, H, W, growth]: the channels to add."""
        y = self.conv(4 * self.growth, 1, name="conv1")(nn.relu(self.norm(name="norm1")(x)))
        return self.conv(self.growth, 3, name="conv2")(nn.relu(self.norm(name="norm2")(y)))


DenseNet121 = partial(DenseNet, depths=(6, 12, 24, 16))
