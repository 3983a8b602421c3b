"""The three-layer MLP over feature vectors (Deep kNN, table 4: features of a frozen network)."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from deepknn_jax.models.norm import batch_norm


class MLP(nn.Module):
    """F-512-256-128: BatchNorm and ReLU after the first two layers, the last linear.

    Inputs [B, ...] are flattened to [B, F]; embeddings [B, embedding_size or 128] in `dtype`.
    """

    embedding_size: int | None = None
    dtype: DTypeLike = jnp.float32
    bn_axis: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """[B, ...] -> [B, D] in `dtype`; `train`: normalise by the batch's statistics."""
        x = x.reshape(len(x), -1)
        for width in (512, 256):
            # No bias: BatchNorm would take it out again.
            x = nn.Dense(width, use_bias=False, dtype=self.dtype)(x)
            x = nn.relu(batch_norm(train, self.dtype, self.bn_axis)()(x))
        return nn.Dense(self.embedding_size or 128, dtype=self.dtype)(x)
