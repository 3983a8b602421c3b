"""python -m deepknn_jax.transfer: what it reads, writes and refuses."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from support.patients import embedded_patients
from support.runs import ROOT

from deepknn_jax.data.survival import alive_beyond
from deepknn_jax.errors import UserError
from deepknn_jax.transfer.__main__ import read_embeddings
from deepknn_jax.transfer.classifiers import classify_all
from deepknn_jax.transfer.cox import cox_c_index


def save(path, **changes):
    x, times, _ = embedded_patients(120)
    arrays = {
        "embeddings": x,
        "labels": alive_beyond(times, np.ones(120), 500),
        "names": np.asarray([f"p{i}" for i in range(120)]),
        "splits": np.asarray(["train"] * 70 + ["validation"] * 10 + ["test"] * 40),
        "classes": np.asarray(["died", "survived"]),
    } | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def test_embeddings_that_cannot_be_read_are_told(tmp_path):
    path = tmp_path / "set.npz"
    listing = read_embeddings(save(path))
    assert listing.inputs.shape == (120, 12)
    for changes, message in (
        ({"splits": None}, "names no train part"),
        ({"splits": np.asarray(["train"] * 120)}, "names no test part"),
        ({"labels": None}, "has embeddings but no labels"),
        ({"embeddings": np.full((120, 3), np.nan)}, "p0 has a feature that is NaN"),
    ):
        with pytest.raises(UserError, match=message):
            read_embeddings(save(path, **changes))
    np.savez(path, x_train=np.zeros((2, 4, 4), np.uint8), y_train=[0, 1])
    with pytest.raises(UserError, match="has no x_test"):
        read_embeddings(path)
    with pytest.raises(UserError, match=r"gone.npz: no such file; --embeddings is"):
        read_embeddings(tmp_path / "gone.npz")


def command(*args):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "deepknn_jax.transfer", *map(str, args)],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip


def write_survival(path, rows=120):
    _, times, events = embedded_patients(120)
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["who", "days", "died"])
        order = np.random.default_rng(0).permutation(rows)  # joined by name, not by place
        lines.writerows((f"p{i}", times[i], events[i]) for i in order)
    return path


def test_the_command_writes_figures_and_pictures(tmp_path):
    ran = command(
        f"--embeddings={save(tmp_path / 'embeddings.npz')}", "--k=5", "--pca=6", "--cox_pca=4",
        f"--survival={write_survival(tmp_path / 's.csv')}", f"--out={tmp_path / 'out'}",
        *("--name_column=who", "--time_column=days", "--event_column=died"),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "km.png", "scatter.png", "transfer.json",
    ]  # fmt: skip
    results = json.loads((tmp_path / "out" / "transfer.json").read_text())
    assert (results["train"], results["test"], results["k"], results["pca"]) == (70, 40, 5, 6)
    x, times, events = embedded_patients(120)
    y = alive_beyond(times, np.ones(120), 500)
    assert results["classifiers"] == classify_all(x[:70], y[:70], x[80:], y[80:], pca=6, k=5)
    expected = cox_c_index(
        *(x[:70], times[:70], events[:70]), *(x[80:], times[80:], events[80:]), pca=4
    )
    assert results["survival"]["c_index"] == pytest.approx(expected)
    assert f"C-index {expected:.4f}" in ran.stdout
    assert "kNN, k = 5" in ran.stdout
    for name in ("SVM", "DT", "MLP"):
        assert name in ran.stdout


def test_a_wrong_command_is_one_line(tmp_path):
    path = save(tmp_path / "embeddings.npz")
    for args, message in (
        ([], "error: say --embeddings=FILE.npz"),
        ([f"--embeddings={path}", "--pca=0"], "error: flag --pca=0"),
        (
            [f"--embeddings={path}", f"--survival={write_survival(tmp_path / 's.csv', 80)}",
             "--name_column=who", "--time_column=days", "--event_column=died"],
            "error: --survival has no row for p80 (40 of 120 embeddings have none)",
        ),
    ):  # fmt: skip
        ran = command(*args)
        assert ran.returncode == 1
        assert ran.stderr.strip().splitlines()[-1].startswith(message)
        assert "Traceback" not in ran.stderr
