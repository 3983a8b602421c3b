"""The running record of a training: metrics.jsonl, TensorBoard events, lines in the terminal."""

import contextlib
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from deepknn_jax import tfevents
from deepknn_jax.errors import UserError, renamed
from deepknn_jax.files import append, parse_json, sound, write_text

Record = dict[str, Any]
Seconds = dict[str, float]  # where the time went
_muted = False
_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


def mute() -> None:
    """From now on `say` is silent: another process of this run speaks."""
    global _muted
    _muted = True


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """In the block, or the function, `say` is silent: who called wants arrays."""
    before = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(before)


def say(line: str) -> None:
    """One line to the terminal, at once; what its encoding lacks is escaped.

    Arguments in backticks are named as `errors.renaming` says.
    """
    if _muted or _QUIET.get():
        return
    encoding = sys.stdout.encoding or "utf-8"
    known = sound(renamed(line)).encode(encoding, "backslashreplace").decode(encoding)
    print(known, flush=True)  # noqa: T201


def read_records(path: Path) -> list[Record]:
    """The records of metrics.jsonl; a last line that a kill cut short is left out.

    Raises:
        UserError: another line is no record.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = parse_json(line)
            _ = record["step"] + 0
        except (ValueError, TypeError, LookupError) as error:
            if number == len(lines):  # it has no end
                break
            raise UserError(
                f"{path}: line {number} is no record ({error}); mend it, or remove that line"
            ) from error
        records.append(record)
    return records


def record_log(workdir: Path, step: int) -> Callable[[Record], None]:
    """A function that appends a record, which holds "step", to metrics.jsonl and TensorBoard.

    Both are cut back to `step` first: what a killed run recorded past its last checkpoint will be
    recorded again. Nothing is held back in memory, so a kill loses nothing.
    """
    path = workdir / "metrics.jsonl"
    kept = [record for record in read_records(path) if record["step"] <= step]
    write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
    board = event_log(workdir / "tensorboard", step)

    def record(values: Record) -> None:
        append(path, (json.dumps(values) + "\n").encode())
        board(values)

    return record


def event_log(folder: Path, step: int) -> Callable[[Record], None]:
    """A function that appends a record's floats to a new file of TensorBoard events.

    The file hides what earlier ones hold past `step`.
    """

    def board(values: Record) -> None:
        events = [
            tfevents.scalar(name, value, values["step"])
            for name, value in values.items()
            if isinstance(value, float) and name != "epoch"
        ]
        append(path, b"".join(events))

    folder.mkdir(exist_ok=True)
    path = folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
    append(path, tfevents.version() + tfevents.start(step + 1))
    return board


@contextlib.contextmanager
def clock(seconds: Seconds, name: str) -> Iterator[None]:
    """Adds the time spent in the block to seconds[name]."""
    began = time.monotonic()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.monotonic() - began


def duration(seconds: float) -> str:
    """Seconds as hours, minutes, seconds: 1:02:03, or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
