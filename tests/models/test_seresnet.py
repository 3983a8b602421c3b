"""Both SE-ResNets against timm's own."""

import pytest
from support.interop import import_vision
from support.twins import count, embeddings_agree, gradients_agree, shaken, shapes

from deepknn_jax import models
from deepknn_jax.models.seresnet import LegacySEResNet50, SEResNet50

NAMES = ["seresnet50", "legacy_seresnet50"]
LEGACY_SLOW = ["seresnet50", pytest.param("legacy_seresnet50", marks=pytest.mark.slow)]
SHALLOW = (1, 1, 1, 1)


def twin(name):
    """timm's model `name` without its classifier."""
    model = import_vision("timm").create_model(name, pretrained=False, num_classes=0)
    return shaken(model, seed=1)


def shallow(name):
    """Ours and timm's with one block in each layer, and no dropout."""
    if name == "seresnet50":
        timm = import_vision("timm.models.resnet")
        model = timm.ResNet(
            timm.Bottleneck, SHALLOW, num_classes=0, block_args={"attn_layer": "se"}
        )
        return SEResNet50, shaken(model, seed=2)
    timm = import_vision("timm.models.senet")
    model = timm.SENet(
        timm.SEResNetBottleneck, SHALLOW, groups=1, reduction=16, num_classes=0, drop_rate=0.0
    )
    return LegacySEResNet50, shaken(model, seed=2)


@pytest.mark.parametrize("name", NAMES)
def test_parameter_count_is_timms_without_the_classifier(name):
    assert count(shapes(models.build(name), 32)) == 28_088_024 - (2048 * 1000 + 1000)


@pytest.mark.interop
@pytest.mark.parametrize("name", NAMES)
def test_embeddings_equal_timms(name):
    """A stem's map of 32 px: the legacy form's last pooling window overhangs."""
    embeddings_agree(models.build(name), twin(name), (64,))


@pytest.mark.interop
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_embeddings_equal_timms_at_other_sizes(name):
    """A stem's map of 39 px: no window overhangs."""
    embeddings_agree(models.build(name), twin(name), (77, 224))


@pytest.mark.interop
@pytest.mark.parametrize("name", LEGACY_SLOW)
def test_embeddings_of_an_odd_size_equal_timms(name):
    ours, theirs = shallow(name)
    embeddings_agree(ours(depths=SHALLOW), theirs, (75,))


@pytest.mark.interop
@pytest.mark.parametrize("name", LEGACY_SLOW)
def test_training_gradients_and_statistics_equal_timms(name):
    ours, theirs = shallow(name)
    gradients_agree(lambda dtype: ours(depths=SHALLOW, dtype=dtype), theirs, 36)
