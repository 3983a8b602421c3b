"""The command serve: its flags, its socket, and its end."""

import os
import re
import signal
import subprocess
import sys

import pytest
from support.answering import FEATURES, model_of
from support.commands import run_main
from support.runs import ROOT
from support.serving import ask

from deepknn_jax.answers.model import write
from deepknn_jax.errors import UserError
from deepknn_jax.serve import __main__ as command


@pytest.fixture(scope="module")
def folder(tmp_path_factory, compiled_once):
    folder = tmp_path_factory.mktemp("run") / "model"
    write(folder, model_of(FEATURES), "")
    return folder


def start(monkeypatch, *arguments):
    run_main(monkeypatch, command, *arguments)


@pytest.mark.parametrize("module", ["starlette", "uvicorn", "python_multipart"])
def test_what_the_extra_brings_is_named_where_it_is_absent(monkeypatch, module):
    own = ("deepknn_jax.serve.app", "deepknn_jax.serve.desk", "deepknn_jax.serve.uploads")
    for name in [each for each in sys.modules if each in own or each.startswith("starlette")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"the page needs \w+: pip install 'deepknn-jax\[serve\]'$"):
        start(monkeypatch, "--run=anywhere")


def test_no_run_is_named(monkeypatch):
    with pytest.raises(UserError, match="--run is not given"):
        start(monkeypatch)


@pytest.mark.serve
@pytest.mark.parametrize(
    ("flag", "words"),
    [("--k=99", "--k is 99: choose 1 to 47"), ("--level=2", "--level is 2"),
     ("--run=nowhere", "nowhere: is neither a run's")],
)  # fmt: skip
def test_what_the_user_can_mend_is_named_by_its_flag(folder, monkeypatch, flag, words):
    from support.optional import require

    require("starlette")
    with pytest.raises(UserError, match=words):
        start(monkeypatch, f"--run={folder}", flag)


def test_it_listens_on_this_machine_alone_and_a_port_that_is_taken_is_named():
    with command.listening(0) as listener:
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(UserError, match=rf"--port={port}: is taken; choose another, or 0"):
            command.listening(port)


@pytest.mark.serve
def test_a_signal_ends_it_in_one_line(folder, tmp_path):
    from support.optional import require

    require("starlette")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "deepknn_jax.serve", f"--run={folder}", "--port=0"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            line = process.stdout.readline()
            port = int(re.match(r"http://127\.0\.0\.1:(\d+)/ answers by ", line)[1])
            assert ask(port)[0] == 200
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out) == (128 + signal.SIGTERM, "")
    assert err == "stopped by SIGTERM; the same command goes on, or begins anew\n"
    assert list(tmp_path.iterdir()) == []
