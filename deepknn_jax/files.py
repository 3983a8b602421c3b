"""Files that are there whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, to be written in the block; renamed to `path` at its end.

    Whatever goes wrong in the block, `path` keeps what it had, and the temporary file is removed.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replaces `path` by `text`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
