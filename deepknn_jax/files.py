"""Files that are there whole or not at all."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepknn_jax.errors import UserError

CHECKSUMS = "checksums.json"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, to be written in the block; renamed to `path` at its end.

    Whatever goes wrong in the block, `path` keeps what it had, and the temporary file is removed.
    """
    temporary = path.with_name(f".{path.stem}.{_own()}.tmp{path.suffix}")
    try:
        with naming(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, to be filled in the block; renamed to `folder` at its end.

    Whatever goes wrong in the block, `folder` keeps what it had. Killed between the two renamings
    that replace a folder, it is absent: whoever reads it is told so.
    """
    temporary, former = (
        folder.with_name(f".{folder.name}.{os.getpid()}.{what}") for what in ("tmp", "former")
    )
    try:
        with naming(folder):
            temporary.mkdir()
            yield temporary
            if folder.exists():
                os.rename(folder, former)
            os.rename(temporary, folder)
    finally:
        for each in (temporary, former):
            shutil.rmtree(each, ignore_errors=True)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, to be filled in the block; renamed to `folder` at its end.

    Whole or not at all; of several processes that make the same one at once, one succeeds.

    Raises:
        FileExistsError: `folder` is there, and is not empty.
    """
    temporary = folder.with_name(f".{folder.name}.{_own()}.tmp")
    try:
        with naming(folder):
            temporary.mkdir(parents=True)
            yield temporary
            try:
                os.rename(temporary, folder)
            except OSError as error:
                if not folder.exists():
                    raise
                raise FileExistsError(errno.EEXIST, "is there already", str(folder)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _own() -> str:
    """A name for one use; process numbers are not enough where machines share a disk."""
    return f"{os.getpid()}-{secrets.token_hex(4)}"


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Gives `path` to an OSError that names no file, as that of a full disk while writing."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def sound(text: str) -> str:
    """`text` in UTF-8: what no UTF-8 can hold, as a stray byte of a file's name, is escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write_text(path: Path, text: str) -> None:
    """Replaces `path` by `text`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Replaces `path` by an .npz of the arrays."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def append(path: Path, data: bytes) -> None:
    """Appends to `path`; the data have left this process when it returns."""
    with naming(path), path.open("ab") as file:
        file.write(data)


def parse_json(text: str | bytes) -> Any:
    """`json.loads`, for which what is nested too deep is as wrong as what is no JSON.

    Raises:
        ValueError: it is none.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def read_json(path: Path) -> Any:
    """What a JSON file of a workdir holds, or None where there is no such file.

    Raises:
        UserError: it is damaged.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); choose another --workdir") from error


def write_checksums(folder: Path) -> None:
    """Writes what tells later whether a file below `folder` was cut short or changed.

    Call it last: what has no checksums was made by an earlier version, or by a killed process.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = {path.relative_to(folder).as_posix(): _checksum(path) for path in files}
    write_text(folder / CHECKSUMS, json.dumps(sums, indent=1) + "\n")


def forget_checksums(folder: Path, names: Collection[str]) -> None:
    """From now on these files of the folder, which will change, have no checksum."""
    path = folder / CHECKSUMS
    sums = read_json(path)
    if sums is not None and set(names) & set(sums):
        kept = {name: sum_ for name, sum_ in sums.items() if name not in names}
        write_text(path, json.dumps(kept, indent=1) + "\n")


def has_checksums(folder: Path) -> bool:
    """Whether `write_checksums` was called for the folder."""
    return (folder / CHECKSUMS).exists()


def damage(folder: Path, below: str = "") -> str:
    """Words on the first file in `folder` that is not as its checksum says; "" where all are.

    `below`: look at the files in that part of it only. "" as well for a folder without checksums.
    """
    try:
        sums = parse_json((folder / CHECKSUMS).read_text(encoding="utf-8"))
        known = {name: (int(size), str(digest)) for name, (size, digest) in sums.items()}
    except FileNotFoundError:
        return ""
    except (ValueError, TypeError, AttributeError):
        return f"{CHECKSUMS} is damaged"
    for name, (size, digest) in known.items():
        path = folder / name
        if not name.startswith(below):
            continue
        if not path.is_file():
            return f"{name} is gone"
        if (found := path.stat().st_size) != size:
            return f"{name} has {found} bytes in place of {size}"
        if _checksum(path) != (size, digest):
            return f"{name} is not what was written"
    return ""


def _checksum(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
