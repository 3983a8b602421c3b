"""The campaign's command line."""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from campaign import disks, hostile, kills, soak
from support.runs import ROOT


def finished_run(folder: Path) -> Path:
    """A small finished run, made in another process: this one is to have no backend."""
    code = (
        "import sys; from pathlib import Path; from support.runs import small_config;"
        "from deepknn_jax.trainer import loop;"
        "loop.run(small_config(epochs=2), Path(sys.argv[1]))"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(folder / "run")], check=True, capture_output=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )  # fmt: skip
    return folder / "run"


def main() -> None:
    """Runs one part of the campaign; exit status 1 where it found a fault."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["disks", "hostile", "kills", "soak"])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--minutes", type=float, default=60.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        match given.what:
            case "hostile":
                run = finished_run(folder)
                failed = hostile.campaign(given.count, given.seed, run, only=given.only)["faults"]
            case "disks":
                failed = disks.campaign(given.count, given.seed, folder)
            case "kills":
                failed = kills.campaign(given.count, given.seed, folder)
            case "soak":
                failed = soak.campaign(given.minutes, folder)["exit"] != 128 + 15
    sys.exit(bool(failed))
