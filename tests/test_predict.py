"""The command predict: files in, a table, a report and figures out."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from support.answering import CLASSES, FEATURES, IMAGES, examples, model_of
from support.commands import run_main

from deepknn_jax import predict
from deepknn_jax.answers import intake
from deepknn_jax.answers.model import write
from deepknn_jax.answers.run import open_run
from deepknn_jax.errors import UserError


@pytest.fixture(scope="module")
def runs(tmp_path_factory, compiled_once):
    root = tmp_path_factory.mktemp("runs")
    write(root / "images", model_of(IMAGES), "")
    write(root / "features", model_of(FEATURES, validates=False), "")
    return root


@pytest.fixture
def images(tmp_path):
    """A folder of nine images, six of them in class folders, one broken."""
    root = tmp_path / "new"
    inputs = examples(IMAGES, np.arange(9) % 3, np.random.default_rng(6))
    for i, image in enumerate(inputs):
        folder = root / ("akiec", "bcc", "loose")[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / f"{i}.png")
    (root / "bcc" / "4.png").write_bytes(b"no image")
    return root


def command(monkeypatch, *arguments):
    run_main(monkeypatch, predict, *arguments)


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_folder_with_labels(runs, images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(intake, "BLOCK", 4)
    out = tmp_path / "out"
    command(monkeypatch, f"--run={runs / 'images'}", f"--images={images}", f"--out={out}",
            "--report_images=5", "--k=2")  # fmt: skip
    rows = table(out / "predictions.csv")
    assert [row["name"] for row in rows] == sorted(
        path.relative_to(images).as_posix() for path in images.rglob("*.png")
    )
    assert [row["name"] for row in rows if row["error"]] == ["bcc/4.png"]
    found = open_run(runs / "images").predict(images / "loose", k=2)
    loose = [row for row in rows if row["name"].startswith("loose")]
    assert [row["prediction"] for row in loose] == [CLASSES[c] for c in found.labels]
    assert [row["credibility"] for row in loose] == [f"{x:.6g}" for x in found.credibility]
    results = json.loads((out / "results.json").read_text())
    assert results["test"]["2"]["n"] == 5
    text = (out / "report.html").read_text()
    assert text.count('<div class="case') == 5
    assert "bcc/4.png" in text
    told = capsys.readouterr().out
    assert "labels are known of 6 of 9 images" in told
    assert "8 answered" in told
    assert "1 could not be read" in told


def test_features_without_labels_or_validation(runs, tmp_path, monkeypatch, capsys):
    path, out = tmp_path / "f.npz", tmp_path / "out"
    out.mkdir()
    (out / "results.json").write_text("of an earlier answer")
    x = examples(FEATURES, np.arange(4) % 3, np.random.default_rng(7)).astype(np.float64)
    x[2] = 1e300  # its embedding is no number
    np.savez(path, features=x)
    with np.errstate(over="ignore", invalid="ignore"):
        command(monkeypatch, f"--run={runs / 'features'}", f"--images={path}", f"--out={out}")
    rows = table(out / "predictions.csv")
    assert [row["error"] for row in rows] == ["", "", "its embedding is not finite", ""]
    assert {row["set"] for row in rows} == {""}
    assert not (out / "results.json").exists()
    assert "train with --config.data.validation=0.2" in capsys.readouterr().out


def test_labels_of_a_table_that_the_run_does_not_know_are_told(
    runs, images, tmp_path, monkeypatch, capsys
):
    (images / "t.csv").write_text("file,dx\nloose/2.png,mel\nloose/5.png,akiec\n")
    command(monkeypatch, f"--run={runs / 'images'}", f"--images={images / 't.csv'}",
            f"--out={tmp_path / 'out'}", "--image_column=file", "--label_column=dx")  # fmt: skip
    assert "none of the run's classes are not counted: mel" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["test"]["3"]["n"] == 1


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"run": ""}, "--run is not given"), ({"k": 99}, "--k is 99: choose 1 to 47"),
     ({"images": "nowhere"}, "nowhere: no such file or folder.*--images"),
     ({"image_column": "x", "images": "t.csv"}, "--image_column"),
     ({"level": 1.5}, "--level is 1.5")],
)  # fmt: skip
def test_what_the_user_can_mend_is_named_by_its_flag(
    runs, images, tmp_path, monkeypatch, changed, words
):
    (images / "t.csv").write_text("file\nloose/2.png\n")
    monkeypatch.chdir(images)
    given = {"run": runs / "images", "images": images, "out": tmp_path / "out"} | changed
    with pytest.raises(UserError, match=words):
        command(monkeypatch, *(f"--{name}={value}" for name, value in given.items()))
    assert not (tmp_path / "out" / "predictions.csv").exists()


def test_by_group_a_patient_has_one_answer(runs, images, tmp_path, monkeypatch, capsys):
    lines = ["image,label,patient", "akiec/0.png,akiec,x", "akiec/3.png,akiec,x",
             "bcc/1.png,bcc,y", "bcc/7.png,akiec,y", "loose/2.png,,z", "loose/5.png,,"]  # fmt: skip
    (images / "t.csv").write_text("\n".join(lines))
    out = tmp_path / "out"
    given = [f"--run={runs / 'images'}", f"--images={images / 't.csv'}", f"--out={out}"]
    command(monkeypatch, *given, "--by_group", "--group_column=patient", "--heat")
    rows, groups = table(out / "predictions.csv"), table(out / "predictions_by_group.csv")
    assert [(row["group"], row["images"], row["label"]) for row in groups] == [
        ("x", "2", "akiec"), ("y", "2", ""), ("z", "1", "")]  # fmt: skip
    for name in CLASSES:
        mean = np.mean([float(row[f"share_{name}"]) for row in rows[:2]])
        assert float(groups[0][f"share_{name}"]) == pytest.approx(mean, abs=1e-4)
    assert groups[2]["prediction"] == rows[4]["prediction"]
    results = json.loads((out / "results.json").read_text())
    assert (results["by_group"]["3"]["n"], results["by_group"]["3"]["mixed"]) == (1, 1)
    assert results["intervals"]["3"]["units"] == 2
    assert (out / "report.html").read_text().count("where the distance comes from") == 6
    assert "by group" in capsys.readouterr().out
    command(monkeypatch, *given)
    assert not (out / "predictions_by_group.csv").exists()  # of an earlier answer
    with pytest.raises(UserError, match="--by_group: no group of these images is known"):
        command(monkeypatch, *given, "--by_group")


def test_one_case_is_shown_in_words_and_large(runs, images, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    given = [f"--run={runs / 'images'}", f"--images={images}", f"--out={out}"]
    command(monkeypatch, *given, "--show=3.png")
    assert [path.name for path in out.iterdir()] == ["show.html"]
    found = open_run(runs / "images").predict(images / "akiec" / "3.png")
    told = capsys.readouterr().out
    assert f"akiec/3.png: {CLASSES[found.labels[0]]}, labelled akiec" in told
    assert "independent voters for the answer" in told
    assert "where the distance comes from" in (out / "show.html").read_text()
    with pytest.raises(UserError, match=r"--show=33.png: no image is called so; near is akiec/3"):
        command(monkeypatch, *given, "--show=33.png")
    with pytest.raises(UserError, match=r"4\.png: cannot be read"):
        command(monkeypatch, *given, "--show=bcc/4.png")


def test_nothing_that_can_be_read_leaves_nothing(runs, images, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"4\.png: it is neither.*none of 1 images"):
        command(monkeypatch, f"--run={runs / 'images'}", f"--images={images / 'bcc' / '4.png'}",
                f"--out={out}")  # fmt: skip
    assert list(out.iterdir()) == []
