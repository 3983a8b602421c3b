"""Inception-ResNet-v2 (Szegedy et al., 2017, arXiv:1602.07261) as timm builds it, without classif.

Parameters carry timm's names with "_" for "." (repeat.0.branch1.1.conv.weight is
params/repeat_0/branch1_1/conv/kernel). Initial kernels are those of layers/conv.py (timm leaves
torch's own). The variance that linen keeps in training is the biased one (see resnet.py).
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

LEAST = 75  # pixels of a side; below, the last reduction has no position left

# A layer is (features, size[, stride, padding]), a path its layers in turn.
Path = tuple[tuple[Any, ...], ...]

MIXED_5B: tuple[Path, ...] = (
    ((96, 1),),
    ((48, 1), (64, 5)),
    ((64, 1), (96, 3), (96, 3)),
)
BLOCK35: tuple[Path, ...] = (
    ((32, 1),),
    ((32, 1), (32, 3)),
    ((32, 1), (48, 3), (64, 3)),
)
BLOCK17: tuple[Path, ...] = (
    ((192, 1),),
    ((128, 1), (160, (1, 7)), (192, (7, 1))),
)
BLOCK8: tuple[Path, ...] = (
    ((192, 1),),
    ((192, 1), (224, (1, 3)), (256, (3, 1))),
)
MIXED_6A: tuple[Path, ...] = (
    ((384, 3, 2, 0),),
    ((256, 1), (256, 3), (384, 3, 2, 0)),
)
MIXED_7A: tuple[Path, ...] = (
    ((256, 1), (384, 3, 2, 0)),
    ((256, 1), (288, 3, 2, 0)),
    ((256, 1), (288, 3), (320, 3, 2, 0)),
)


class InceptionResNetV2(nn.Module):
    """Images [B, H, W, 3] of 75 px and more -> embeddings [B, 1536 or embedding_size] in `dtype`.

    The embedding is the global average of the last layer; with `embedding_size` a linear
    projection ("projection") of it. `depths` counts the residual blocks of the three scales (the
    last scale has one more, without ReLU). `bn_axis` names the mapped axis over which BatchNorm
    takes its statistics in training. Raises a UserError for smaller images.
    """

    depths: tuple[int, int, int] = (10, 20, 9)
    embedding_size: int | None = None
    dtype: DTypeLike = jnp.float32
    bn_axis: str | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        """[B, H, W, 3] -> [B, D] in `dtype`; `train`: normalise by the batch's statistics."""
        if min(x.shape[1:3]) < LEAST:
            size = " x ".join(map(str, x.shape[1:3]))
            raise UserError(
                f"inception_resnet_v2 takes images of {LEAST} x {LEAST} pixels and more, not"
                f" {size}: set `size`"
            )
        norm = batch_norm(train, self.dtype, self.bn_axis, 1e-3)
        conv = partial(Conv, dtype=self.dtype)
        layer = partial(Layer, conv=conv, norm=norm)
        residual = partial(Residual, conv=conv, layer=layer)
        x = layer(32, 3, 2, 0, name="conv2d_1a")(x)
        x = layer(32, 3, 1, 0, name="conv2d_2a")(x)
        x = layer(64, 3, name="conv2d_2b")(x)
        x = layer(80, 1, name="conv2d_3b")(max_pool(x, 3, stride=2))
        x = layer(192, 3, 1, 0, name="conv2d_4a")(x)
        x = Mixed5b(layer, name="mixed_5b")(max_pool(x, 3, stride=2))
        for i in range(self.depths[0]):
            x = nn.relu(residual(BLOCK35, 0.17, name=f"repeat_{i}")(x))
        x = Reduction(MIXED_6A, layer, name="mixed_6a")(x)
        for i in range(self.depths[1]):
            x = nn.relu(residual(BLOCK17, 0.1, name=f"repeat_1_{i}")(x))
        x = Reduction(MIXED_7A, layer, name="mixed_7a")(x)
        for i in range(self.depths[2]):
            x = nn.relu(residual(BLOCK8, 0.2, name=f"repeat_2_{i}")(x))
        x = residual(BLOCK8, 1.0, name="block8")(x)
        x = layer(1536, 1, name="conv2d_7b")(x)
        x = mean_pool(self, x)
        if self.embedding_size is not None:
            x = nn.Dense(self.embedding_size, dtype=self.dtype, name="projection")(x)
        return x


class Layer(nn.Module):
    """A convolution, BatchNorm and ReLU."""

    features: int
    size: int | tuple[int, int]
    stride: int = 1
    padding: int | None = None
    conv: Any = Conv
    norm: Any = nn.BatchNorm

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, I] -> [B, H', W', features]; H' = H unless a stride or a padding is given."""
        x = self.conv(self.features, self.size, self.stride, self.padding, name="conv")(x)
        return nn.relu(self.norm(name="bn")(x))


class Residual(nn.Module):
    """x + scale * (the paths side by side, brought to x's width by a 1x1 convolution)."""

    paths: tuple[Path, ...]
    scale: float
    conv: Any
    layer: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, I] -> the same shape."""
        y = jnp.concatenate(_through(self.paths, self.layer, x), axis=-1)
        return x + self.scale * self.conv(x.shape[-1], 1, use_bias=True, name="conv2d")(y)


class Reduction(nn.Module):
    """The paths and a max-pooling side by side, each with stride 2 and no padding."""

    paths: tuple[Path, ...]
    layer: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, I] -> [B, (H - 1) // 2, (W - 1) // 2, the paths' widths + I]."""
        return jnp.concatenate(
            [*_through(self.paths, self.layer, x), max_pool(x, 3, stride=2)], axis=-1
        )


class Mixed5b(nn.Module):
    """Three paths and an average over each pixel's neighbours inside the image, side by side."""

    layer: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, H, W, I] -> [B, H, W, 320]."""
        around = ((1, 1), (1, 1))
        mean = nn.avg_pool(x, (3, 3), padding=around, count_include_pad=False)
        # timm counts the pooling as layer 0 of its path.
        pooled = self.layer(64, 1, name="branch3_1")(mean)
        return jnp.concatenate([*_through(MIXED_5B, self.layer, x), pooled], axis=-1)


def _through(paths: tuple[Path, ...], layer: Any, x: Array) -> list[Array]:
    """X through each path; timm numbers a path's layers where it has several."""
    outputs = []
    for i, path in enumerate(paths):
        y = x
        for j, options in enumerate(path):
            number = f"_{j}" if len(path) > 1 else ""
            y = layer(*options, name=f"branch{i}{number}")(y)
        outputs.append(y)
    return outputs
