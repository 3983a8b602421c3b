"""A small CNN for small images: 8 px digits, 28 px MNIST and MedMNIST, 64 px skin lesions."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from deepknn_jax.models.layers.conv import Conv
from deepknn_jax.models.layers.norm import batch_norm
from deepknn_jax.models.layers.pool import mean_pool


class SmallCNN(nn.Module):
    """Four 3x3 convolutions with BatchNorm and ReLU, global average pooling, a linear layer.

    Images [B, H, W, C] of 4 px and more -> embeddings [B, embedding_size or 64] in `dtype`.
    """

    embedding_size: int | None = None
    dtype: DTypeLike = jnp.float32
    bn_axis: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """[B, H, W, C] -> [B, D] in `dtype`; `train`: normalise by the batch's statistics."""
        # Strides, not pooling: a max-pool's gradient is slow on a CPU.
        for width, stride in ((32, 1), (64, 2), (128, 2), (128, 1)):
            x = Conv(width, 3, stride=stride, dtype=self.dtype)(x)
            x = nn.relu(batch_norm(train, self.dtype, self.bn_axis)()(x))
        x = mean_pool(self, x)
        return nn.Dense(self.embedding_size or 64, dtype=self.dtype)(x)
