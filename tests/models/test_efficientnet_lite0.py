"""EfficientNet-Lite0 against timm's own."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st
from support.interop import import_vision
from support.optional import require
from support.twins import count, embeddings_agree, gradients_agree, shaken, shapes

from deepknn_jax import models
from deepknn_jax.models.efficientnet_lite0 import LITE0, Block, EfficientNetLite0, same_padding
from deepknn_jax.models.layers.conv import Conv


def twin():
    """timm's model without its classifier."""
    timm = import_vision("timm")
    return shaken(timm.create_model("tf_efficientnet_lite0", num_classes=0), seed=1)


def test_parameter_count_is_timms():
    classifier = 1280 * 1000 + 1000
    assert count(shapes(models.build("efficientnet_lite0"), 64)) == 4_652_008 - classifier


@pytest.mark.interop
def test_embeddings_equal_timms():
    embeddings_agree(models.build("efficientnet_lite0"), twin(), (64, 75))


@pytest.mark.interop
@pytest.mark.slow
def test_embeddings_equal_timms_at_224():
    embeddings_agree(models.build("efficientnet_lite0"), twin(), (224,))


@pytest.mark.interop
def test_training_gradients_and_statistics_equal_timms():
    """The first three stages, which have every kind of block, and the head."""
    timm = import_vision("timm.models.efficientnet")
    layers = require("torch").nn
    theirs = timm.EfficientNet(
        timm.decode_arch_def(
            [["ds_r1_k3_s1_e1_c16"], ["ir_r2_k3_s2_e6_c24"], ["ir_r1_k5_s2_e6_c40"]]
        ),
        num_classes=0,
        num_features=1280,
        pad_type="same",
        act_layer=layers.ReLU6,
        norm_layer=partial(layers.BatchNorm2d, eps=1e-3),
    )
    stages = (LITE0[0], LITE0[1], (1, *LITE0[2][1:]))
    gradients_agree(
        lambda dtype: EfficientNetLite0(stages, dtype=dtype), shaken(theirs, seed=2), 33
    )


@pytest.mark.interop
@given(n=st.integers(1, 40), size=st.integers(1, 7), stride=st.integers(1, 4))
def test_same_padding_is_timms(n, size, stride):
    padding = import_vision("timm.layers.padding")
    left, right, top, bottom = padding.pad_same_arg([n, n + 1], [size, size], [stride, stride])
    assert same_padding(np.zeros((1, n, n + 1, 1)), size, stride) == ((top, bottom), (left, right))


@pytest.mark.interop
def test_depthwise_kernels_are_drawn_as_timms():
    """Their deviation is that of one channel's fan, not of all channels'."""
    block = Block(192, 6, 5, 1, Conv, partial(nn.BatchNorm, use_running_average=True))
    variables = block.init(jax.random.key(0), jnp.zeros((1, 3, 3, 192)))
    require("torch").manual_seed(0)
    theirs = import_vision("timm").create_model("tf_efficientnet_lite0").blocks[5][3]
    for name in ("conv_dw", "conv_pwl"):
        ours = variables["params"][name]["kernel"]
        expected = getattr(theirs, name).weight.std().item()
        np.testing.assert_allclose(ours.std(), expected, rtol=0.05)
