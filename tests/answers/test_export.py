"""The archive of a model: its program answers as the run does, without this package."""

import json
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export
from PIL import Image
from support.answering import CLASSES, FEATURES, IMAGES, about_of, examples, model_of

from deepknn_jax import models
from deepknn_jax.answers.export import Exported, export, in_blocks, write
from deepknn_jax.answers.model import Gallery, Model
from deepknn_jax.answers.model import write as write_model
from deepknn_jax.answers.network import Form
from deepknn_jax.answers.run import open_run
from deepknn_jax.errors import UserError

# Imports of what the archive must not need fail, and so would any of a module beside it.
WITHOUT = """
import sys, runpy
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("deepknn_jax", "flax", "optax", "safetensors", "orbax"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def exported(form, root, **about):
    """(the run, what was exported, the archive's folder)."""
    model = model_of(form)
    write_model(root / "model", model._replace(about={**model.about, **about}), "")
    run = open_run(root)
    found = export(run.model, k=3)
    write(root / "tried.zip", found)
    with zipfile.ZipFile(root / "tried.zip") as archive:
        archive.extractall(root)
    return run, found, root / "tried"


@pytest.fixture(scope="module")
def images(tmp_path_factory, compiled_once):
    return exported(IMAGES, tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def features(tmp_path_factory, compiled_once):
    weighed = {"class_size_power": 0.5, "temperature": 2.0}
    return exported(FEATURES, tmp_path_factory.mktemp("features"), vote=weighed)


def new(form, n):
    return examples(form, np.arange(n) % 3, np.random.default_rng(n))


@pytest.mark.parametrize("n", [1, 5, 129])
def test_a_batch_of_any_size(images, n):
    run, archive, _ = images
    program = jax_export.deserialize(bytearray(archive.program))
    assert set(program.platforms) == {"cpu", "cuda", "tpu"}
    x = new(IMAGES, n)
    found = jax.jit(program.call)(archive.arrays, x)
    np.testing.assert_allclose(found["embeddings"], run.embed(x), rtol=1e-5, atol=1e-5)
    for start in range(0, n, 128):  # predict has another program for more
        rows = slice(start, start + 128)
        expected = run.predict(x[rows], k=3)
        for name in ("labels", "indices", "shares"):
            np.testing.assert_array_equal(found[name][rows], getattr(expected, name))
        np.testing.assert_allclose(found["distances"][rows], expected.distances, rtol=1e-4)


@pytest.mark.parametrize("kind", ["images", "features"])
def test_the_example_answers_without_this_package(request, kind, tmp_path):
    run, _, folder = request.getfixturevalue(kind)
    x = new(run.form, 33)  # a full batch and one more
    files = [tmp_path / "x.npy"]
    if kind == "images":
        files = [tmp_path / f"{i:02d}.png" for i in range(33)]
        for file, image in zip(files, x, strict=True):
            Image.fromarray(image[..., 0]).save(file)
    else:
        np.save(files[0], x)
    ran = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT, folder / "example.py", *files],
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    found = run.predict(files if kind == "images" else x)
    assert [line["class"] for line in lines] == [CLASSES[c] for c in found.labels]
    names = [[name for name, _ in line["neighbours"]] for line in lines]
    assert names == [[f"case <{row}>.png" for row in rows] for rows in found.indices]
    distances = [[distance for _, distance in line["neighbours"]] for line in lines]
    np.testing.assert_allclose(distances, found.distances, rtol=1e-4, atol=1e-5)
    shares = [[line["shares"][name] for name in CLASSES] for line in lines]
    np.testing.assert_array_equal(np.float32(shares), found.shares)


def test_p_values_come_as_the_archive_says(features):
    run, archive, _ = features
    meta = json.loads(json.dumps(archive.meta))["calibration"]
    scores, labels = np.array(meta["scores"], float), np.array(meta["labels"])
    gallery, owners = (archive.arrays[f"gallery/{name}"] for name in ("embeddings", "labels"))
    x = new(FEATURES, 7)
    expected = run.predict(x)
    for i, e in enumerate(run.embed(x)):
        distances = np.linalg.norm(gallery.astype(np.float64) - e, axis=1)
        every = []
        for c in range(3):
            own, others = (np.sort(distances[owners == c]), np.sort(distances[owners != c]))
            score = own[: meta["score_k"]].mean() / others[: meta["score_k"]].mean()
            at_least = (1 + (scores[labels == c] >= score).sum()) / (1 + (labels == c).sum())
            assert at_least == pytest.approx(expected.p_values[i, c])
            every.append((1 + (scores >= score).sum()) / (1 + len(scores)))
        assert max(every) == pytest.approx(expected.credibility[i])
    assert meta["thresholds"] == run.model.calibrated.curve.thresholds.tolist()


def test_the_archive_names_what_it_is(images, features):
    _, archive, folder = images
    meta = json.loads((folder / "meta.json").read_text())
    assert meta == json.loads(json.dumps(archive.meta))
    assert meta["inputs"]["dtype"] == "uint8"
    assert meta["inputs"]["std"] == list(IMAGES.std)
    assert features[1].meta["inputs"]["dtype"] == "float32"
    assert meta["made_by"]["jax"] == jax.__version__
    assert meta["gallery_names"][46] == "case <46>.png"
    assert "deepknn_jax" in (folder / "README.txt").read_text()


def test_it_holds_no_path_and_equal_models_give_equal_bytes(features, tmp_path):
    run, archive, folder = features
    assert b".py" not in archive.program
    assert b"embeddings" in archive.program  # names are not packed
    write(tmp_path / "tried.zip", export(run.model, k=3))
    assert (tmp_path / "tried.zip").read_bytes() == (folder.parent / "tried.zip").read_bytes()
    assert jax.config.jax_traceback_in_locations_limit > 0


def test_without_names_and_validation_both_are_null(tmp_path):
    found = export(model_of(FEATURES, validates=False, shown=False), k=1)
    write(tmp_path / "a.zip", found)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        meta = json.loads(archive.read("a/meta.json"))
    assert meta["calibration"] is meta["gallery_names"] is None
    assert (meta["gallery_size"], meta["k_p"]) == (47, 1)


def test_an_infinite_score_is_a_word(tmp_path):
    model = model_of(FEATURES)
    scores = model.calibrated.scores._replace(scores=np.array([1.5, np.inf]), labels=np.arange(2))
    found = export(model._replace(calibrated=model.calibrated._replace(scores=scores)), k=1)
    write(tmp_path / "a.zip", found)  # JSON without Infinity
    assert found.meta["calibration"]["scores"] == [1.5, "inf"]


def test_another_dtype_is_refused():
    model = model_of(FEATURES)
    gallery = model.gallery._replace(labels=model.gallery.labels.astype(np.int64))
    with pytest.raises(UserError, match="arrays of int64: only float32 and int32"):
        export(model._replace(gallery=gallery), k=1)


@pytest.mark.parametrize("n", [1, 128, 129])
def test_blocks_are_put_together_again(n):
    x = np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)
    found = in_blocks(lambda x: {"twice": 2 * x, "first": x[:, 0]}, jnp.asarray(x))
    np.testing.assert_array_equal(found["twice"], 2 * x)
    np.testing.assert_array_equal(found["first"], x[:, 0])


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"before")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(path, Exported(b"", {}, {"p": float("nan")}))
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.parametrize("name", models.BACKBONES)
def test_every_backbone_can_be_exported(name):
    """Traced and lowered with arrays of zeros: sizes that ask for the batch's size would show."""
    kind, side = models.INPUTS.get(name, "images"), 96 if name == "inception_resnet_v2" else 64
    form = {
        "feature vectors": Form(kind, (8,), mean=(0.0,) * 8, std=(1.0,) * 8),
        "images": Form(kind, (side, side, 3), side, 3, mean=(0.5,) * 3, std=(0.2,) * 3),
        "volumes": Form(kind, (16, 16, 16, 1), channels=1, mean=(0.5,), std=(0.2,)),
    }[kind]
    network, x = models.build(name), np.zeros((1, *form.shape), np.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    width = jax.eval_shape(lambda v: network.apply(v, x), shapes).shape[-1]
    zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
    variables = {collection: {"backbone": tree} for collection, tree in zeros.items()}
    gallery = Gallery(np.zeros((9, width), np.float32), np.zeros(9, np.int32))
    about = about_of(form, name, [9, 0, 0], [0, 0, 0])
    assert export(Model(about, variables, gallery), k=5).program
