"""The journal of a model folder: changes/0001, changes/0002, ... one folder a line.

- line.json: what was done, when and why; `content`, sha256 of arrays.npz; `before`, sha256 of the
  line before: what was changed or exchanged later is found.
- arrays.npz: of cases that joined, all that is known of them; calibrated_*, the calibration after
  the line.

A line is there whole or not at all, and of several processes that write line N one succeeds: the
others are told, and look anew.
"""

import hashlib
import json
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepknn_jax.data.npy import read_npz
from deepknn_jax.errors import UserError
from deepknn_jax.files import new_folder, parse_json, write_arrays, write_text

FOLDER = "changes"  # in a model folder
_OLD_S = 3600.0  # what a killed process left is removed after so long


class Line(NamedTuple):
    """A line. `names` [m] of the cases, `labels` [m] their classes after it, `were` before it.

    `did`: `changes`'s words; `when`: UTC; `note`: why; `votes`: False where what joined calibrates;
    `to`: the line that a restore went back to; `content` and `before`: sha256 in hex.
    """

    number: int
    did: str
    when: str = ""
    note: str = ""
    names: Sequence[str] = ()
    labels: Sequence[str] = ()
    were: Sequence[str] = ()
    votes: bool = True
    to: int = 0
    content: str = ""
    before: str = ""


def count(folder: Path) -> int:
    """The number of lines in the journal of a model folder."""
    return len(_numbers(folder))


def _numbers(folder: Path) -> list[int]:
    root = folder / FOLDER
    if not root.is_dir():
        return []
    return sorted(int(path.name) for path in root.iterdir() if re.fullmatch(r"\d+", path.name))


def place(folder: Path, number: int) -> Path:
    """The folder of a line."""
    return folder / FOLDER / f"{number:04d}"


def read(folder: Path, start: str) -> tuple[Line, ...]:
    """All lines; `start` stands for what the training left, in the place of a line before the 1st.

    Raises:
        UserError: one is damaged, absent, or of another gallery.
    """
    lines, before = [], start
    for number, found in enumerate(_numbers(folder), 1):
        path = place(folder, number)
        if found != number:
            raise _damaged(path, f"it is gone, and there is line {found}")
        try:
            data = (path / "line.json").read_bytes()
            line = Line(**parse_json(data))
        except (OSError, ValueError, TypeError) as error:
            raise _damaged(path, str(error)) from error
        if line.number != number or line.before != before:
            raise _damaged(path, "it does not follow on what is before it")
        before = hashlib.sha256(data).hexdigest()
        lines.append(line)
    return tuple(lines)


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: is damaged ({reason}): copy the folder anew from where it was made")


def arrays(folder: Path, line: Line) -> dict[str, np.ndarray]:
    """The arrays of a line.

    Raises:
        UserError: they are damaged.
    """
    path = place(folder, line.number) / "arrays.npz"
    try:
        if _digest(path) != line.content:
            raise ValueError("it is not what was written")
        return read_npz(path)
    except (OSError, ValueError, MemoryError) as error:
        raise _damaged(path, str(error)) from error


def append(folder: Path, line: Line, given: Mapping[str, Any], *, start: str) -> Line:
    """Writes a line, and returns it with its time and digests; whole or not at all.

    Raises:
        FileExistsError: another process wrote this line meanwhile.
    """
    path, before = place(folder, line.number), start
    if line.number > 1:
        data = (place(folder, line.number - 1) / "line.json").read_bytes()
        before = hashlib.sha256(data).hexdigest()
    _clean(folder, line.number)
    with new_folder(path) as temporary:
        write_arrays(temporary / "arrays.npz", given)
        when = datetime.now(UTC).isoformat(timespec="seconds")
        content = _digest(temporary / "arrays.npz")
        line = line._replace(when=when, content=content, before=before)
        write_text(temporary / "line.json", json.dumps(line._asdict(), indent=1) + "\n")
    return line


def _clean(folder: Path, number: int) -> None:
    """Removes what killed processes left of lines that others have written since."""
    for path in (folder / FOLDER).glob(".*.tmp"):
        try:
            if (
                int(path.name.split(".")[1]) < number
                and time.time() - path.stat().st_mtime > _OLD_S
            ):
                shutil.rmtree(path, ignore_errors=True)
        except (OSError, ValueError):  # another process removed it, or it is somebody else's
            continue


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
