"""Inception-ResNet-v2 against timm's own."""

from collections import OrderedDict
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from jax.typing import DTypeLike
from support.interop import import_vision
from support.optional import require
from support.twins import count, embeddings_agree, gradients_agree, shaken, shapes

from deepknn_jax import models
from deepknn_jax.errors import UserError
from deepknn_jax.models.inception_resnet_v2 import (
    BLOCK17,
    MIXED_6A,
    InceptionResNetV2,
    Layer,
    Mixed5b,
    Reduction,
    Residual,
)
from deepknn_jax.models.layers.conv import Conv


def twin(depths=(10, 20, 9), seed=1):
    """timm's model without its classifier, cut to `depths` residual blocks."""
    model = import_vision("timm").create_model("inception_resnet_v2", num_classes=0)
    for name, depth in zip(("repeat", "repeat_1", "repeat_2"), depths, strict=True):
        setattr(model, name, getattr(model, name)[:depth])
    return shaken(model, seed)


def test_parameter_count_is_timms():
    classifier = 1536 * 1000 + 1000
    assert count(shapes(models.build("inception_resnet_v2"), 75)) == 55_843_464 - classifier


@pytest.mark.interop
def test_embeddings_equal_timms():
    """With one block of each kind; at 118 px pooling leaves out a row."""
    embeddings_agree(InceptionResNetV2((1, 1, 1)), twin((1, 1, 1)), (75, 118))


@pytest.mark.interop
@pytest.mark.slow
@pytest.mark.parametrize("size", [75, 224, 299])
def test_embeddings_of_all_blocks_equal_timms(size):
    embeddings_agree(models.build("inception_resnet_v2"), twin(), (size,))


class Middle(nn.Module):
    """One of each kind of block, on images small enough for float64."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x, train=False):
        conv = partial(Conv, dtype=self.dtype)
        norm = partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-3,
            dtype=self.dtype,
        )
        layer = partial(Layer, conv=conv, norm=norm)
        x = Mixed5b(layer, name="mixed_5b")(conv(192, 1, name="stem")(x))
        x = Reduction(MIXED_6A, layer, name="mixed_6a")(x)
        x = nn.relu(Residual(BLOCK17, 0.1, conv, layer, name="repeat_1_0")(x))
        return jnp.mean(x, axis=(1, 2))


@pytest.mark.interop
def test_training_gradients_and_statistics_of_its_blocks_equal_timms():
    layers, whole = require("torch").nn, twin((1, 1, 1))
    parts = {
        "stem": layers.Conv2d(3, 192, 1, bias=False),
        "mixed_5b": whole.mixed_5b,
        "mixed_6a": whole.mixed_6a,
        "repeat_1": whole.repeat_1,
        "mean": layers.AdaptiveAvgPool2d(1),
        "flat": layers.Flatten(),
    }
    gradients_agree(Middle, layers.Sequential(OrderedDict(parts)), 8)


@pytest.mark.interop
@pytest.mark.slow
def test_training_gradients_of_all_blocks_equal_timms():
    gradients_agree(lambda dtype: InceptionResNetV2(dtype=dtype), twin(), 75)


def test_a_smaller_image_is_refused():
    with pytest.raises(UserError, match=r"75 x 75 pixels and more, not 80 x 74: set `size`"):
        models.build("inception_resnet_v2").init(jax.random.key(0), jnp.zeros((1, 80, 74, 3)))
