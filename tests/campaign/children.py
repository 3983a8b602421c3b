"""Work in a forked child: within its time and memory, and what became of it."""

import contextlib
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from deepknn_jax.errors import UserError
from deepknn_jax.trainer.keys import naming_keys

MEMORY = 2 * 2**30  # bytes that a child may take beyond what it begins with
SOUND, REFUSED, FAULT = "sound", "refused", "fault"


class Outcome(NamedTuple):
    """What became of a child: SOUND, REFUSED or FAULT, in words, in so many seconds and bytes."""

    kind: str
    words: str
    seconds: float
    peak: int


def attempt(work: Callable[[], object], folder: Path, *, seconds: float) -> Outcome:
    """`work` in a fork of this process, in `folder`; what it prints goes to the file `output`.

    The errors that a command ends by in one line (shell.run_command) are REFUSED; any other, more
    than one line, more memory or time is a FAULT. JAX may be imported here but must have no backend
    yet: its threads would not be in the child.
    """
    began = time.monotonic()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(work, folder, writer)
    os.close(writer)
    told, late = b"", False
    while True:
        left = began + seconds - time.monotonic()
        if not select.select([reader], [], [], max(0.0, left))[0]:
            late = True
            os.kill(pid, signal.SIGKILL)
            break
        if not (part := os.read(reader, 1 << 16)):
            break
        told += part
    os.close(reader)
    status = os.waitpid(pid, 0)[1]
    spent = time.monotonic() - began
    if late:
        return Outcome(FAULT, f"not done in {seconds:g} s", spent, 0)
    if not told:
        return Outcome(FAULT, f"died, status {os.waitstatus_to_exitcode(status)}", spent, 0)
    kind, words, peak = json.loads(told)
    return Outcome(kind, words, spent, peak)


def _child(work: Callable[[], object], folder: Path, writer: int) -> None:
    os.chdir(folder)
    output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    begun = _status("VmRSS")
    most = _status("VmData") + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    kind, words = judged(work)
    peak = _status("VmHWM") - begun
    sys.stdout.flush()
    if kind != FAULT and peak > MEMORY:
        kind, words = FAULT, f"{words}; took {peak / 2**20:.0f} MiB"
    os.write(writer, json.dumps([kind, words, peak]).encode())
    os._exit(0)


def judged(work: Callable[[], object]) -> tuple[str, str]:
    """The kind and the words of what becomes of `work`, as a command would tell it."""
    try:
        with naming_keys():
            work()
    except UserError as error:
        line = f"error: {error}"
        return (FAULT if "\n" in line else REFUSED), line
    except OSError as error:
        if error.filename is not None or error.errno is not None:
            return REFUSED, f"error: {error.filename or 'a file'}: {error.strerror}"
        return FAULT, _told(error)
    except SystemExit as stop:  # a whole command
        if isinstance(stop.code, str) and stop.code.startswith("error: ") and "\n" not in stop.code:
            return REFUSED, stop.code
        return (SOUND, "") if not stop.code else (FAULT, f"exit {stop.code!r}")
    except BaseException as error:
        return FAULT, _told(error)
    return SOUND, ""


def _told(error: BaseException) -> str:
    """The error, and where in the package it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "deepknn_jax" in frame.filename][-2:]
    places = ", ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in own)
    return f"{type(error).__name__}: {str(error)[:300]} ({places})"


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def left_over(folder: Path) -> list[str]:
    """Files below `folder` that are half of something, by their names."""
    return [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if ".tmp" in path.name or path.name.endswith(".partial") or "orbax-checkpoint" in path.name
    ]
