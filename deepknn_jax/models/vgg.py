"""VGG (Simonyan & Zisserman, 2015, arXiv:1409.1556) as torchvision builds it, no BatchNorm.

The backbone is torchvision's `features`: the convolutions and poolings. Its embedding is the
global average of the last map, after the last pooling. The classifier's fc6 and fc7 (4096 wide)
are left out: they hold 119 of the network's 143.7 million parameters and fix the image's size.
Parameters carry torchvision's names (features.0.weight is params/features_0/kernel).
"""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from deepknn_jax.errors import UserError
from deepknn_jax.models.layers.conv import Conv
from deepknn_jax.models.layers.pool import max_pool, mean_pool


class VGG(nn.Module):
    """Images [B, H, W, 3] -> embeddings [B, D] in `dtype`, D = the last width.

    `stages` lists each stage's widths, one per 3x3 convolution (with bias, followed by ReLU); a
    stage ends in a 2x2 max-pooling that drops an odd last row or column. With `embedding_size` a
    linear projection ("projection") of the average. `bn_axis` is taken as by every backbone, and
    not used.
    """

    stages: tuple[tuple[int, ...], ...]
    embedding_size: int | None = None
    dtype: DTypeLike = jnp.float32
    bn_axis: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """[B, H, W, 3] -> [B, D] in `dtype`; `train` changes nothing.

        Raises:
            UserError: the poolings leave no pixel of images this small (VGG-19: below 32).
        """
        del train
        least = 2 ** len(self.stages)
        if min(x.shape[1:3]) < least:
            raise UserError(
                f"images of {x.shape[1]} x {x.shape[2]} px are too small for VGG: {least} at least"
            )
        index = 0  # torchvision counts a convolution, its ReLU and a pooling each as a layer
        for widths in self.stages:
            for width in widths:
                conv = Conv(width, 3, use_bias=True, dtype=self.dtype, name=f"features_{index}")
                x = nn.relu(conv(x))
                index += 2
            x = max_pool(x, 2, stride=2)
            index += 1
        x = mean_pool(self, x)
        if self.embedding_size is not None:
            x = nn.Dense(self.embedding_size, dtype=self.dtype, name="projection")(x)
        return x


VGG19 = partial(VGG, stages=((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4))
