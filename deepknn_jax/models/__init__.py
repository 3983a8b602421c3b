"""Backbones by name: images, volumes or features in, embeddings out; a family a file.

Import what __all__ names. The room imports no other.
"""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from deepknn_jax.errors import UserError, check_choice
from deepknn_jax.models.cnn import SmallCNN
from deepknn_jax.models.densenet import DenseNet121
from deepknn_jax.models.efficientnet_lite0 import EfficientNetLite0
from deepknn_jax.models.inception_resnet_v2 import InceptionResNetV2
from deepknn_jax.models.linear import LinearMap
from deepknn_jax.models.mlp import MLP
from deepknn_jax.models.neighborhood_watch import EpidCNN, FeedForward, MnistCNN, SarcomaCNN
from deepknn_jax.models.resnet import ResNet18, ResNet34, ResNet50, ResNet101
from deepknn_jax.models.seresnet import LegacySEResNet50, SEResNet50
from deepknn_jax.models.vgg import VGG19
from deepknn_jax.models.weights.load import load_weights, preprocessing

__all__ = ["BACKBONES", "INPUTS", "build", "load_weights", "preprocessing"]

BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "cnn": SmallCNN,
    "mlp": MLP,
    "resnet18": ResNet18,
    "resnet34": ResNet34,
    "resnet50": ResNet50,
    "resnet101": ResNet101,
    "seresnet50": SEResNet50,
    "legacy_seresnet50": LegacySEResNet50,
    "vgg19": VGG19,
    "densenet121": DenseNet121,
    "efficientnet_lite0": EfficientNetLite0,
    "inception_resnet_v2": InceptionResNetV2,
    "mnist_cnn": MnistCNN,
    "feed_forward": FeedForward,
    "epid_cnn": EpidCNN,
    "sarcoma_cnn": SarcomaCNN,
    "linear": LinearMap,
}

# What the backbones take that do not take images; all others do.
INPUTS = {
    "mlp": "feature vectors",
    "linear": "feature vectors",
    "feed_forward": "feature vectors",
    "sarcoma_cnn": "volumes",
}


def build(
    name: str,
    *,
    embedding_size: int | None = None,
    dtype: DTypeLike = jnp.float32,
    bn_axis: str | None = None,
    dropout: float = 0.0,
) -> nn.Module:
    """The backbone `name`; its `apply(variables, x, train=False)` gives embeddings [B, D].

    x is [B, H, W, C] (see INPUTS: vectors [B, F], volumes [B, D, H, W, C]), normalised floats. D is
    `embedding_size` or the backbone's own width: cnn 64; linear F; mlp and the extractors of
    Neighborhood Watch (mnist_cnn, feed_forward, epid_cnn, sarcoma_cnn) 128; vgg19, resnet18 and
    resnet34 512; densenet121 1024; efficientnet_lite0 1280; inception_resnet_v2 1536; the other
    ResNets 2048. Parameters and BatchNorm statistics are float32; layers compute in `dtype` and
    embeddings leave in it (the losses cast up). In training BatchNorm's statistics are those of all
    devices along the mapped axis `bn_axis`. `dropout` is the mlp's.

    Raises:
        UserError: no backbone has that name; it has no dropout.
    """
    check_choice("`model`", name, BACKBONES)
    options = {"dropout": dropout} if dropout else {}
    if dropout and name != "mlp":
        raise UserError(f"{name} has no dropout, only mlp has: leave `dropout` at 0")
    return BACKBONES[name](embedding_size=embedding_size, dtype=dtype, bn_axis=bn_axis, **options)
