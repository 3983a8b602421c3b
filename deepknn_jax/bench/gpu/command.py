"""The sections in their order, each in a process of its own and with its own time."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from deepknn_jax.bench.gpu import arrays, epochs, networks, runs
from deepknn_jax.bench.gpu.record import Entry, append, message, read, update
from deepknn_jax.logs import say


class Section(NamedTuple):
    """What measures, given whether sizes are small; and the most seconds that it may take.

    The seconds are those of a whole of 530, and grow with it.

    `shares`: what it compiles comes from, and goes to, a cache of these sections.
    """

    measure: Callable[[bool], Iterator[Entry]]
    limit: float
    shares: bool = False


# By importance: time may run out.
SECTIONS: dict[str, Section] = {
    "device": Section(arrays.device, 60),
    "search": Section(arrays.search, 90),
    "loss": Section(arrays.losses, 60),
    "steps": Section(networks.steps, 200, shares=True),
    "resume": Section(runs.resume, 100),
    "digits": Section(runs.digits, 110),
    "epochs": Section(epochs.epochs, 130),
    "compiled": Section(networks.compiled, 150, shares=True),
}
LIMIT = 530.0  # seconds of all sections together
_LEAST = 15.0  # seconds, below which no section is begun


def run(names: Sequence[str], file: Path, limit: float) -> None:
    """Measures the named sections into `file`, in `limit` seconds; other sections in it stay."""
    began = time.monotonic()
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache:
        # Without preallocation: JAX would take three quarters of the memory, and torch is beside.
        alone = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        for name in names:
            shared = {"JAX_COMPILATION_CACHE_DIR": cache} if SECTIONS[name].shares else {}
            own = SECTIONS[name].limit * limit / LIMIT
            left = min(own, limit - (time.monotonic() - began))
            update(file, name, entries=[], error=None)
            if left < _LEAST:
                update(file, name, error=f"not begun: the {limit:.0f} s were spent")
                continue
            say(f"{name} (at most {left:.0f} s)")
            started = time.monotonic()
            error = _child(name, file, left, alone | shared)
            seconds = time.monotonic() - started
            update(file, name, seconds=seconds, **({"error": error} if error else {}))
            say(f"{name}: {seconds:.0f} s{error and f'; {error}'}")


def _child(name: str, file: Path, seconds: float, variables: dict[str, str]) -> str:
    """Runs a section; what ended it, if it did not end by itself."""
    command = [sys.executable, "-m", "deepknn_jax.bench.gpu", name, str(file)]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, env=os.environ | variables, stderr=errors, start_new_session=True
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"stopped at its limit of {seconds:.0f} s"
        finally:
            _end(process)
        errors.seek(0)
        told = errors.read()
        # What went wrong stands first or last, by who tells it.
        told = told if len(told) < 1600 else f"{told[:800]} ... {told[-800:]}"
        return f"exit status {status}: {told}" if status else ""


def _end(process: subprocess.Popen) -> None:
    """Ends the process and what it has started: its whole session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def measure(name: str, file: Path) -> None:
    """One section, in this process."""
    small = jax.default_backend() != "gpu"
    if small:
        say("JAX shows no GPU: small sizes, whose times say nothing")
    try:
        for entry in SECTIONS[name].measure(small):
            append(file, name, entry)
    except Exception as error:  # recorded: the other sections go on
        update(file, name, error=message(error))
    if (found := read(file)["sections"][name].get("error")) is not None:
        say(f"{name}: {found}")
