"""What has trained before tests nothing: figures without copies, and without what weights saw."""

import csv
import json

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from support.runs import file_config, small_config

from deepknn_jax.data.copies import contents
from deepknn_jax.data.dataset import Dataset
from deepknn_jax.errors import UserError
from deepknn_jax.evaluation import report
from deepknn_jax.trainer import inspect, loop, run_folder
from deepknn_jax.trainer.provenance import marked

pytestmark = pytest.mark.usefixtures("compiled_once")


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A set of 569 features whose last 100 test; 40 of these are training rows, 3 mislabelled."""
    bunch = load_breast_cancer()
    x, labels = bunch.data.astype(np.float32), bunch.target.copy()
    x[469:509], labels[469:509] = x[:40], labels[:40]
    labels[469:472] = 1 - labels[469:472]
    path = tmp_path_factory.mktemp("copied") / "set.npz"
    splits = np.repeat(["train", "test"], [469, 100])
    np.savez(path, features=x, labels=labels, splits=splits)
    return path


def config_of(path, **changes):
    return small_config(
        data__source="npz", data__dir=str(path), epochs=1, evaluate__references=("pixels",),
        **changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(copied, tmp_path_factory, compiled_once):
    workdir = tmp_path_factory.mktemp("run") / "run"
    return workdir, loop.run(config_of(copied), workdir)


def test_figures_come_with_and_without_copies(run, capsys):
    workdir, results = run
    assert results["copies"]["of_training"] == 40
    for entry in (results, results["references"]["features"]):
        assert entry["test"]["1"]["n"] == 100
        assert entry["test_without_copies"]["1"]["n"] == 60
    features = results["references"]["features"]
    right = round(100 * features["test"]["1"]["acc"])
    assert round(60 * features["test_without_copies"]["1"]["acc"]) == right - 37
    assert json.loads((workdir / "results.json").read_text()) == json.loads(json.dumps(results))
    assert "deep kNN, without copies" in report.table(results)
    assert "kNN, features, without copies" in report.table(results)


def test_copies_csv_names_each_pair(run):
    found = rows_of(run[0] / "copies.csv")
    assert [(row["name"], row["copy_name"]) for row in found] == [
        (str(469 + i), str(i)) for i in range(40)
    ]
    assert [row["conflicting"] for row in found] == ["conflicting"] * 3 + [""] * 37
    assert (found[0]["split"], found[0]["copy_split"], found[0]["r"]) == ("test", "train", "1")


def test_copies_are_dropped_or_stop_a_run(copied, tmp_path, capsys):
    with pytest.raises(
        UserError, match=r"^469 \(test\) is a copy of 0 \(train\) \(40 .*copies.csv"
    ):
        loop.run(config_of(copied, data__copies="stop"), tmp_path / "stops")
    assert len(rows_of(tmp_path / "stops" / "copies.csv")) == 40
    with pytest.raises(UserError, match=r"or set config.data.copies=drop or warn$"):
        inspect.run(config_of(copied, data__copies="stop"))
    results = loop.run(config_of(copied, data__copies="drop"), tmp_path / "drops")
    assert results["copies"] == {
        "of_training": 0, "nearly_of_training": 0, "trained_before": 0, "left_out": 40
    }  # fmt: skip
    assert results["train"]["1"]["n"] == 429
    assert "test_without_copies" not in results
    assert not (tmp_path / "drops" / "copies.csv").exists()
    with np.load(tmp_path / "drops" / "embeddings.npz") as arrays:
        assert set(arrays["splits"]) == {"train", "test"}
    assert "config.data.copies=drop" in capsys.readouterr().out


def test_a_set_without_copies_has_one_figure(tmp_path):
    results = loop.run(small_config(epochs=1), tmp_path / "run")
    assert not set(results["copies"].values()) - {0}
    assert not [key for key in results if key.startswith("test_")]
    assert not (tmp_path / "run" / "copies.csv").exists()


@pytest.fixture(scope="module")
def first(tmp_path_factory, compiled_once):
    """A run on 80 % of the breast cancer set, a quarter of that to validate."""
    workdir = tmp_path_factory.mktemp("first") / "run"
    loop.run(small_config(epochs=1, data__validation=0.25), workdir)
    return workdir


def test_a_run_keeps_what_it_was_trained_on(first):
    kept = run_folder.trained_on(first)
    with np.load(first / "embeddings.npz") as arrays:
        used = np.isin(arrays["splits"], ("train", "validation"))
        np.testing.assert_array_equal(arrays["trained"], used)
        np.testing.assert_array_equal(kept, np.unique(arrays["contents"][used], axis=0))
    own = contents(load_breast_cancer().data.astype(np.float32))[used]
    np.testing.assert_array_equal(kept, np.unique(own, axis=0))


def check_judged_apart(results, workdir, seen):
    """`seen` are names of test examples that trained before."""
    assert 0 < len(seen) == results["copies"]["trained_before"]
    n = len(rows_of(workdir / "neighbors.csv"))
    assert results["test_with_trained"]["1"]["n"] == n
    assert results["test"]["1"]["n"] == n - len(seen)
    assert {row["name"] for row in rows_of(workdir / "trained_before.csv")} == seen


def names_of(workdir, *parts):
    with np.load(workdir / "embeddings.npz") as arrays:
        return set(arrays["names"][np.isin(arrays["splits"], parts)].tolist())


def test_another_split_after_a_runs_weights(first, tmp_path, capsys):
    """Also two runs on: a chain keeps what all before it saw."""
    before = names_of(first, "train", "validation")
    config = small_config(epochs=1, model__weights=str(first), data__split_seed=1)
    results = loop.run(config, tmp_path / "second")
    seen = before & names_of(tmp_path / "second", "test")
    check_judged_apart(results, tmp_path / "second", seen)
    assert f"{len(seen)} of 113 test examples trained the run" in capsys.readouterr().out
    chained = config.copy_and_resolve_references()
    chained.model.weights, chained.data.split_seed = str(tmp_path / "second"), 2
    before |= names_of(tmp_path / "second", "train")
    test = names_of(tmp_path / "second", "test")
    if len(before) < 569:
        results = loop.run(chained, tmp_path / "third")
        test = names_of(tmp_path / "third", "test")
        check_judged_apart(results, tmp_path / "third", before & test)


def test_the_same_split_after_a_runs_weights_leaves_nothing_out(first, tmp_path):
    config = small_config(epochs=1, model__weights=str(first), data__validation=0.25)
    results = loop.run(config, tmp_path / "run")
    assert results["copies"]["trained_before"] == 0
    assert "test_with_trained" not in results


def test_another_split_of_a_runs_embeddings(first, tmp_path):
    config = file_config("features")
    config.update(small_config(epochs=1))
    config.data.source, config.data.dir = "npz", str(first / "embeddings.npz")
    config.data.split, config.data.split_seed = "stratified", 1
    results = loop.run(config, tmp_path / "run")
    seen = names_of(first, "train", "validation") & names_of(tmp_path / "run", "test")
    check_judged_apart(results, tmp_path / "run", seen)


def test_what_trained_is_known_by_its_file_and_by_copies_beside_it(tmp_path):
    """At another size pixels differ: row 0's source is known, row 3 is its copy here."""
    contents = np.random.default_rng(0).integers(0, 256, (5, 16), dtype=np.uint8)
    contents[3] = contents[0]
    sources = contents[::-1] ^ 255
    known = np.stack([sources[0], contents[4], contents[1] ^ 7])
    np.savez(tmp_path / run_folder.TRAINED_ON, contents=known)
    data = Dataset(np.zeros((5, 2), np.float32), np.zeros(5, np.int32), tuple("abcde"), ("k",),
                   np.repeat("test", 5), contents=contents, sources=sources)  # fmt: skip
    assert marked(data, str(tmp_path)).trained.tolist() == [1, 0, 0, 1, 1]
    assert marked(data, "").trained is None
    own = data._replace(trained=np.array([0, 0, 1, 0, 0], bool))
    assert marked(own, "").trained.tolist() == [0, 0, 1, 0, 0]


def test_a_test_part_that_all_trained_is_refused(first, tmp_path):
    with np.load(first / "embeddings.npz") as arrays:
        arrays = dict(arrays)
    test = arrays["splits"] == "test"
    arrays["splits"] = np.where(test, "train", np.where(np.arange(len(test)) % 2, "test", "train"))
    np.savez(tmp_path / "all.npz", **arrays)
    with pytest.raises(UserError, match=r"^all \d+ test examples trained the run"):
        loop.run(config_of(tmp_path / "all.npz"), tmp_path / "run")


def test_a_run_from_before_it_was_kept_is_told(first, tmp_path, capsys):
    kept = first / run_folder.TRAINED_ON
    data = kept.read_bytes()
    config = small_config(model__weights=str(first))
    try:
        kept.unlink()
        inspect.run(config)
        assert "has no trained_on.npz, as it was made before" in capsys.readouterr().out
        kept.write_bytes(data[:40])
        with pytest.raises(UserError, match=r"trained_on.npz: is damaged; remove it"):
            inspect.run(config)
    finally:
        kept.write_bytes(data)
