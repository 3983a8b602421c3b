"""The command gallery: folders, tables and names in, lines of a journal out."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support.answering import CLASSES, IMAGES, examples, model_of
from support.commands import run_main

from deepknn_jax import gallery
from deepknn_jax.answers import journal
from deepknn_jax.answers.model import write
from deepknn_jax.answers.state import read
from deepknn_jax.errors import UserError


@pytest.fixture(scope="module")
def made(tmp_path_factory, compiled_once):
    """A run whose images have pictures, and which needs no program where it changes."""
    folder = tmp_path_factory.mktemp("made") / "run" / "model"
    folder.parent.mkdir()
    write(folder, model_of(IMAGES)._replace(calibrated=None), "")
    return folder.parent


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


@pytest.fixture
def images(tmp_path):
    """Class folders, one of them new, with a broken file and one image twice."""
    inputs = examples(IMAGES, np.arange(5) % 3, np.random.default_rng(11))
    for i, name in enumerate(("bcc/1.png", "vasc/p7/2.png", "vasc/3.png", "vasc/bcc/4.png")):
        path = tmp_path / "new" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(inputs[i, ..., 0]).save(path)
    (tmp_path / "new" / "vasc" / "broken.png").write_bytes(b"no image")
    shutil.copy(tmp_path / "new/vasc/3.png", tmp_path / "new/vasc/again.png")
    return tmp_path / "new"


def command(monkeypatch, run, *arguments):
    run_main(monkeypatch, gallery, f"--run={run}", *arguments)


def labels(run, at=None):
    model = read(run / "model", at)
    return {name: model.classes[c] for name, c in
            zip(model.gallery.names, model.gallery.labels, strict=True)}  # fmt: skip


def test_a_class_joins_is_listed_mended_and_leaves(run, images, tmp_path, monkeypatch, capsys):
    command(monkeypatch, run, f"--add={images}", "--note=from May")
    told = capsys.readouterr().out
    assert "vasc/again.png: is vasc/3.png over again; left out" in told
    assert "vasc/broken.png: it is neither" in told
    assert "4 added: bcc 2, vasc 2" in told
    assert "51 images vote: akiec 20, bcc 9, nevus; benign 20, vasc 2" in told
    joined = {"bcc/1.png": "bcc", "vasc/p7/2.png": "vasc", "vasc/3.png": "vasc",
              "vasc/bcc/4.png": "bcc"}  # fmt: skip
    assert {name: label for name, label in labels(run).items() if "case" not in name} == joined
    assert read(run / "model").gallery.thumbnails.webp(47)[:4] == b"RIFF"
    (tmp_path / "t.csv").write_text("name;label\nvasc/bcc/4.png;vasc\ncase <3>.png;mel\n")
    command(monkeypatch, run, f"--relabel={tmp_path / 't.csv'}")
    assert "2 relabelled: akiec to mel 1, bcc to vasc 1" in capsys.readouterr().out
    command(monkeypatch, run, "--remove=vasc/3.png, bcc/1.png")
    (tmp_path / "names.txt").write_text("vasc/bcc/4.png\n\nvasc/p7/2.png\n")
    command(monkeypatch, run, f"--remove=@{tmp_path / 'names.txt'}")
    assert read(run / "model").classes == (*CLASSES, "mel")
    capsys.readouterr()
    command(monkeypatch, run, "--list", "--at=2")
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "line 0: as it was trained"
    assert told[1].startswith("line 1, 2")
    assert "; from May [" in told[1]
    assert "case <3>.png\tmel" in told
    assert "vasc/3.png\tvasc" in told
    assert not any(each.startswith("line 3") for each in told)
    command(monkeypatch, run, "--restore=0")
    assert labels(run) == labels(run, 0)
    command(monkeypatch, run, "--restore=0")
    assert "nothing to do" in capsys.readouterr().out
    assert journal.count(run / "model") == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((), "give one of --add, --remove"), (("--list", "--remove=x"), "not remove and list at"),
     (("--remove=x", "--at=1"), "--at is of --list"), (("--list", "--calibrates"), "is of --add"),
     (("--list", "--at=4"), "--at is 4: the journal of .* has 0 lines"),
     (("--restore=2",), "--restore is 2: the journal has 0 lines"),
     (("--remove=case <4>.jpg",), r"no image is called 'case <4>\.jpg': did you mean case <4>"),
     (("--remove=@nowhere.txt",), r"nowhere\.txt: cannot be read"),
     (("--remove=@empty.txt",), r"empty\.txt: holds no names"),
     (("--relabel=twice.csv",), r"twice\.csv: case <1>\.png is there twice"),
     (("--relabel=open.csv",), r"open\.csv, line 2: label is empty"),
     (("--add=nowhere",), r"nowhere: no such file or folder \(--add\)"),
     (("--add=loose",), r"1\.png: has no label \(1 of 1 images\)")],
)  # fmt: skip
def test_what_the_user_can_mend_is_named(made, tmp_path, monkeypatch, arguments, words):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "twice.csv").write_text("name,label\ncase <1>.png,bcc\ncase <1>.png,mel\n")
    (tmp_path / "open.csv").write_text("name,label\ncase <1>.png,\n")
    (tmp_path / "loose").mkdir()
    Image.fromarray(np.zeros((12, 12), np.uint8)).save(tmp_path / "loose" / "1.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        command(monkeypatch, made, *arguments)
    assert journal.count(made / "model") == 0


def test_a_run_must_be_given(monkeypatch):
    with pytest.raises(UserError, match="--run is not given"):
        command(monkeypatch, "", "--list")


def test_a_list_that_is_read_no_further_ends_without_a_word(made):
    """As behind `| head -1`."""
    command = [sys.executable, "-m", "deepknn_jax.gallery", f"--run={made}", "--list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (141, b"")
