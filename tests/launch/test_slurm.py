"""launch/slurm.sbatch in a SLURM of two nodes: to the end, told to stop, killed, cancelled."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from support.runs import ROOT, file_config, last_checkpoint, same_bits
from support.slurm import running_slurm, wait_for

pytestmark = pytest.mark.slurm

OPTIONS = {
    "model.name": "mlp",
    "epochs": 30,
    "checkpoint_seconds": 0.0,
    "evaluate.pictures": False,
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


def submit(slurm, name, *options):
    """The number of a job that trains into the folder `name`."""
    flags = [f"--config.{key}={value}" for key, value in OPTIONS.items()]
    return slurm.submit(
        f"--output={name}.txt", *options, ROOT / "launch" / "slurm.sbatch",
        "--config=configs/digits.py", "--config.evaluate.references=()", f"--workdir={name}", *flags,
    )  # fmt: skip


def said(slurm, name):
    path = slurm.cwd / f"{name}.txt"
    return path.read_text() if path.exists() else ""


def steps(slurm, name):
    """The steps of the checkpoints that are there."""
    found = (slurm.cwd / name / "checkpoints").glob("[0-9]*")
    return {int(path.name) for path in found if path.name.isdigit()}
