"""The command export: flags in, an archive out."""

import zipfile

import pytest
from support.answering import FEATURES, model_of
from support.commands import run_main

from deepknn_jax import export
from deepknn_jax.answers.model import write
from deepknn_jax.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory, compiled_once):
    folder = tmp_path_factory.mktemp("run") / "model"
    write(folder, model_of(FEATURES), "")
    return folder


def command(monkeypatch, *arguments):
    run_main(monkeypatch, export, *arguments)


def test_it_writes_an_archive_and_says_what_is_in_it(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "new" / "served.zip"
    command(monkeypatch, f"--run={folder}", f"--out={out}", "--k=2")
    with zipfile.ZipFile(out) as archive:
        names = archive.namelist()
        assert b'"k_p": 2,' in archive.read("served/meta.json")
    inside = ("README.txt", "example.py", "meta.json", "program.jax", "arrays.safetensors")
    assert names == [f"served/{name}" for name in inside]
    told = capsys.readouterr().out
    assert "mlp, 47 training images, K_p 2: a program of 0." in told
    assert "treat it as the data themselves" in told


@pytest.mark.parametrize(
    ("flag", "words"),
    [("--run=", "--run is not given"), ("--out=", "--out is not given: .* .zip"),
     ("--out=a.onnx", "--out is a.onnx: give it the name of a .zip file"),
     ("--k=99", "--k is 99: choose 1 to 47"), ("--run=nowhere", "nowhere: is neither a run's")],
)  # fmt: skip
def test_what_the_user_can_mend_is_named_by_its_flag(folder, tmp_path, monkeypatch, flag, words):
    with pytest.raises(UserError, match=words):
        command(monkeypatch, f"--run={folder}", f"--out={tmp_path / 'a.zip'}", flag)
    assert not list(tmp_path.iterdir())
