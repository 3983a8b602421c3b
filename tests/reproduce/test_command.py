"""The command from outside: what it tells, and one line for what the user got wrong."""

import os
import subprocess
import sys

from support.reproduced import options, tiny_root  # noqa: F401  (fixtures)
from support.runs import ROOT


def start(*args):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "deepknn_jax.reproduce", *map(str, args)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_the_command_tells_what_it_would_run(options):  # noqa: F811
    ran = start(
        "--table=2", f"--data_root={options.data_root}", f"--out={options.out}", "--dry_run"
    )
    stdout, stderr = ran.communicate()
    assert ran.returncode == 0, stderr
    assert "absent: SD-198" in stdout
    assert "not run: skin7/deep_knn, 3 of about" in stdout
    assert "(--all runs them)" in stdout
    assert not (options.out / "cells").exists()


def test_a_wrong_command_is_one_line(tmp_path):
    wrong = (
        (["--table=7", "--data_root=x"], "table"),
        (["--table=3"], "--data_root=DIR"),
        (["--table=3", f"--data_root={tmp_path}/gone"], "gone: no such folder"),
    )
    started = [start(*args, f"--out={tmp_path}") for args, _ in wrong]
    for ran, (_, words) in zip(started, wrong, strict=True):
        _, stderr = ran.communicate()
        assert ran.returncode == 1
        assert stderr.startswith("error: ")
        assert words in stderr
        assert stderr.count("\n") == 1
