"""Compiled programs kept for the next start: JAX's compilation cache in a folder of this user's.

A start compiles some seventy programs, which takes longer than many a training. What JAX itself
keeps in a folder is not used: a write that is killed or meets a full disk leaves an entry that is
read, and warned of, for ever; it is bounded only under a lock that all processes wait for.
"""

import contextlib
import hashlib
import os
import platform
import time
from pathlib import Path
from typing import Any

import jax
from jax._src import compilation_cache

from deepknn_jax.files import replacing
from deepknn_jax.logs import say

OFF = "off"
MOST_BYTES = 2**30  # above it what was longest not used is removed
_SUFFIX = ".program"
_ABANDONED_S = 86400.0  # a temporary file of that age is of a process that was killed
_TOUCH_S = 86400.0  # how exactly it is known when an entry was last used


def keep(way: str = "") -> None:
    """From now on programs are taken from the cache, and put there, large and small ones.

    Args:
        way: a folder; off; or "": where JAX_COMPILATION_CACHE_DIR says, else
            deepknn_jax/compiled in the user's cache. JAX_ENABLE_COMPILATION_CACHE=0 is off, too.

    A folder that cannot be made or written to is told of once, and nothing is kept.
    """
    cache: Any = compilation_cache
    cache.reset_cache()  # what it has settled by now
    config: Any = jax.config  # its options are no attributes that mypy knows
    if way == OFF or not config.jax_enable_compilation_cache:
        config.update("jax_enable_compilation_cache", False)
        return
    given = way or os.environ.get("JAX_COMPILATION_CACHE_DIR", "")
    if "://" in given:  # a bucket is JAX's own matter
        config.update("jax_compilation_cache_dir", given)
        return
    try:
        folder = Path(given).expanduser() if given else _default_folder()
        folder = folder / _machine()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        prune(folder, MOST_BYTES)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        config.update("jax_compilation_cache_dir", None)  # else JAX warns of it at each program
        _tell(str(error))
        return
    # JAX asks this function, once, for what holds the entries. Where a later JAX has no such
    # function it keeps them itself.
    if hasattr(cache, "get_file_cache"):
        cache.get_file_cache = lambda path: (Entries(Path(path)), path)
    config.update("jax_compilation_cache_dir", str(folder))
    config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    config.update("jax_persistent_cache_min_entry_size_bytes", -1)


class Entries:
    """The entries of a folder, in the interface of JAX's caches: a file each, whole or not at all.

    Any number of processes may read and write at once. An entry begins with its SHA-256; one that
    is damaged is removed and counts as absent.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder  # JAX asks for it
        self._writes = True

    def get(self, key: str) -> bytes | None:
        """The entry, or None."""
        path = self._file(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        digest, value = data[:32], data[32:]
        sound = hashlib.sha256(value).digest() == digest
        with contextlib.suppress(OSError):  # the folder may be read-only
            if not sound:
                path.unlink()
            elif time.time() - path.stat().st_mtime > _TOUCH_S:
                path.touch()
        return value if sound else None

    def put(self, key: str, value: bytes) -> None:
        """Adds the entry, if that is possible; the first time that it is not is told."""
        if not self._writes:
            return
        try:
            with replacing(self._file(key)) as temporary:
                temporary.write_bytes(hashlib.sha256(value).digest() + value)
        except OSError as error:
            self._writes = False
            _tell(str(error))

    def clear(self) -> None:
        """Removes all entries."""
        prune(self._path, 0)

    def _file(self, key: str) -> Path:
        return self._path / (hashlib.sha256(key.encode()).hexdigest() + _SUFFIX)


def prune(folder: Path, most: int) -> None:
    """Removes entries, those first that were longest not used, until they have `most` bytes."""
    now, found = time.time(), []
    for path in folder.glob(f"*{_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            stat = path.stat()
            if path.name.startswith("."):
                if now - stat.st_mtime > _ABANDONED_S:
                    path.unlink()
                continue
            found.append((stat.st_mtime, stat.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= most:
            break
        path.unlink(missing_ok=True)
        total -= size


def _default_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "deepknn_jax" / "compiled"


def _machine() -> str:
    """A name for this kind of processor: machines that share a home may not share programs."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        kept = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
        if kept:
            return hashlib.sha256("\n".join(kept).encode()).hexdigest()[:16]
    return f"{platform.system()}-{platform.machine()}".lower()


def _tell(why: str) -> None:
    say(f"compiled programs are not kept for the next start: {why}; --compilation_cache=FOLDER or "
        "off")  # fmt: skip
