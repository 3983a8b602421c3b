"""A model folder: what is written comes back, and a damaged or absent one is named."""

import json
import shutil

import jax
import numpy as np
import pytest
from support.answering import IMAGES, model_of
from support.runs import same_bits

from deepknn_jax.answers.model import FOLDER, VERSION, find, read_trained, write
from deepknn_jax.errors import UserError


@pytest.fixture(scope="module")
def model(compiled_once):
    return model_of(IMAGES)


@pytest.fixture
def folder(model, tmp_path):
    (tmp_path / "run").mkdir()
    write(tmp_path / "run" / FOLDER, model, "# Card\n")
    return tmp_path / "run" / FOLDER


def test_it_comes_back_as_it_was(model, folder):
    found = read_trained(folder)
    same_bits(jax.tree.map(np.asarray, found.variables), model.variables)
    assert found.gallery.names == model.gallery.names
    for name in ("embeddings", "labels"):
        np.testing.assert_array_equal(getattr(found.gallery, name), getattr(model.gallery, name))
    assert found.gallery.groups is None
    assert [found.gallery.thumbnails.webp(i) for i in (0, 1, 46)] == [
        model.gallery.thumbnails.webp(i) for i in (0, 1, 46)
    ]
    for a, b in zip(found.calibrated.curve, model.calibrated.curve, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(found.calibrated.scores.scores, model.calibrated.scores.scores)
    np.testing.assert_array_equal(found.calibrated.distances, model.calibrated.distances)
    assert {key: found.about[key] for key in ("classes", "p", "counts")} == {
        key: model.about[key] for key in ("classes", "p", "counts")
    }
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "calibration.npz", "checksums.json", "gallery.npz", "model.json",
        "parameters.safetensors",
    }  # fmt: skip


def test_names_pictures_and_calibration_may_be_missing(tmp_path):
    bare = model_of(IMAGES, validates=False, shown=False)
    write(tmp_path / "m", bare, "")
    found = read_trained(tmp_path / "m")
    assert found.calibrated is None
    assert found.gallery.thumbnails is None
    assert found.gallery.name(3) == "training image 3"
    assert not (tmp_path / "m" / "calibration.npz").exists()


def test_writing_it_again_replaces_it_whole_and_failing_keeps_it(model, folder):
    write(folder, model._replace(calibrated=None), "anew")
    assert not (folder / "calibration.npz").exists()
    assert (folder / "README.md").read_text() == "anew"
    with pytest.raises(TypeError):
        write(folder, model._replace(about={"bad": object()}), "no")
    assert (folder / "README.md").read_text() == "anew"
    assert [path.name for path in folder.parent.iterdir()] == [FOLDER]


def test_it_is_found_in_a_workdir_and_by_itself(folder, tmp_path):
    assert find(folder) == folder
    assert find(folder.parent) == folder
    with pytest.raises(UserError, match="neither a run's workdir nor its model/ folder"):
        find(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="is not finished"):
        find(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(UserError, match=r"predict --run=.*make_model"):
        find(tmp_path)


@pytest.mark.parametrize("name", ["gallery.npz", "parameters.safetensors", "model.json"])
def test_damage_is_named(folder, tmp_path, name):
    shutil.copytree(folder, tmp_path / "other")
    path = tmp_path / "other" / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=rf"is damaged \({name}.*copy it anew"):
        read_trained(tmp_path / "other")


def test_a_later_version_is_refused(folder):
    about = json.loads((folder / "model.json").read_text()) | {"version": VERSION + 1}
    (folder / "model.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=f"version {VERSION + 1}, this program reads {VERSION}"):
        read_trained(folder)
