"""The three-layer MLP over feature vectors (Deep kNN, table 4: features of a frozen network)."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax
from jax.typing import DTypeLike

from deepknn_jax.models.layers.norm import batch_norm


class MLP(nn.Module):
    """F-512-256-128: BatchNorm and ReLU after the first two layers, the last linear.

    Inputs [B, ...] are flattened to [B, F]; embeddings [B, embedding_size or 128] in `dtype`. In
    training each of the 512 and 256 is zeroed with the probability `dropout` (not in the paper), by
    the rng stream of that name. `hidden`: other widths than the paper's, and other numbers of them.
    """

    embedding_size: int | None = None
    dtype: DTypeLike = jnp.float32
    bn_axis: str | None = None
    dropout: float = 0.0
    hidden: tuple[int, ...] = (512, 256)

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """[B, ...] -> [B, D] in `dtype`; `train`: normalise by the batch's statistics."""
        x = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            # No bias: BatchNorm would take it out again.
            x = nn.Dense(width, use_bias=False, dtype=self.dtype)(x)
            x = nn.relu(batch_norm(train, self.dtype, self.bn_axis)()(x))
            if train and self.dropout:
                x = self._dropped(x)
        return nn.Dense(self.embedding_size or 128, dtype=self.dtype)(x)

    def _dropped(self, x: Array) -> Array:
        """`x` [b, F] with dropout; the mask is cut from the whole batch's, whatever the devices."""
        count: int = 1
        part: Array | int = 0
        if self.bn_axis is not None:
            count, part = lax.axis_size(self.bn_axis), lax.axis_index(self.bn_axis)
        keep = 1.0 - self.dropout
        rows, width = x.shape
        kept_BxF = jax.random.bernoulli(self.make_rng("dropout"), keep, (count * rows, width))
        kept_bxF = lax.dynamic_slice_in_dim(kept_BxF, part * rows, rows)
        return jnp.where(kept_bxF, x / keep, 0.0)
