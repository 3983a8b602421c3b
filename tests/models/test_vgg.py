"""VGG against torchvision's own."""

import jax
import jax.numpy as jnp
import pytest
from support.interop import import_vision
from support.optional import require
from support.twins import count, embeddings_agree, gradients_agree, shapes

from deepknn_jax import models
from deepknn_jax.errors import UserError
from deepknn_jax.models.vgg import VGG


def twin(plan):
    """torchvision's VGG of this plan (numbers are widths, "M" a pooling), its features averaged."""
    torch, vgg = require("torch"), import_vision("torchvision.models.vgg")
    torch.manual_seed(1)
    features = vgg.make_layers(plan)
    for layer in features:
        if isinstance(layer, torch.nn.Conv2d):
            # torch's own kernels shrink the signal layer by layer, until the biases are all.
            torch.nn.init.kaiming_normal_(layer.weight)
            torch.nn.init.uniform_(layer.bias, -0.5, 0.5)
    model = vgg.VGG(features, num_classes=1, init_weights=False)
    model.avgpool = torch.nn.AdaptiveAvgPool2d(1)
    model.classifier = torch.nn.Identity()
    return model


def vgg19():
    return twin(import_vision("torchvision.models.vgg").cfgs["E"])


def test_parameter_count_is_torchvisions_without_the_classifier():
    classifier = 512 * 49 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000
    assert count(shapes(models.build("vgg19"), 32)) == 143_667_240 - classifier


@pytest.mark.interop
def test_embeddings_equal_torchvisions():
    embeddings_agree(models.build("vgg19"), vgg19(), (64, 75))


@pytest.mark.interop
@pytest.mark.slow
def test_embeddings_equal_torchvisions_at_224():
    embeddings_agree(models.build("vgg19"), vgg19(), (224,))


@pytest.mark.interop
def test_training_gradients_equal_torchvisions():
    """22 px, 11, 5: the second and the third pooling drop a row and a column."""
    theirs = twin([8, "M", 12, 12, "M", 16, "M"])
    gradients_agree(lambda dtype: VGG(((8,), (12, 12), (16,)), dtype=dtype), theirs, 22)


def test_images_without_a_last_map_are_refused():
    model = models.build("vgg19")
    with pytest.raises(UserError, match=r"40 x 31 px are too small for VGG: 32 at least"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 40, 31, 3)))
