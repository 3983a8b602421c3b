"""Neighborhood Watch's tables: their cells, the search, what is made, and the transfer."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from support.reproduced import entry, tiny_root, write_features  # noqa: F401  (a fixture)

from deepknn_jax.errors import UserError
from deepknn_jax.reproduce import paper, plan_watch, prepare, runs, store, transferred
from deepknn_jax.reproduce.cells import Cell, Options, Row, Section, Table
from deepknn_jax.reproduce.methods_watch import TITLES, TRIALS, TUNED, WATCH, trials
from deepknn_jax.reproduce.sets import SETS, config_of
from deepknn_jax.trainer import loop
from deepknn_jax.trainer.check import check


@pytest.fixture
def options(tiny_root, tmp_path):  # noqa: F811
    write_features(tiny_root, tmp_path / "out")
    return Options(tiny_root, tmp_path / "out", seeds=2)


@pytest.mark.parametrize("method", WATCH)
def test_each_method_has_as_many_trials(method):
    assert len(trials(method, classes=7, features=True)) == TRIALS
    assert len(trials(method, classes=2, features=False)) == TRIALS // 2
    for name, classes, features in (("nw_features", 7, True), ("nw_pneumoniamnist", 2, False)):
        for changes in trials(method, classes=classes, features=features):
            check(config_of(name, WATCH[method] | changes))


def test_mnist_has_the_paper_s_rows_and_less_without_its_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(plan_watch, "chosen", lambda out: {})
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist/mnist.npz").write_bytes(b"")
    table = plan_watch.table_nw1(Options(tmp_path, tmp_path / "out", seeds=2))
    part, short, whole = table.sections
    assert [row.paper["acc"] for row in whole.rows] == [99.24, 99.30, 98.63, 81.72, 98.64]
    assert [len(row.cells) for row in whole.rows] == [2, 2, 1, 1, 1]
    for less, vote, seeds in ((part, "78", 2), (short, "233", 1)):
        assert all(not row.paper and row.vote == vote for row in less.rows)
        assert all(len(row.cells) == seeds for row in less.rows)
        assert all(cell.changes["epochs"] == 20 for row in less.rows for cell in row.cells)
    for cell in table.cells:
        if cell.set == "nw_mnist":
            config = config_of("nw_mnist", cell.changes)
            assert config.loss.k in (0, 5)
            check(config)
    assert any("no options were searched" in words for words in table.absent)


def test_the_search_chooses_options_and_the_vote(options, monkeypatch):
    calls = []

    def run(config, workdir):
        calls.append(config)
        workdir.mkdir(parents=True, exist_ok=True)
        rate = config.optimizer.learning_rate
        votes = {"1": entry(0.3), "5": entry(0.5 + rate), "90": entry(0.5 + 2 * rate)}
        return {"test": votes}

    monkeypatch.setattr(loop, "run", run)
    path = plan_watch.tune_watch(options)
    assert len(calls) == TRIALS * len(WATCH)
    assert {config.data.dir.rsplit("/", 1)[1] for config in calls} == {"tuning.npz"}
    found = json.loads(path.read_text())["methods"]
    assert set(found) == {"nw_skin7"}
    for method, best in found["nw_skin7"].items():
        assert best["vote"] == "90"
        assert best["changes"]["optimizer.learning_rate"] == 1e-3
        assert len(best["trials"]) == 3 * TRIALS
        assert config_of("nw_features", WATCH[method] | best["changes"]).loss.name
    table = plan_watch.table_nw1(options)
    (section,) = table.sections
    assert [row.vote for row in section.rows] == ["90"] * len(WATCH)
    config = runs.config_for(section.rows[0].cells[1], options.out)
    assert (config.data.fold, config.seed, config.optimizer.learning_rate) == (1, 1, 1e-3)


def test_what_we_found_is_of_this_search():
    """The options that come with the package are among the trials, for every method alike."""
    found = json.loads((Path(plan_watch.__file__).parent / TUNED).read_text())["methods"]
    for name, methods in found.items():
        small = plan_watch.SMALL[name]
        assert set(methods) == set(WATCH)
        for method, best in methods.items():
            tried = trials(method, classes=small.classes, features=name != "nw_pneumoniamnist")
            assert best["changes"] in tried
            assert best["vote"] in ("1", "5", str(small.k_p))


def test_nothing_to_search_on(tmp_path):
    with pytest.raises(UserError, match="none of nw_pneumoniamnist, nw_skin7, chest_features"):
        plan_watch.tune_watch(Options(tmp_path, tmp_path / "out", seeds=1))


def test_a_part_of_mnist_has_as_many_of_each_class(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (100, 4, 4), np.uint8)
    labels = np.repeat([3, 7], [70, 30])
    np.savez(tmp_path / "all.npz", x_train=images, y_train=labels, x_test=images[:9],
             y_test=labels[:9])  # fmt: skip
    prepare.write_part(tmp_path / "all.npz", tmp_path / "part.npz", per_class=20)
    with np.load(tmp_path / "part.npz") as part:
        assert np.bincount(part["y_train"])[[3, 7]].tolist() == [20, 20]
        where = [np.flatnonzero((images == x).all((1, 2)))[0] for x in part["x_train"]]
        assert (labels[where] == part["y_train"]).all()
        assert len(set(where)) == 40
        assert len(part["x_test"]) == 9


def test_the_search_on_medmnist_does_not_see_the_test_part(tmp_path):
    arrays = {}
    for value, part in enumerate(("train", "val", "test")):
        arrays[f"{part}_images"] = np.full((5, 4, 4), value, np.uint8)
        arrays[f"{part}_labels"] = np.full((5, 1), value)
    np.savez(tmp_path / "all.npz", **arrays)
    prepare.write_validation_as_test(tmp_path / "all.npz", tmp_path / "tuning.npz")
    with np.load(tmp_path / "tuning.npz") as made:
        assert set(made) == {"x_train", "y_train", "x_test", "y_test"}
        assert (made["x_test"] == 1).all()
        assert made["y_test"].tolist() == [1] * 5
        assert (made["x_train"] == 0).all()


def finished(out, name, set_name, changes, arrays):
    """A cell that was run, with its embeddings."""
    cell = Cell(name, set_name, changes, 1.0)
    workdir = store.workdir_of(out, cell)
    workdir.mkdir(parents=True)
    np.savez(workdir / "embeddings.npz", **arrays)
    store.write(out, cell, {}, 1.0, {"results": {"test": {"11": entry(0.5)}}})
    return cell


# The MLP does not come to an end on noise.
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_transfer_stands_beside_the_paper_s_and_is_made_once(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    easy = np.eye(3)[labels] * 20 + rng.normal(size=(90, 3))
    splits = np.where(np.arange(90) < 60, "train", "test")
    arrays = {"labels": labels.astype(np.int32), "splits": splits}
    rows = [
        Row(f"{label}, K_p = 5", [finished(tmp_path, f"s/{label}", "chest_features", {},
                                           arrays | {"embeddings": x.astype(np.float32)})], "5")
        for label, x in (("LM", easy), ("MM", rng.normal(size=(90, 3))))
    ]  # fmt: skip
    table = Table("t", [Section("set", rows)])
    lines = transferred.write_nw2(table, tmp_path)
    shown = {line.split(" | ")[0].strip("| "): line for line in lines if line.startswith("| ")}
    assert shown["LM"].count("100.0 / 100.0") == 4
    assert "(65.1)" in shown["LM"]
    assert shown["MM"].count("100.0") == 0
    monkeypatch.setattr(transferred.transfer, "classify_all", None)
    assert transferred.write_nw2(table, tmp_path) == lines
    assert set(paper.NW2) < set(TITLES.values())


def test_survival_tells_features_from_noise(tmp_path):
    rng = np.random.default_rng(1)
    hazard = 2 * rng.normal(size=100)
    times = np.round(1000 * np.exp(-hazard) * rng.exponential(size=100) + 1, 2)
    folder = tmp_path / "data" / SETS["lung1"].path
    folder.mkdir(parents=True)
    names = [f"P{i}" for i in range(100)]
    with (folder / "lung1_radiomics_survival.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["PatientID", "Survival.time", "deadstatus.event", "original_a",
                         "original_b"])  # fmt: skip
        for i, name in enumerate(names):
            writer.writerow([name, times[i], int(i % 10 > 0), hazard[i], rng.normal()])
    splits = np.where(np.arange(100) < 70, "train", "test")
    arrays = {"names": np.asarray(names), "splits": splits}
    changes = {"data.dir": str(folder), "data.fold": 1}
    good = hazard[:, None] + 0.1 * rng.normal(size=(100, 3))
    rows = [
        Row(label, [finished(tmp_path, f"lung1/{label}", "lung1", changes,
                             arrays | {"embeddings": x.astype(np.float32)})], "11")
        for label, x in (("LM", good), ("Softmax", rng.normal(size=(100, 3))))
    ]  # fmt: skip
    lines = transferred.write_nw3(Table("t", [Section("set", rows)]), tmp_path)
    cells = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in lines[4:-1]}
    assert list(cells) == ["LM", "Softmax", "the features themselves", "end to end (Cox network)"]
    assert float(cells["LM"][0]) > 0.7
    assert float(cells["Softmax"][0]) < 0.65
    assert float(cells["the features themselves"][0]) > 0.65
    assert cells["LM"][1] == "0.7624"
