"""launch/slurm.sbatch in a SLURM of two nodes: to the end, told to stop, killed, cancelled."""

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from support.runs import ROOT, file_config, last_checkpoint, same_bits
from support.slurm import running_slurm, wait_for

pytestmark = pytest.mark.slurm

OPTIONS = {
    "epochs": 2,
    "steps_per_call": 2,
    "checkpoint_seconds": 0.0,
    "evaluate.pictures": False,
    "evaluate.references": (),
}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory, compiled_once):
    """Its jobs run this checkout on two CPU devices a process."""
    with running_slurm(tmp_path_factory.mktemp("slurm"), tmp_path_factory.mktemp("jobs")) as found:
        found.environment |= {
            "JAX_NUM_CPU_DEVICES": "2",
            "JAX_PLATFORMS": "cpu",
            "PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": "",
        }
        yield found


def submit(slurm, name, *options, config="digits", **changes):
    """The number of a job that trains into the folder `name` and tells of it in `name`.txt."""
    flags = [f"--config=configs/{config}.py", f"--workdir={name}"]
    flags += [f"--config.{key}={value}" for key, value in (OPTIONS | changes).items()]
    script = ROOT / "launch" / "slurm.sbatch"
    return slurm.submit(f"--output={name}.txt", *options, script, *flags)


def said(slurm, name):
    path = slurm.cwd / f"{name}.txt"
    return path.read_text() if path.exists() else ""


def starts(slurm, name):
    """The exit status of each start of the job that has ended."""
    return [int(found) for found in re.findall(r"exit status (\d+)", said(slurm, name))]


def newest(slurm, name):
    """The step of the newest checkpoint; 0 before the first one."""
    found = [path.name for path in (slurm.cwd / name / "checkpoints").glob("*")]
    return max((int(step) for step in found if step.isdigit()), default=0)


def task(job, number):
    """The process of the job that has this number among its tasks."""
    wanted = {f"SLURM_JOB_ID={job}".encode(), f"SLURM_PROCID={number}".encode()}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = set((folder / "environ").read_bytes().split(b"\0"))
            command = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted <= environment and b"deepknn_jax.main" in command and command[1] == b"-m":
            return int(folder.name)
    return None


def parameters(slurm, name):
    config = file_config("digits")
    config.update_from_flattened_dict(OPTIONS)
    return last_checkpoint(slurm.cwd / name, config)[0][0].params


def test_a_job_that_is_stopped_and_killed_ends_with_the_bits_of_one_that_is_not(slurm):
    """Two nodes, a process on each, two devices in each."""
    whole = submit(slurm, "whole", "--nodes=2")
    wait_for("the end", lambda: slurm.state(whole) == "COMPLETED", 240)
    assert "processes: 2 (SLURM), 2 device(s) each, 4 in all" in said(slurm, "whole")
    assert (slurm.cwd / "whole" / "results.json").exists()

    slurm.environment["CRASH_SECONDS"] = "0"
    job = submit(slurm, "broken", "--nodes=2")
    wait_for("a checkpoint", lambda: newest(slurm, "broken"), 120)
    slurm.run("scancel", "--signal=TERM", job)
    wait_for("the first start's end", lambda: starts(slurm, "broken") == [85], 60)
    stopped = newest(slurm, "broken")
    assert 0 < stopped < newest(slurm, "whole")

    wait_for("more steps", lambda: newest(slurm, "broken") > stopped, 120)
    os.kill(task(job, 1), signal.SIGKILL)
    killed = time.monotonic()
    wait_for("the second start's end", lambda: len(starts(slurm, "broken")) == 2, 60)
    assert time.monotonic() - killed < 15
    assert newest(slurm, "broken") < newest(slurm, "whole")

    wait_for("the end", lambda: slurm.state(job) == "COMPLETED", 240)
    # Where a node was slow to answer, SLURM repeats the second start's end 60 s later, and it comes
    # to a later start: which is told to stop, and saves.
    first, second, *later, last = starts(slurm, "broken")
    assert (first, second, {*later} - {85}, last) == (85, 137, set(), 0)
    assert slurm.show(job)["Restarts"] == str(2 + len(later))
    same_bits(parameters(slurm, "broken"), parameters(slurm, "whole"))


def test_a_job_that_its_user_cancels_stays_ended_and_so_does_one_that_is_wrong(slurm):
    """Each on a node of its own, with two processes there."""
    slurm.environment |= {"PROCESSES_PER_NODE": "2", "CRASH_SECONDS": "60"}
    cancelled = submit(slurm, "cancelled", config="breast_cancer", epochs=1000)
    wrong = submit(slurm, "wrong", epoch=3)  # no such option
    wait_for("a checkpoint", lambda: newest(slurm, "cancelled"), 120)
    assert "processes: 2 (SLURM), 2 device(s) each, 4 in all" in said(slurm, "cancelled")
    slurm.run("scancel", cancelled)
    over = ("COMPLETED", "CANCELLED", "FAILED")
    for job in (cancelled, wrong):
        wait_for("its end", lambda job=job: slurm.state(job) in over, 120)
    time.sleep(3)
    assert (slurm.state(cancelled), slurm.state(wrong)) == ("CANCELLED", "FAILED")
    # Both scripts have looked whether to start again.
    for name in ("cancelled", "wrong"):
        assert len(starts(slurm, name)) == 1, said(slurm, name)
    assert "told to end" in said(slurm, "cancelled")
    assert "not tried again" in said(slurm, "wrong")
    assert "starts again" not in said(slurm, "cancelled") + said(slurm, "wrong")
