"""What a finished run leaves, read back and computed again by other people's code."""

import csv
import json
from collections import defaultdict

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score
from sklearn.neighbors import NearestNeighbors
from support.runs import small_config

from deepknn_jax import config as config_lib
from deepknn_jax.evaluation import report
from deepknn_jax.trainer import loop
from deepknn_jax.trainer.setup import resolve

ENTRY = {"acc", "mcr", "rs", "rs_class", "per_class_recall", "n"}
PICTURES = ("training_curves", "confusion", "tsne", "neighbors", "operating_point")
pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def left(finished):
    """(results.json, embeddings.npz, neighbors.csv) as read from the workdir."""
    workdir, _, _ = finished
    results = json.loads((workdir / "results.json").read_text())
    with np.load(workdir / "embeddings.npz", allow_pickle=False) as archive:
        arrays = dict(archive)
    with (workdir / "neighbors.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return results, arrays, rows


def check_entry(entry, names, n):
    assert set(entry) == ENTRY
    assert set(entry["per_class_recall"]) == set(names)
    assert entry["n"] == n
    recalls = entry["per_class_recall"]
    assert entry["rs"] == pytest.approx(
        np.mean([recalls[name] for name in entry["rs_class"].split(", ")])
    )


def test_results_are_as_specified(left, finished):
    results, arrays, _ = left
    names = arrays["classes"].tolist()
    assert set(results["test"]) == set(results["train"]) == {"1", "5"}  # no head: none was asked
    assert set(results["references"]) == {"pixels", "untrained"}
    for entry in results["test"].values():
        check_entry(entry, names, 137)
    for entry in results["train"].values():
        check_entry(entry, names, 320)
    for reference in results["references"].values():
        assert set(reference["test"]) == {"1", "5"}
        for entry in reference["test"].values():
            check_entry(entry, names, 137)
    assert results["skipped"] == []
    assert "first call (compiles)" in results["seconds"]
    assert results == json.loads(json.dumps(finished[2]))


def test_the_config_is_kept(finished):
    workdir, config, _ = finished
    kept = json.loads((workdir / "config.json").read_text())
    resolved, _ = resolve(config, kept)
    assert config_lib.differences(resolved, kept) == []
    assert len(kept["augment"]["mean"]) == 1  # of the training part, which the config left open
    assert kept["data"]["resize_rule"] == "square"
    kept["augment"] |= {"mean": [], "std": []}
    kept["data"]["resize_rule"] = ""
    assert kept == json.loads(json.dumps(config.to_dict()))


def test_embeddings_hold_every_example_once(left):
    _, arrays, _ = left
    described = {"labels", "names", "splits", "classes", "contents", "trained"}
    assert set(arrays) == {"embeddings", *described}
    assert arrays["embeddings"].dtype == np.float32
    assert np.isfinite(arrays["embeddings"]).all()
    assert len(set(arrays["names"])) == len(arrays["names"]) == 537
    parts, counts = np.unique(arrays["splits"], return_counts=True)
    assert dict(zip(parts, counts, strict=True)) == {"test": 137, "train": 320, "validation": 80}
    # The published parts are kept, and labels go with names.
    for name, part in zip(arrays["names"], arrays["splits"], strict=True):
        assert name.startswith("test/") == (part == "test")


def test_neighbors_are_those_of_the_embeddings(left):
    """Names, labels, distances and order by scikit-learn's exact search."""
    _, arrays, rows = left
    train_part, test = arrays["splits"] == "train", arrays["splits"] == "test"
    names, labels = arrays["names"][train_part], arrays["classes"][arrays["labels"][train_part]]
    search = NearestNeighbors(n_neighbors=5, algorithm="brute")
    search.fit(arrays["embeddings"][train_part].astype(np.float64))
    distances, _ = search.kneighbors(arrays["embeddings"][test].astype(np.float64))
    assert [row["name"] for row in rows] == arrays["names"][test].tolist()
    assert [row["label"] for row in rows] == arrays["classes"][arrays["labels"][test]].tolist()
    label_of = dict(zip(names, labels, strict=True))
    vector_of = dict(zip(arrays["names"], arrays["embeddings"].astype(np.float64), strict=True))
    for row, wanted in zip(rows, distances, strict=True):
        found = [row[f"neighbor_{i}"] for i in range(1, 6)]
        assert len(set(found)) == 5
        assert [row[f"label_{i}"] for i in range(1, 6)] == [label_of[name] for name in found]
        written = [float(row[f"distance_{i}"]) for i in range(1, 6)]
        np.testing.assert_allclose(written, wanted, rtol=1e-4, atol=1e-4)
        own = [np.linalg.norm(vector_of[row["name"]] - vector_of[name]) for name in found]
        np.testing.assert_allclose(written, own, rtol=1e-4, atol=1e-4)


def vote(row, k):
    """The class of most of the k nearest; of the tied, that whose voters are nearer in sum."""
    votes = defaultdict(list)
    for i in range(1, k + 1):
        votes[row[f"label_{i}"]].append(float(row[f"distance_{i}"]))
    return min(votes, key=lambda label: (-len(votes[label]), sum(votes[label]), label))


@pytest.mark.parametrize("k", [1, 5])
def test_the_figures_follow_from_the_evidence(left, k):
    results, arrays, rows = left
    truth = [row["label"] for row in rows]
    predicted = [vote(row, k) for row in rows]
    if k == 5:
        assert [row["prediction"] for row in rows] == predicted
    entry = results["test"][str(k)]
    assert entry["acc"] == pytest.approx(accuracy_score(truth, predicted))
    assert entry["mcr"] == pytest.approx(balanced_accuracy_score(truth, predicted))
    names = arrays["classes"].tolist()
    recalls = recall_score(truth, predicted, average=None, labels=names)
    assert entry["per_class_recall"] == pytest.approx(dict(zip(names, recalls, strict=True)))
    counts = np.bincount(arrays["labels"][arrays["splits"] == "train"], minlength=len(names))
    smallest = np.flatnonzero(counts == counts.min())
    assert entry["rs_class"] == ", ".join(names[c] for c in smallest)
    assert entry["rs"] == pytest.approx(recalls[smallest].mean())


@pytest.mark.parametrize("part", ["train", "references"])
def test_other_figures_follow_from_the_arrays(left, finished, part):
    """Leave-one-out on the training part; kNN on the raw pixels of the test part."""
    results, arrays, _ = left
    train_part, test = arrays["splits"] == "train", arrays["splits"] == "test"
    labels = arrays["labels"]
    if part == "train":
        search = NearestNeighbors(n_neighbors=1, algorithm="brute")
        search.fit(arrays["embeddings"][train_part].astype(np.float64))
        nearest = search.kneighbors(return_distance=False)[:, 0]  # without arguments: not itself
        truth, entry = labels[train_part], results["train"]["1"]
    else:
        with np.load(finished[1].data.dir) as archive:
            gallery, queries = archive["x_train"], archive["x_test"]
        # The middle 7 x 7 of 8 x 8 pixels, as `crop` says; names tell the order.
        gallery, queries = (x[:, :7, :7].reshape(len(x), -1) for x in (gallery, queries))
        rows = [int(name.split("/")[1]) for name in arrays["names"][train_part]]
        search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(gallery[rows].astype(float))
        nearest = search.kneighbors(queries.astype(float), return_distance=False)[:, 0]
        truth, entry = labels[test], results["references"]["pixels"]["test"]["1"]
    acc = accuracy_score(truth, labels[train_part][nearest])
    assert entry["acc"] == pytest.approx(acc)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_pictures(finished, name):
    path = finished[0] / f"{name}.png"
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) >= 200
    assert len(np.unique(pixels[::3, ::3].reshape(-1, 3), axis=0)) > 20  # something is drawn


def test_nothing_temporary_is_left(finished):
    workdir, _, _ = finished
    assert not [path for path in workdir.rglob("*") if "tmp" in path.name]
    assert {path.name.split(".")[0] for path in workdir.iterdir()} == {
        "config", "metrics", "tensorboard", "checkpoints", "embeddings", "neighbors", "results",
        "inputs", "trained_on", "model", "report",
        *PICTURES,
    }  # fmt: skip


def test_the_table_holds_every_method(left):
    text = report.table(left[0])
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["method", "K_p", "Acc", "MCR", "RS"]
    for name, entry in (
        ("kNN, pixels", left[0]["references"]["pixels"]["test"]["1"]),
        ("kNN, untrained", left[0]["references"]["untrained"]["test"]["1"]),
        ("deep kNN", left[0]["test"]["1"]),
    ):
        line = next(line for line in text.splitlines() if line.startswith(name)).split()
        assert line[-4:] == ["1", *(f"{100 * entry[key]:.1f}" for key in ("acc", "mcr", "rs"))]


@pytest.mark.parametrize("name", ["cross_entropy", "deep_knn"])
def test_a_head_is_reported_for_cross_entropy_alone(tmp_path, name):
    config = small_config(loss__name=name, epochs=1, evaluate__references=("untrained",))
    results = loop.run(config, tmp_path / "run")
    for part in ("test", "train"):
        assert ("head" in results[part]) == (name == "cross_entropy")
    assert "head" not in results["references"]["untrained"]["test"]
    assert "pixels" not in results["references"]


def test_results_are_read_only_where_a_run_is_finished(tmp_path):
    assert report.read_results(tmp_path) is None
    results = {"test": {"1": {"acc": 0.5}}, "references": {}}
    report.write_results(tmp_path, results)
    assert report.read_results(tmp_path) == results
    with pytest.raises(ValueError, match="not JSON compliant"):
        report.write_results(tmp_path, results | {"a": float("nan")})
    assert report.read_results(tmp_path) == results
    for damaged in ("", '{"test": {"1', "[]", "{}"):
        (tmp_path / "results.json").write_text(damaged)
        assert report.read_results(tmp_path) is None
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
