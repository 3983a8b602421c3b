"""Which files a cache entry was made from: by what the disk says of them, and by their content."""

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from deepknn_jax.errors import UserError


class Fingerprint(NamedTuple):
    """N files as they were: sha256, in hex, of what is known of each without reading it.

    `outside`: path below their common folder, size, time of modification in ns. Files that differ
    in it are others; those that agree may be the same ones moved or copied, or others that look so.
    `exact`: the absolute path, device, inode and time of change in ns besides. Nothing writes to a
    file without a new time of change, so files that agree in it are the same.
    """

    files: tuple[Path, ...]
    outside: str
    exact: str


def fingerprint(files: Sequence[Path]) -> Fingerprint:
    """The fingerprint of the `files`.

    Raises:
        UserError: one of them is not there.
    """
    root = os.path.commonpath([file.parent for file in files])
    outside, exact = hashlib.sha256(), hashlib.sha256(os.path.abspath(root).encode())
    for file in files:
        try:
            stat = file.stat()
        except OSError as error:
            raise UserError(f"{file}: {error.strerror}") from error
        line = json.dumps([os.path.relpath(file, root), stat.st_size, stat.st_mtime_ns]).encode()
        outside.update(line)
        exact.update(line)
        exact.update(json.dumps([stat.st_dev, stat.st_ino, stat.st_ctime_ns]).encode())
    return Fingerprint(tuple(files), outside.hexdigest(), exact.hexdigest())


@functools.lru_cache(maxsize=8)
def content_of(source: Fingerprint) -> str:
    """Sha256, in hex, of the contents of the files, in their order; a read of all of them.

    "" where one cannot be read: that is equal to no content.
    """

    def digest(file: Path) -> bytes:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()

    total = hashlib.sha256()
    try:
        with ThreadPoolExecutor() as pool:
            digests = pool.map(digest, source.files)
            for each in tqdm(digests, "comparing", len(source.files), unit=" files", disable=None):
                total.update(each)
    except OSError:
        return ""
    return total.hexdigest()
