"""What stands beside the papers' transfers, from embeddings of known worth."""

import csv

import numpy as np
import pytest
from support.reproduced import entry

from deepknn_jax.reproduce import store, transferred
from deepknn_jax.reproduce.catalog import SETS
from deepknn_jax.reproduce.cells import Cell, Row, Section, Table


def finished(out, name, set_name, changes, arrays):
    """A cell that was run, with its embeddings."""
    cell = Cell(name, set_name, "lm", changes, 60.0)
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
                                           arrays | {"embeddings": x.astype(np.float32)})], "5",
            title=label)
        for label, x in (("LM", easy), ("MM", rng.normal(size=(90, 3))))
    ]  # fmt: skip
    table = Table("t", [Section("set", rows)])
    lines = transferred.write_nw2(table, tmp_path)
    shown = {line.split(" | ")[0].strip("| "): line for line in lines if line.startswith("| ")}
    assert shown["LM"].count("100.0 / 100.0") == 4
    assert "(65.1)" in shown["LM"]
    assert shown["MM"].count("100.0") == 0
    monkeypatch.setattr(transferred.classifiers, "classify_all", None)
    assert transferred.write_nw2(table, tmp_path) == lines


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
                             arrays | {"embeddings": x.astype(np.float32)})], "11", title=label)
        for label, x in (("LM", good), ("Softmax", rng.normal(size=(100, 3))))
    ]  # fmt: skip
    lines = transferred.write_nw3(Table("t", [Section("set", rows)]), tmp_path)
    cells = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in lines[4:-1]}
    assert list(cells) == ["LM", "Softmax", "the features themselves", "end to end (Cox network)"]
    assert float(cells["LM"][0]) > 0.7
    assert float(cells["Softmax"][0]) < 0.65
    assert float(cells["the features themselves"][0]) > 0.65
    assert cells["LM"][1] == "0.7624"
