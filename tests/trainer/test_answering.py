"""What a run leaves answers as the run itself did, to the bit, with nothing else of it there."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from support.runs import small_config

import deepknn_jax
from deepknn_jax.answers.judge import calibrate_left_out
from deepknn_jax.data.sources.arrays import breast_cancer
from deepknn_jax.trainer import answering, loop, run_folder
from deepknn_jax.trainer.provenance import is_frozen
from deepknn_jax.trainer.setup import load

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def of_features(tmp_path_factory, compiled_once):
    """Workdir of a run with a validation part and pictures."""
    workdir = tmp_path_factory.mktemp("features") / "run"
    loop.run(small_config(data__validation=0.2, evaluate__pictures=True, epochs=1), workdir)
    return workdir


@pytest.fixture(scope="module")
def of_images(tmp_path_factory, compiled_once):
    """(workdir, folder of the images) of a run with a head, on files of 16 bits and two sizes."""
    root = tmp_path_factory.mktemp("set")
    rng = np.random.default_rng(0)
    for label in ("one", "two"):
        (root / label).mkdir()
        for i in range(30):
            values = rng.integers(0, 3000 + 500 * (label == "one"), (24 + i % 3, 20))
            Image.fromarray(values.astype(np.uint16)).save(root / label / f"{i}.png")
    workdir = tmp_path_factory.mktemp("images") / "run"
    config = small_config(
        data__source="class_folders", data__dir=str(root), data__size=16, data__channels=1,
        data__resize_rule="short_side", data__cache_dir=str(workdir.parent / "cache"),
        augment__crop=12, model__name="cnn", model__embedding_size=7, model__normalize=True,
        loss__name="cross_entropy", batch__size=16, epochs=1, model_folder__names=False,
    )  # fmt: skip
    loop.run(config, workdir)
    return workdir, root


def alone(workdir, tmp_path):
    """The run's model folder, opened elsewhere."""
    return deepknn_jax.open_run(shutil.copytree(workdir / "model", tmp_path / "elsewhere"))


def the_test_part(workdir):
    """(embeddings, names) of the test part, and the lines of neighbors.csv."""
    with np.load(workdir / "embeddings.npz") as found:
        test = found["splits"] == "test"
        embeddings, names = found["embeddings"][test], found["names"][test].tolist()
    with (workdir / "neighbors.csv").open(newline="") as file:
        return embeddings, names, list(csv.DictReader(file))


def test_features_are_answered_to_the_bit(of_features, tmp_path):
    run = alone(of_features, tmp_path)
    embeddings, names, lines = the_test_part(of_features)
    listing = breast_cancer()
    inputs = listing.inputs[[listing.names.index(name) for name in names]]
    np.testing.assert_array_equal(run.embed(inputs), embeddings)
    found = run.predict(inputs)
    for i, line in enumerate(lines):
        assert line["name"] == names[i]
        assert line["prediction"] == run.class_names[found.labels[i]]
        for j in range(5):
            assert line[f"neighbor_{j + 1}"] == run.model.gallery.name(found.indices[i, j])
            assert line[f"distance_{j + 1}"] == f"{found.distances[i, j]:.6g}"


def test_image_files_are_answered_to_the_bit(of_images, tmp_path):
    workdir, root = of_images
    run = alone(workdir, tmp_path)
    embeddings, names, lines = the_test_part(workdir)
    found = run.predict([root / name for name in names])
    np.testing.assert_array_equal(run.embed([root / name for name in names]), embeddings)
    assert [line["prediction"] for line in lines] == [run.class_names[c] for c in found.labels]
    assert [line["distance_5"] for line in lines] == [f"{x:.6g}" for x in found.distances[:, 4]]
    assert run.form.set_range[0] < 100
    assert run.form.set_range[1] > 3000


def test_names_and_thumbnails_are_as_wanted(of_features, of_images, tmp_path):
    images = deepknn_jax.open_run(of_images[0]).model.gallery
    assert images.names == ()
    assert len(images.thumbnails.ends) == len(images.labels)
    features = deepknn_jax.open_run(of_features).model.gallery
    assert features.thumbnails is None
    assert set(features.names) < set(breast_cancer().names)


def test_calibration_is_of_the_validation_part(of_features, of_images):
    with np.load(of_features / "embeddings.npz") as found:
        labels = found["labels"][found["splits"] == "validation"]
    model = deepknn_jax.open_run(of_features).model
    np.testing.assert_array_equal(model.calibrated.scores.labels, labels)
    assert model.about["counts"]["validation"] == np.bincount(labels).tolist()
    assert deepknn_jax.open_run(of_images[0]).model.calibrated is None


def test_the_gallery_knows_how_often_each_image_is_near_others(of_features):
    with np.load(of_features / "embeddings.npz") as found:
        train = found["embeddings"][found["splits"] == "train"].astype(np.float64)
    distances = ((train[:, None] - train[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    near = np.argsort(distances, axis=1)[:, :5]
    wanted = np.bincount(near.ravel(), minlength=len(train))
    gallery = deepknn_jax.open_run(of_features).model.gallery
    assert gallery.occurrence.sum() == 5 * len(train)
    assert (gallery.occurrence == wanted).mean() > 0.98  # all but what rounding ranks otherwise


def test_results_and_card_have_figures_by_class_with_intervals(of_features, of_images):
    for workdir in (of_features, of_images[0]):
        results = json.loads((workdir / "results.json").read_text())
        found, entry = results["intervals"]["5"], results["test"]["5"]
        assert "by_group" not in results
        assert found["acc"]["value"] == pytest.approx(entry["acc"])
        assert found["mcr"]["value"] == pytest.approx(entry["mcr"])
        assert found["unit"] == "images"
        for name, recall in entry["per_class_recall"].items():
            assert found["per_class"][name]["sensitivity"]["value"] == pytest.approx(recall)
            assert 0 <= found["per_class"][name]["auc"]["value"] <= 1
        assert deepknn_jax.open_run(workdir).model.about["intervals"] == found
        assert "bootstrap draws" in (workdir / "model" / "README.md").read_text(encoding="utf-8")


def test_the_report_lies_beside_and_the_results_tell(of_features, of_images):
    results = json.loads((of_features / "results.json").read_text())
    assert results["model_folder"] == {"names": True, "thumbnails": True}
    assert results["pictures"]["report.html"] == "drawn"
    text = (of_features / "report.html").read_text(encoding="utf-8")
    assert text.count('class="case') == results["test"]["5"]["n"]
    assert not (of_images[0] / "report.html").exists()  # pictures=False
    assert "Acc" in (of_features / "model" / "README.md").read_text(encoding="utf-8")


def test_a_run_that_was_stopped_before_its_model_writes_it_the_next_time(
    of_features, tmp_path, monkeypatch, capsys
):
    workdir = shutil.copytree(of_features, tmp_path / "run")
    shutil.rmtree(workdir / "model")
    results = json.loads((workdir / "results.json").read_text())
    (workdir / "results.json").write_text(json.dumps(results | {"model_folder": {}}))
    config = small_config(data__validation=0.2, evaluate__pictures=True, epochs=1)
    monkeypatch.setattr(answering, "write_report", lambda *_: 1 / 0)
    found = loop.run(config, workdir)
    assert "evaluated anew for config.model_folder" in capsys.readouterr().out
    assert (workdir / "model" / "model.json").exists()
    assert "ZeroDivisionError" in found["pictures"]["report.html"]  # told, and the run goes on
    config.model_folder.names = False
    loop.run(config, workdir)
    assert deepknn_jax.open_run(workdir).model.gallery.names == ()
    loop.run(config, workdir)
    assert "finished before\n" in capsys.readouterr().out


@pytest.fixture(scope="module")
def lesions(tmp_path_factory):
    """(.npz of 150 features in groups of three, the groups); near each other within a group."""
    rng = np.random.default_rng(2)
    groups = rng.permutation(np.arange(150) // 3)
    labels, centres = groups % 3, rng.normal(size=(50, 4))
    features = labels[:, None] + centres[groups] + 0.1 * rng.normal(size=(150, 4))
    path = tmp_path_factory.mktemp("lesions") / "f.npz"
    np.savez(path, features=features, labels=labels, groups=groups)
    return path


def untrained(path, **changes):
    return small_config(
        data__source="npz", data__dir=str(path), data__split="grouped", model__name="linear",
        batch__size=16, **{"epochs": 0, **changes},
    )  # fmt: skip


def test_without_training_the_gallery_calibrates_itself_by_groups(lesions, tmp_path):
    workdir = tmp_path / "run"
    results = loop.run(untrained(lesions), workdir)
    assert results["method"] == "no training"
    assert results["epochs"] == results["reported"]["step"] == 0
    model = deepknn_jax.open_run(workdir).model
    assert model.about["calibration"] == "left out"
    assert model.calibrated.scores.counts.tolist() == model.about["counts"]["train"]
    wanted = calibrate_left_out(model.gallery, model.gallery.groups, k=5, classes=model.classes,
                                p=2.0)  # fmt: skip
    np.testing.assert_array_equal(model.calibrated.scores.scores, wanted.scores.scores)
    rows = np.arange(len(model.gallery.labels))
    naive = calibrate_left_out(model.gallery, rows, k=5, classes=model.classes, p=2.0)
    assert naive.scores.scores.mean() < 0.8 * wanted.scores.scores.mean()  # their own lesion near
    assert run_folder.trained_on(workdir).size == 0
    with np.load(workdir / "embeddings.npz") as found:
        assert "trained" not in found
    loop.run(untrained(lesions), workdir)  # finished: nothing to do
    loop.run(untrained(lesions, epochs=1), workdir)
    assert deepknn_jax.open_run(workdir).model.calibrated is None
    assert len(run_folder.trained_on(workdir)) > 100


def test_where_something_was_trained_on_the_gallery_it_does_not(lesions, tmp_path):
    loop.run(untrained(lesions, epochs=1), tmp_path / "trained")
    config = untrained(lesions, model__weights=str(tmp_path / "trained"), data__split_seed=1)
    loop.run(config, tmp_path / "frozen")
    model = deepknn_jax.open_run(tmp_path / "frozen").model
    assert model.calibrated is None
    dataset = load(untrained(lesions))
    assert dataset.trained is None  # the set itself says nothing
    assert is_frozen(untrained(lesions), dataset)
    assert not is_frozen(untrained(lesions, epochs=1), dataset)
    assert is_frozen(config, dataset)
    (tmp_path / "trained" / run_folder.TRAINED_ON).unlink()  # as of a run before this was kept
    assert not is_frozen(config, dataset)
    shutil.rmtree(tmp_path / "trained")
    assert not is_frozen(config, dataset)
