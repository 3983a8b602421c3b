"""Two processes of which one is told to stop, or killed; and what the others then do."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from support.processes import ROOT, launched, outcomes
from support.runs import arguments, last_checkpoint, same_bits, small_config

from deepknn_jax.engine.hosts import SAVED
from deepknn_jax.logs import read_records

CONFIG = {"devices": 0, "epochs": 4, "steps_per_call": 1, "loss__name": "local_margin",
          "optimizer__learning_rate": 1e-4}  # fmt: skip


def started(workdir, count=2, devices=2, **changes):
    command = ["-m", "deepknn_jax.main", *arguments(small_config(**CONFIG | changes))]
    return launched([*command, f"--workdir={workdir}"], count, devices, workdir.parent)


def wait_for_steps(workdir, count, processes):
    until = time.monotonic() + 200
    while len(read_records(workdir / "metrics.jsonl")) < count:
        assert time.monotonic() < until
        assert processes[0].poll() is None, processes[0].communicate()
        time.sleep(0.05)


@pytest.mark.slow
def test_a_stopped_and_a_killed_run_go_on_to_the_same_bits(tmp_path):
    plain, broken = tmp_path / "plain", tmp_path / "broken"
    with started(plain) as processes:
        assert [code for code, *_ in outcomes(processes)] == [0, 0]
    with started(broken) as processes:
        wait_for_steps(broken, 5, processes)
        processes[1].send_signal(signal.SIGTERM)  # one of them
        ended = outcomes(processes)
    assert [code for code, *_ in ended] == [SAVED, SAVED], ended
    assert "and saved; the same command goes on from there" in ended[0][1]
    with started(broken) as processes:
        wait_for_steps(broken, 15, processes)
        processes[0].kill()
        assert all(code != 0 for code, *_ in outcomes(processes))
    with started(broken) as processes:
        ended = outcomes(processes)
    assert [code for code, *_ in ended] == [0, 0]
    assert "going on from step" in ended[0][1]
    config = small_config(**CONFIG)
    (found, step, _), (expected, last, _) = (
        last_checkpoint(folder, config) for folder in (broken, plain)
    )
    assert step == last == 28
    same_bits(found, expected)


@pytest.mark.slow
def test_another_number_of_processes_goes_on_with_the_same_batches(tmp_path):
    plain, moved = tmp_path / "plain", tmp_path / "moved"
    with started(plain, 1, 4) as processes:
        assert [code for code, *_ in outcomes(processes)] == [0]
    with started(moved) as processes:
        wait_for_steps(moved, 5, processes)
        processes[0].send_signal(signal.SIGTERM)
        assert [code for code, *_ in outcomes(processes)] == [SAVED, SAVED]
    with started(moved, 1, 4) as processes:
        assert [code for code, *_ in outcomes(processes)] == [0]
    losses = [
        [record["loss"] for record in read_records(folder / "metrics.jsonl") if "loss" in record]
        for folder in (plain, moved)
    ]
    assert len(losses[0]) == 28
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_other_and_is_named(tmp_path):
    with started(tmp_path / "run", epochs=500) as processes:
        wait_for_steps(tmp_path / "run", 3, processes)
        processes[1].kill()
        began = time.monotonic()
        (code, _, error), _ = outcomes(processes)
        assert time.monotonic() - began < 20
    assert code != 0
    assert "process 0 of 2" in error
    assert "is another process gone?" in error
    assert "unhealthy (stopped sending heartbeats):\n1" in error


def python(code):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    return ran, time.monotonic() - began


def test_what_hangs_is_ended_with_a_line():
    code = (
        "import time; from deepknn_jax.engine.hosts import watched\n"
        "with watched(0.0, 'a'): time.sleep(0.2)\n"
        "with watched(30.0, 'b'): time.sleep(0.2)\n"
        "with watched(0.2, 'the call to step 7'): time.sleep(60)\n"
    )
    ran, seconds = python(code)
    assert ran.returncode == 1
    assert ran.stderr == "the call to step 7 takes longer than 0.2 s\n"
    assert seconds < 50
