"""A soak: epochs without end, streamed, mined and saved; resident memory must be level."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from support.runs import ROOT, arguments, small_config

# The first so many seconds compile, fill caches and find the allocator's level.
WARM_UP_S = 180.0
EVERY_S = 5.0


def config():
    """Everything that a long run does, as often as it can."""
    return small_config(
        data__source="digits", model__name="cnn", data__validation=0.2, data__placement="stream",
        neighbors="dataset", refresh_steps=10, epochs=10**6, checkpoint_seconds=5.0,
        augment__crop=7, augment__flip=True, optimizer__halve_every_epochs=0,
    )  # fmt: skip


def campaign(minutes: float, folder: Path, say: Callable[[str], None] = print) -> dict:
    """Samples a run's resident memory for so many minutes; its slope after the warm-up."""
    command = [
        sys.executable,
        "-m",
        "deepknn_jax.main",
        *arguments(config()),
        f"--workdir={folder}/run",
    ]
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            ["nice", *command], cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=output, stderr=output,
        )  # fmt: skip
    began, samples = time.monotonic(), []
    while process.poll() is None and time.monotonic() - began < 60 * minutes:
        time.sleep(EVERY_S)
        samples.append((time.monotonic() - began, resident(process.pid)))
    process.send_signal(signal.SIGTERM)
    process.wait(120)
    at, mib = np.asarray([each for each in samples if each[0] > WARM_UP_S]).T
    slope, _ = np.polyfit(at / 3600, mib, 1)
    last = json.loads((folder / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    found = {
        "minutes": samples[-1][0] / 60, "epochs": last["epoch"], "samples": len(at),
        "MiB after the warm-up": mib[0], "MiB at the end": mib[-1],
        "least and most": [mib.min(), mib.max()], "MiB an hour": slope,
        "MiB an hour, last half": np.polyfit(at[len(at) // 2 :] / 3600, mib[len(at) // 2 :], 1)[0],
        "exit": process.returncode, "output": (folder / "output").read_text()[-300:],
    }  # fmt: skip
    say(json.dumps(found, indent=1))
    return found


def resident(pid: int) -> float:
    """MiB that the process holds; NaN once it is over."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")
