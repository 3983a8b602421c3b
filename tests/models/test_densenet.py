"""DenseNet against torchvision's own."""

import jax
import jax.numpy as jnp
import pytest
from support.interop import import_vision
from support.optional import require
from support.twins import count, embeddings_agree, gradients_agree, shaken, shapes

from deepknn_jax import models
from deepknn_jax.errors import UserError
from deepknn_jax.models.densenet import DenseNet


def twin(**kwargs):
    """torchvision's DenseNet, by default DenseNet-121, without its classifier."""
    model = import_vision("torchvision.models").DenseNet(**kwargs)
    model.classifier = require("torch").nn.Identity()
    return shaken(model, seed=1)


def test_parameter_count_is_torchvisions_without_the_classifier():
    assert count(shapes(models.build("densenet121"), 32)) == 7_978_856 - (1024 * 1000 + 1000)


@pytest.mark.interop
@pytest.mark.parametrize(
    "size", [64, *(pytest.param(size, marks=pytest.mark.slow) for size in (75, 224))]
)
def test_embeddings_equal_torchvisions(size):
    embeddings_agree(models.build("densenet121"), twin(), (size,))


def shallow():
    return twin(growth_rate=6, block_config=(2, 2), num_init_features=10)


@pytest.mark.interop
def test_embeddings_of_an_odd_size_equal_torchvisions():
    """75 px, 38, 19, 9: the transition drops a row and a column."""
    embeddings_agree(DenseNet((2, 2), 6, 10), shallow(), (75,))


@pytest.mark.interop
def test_training_gradients_and_statistics_equal_torchvisions():
    gradients_agree(lambda dtype: DenseNet((2, 2), 6, 10, dtype=dtype), shallow(), 27)


@pytest.mark.parametrize("pixels", [28, 29])
def test_images_without_a_last_map_are_refused(pixels):
    model = models.build("densenet121")
    x = jnp.zeros((1, pixels, 40, 3))
    if pixels < 29:
        with pytest.raises(UserError, match=r"28 x 40 px are too small for DenseNet: 29 at least"):
            jax.eval_shape(model.init, jax.random.key(0), x)
    else:
        embeddings, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
        assert embeddings.shape == (1, 1024)
