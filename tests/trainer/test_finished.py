"""After training: what is written whatever fails, and when a finished run is evaluated anew."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from support.memory import peak_memory
from support.runs import file_config, small_config

from deepknn_jax.errors import UserError
from deepknn_jax.evaluation import pictures, report
from deepknn_jax.logs import read_records
from deepknn_jax.trainer import finished as finished_lib
from deepknn_jax.trainer import loop

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, compiled_once):
    """(workdir, config, results) of a finished run with a validation part and all pictures."""
    config = small_config(
        data__validation=0.2, evaluate__pictures=True, evaluate__references=("pixels",), epochs=1
    )
    workdir = tmp_path_factory.mktemp("trained") / "run"
    return workdir, config, loop.run(config, workdir)


@pytest.fixture
def copy(trained, tmp_path, monkeypatch):
    """The same, to be changed; whoever trains fails."""
    workdir, config, results = trained
    shutil.copytree(workdir, tmp_path / "run")
    monkeypatch.setattr(loop, "end_epoch", lambda *_, **__: pytest.fail("trains"))
    return tmp_path / "run", config.copy_and_resolve_references(), results


def test_other_evaluation_options_evaluate_a_finished_run_anew(copy, capsys):
    workdir, config, before = copy
    records = read_records(workdir / "metrics.jsonl")
    config.evaluate.k_p, config.evaluate.references = (1, 3), ("untrained",)
    results = loop.run(config, workdir)
    assert "evaluated anew for config.evaluate.k_p, config.ev" in capsys.readouterr().out
    assert set(results["test"]) == {"1", "3"}
    assert set(results["references"]) == {"untrained"}
    assert results["test"]["1"] == before["test"]["1"]
    assert results["reported"] == before["reported"]
    assert read_records(workdir / "metrics.jsonl") == records
    with (workdir / "neighbors.csv").open(newline="") as file:
        assert "neighbor_3" in (header := next(csv.reader(file)))
    assert "neighbor_4" not in header
    found = loop.run(config, workdir)  # now it is finished
    assert found == json.loads(json.dumps(results))
    assert "finished before\n" in capsys.readouterr().out


def test_baselines_stand_beside_the_run_with_what_was_chosen(copy, capsys):
    workdir, config, before = copy
    config.evaluate.references = ("logistic_regression", "svc")
    results = loop.run(config, workdir)
    out = capsys.readouterr().out
    for name, shown in (("logistic_regression", "logistic regression  head"), ("svc", "svc ")):
        found = results["references"][name]
        assert found["test"]["head"]["n"] == before["test"]["1"]["n"]
        assert found["test"]["head"]["acc"] > 0.8  # digits
        assert set(found["chosen"]) == {"C", "class_weight"}
        assert 0.8 < found["validation"] <= 1
        assert shown in out
    assert loop.run(config, workdir) == json.loads(json.dumps(results))  # finished


def test_what_touches_no_result_evaluates_nothing(copy, monkeypatch):
    workdir, config, before = copy
    monkeypatch.setattr(loop, "tell_and_load", lambda *_: pytest.fail("loads data"))
    config.evaluate.batch_size, config.evaluate.pictures = 7, False
    assert loop.run(config, workdir) == json.loads(json.dumps(before))
    assert (workdir / "tsne.png").exists()


def test_pictures_that_were_not_drawn_are_asked_for_later(copy):
    workdir, config, _ = copy
    config.evaluate.pictures, config.evaluate.k_p = False, (1,)
    assert loop.run(config, workdir)["pictures"] == {}
    assert not (workdir / "tsne.png").exists()  # of what no longer holds
    config.evaluate.pictures = True
    assert set(loop.run(config, workdir)["pictures"].values()) == {"drawn"}
    assert (workdir / "tsne.png").exists()


def test_a_kill_between_results_and_pictures_is_made_good(copy):
    workdir, config, before = copy
    report.write_results(workdir, before | {"pictures": {}})
    (workdir / "tsne.png").unlink()
    loop.run(config, workdir)
    assert (workdir / "tsne.png").exists()


def test_a_run_from_before_pictures_were_recorded_is_finished(copy, monkeypatch):
    workdir, config, before = copy
    old = {key: value for key, value in before.items() if key != "pictures"}
    report.write_results(workdir, old)
    monkeypatch.setattr(loop, "tell_and_load", lambda *_: pytest.fail("loads data"))
    assert loop.run(config, workdir) == json.loads(json.dumps(old))


def test_without_checkpoints_a_run_is_not_trained_again_for_its_figures(copy):
    workdir, config, before = copy
    shutil.rmtree(workdir / "checkpoints")
    config.evaluate.k_p = (3,)
    with pytest.raises(UserError, match=r"run: its checkpoints are gone, so .* config\.evaluate"):
        loop.run(config, workdir)
    assert report.read_results(workdir) == json.loads(json.dumps(before))


def test_k_p_may_not_change_while_it_chooses_the_best(trained, tmp_path):
    workdir, config, _ = trained
    config = config.copy_and_resolve_references()
    shutil.copytree(workdir, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    config.evaluate.references = ()  # of no matter
    loop.check_workdir(config, tmp_path / "run")
    config.evaluate.k_p = (3,)
    with pytest.raises(UserError, match=r"another config \(evaluate\.k_p: \[1, 5\] -> \[3\]\)"):
        loop.check_workdir(config, tmp_path / "run")


def test_a_picture_that_fails_is_told_and_nothing_else_fails(tmp_path, monkeypatch, capsys):
    def fails(path, *_):
        assert (tmp_path / "run" / "results.json").exists()
        raise MemoryError

    monkeypatch.setattr(pictures, "tsne", fails)
    config = small_config(evaluate__pictures=True, epochs=1)
    results = loop.run(config, tmp_path / "run")
    assert results["pictures"] == {
        "training_curves.png": "drawn", "confusion.png": "drawn", "tsne.png": "MemoryError",
        "operating_point.png": "drawn", "report.html": "drawn",
    }  # fmt: skip
    warning = f"warning: {tmp_path / 'run' / 'tsne.png'} is not drawn (MemoryError); all else"
    assert warning in capsys.readouterr().out
    assert (tmp_path / "run" / "confusion.png").exists()
    assert report.read_results(tmp_path / "run") == json.loads(json.dumps(results))
    monkeypatch.setattr(loop, "tell_and_load", lambda *_: pytest.fail("loads data"))
    loop.run(config, tmp_path / "run")  # it is not tried at every start


def test_references_that_want_too_much_memory_leave_the_rest_and_a_way_on(tmp_path, monkeypatch):
    def fails(config, setup):
        raise MemoryError("Unable to allocate 6 GB")

    config = small_config(evaluate__references=("pixels",), epochs=1)
    with monkeypatch.context() as patched:
        patched.setattr(finished_lib, "references", fails)
        with pytest.raises(UserError, match=r"allocate 6 GB.*config\.evaluate\.references=\(\)"):
            loop.run(config, tmp_path / "run")
    assert (tmp_path / "run" / "neighbors.csv").exists()
    assert (tmp_path / "run" / "embeddings.npz").exists()
    config.evaluate.references = ()
    assert loop.run(config, tmp_path / "run")["references"] == {}


def test_names_that_are_not_utf_8_end_in_sound_files(tmp_path, capsys):
    """Latin-1 names, as old archives have them: of folders, and of files."""
    for c, folder in enumerate((b"caf\xe9", b"th\xe9")):
        path = os.path.join(os.fsencode(tmp_path), b"set", folder)
        os.makedirs(path)
        for i in range(15):
            image = Image.fromarray(np.full((8, 8), 100 * c + i, np.uint8))
            with open(os.path.join(path, b"\xfc%d.png" % i), "wb") as file:
                image.save(file, "PNG")
    config = file_config("digits")
    config.data.source, config.data.dir = "class_folders", str(tmp_path / "set")
    config.data.cache_dir, config.data.size = str(tmp_path / "cache"), 8
    config.augment.crop, config.epochs, config.batch.size, config.devices = 0, 1, 8, 1
    config.loss.k = config.loss.m = 2
    config.evaluate.k_p, config.evaluate.pictures = (1, 3), True
    results = loop.run(config, tmp_path / "run")
    assert set(results["pictures"].values()) == {"drawn"}
    assert list(results["test"]["1"]["per_class_recall"]) == [r"caf\udce9", r"th\udce9"]
    text = (tmp_path / "run" / "neighbors.csv").read_text(encoding="utf-8")
    assert r"caf\udce9/\udcfc1" in text
    assert json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    with np.load(tmp_path / "run" / "embeddings.npz") as archive:
        assert "\n".join([*archive["names"], *archive["classes"]]).encode()
    capsys.readouterr()
    loop.run(config, tmp_path / "run")
    assert "finished before" in capsys.readouterr().out


def test_pictures_of_ten_thousand_classes_take_less_than_a_gigabyte(tmp_path):
    before = """
import numpy as np
from pathlib import Path
from deepknn_jax.data.dataset import Dataset
from deepknn_jax.evaluation import report
from deepknn_jax.evaluation.evaluate import Embedded, Evidence
C, n = 10_000, 40_000
labels = (np.arange(n) % C).astype(np.int32)
splits = np.where(np.arange(n) < n // 2, "test", "train")
x = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
names = tuple(map(str, range(n)))
dataset = Dataset(x, labels, names, names[:C], splits)
parts = [Embedded(dataset.rows(s), x[dataset.rows(s)], None) for s in ("train", "test")]
rows = np.tile(parts[0].rows[:5], (n // 2, 1))
evidence = Evidence(np.ones(rows.shape, np.float32), rows, {5: labels[: n // 2][::-1]})
from deepknn_jax.evaluation import tsne
assert tsne.MAX_POINTS > 300
tsne.MAX_POINTS = 300  # as many take minutes
"""
    work = """
report.write_neighbors(Path("neighbors.csv"), dataset, parts[1], evidence)
found = report.draw(Path(), dataset, parts, parts[1], evidence)
assert set(found.values()) == {"drawn"}, found
"""
    start, end = peak_memory(work, before=before, cwd=tmp_path)
    assert end - start < 500
    with Image.open(tmp_path / "confusion.png") as image:
        assert max(image.size) < 2000
