"""A linear map of feature vectors (Deep kNN, table 3: what NCA and LMNN learn)."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Initializer
from jax import Array
from jax.typing import DTypeLike


def isometry(key: Array, shape: tuple[int, int], dtype: DTypeLike = jnp.float32) -> Array:
    """The identity [F, F], or random orthonormal rows or columns [F, D]; an initialiser.

    For D >= F the distances of the inputs are kept, for D < F they are those of a projection.
    """
    if shape[0] == shape[1]:
        return jnp.eye(shape[0], dtype=dtype)
    return jax.nn.initializers.orthogonal()(key, shape, dtype)


class LinearMap(nn.Module):
    """F-D without a bias, which no distance would see; `kernel` [F, D] starts as an `isometry`.

    Inputs [B, ...] are flattened to [B, F]; embeddings [B, embedding_size or F] in `dtype`. There
    is no BatchNorm: `bn_axis` is taken, as by every backbone, and not used.
    """

    embedding_size: int | None = None
    dtype: DTypeLike = jnp.float32
    bn_axis: str | None = None
    kernel_init: Initializer = isometry

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """[B, ...] -> [B, D] in `dtype`; training and evaluation do not differ."""
        x = x.reshape(x.shape[0], -1)
        width = self.embedding_size or x.shape[1]
        return nn.Dense(width, use_bias=False, dtype=self.dtype, kernel_init=self.kernel_init)(x)
