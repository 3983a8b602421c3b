"""A run opened: it answers whatever images are given as, and brings no training with it."""

import json

import numpy as np
import pytest
from PIL import Image
from support.answering import CLASSES, FEATURES, IMAGES, examples, model_of
from support.runs import python_in

import deepknn_jax
from deepknn_jax.answers.model import write
from deepknn_jax.errors import UserError

HEAVY = ("orbax", "tensorflow_datasets", "grain", "matplotlib", "sklearn", "ml_collections",
         "jinja2", "deepknn_jax.trainer", "deepknn_jax.config")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory, compiled_once):
    folder = tmp_path_factory.mktemp("run") / "moved"
    write(folder, model_of(IMAGES), "")
    return folder


@pytest.fixture(scope="module")
def run(folder):
    return deepknn_jax.open_run(str(folder))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """(folder of PNG files, the same uint8 [6, 12, 12, 1])."""
    inputs = examples(IMAGES, np.arange(6) % 3, np.random.default_rng(4))
    root = tmp_path_factory.mktemp("images")
    for i, image in enumerate(inputs):
        Image.fromarray(image[..., 0]).save(root / f"{i}.png")
    return root, inputs


def test_paths_folders_and_arrays_are_one(run, images):
    root, inputs = images
    by_array = run.predict(inputs)
    assert by_array.names == tuple(f"{i:05d}" for i in range(6))
    for given in (root, str(root), sorted(root.iterdir())):
        found = run.predict(given)
        for name in ("labels", "p_values", "distances", "sets", "indices"):
            np.testing.assert_array_equal(getattr(found, name), getattr(by_array, name))
    np.testing.assert_array_equal(run.embed(root / "3.png"), run.embed(inputs)[3:4])
    assert run.predict(root, k=2).indices.shape == (6, 2)
    assert run.class_names == CLASSES


def test_a_higher_level_has_larger_sets(run, images):
    sets = [run.predict(images[1], level=level).sets for level in (0.5, 0.95)]
    assert (sets[0] <= sets[1]).all()
    assert sets[0].sum() < sets[1].sum()


def test_what_cannot_be_read_is_named(run, images, tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"a\.png: cannot be read \(it is neither"):
        run.predict(tmp_path)
    with pytest.raises(UserError, match="holds none"):
        run.predict([])
    with pytest.raises(UserError, match="holds none"):
        run.embed(images[1][:0])
    with pytest.raises(UserError, match="`k` is 0"):
        run.predict(images[1], k=0)


def test_features_go_in_as_they_are(tmp_path):
    model = model_of(FEATURES)
    write(tmp_path / "model", model, "")
    run = deepknn_jax.open_run(tmp_path)
    x = examples(FEATURES, np.arange(5) % 3, np.random.default_rng(2)).astype(np.float64)
    assert run.predict(x).labels.shape == (5,)
    far = np.full((1, 5), 1e300)
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(UserError, match="not finite"):
        run.embed(far)


def test_a_process_that_answers_brings_no_training(folder, images):
    code = (
        "import json, sys, deepknn_jax\n"
        f"found = deepknn_jax.open_run({str(folder)!r}).predict({str(images[0])!r})\n"
        "print(json.dumps([found.labels.tolist(), sorted(sys.modules)]))"
    )
    labels, modules = json.loads(python_in(images[0], code))
    assert len(labels) == 6
    assert set(modules).isdisjoint(HEAVY)
    assert "deepknn_jax.answers.run" in modules
