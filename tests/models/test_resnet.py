"""ResNets against torchvision's own."""

import pytest
from support.interop import import_vision
from support.optional import require
from support.twins import count, embeddings_agree, gradients_agree, shaken, shapes

from deepknn_jax import models
from deepknn_jax.models.resnet import BasicBlock, BottleneckBlock, ResNet

# torchvision's parameter counts, minus fc's (512 or 2048) * 1000 + 1000.
PARAMETERS = {
    "resnet18": 11_689_512 - 513_000,
    "resnet34": 21_797_672 - 513_000,
    "resnet50": 25_557_032 - 2_049_000,
    "resnet101": 44_549_160 - 2_049_000,
}


def twin(name):
    """torchvision's model `name` without fc."""
    model = getattr(import_vision("torchvision.models"), name)()
    model.fc = require("torch").nn.Identity()
    return shaken(model, seed=1)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count_is_torchvisions(name):
    assert count(shapes(models.build(name), 64)) == PARAMETERS[name]


@pytest.mark.interop
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_embeddings_equal_torchvisions(name):
    embeddings_agree(models.build(name), twin(name), (64, 75))


@pytest.mark.interop
@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMETERS)
def test_embeddings_equal_torchvisions_at_224(name):
    embeddings_agree(models.build(name), twin(name), (224,))


@pytest.mark.interop
@pytest.mark.parametrize(
    ("block", "reference"), [(BasicBlock, "BasicBlock"), (BottleneckBlock, "Bottleneck")]
)
def test_training_gradients_and_statistics_equal_torchvisions(block, reference):
    resnet = import_vision("torchvision.models.resnet")
    theirs = resnet.ResNet(getattr(resnet, reference), [1, 2, 1, 1])
    theirs.fc = require("torch").nn.Identity()
    gradients_agree(
        lambda dtype: ResNet((1, 2, 1, 1), block, dtype=dtype), shaken(theirs, seed=2), 49
    )
