"""A backbone, and a classifier head where the loss or the report needs one."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax


class Network(nn.Module):
    """Inputs -> (embeddings [B, D] in the backbone's dtype, logits [B, C] or None).

    `num_classes` (C) adds a linear head, in float32 at least; None: no head and no logits.
    `normalize` divides each embedding by its L2 norm. The head sees the embedding before that: on
    the unit sphere its logits would be bounded and the softmax could not become sure.
    Parameters stand under "backbone" and "head".
    """

    backbone: nn.Module
    num_classes: int | None = None
    normalize: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> tuple[Array, Array | None]:
        """[B, ...] -> (embeddings, logits); `train`: BatchNorm by the batch's statistics."""
        embeddings_BxD = self.backbone(x, train)
        logits_BxC = None
        if self.num_classes is not None:
            dtype = jnp.promote_types(embeddings_BxD.dtype, jnp.float32)
            logits_BxC = nn.Dense(self.num_classes, dtype=dtype, name="head")(embeddings_BxD)
        if self.normalize:
            embeddings_BxD = l2_normalize(embeddings_BxD)
        return embeddings_BxD, logits_BxC


def l2_normalize(x_BxD: Array) -> Array:
    """Each row by its L2 norm (taken in float32 at least), in x's dtype.

    A row shorter than 1e-12 is left as it is, so that its gradient is finite and not huge.
    """
    x = x_BxD.astype(jnp.promote_types(x_BxD.dtype, jnp.float32))
    squares_Bx1 = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    safe_Bx1 = jnp.where(squares_Bx1 > 1e-24, squares_Bx1, 1.0)
    return (x * lax.rsqrt(safe_Bx1)).astype(x_BxD.dtype)
