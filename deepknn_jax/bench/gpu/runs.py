"""Whole runs of the program: digits, a second start, and whether two runs end alike."""

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from deepknn_jax.bench import mlp, peers
from deepknn_jax.bench.gpu.arrays import set_tf32
from deepknn_jax.bench.gpu.images import make_folders
from deepknn_jax.bench.gpu.networks import first_step_command
from deepknn_jax.bench.gpu.record import Entry, attempt, entry_of, figures
from deepknn_jax.evaluation.report import read_results
from deepknn_jax.trainer import checkpoint

_LONGEST = 240.0  # seconds of one run
_QUIET = ("--config.evaluate.pictures=False", "--config.evaluate.references=()")


class Told(NamedTuple):
    """What a command printed, each line with the seconds since its start; and its exit status."""

    lines: list[tuple[float, str]]
    status: int
    seconds: float


def tell(
    arguments: list[str],
    variables: Mapping[str, str] | None = None,
    stop: Callable[[str], bool] = lambda line: False,
) -> Told:
    """Runs Python with these arguments; at the first line for which `stop` holds, SIGTERM.

    Raises:
        RuntimeError: its exit status is neither 0 nor that of a run that was stopped so.
    """
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env=os.environ | dict(variables or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    timer = threading.Timer(_LONGEST, process.kill)
    timer.start()
    lines, stopped = [], False
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append((time.monotonic() - began, line.rstrip()))
            if not stopped and stop(line):
                process.send_signal(signal.SIGTERM)
                stopped = True
        status = process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.communicate()
    if status not in (0, 128 + signal.SIGTERM):
        tail = " | ".join(line for _, line in lines[-8:])
        raise RuntimeError(f"{' '.join(arguments)}: exit status {status}: {tail}")
    return Told(lines, status, time.monotonic() - began)


def answer(told: Told) -> dict[str, Any]:
    """The JSON object that a command printed."""
    found = [line for _, line in told.lines if line.startswith("{")]
    return dict(json.loads(found[-1]))


def train(workdir: Path, *options: str, **more: Any) -> Told:
    """A run of the program; `more` is that of `tell`."""
    return tell(["-m", "deepknn_jax.main", f"--workdir={workdir}", *options], **more)


def phases(workdir: Path) -> dict[str, float]:
    """Where a finished run's time went, and its accuracy."""
    results = read_results(workdir)
    assert results is not None, f"{workdir} has no results"
    found = {f"seconds, {name}": value for name, value in results["seconds"].items()}
    return found | {f"Acc, K_p = {k}": 100 * part["acc"] for k, part in results["test"].items()}


def digits(small: bool) -> Iterator[Entry]:
    """The README's first command twice with one cache; table 3's step; a second start."""
    with tempfile.TemporaryDirectory() as folder:
        cache = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        for number, word in enumerate(("empty", "full")):
            run = functools.partial(_digits, Path(folder) / str(number), cache, small)
            name = f"python -m deepknn_jax.main (digits), {word} compilation cache"
            yield from attempt(name, functools.partial(_figures, name, run))
    yield from attempt("MLP step", functools.partial(_mlp, small))
    yield from attempt("second start", functools.partial(_second_start, small))


def _figures(task: str, run: Callable[[], dict[str, Any]]) -> Iterator[Entry]:
    yield figures(task, run())


def _digits(workdir: Path, cache: Mapping[str, str], small: bool) -> dict[str, Any]:
    options = ["--config.epochs=1", *_QUIET] if small else []
    told = train(workdir, *options, variables=cache)
    return {"seconds, whole command": told.seconds} | phases(workdir)


def _mlp(small: bool) -> Iterator[Entry]:
    sizes = {"features": 5, "batch": 16, "steps": 2, "repeats": 2} if small else {}
    if (torch := peers.load("torch")) is not None:
        set_tf32(torch, False)
    # In full float32 on both sides: in TF32 the two drift apart in 80 steps.
    with jax.default_matmul_precision("highest"):
        for row in mlp.measure(**sizes):
            yield entry_of(row)


def _second_start(small: bool) -> Iterator[Entry]:
    """The time to a first step in two processes that share a compilation cache."""
    name, batch, size = ("resnet18", 8, 33) if small else ("resnet18", 96, 224)
    with tempfile.TemporaryDirectory() as folder:
        cache = {"JAX_COMPILATION_CACHE_DIR": folder}
        found = {}
        for word in ("empty", "full"):
            told = tell(first_step_command(name, batch, size), cache)
            found[f"seconds, cache {word}"] = answer(told)["seconds"]
    yield figures(f"{name}, B {batch}, {size} px: from the start of JAX to the first step", found)


def resume(small: bool) -> Iterator[Entry]:
    """A run made twice, and a third time stopped in the middle: do they end with the same bits?

    With config.deterministic and without; all runs share the device, at small sizes in turn.
    """
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        make_folders(images, count=48 if small else 240, classes=3, width=75, height=56)
        options = [
            "--config=configs/class_folders.py",
            f"--config.data.dir={images}",
            f"--config.data.cache_dir={folder}/cache",
            f"--config.model.name={'cnn' if small else 'resnet18'}",
            f"--config.epochs={3 if small else 20}",
            "--config.steps_per_call=1",
            "--config.evaluate.every_epochs=0",
            *_QUIET,
        ]

        def repeated(word: str) -> list[Entry]:
            task = f"config.deterministic={word}"
            together = 1 if small else 3
            runs = functools.partial(_repeated, Path(folder) / word, options, task, together)
            return list(attempt(task, runs))

        with ThreadPoolExecutor(1 if small else 2) as pool:
            for entries in pool.map(repeated, ("True", "False")):
                yield from entries


def _repeated(folder: Path, options: list[str], task: str, together: int) -> Iterator[Entry]:
    own = [*options, f"--{task}"]

    def interrupted() -> int:
        first = train(folder / "stopped", *own, stop=lambda line: line.startswith("epoch 1/"))
        assert first.status, "the run had ended before it could be stopped"
        again = train(folder / "stopped", *own)
        (found,) = [line for _, line in again.lines if line.startswith("going on from step")]
        return int(found.split()[4])

    with ThreadPoolExecutor(together) as pool:
        stopped = pool.submit(interrupted)
        others = [pool.submit(train, folder / name, *own) for name in ("once", "twice")]
        for other in others:
            other.result()
        step = stopped.result()
    once, twice, resumed = (_state(folder / name) for name in ("once", "twice", "stopped"))
    yield figures(
        task,
        {
            "stopped after step": step,
            "the same command twice: same bits": _difference(once, twice) is None,
            "largest difference of the two": _difference(once, twice) or 0.0,
            "stopped and resumed: same bits": _difference(once, resumed) is None,
            "largest difference, resumed": _difference(once, resumed) or 0.0,
        },
    )


def _state(workdir: Path) -> list[np.ndarray]:
    """Parameters, statistics and the optimizer's state, of the last checkpoint."""
    state, *_ = checkpoint.newest_arrays(workdir / "checkpoints")
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def _difference(one: list[np.ndarray], other: list[np.ndarray]) -> float | None:
    """The largest difference, or None where all bits are the same."""
    if all(x.tobytes() == y.tobytes() for x, y in zip(one, other, strict=True)):
        return None
    pairs = [(x.astype(np.float64), y.astype(np.float64)) for x, y in zip(one, other, strict=True)]
    return max(float(np.max(np.abs(x - y), initial=0.0)) for x, y in pairs)
