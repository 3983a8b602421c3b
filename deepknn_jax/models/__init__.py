"""Backbones by name: images or features in, embeddings out."""

import difflib
from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from deepknn_jax.errors import UserError
from deepknn_jax.models.cnn import SmallCNN
from deepknn_jax.models.mlp import MLP
from deepknn_jax.models.resnet import ResNet18, ResNet34, ResNet50, ResNet101

BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "cnn": SmallCNN,
    "mlp": MLP,
    "resnet18": ResNet18,
    "resnet34": ResNet34,
    "resnet50": ResNet50,
    "resnet101": ResNet101,
}


def build(
    name: str,
    *,
    embedding_size: int | None = None,
    dtype: DTypeLike = jnp.float32,
    bn_axis: str | None = None,
) -> nn.Module:
    """The backbone `name`; its `apply(variables, x, train=False)` gives embeddings [B, D].

    x is [B, H, W, C] (mlp: [B, F]), normalised floats. D is the backbone's own width (cnn 64, mlp
    128, resnet18 512, resnet50 2048) or `embedding_size`. Parameters and BatchNorm statistics are
    float32; layers compute in `dtype` and embeddings leave in it (the losses cast up). In training
    BatchNorm's statistics are those of all devices along the mapped axis `bn_axis`.

    Raises:
        UserError: no backbone has that name.
    """
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"no model is named {name!r}: {hint}there are {', '.join(BACKBONES)}")
    return BACKBONES[name](embedding_size=embedding_size, dtype=dtype, bn_axis=bn_axis)
