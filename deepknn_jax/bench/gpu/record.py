"""The JSON file of the sections: written whole each time that something is known."""

import json
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deepknn_jax.bench.timing import Row
from deepknn_jax.files import read_json, write_text
from deepknn_jax.logs import say

# {"task": ...} and a Row's fields, or "values" {name: figure}, or an "error".
Entry = dict[str, Any]


def read(file: Path) -> dict[str, Any]:
    """What the file holds; nothing where there is none."""
    return read_json(file) or {"sections": {}}


def write(file: Path, record: dict[str, Any]) -> None:
    """Replaces the file."""
    write_text(file, json.dumps(record, indent=1) + "\n")


def update(file: Path, section: str, **fields: Any) -> None:
    """Sets fields of a section."""
    record = read(file)
    record["sections"].setdefault(section, {"entries": []}).update(fields)
    write(file, record)


def append(file: Path, section: str, entry: Entry) -> None:
    """Adds an entry to a section, and says it."""
    record = read(file)
    record["sections"].setdefault(section, {"entries": []})["entries"].append(entry)
    write(file, record)
    say(json.dumps(entry))


def entry_of(row: Row, **more: Any) -> Entry:
    """A row and what else is known of it; what is None is left out."""
    return {key: value for key, value in {**row._asdict(), **more}.items() if value is not None}


def figures(task: str, values: dict[str, Any]) -> Entry:
    """Named figures or words of one task."""
    return {"task": task, "values": values}


def attempt(task: str, entries: Callable[[], Iterator[Entry]]) -> Iterator[Entry]:
    """The entries; what goes wrong among them is one more, and ends them."""
    try:
        yield from entries()
    except Exception as error:  # whatever one task raises, the others go on
        yield {"task": task, "error": message(error)}


def message(error: BaseException) -> str:
    """The error, and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = ", ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-3:])
    return f"{type(error).__name__}: {str(error)[:1500]} ({where})"
