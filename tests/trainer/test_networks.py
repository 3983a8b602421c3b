"""The network that made features goes with them into the model folder, and images are answered."""

import json
import shutil

import numpy as np
import pytest
from support.runs import file_config, small_config
from support.tiny_sets import save_image

import deepknn_jax
from deepknn_jax import config as config_lib
from deepknn_jax.answers import source as source_lib
from deepknn_jax.trainer import embed, loop, networks

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def chain(tmp_path_factory, compiled_once):
    """(folder of images, features.npz of a small random CNN, workdir of an MLP on these)."""
    root = tmp_path_factory.mktemp("chain")
    for i in range(40):
        save_image(root / "set" / "ab"[i % 2] / f"{i}.png", i % 2)
    config = config_lib.default()
    config.data.update(source="class_folders", dir=str(root / "set"), size=12,
                       cache_dir=str(root / "cache"))  # fmt: skip
    config.model.embedding_size, config.augment.crop, config.devices = 9, 10, 1
    path = embed.run(config, root / "embedded")
    features = file_config("features")
    features.update_from_flattened_dict({
        "data.dir": str(path), "epochs": 1, "devices": 1, "batch.size": 8,
        "evaluate.references": (), "evaluate.pictures": False, "data.split": "stratified",
    })  # fmt: skip
    loop.run(features, root / "run")
    return root / "set", path, root / "run"


def test_images_are_answered_as_their_features(chain, tmp_path):
    images, path, workdir = chain
    run = deepknn_jax.open_run(shutil.copytree(workdir / "model", tmp_path / "elsewhere"))
    with np.load(path) as arrays:
        features, names = arrays["features"], arrays["names"].tolist()
    of_features = run.predict(features, k=3)
    of_images = run.predict([images / name for name in names], k=3)
    np.testing.assert_allclose(run.embed([images / name for name in names]), run.embed(features),
                               rtol=1e-5, atol=1e-5)  # fmt: skip
    np.testing.assert_array_equal(of_images.labels, of_features.labels)
    np.testing.assert_array_equal(of_images.indices, of_features.indices)
    np.savez(tmp_path / "f.npz", features=features[:2])
    np.testing.assert_array_equal(run.predict(tmp_path / "f.npz", k=3).labels,
                                  of_features.labels[:2])  # fmt: skip
    pixels = np.zeros((3, 12, 12, 3), np.uint8)
    np.savez(tmp_path / "i.npz", images=pixels)
    np.testing.assert_array_equal(run.embed(pixels), run.embed(tmp_path / "i.npz"))
    assert run.embed(pixels).shape == (3, 128)
    card = (workdir / "model" / "README.md").read_text()
    assert "feature vectors of 9, or images of 12 x 12 x 3, of which cnn makes them" in card


def test_what_is_neither_is_refused(chain):
    run = deepknn_jax.open_run(chain[2])
    with pytest.raises(deepknn_jax.errors.UserError, match=r"trained on features \[n, 9\]"):
        run.embed(np.zeros((2, 7), np.float32))
    with pytest.raises(deepknn_jax.errors.UserError, match="images of 12 x 12 x 3"):
        run.embed(np.zeros((2, 4, 12, 12, 3), np.uint8))


@pytest.mark.parametrize("harm", ["gone", "other", "damaged"])
def test_features_without_their_network_are_told_of(chain, tmp_path, capsys, harm):
    folder = shutil.copytree(chain[1].parent, tmp_path / "copy")
    source = folder / "source"
    if harm == "gone":
        shutil.rmtree(source)
    elif harm == "other":
        about = source_lib.read(source)
        source_lib.write(source, about._replace(about={**about.about, "dtype": "bfloat16"}))
    else:
        (source / "parameters.safetensors").write_bytes(b"")
    config = file_config("features")
    config.data.dir = str(folder / "features.npz")
    assert networks.source_of(config) is None
    words = {"gone": "does not lie beside", "other": "is another network", "damaged": "is damaged"}
    assert words[harm] in capsys.readouterr().out


def test_features_that_nobody_embedded_have_none(tmp_path, capsys):
    np.savez(tmp_path / "f.npz", features=np.eye(3), labels=np.arange(3))
    config = file_config("features")
    config.data.dir = str(tmp_path / "f.npz")
    assert networks.source_of(config) is None
    assert networks.source_of(small_config()) is None
    assert capsys.readouterr().out == ""


def test_features_of_features_go_back_to_the_images(chain, tmp_path):
    """The MLP's embeddings, embedded: their source is the MLP, and that one's the CNN."""
    images, _, workdir = chain
    config = config_lib.of_json((workdir / "config.json").read_text())
    config.model.weights, config.augment.mean = str(workdir), ()
    path = embed.run(config, tmp_path / "again")
    found = source_lib.read(tmp_path / "again" / "source")
    assert [found.about["backbone"], found.source.about["backbone"]] == ["mlp", "cnn"]
    frozen = file_config("features")
    frozen.update_from_flattened_dict({
        "data.dir": str(path), "data.split": "stratified", "epochs": 0, "devices": 1,
        "batch.size": 8, "evaluate.references": (), "evaluate.pictures": False,
        "model.name": "linear", "model.dropout": 0.0,
    })  # fmt: skip
    loop.run(frozen, tmp_path / "frozen")
    run = deepknn_jax.open_run(tmp_path / "frozen")
    assert run.model.calibrated is None  # the MLP was trained on these images
    assert json.loads((tmp_path / "frozen/model/model.json").read_text())["calibration"] is None
    with np.load(path) as arrays:
        features, names = arrays["features"], arrays["names"].tolist()
    np.testing.assert_allclose(run.embed([images / name for name in names[:6]]),
                               run.embed(features[:6]), rtol=1e-4, atol=1e-4)  # fmt: skip
