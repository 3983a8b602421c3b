"""Images decoded once into a memory-mapped file that all later runs share.

An entry is a folder <cache_dir>/<key>/ with images.npy (uint8 [N, size, size, C], volumes
[N, size, size, size, 1]) and meta.json (the shape; which images were skipped, and why; which files
made it, and their content). It is made in a folder of another name, which is then renamed, so an
entry that exists is complete. Two processes that start at once each decode in a folder of their
own, and the first to finish wins.

What an interrupted decode has done is taken up by the next one of the same entry. Each process
locks the images.npy that it writes, so what is not locked was left by one that is dead. Left-overs
that nobody takes up are removed after a week. Sound entries are never deleted: remove the folder at
will.
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from deepknn_jax.data.fingerprint import Fingerprint, content_of, fingerprint
from deepknn_jax.data.npy import map_npy
from deepknn_jax.errors import UserError
from deepknn_jax.files import parse_json, write_text

PARTIAL = ".partial"
ABANDONED_S = 7 * 86400.0  # what an interrupted decode left is kept for the next one so long
ON_ERROR = ("stop", "skip")
PROGRESS_S = 5.0  # between two notes of what is done and safely on the disk


def default_cache_dir() -> Path:
    """$XDG_CACHE_HOME/deepknn_jax, or ~/.cache/deepknn_jax."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deepknn_jax"


def cached_files(
    source: Fingerprint,
    options: Mapping[str, object],
    names: Sequence[str],
    read: Callable[[int], np.ndarray],
    *,
    shape: tuple[int, ...],
    cache_dir: str | Path,
    on_error: str = "",
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """`cached_images` of what is made from files with `options`; `source` is their fingerprint.

    An entry is taken where these very files made it (the same paths, sizes, times and inodes), or,
    where they only look so (they were moved, copied or touched), after a comparison of their
    content with what made it.
    """
    entry = entry_of(source, options, cache_dir)
    result = cached_images(
        entry.name, names, read, shape=shape, cache_dir=cache_dir, on_error=on_error
    )
    _note_source(entry, source)
    return result


def entry_of(source: Fingerprint, options: Mapping[str, object], cache_dir: str | Path) -> Path:
    """The folder of the entry of `cached_files`, which need not exist yet."""
    described = json.dumps([options, source.outside], sort_keys=True)
    key = hashlib.sha256(described.encode()).hexdigest()[:32]
    folder = cache_folder(cache_dir)
    own = folder / f"{key}-{source.exact[:16]}"
    entries = [path for path in sorted(folder.glob(f"{key}-*")) if "." not in path.name]
    for entry in entries:
        if entry == own or source.exact in _read_meta(entry).get("known", ()):
            return entry
    for entry in entries:
        content = _read_meta(entry).get("content")
        if content and content == content_of(source):
            return entry
    return own


def cache_folder(cache_dir: str | Path) -> Path:
    """The folder of all entries: `cache_dir`, or the per-user default where it is empty."""
    return Path(cache_dir).expanduser() if str(cache_dir) else default_cache_dir()


def _note_source(entry: Path, source: Fingerprint) -> None:
    """Notes in the entry which files it is known to be made from, and their content."""
    meta = _read_meta(entry)
    known = meta.get("known", [])
    if source.exact in known or fingerprint(source.files) != source:  # they changed meanwhile
        return
    if not (content := content_of(source)):
        return
    noted = {"content": content, "known": [*known, source.exact]}
    with contextlib.suppress(OSError):  # a cache that may only be read is compared again
        write_text(entry / "meta.json", json.dumps(meta | noted))


def _read_meta(entry: Path) -> dict[str, Any]:
    try:
        meta = parse_json((entry / "meta.json").read_text())
    except (OSError, ValueError):
        return {}
    return meta if isinstance(meta, dict) else {}


def cached_images(
    key: str,
    names: Sequence[str],
    read: Callable[[int], np.ndarray],
    *,
    shape: tuple[int, ...],
    cache_dir: str | Path,
    on_error: str = "",
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """N images through the cache, in parallel, with a progress bar on stderr.

    Args:
        key: name of the entry.
        names: N, of the images in messages.
        read: gives image i as uint8 `shape`; it is called in any thread.
        shape: of one image.
        cache_dir: empty for the per-user default.
        on_error: "stop" at an image that cannot be read, or "skip" it; "" stops, too, for a set
            that cannot do without one of its images: the message does not speak of skipping.

    Returns:
        images uint8 [N', *shape], a read-only memory map; the indices int32 [N'] of those kept;
        the names of those skipped.

    Raises:
        UserError: an image that is missing, truncated or none, in words that name it; a cache
            folder that cannot be written; a full disk.
    """
    entry = cache_folder(cache_dir) / key
    found = _open(entry)
    if found is None:
        try:
            _build(entry, names, read, shape, on_error)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            raise UserError(
                f"cache folder {entry.parent}: {error.strerror}; "
                f"{'free some space or ' if full else ''}give another (`cache_dir`)"
            ) from error
        found = _open(entry)
        if found is None:
            raise UserError(f"{entry}: the cache entry just written cannot be read")
    images, skipped = found
    if skipped and on_error != "skip":  # an earlier run was to skip them
        i, reason = next(iter(skipped.items()))
        raise _unreadable(names[i], reason, on_error)
    kept = np.asarray([i for i in range(len(names)) if i not in skipped], np.int32)
    return images, kept, tuple(names[i] for i in skipped)


def _unreadable(name: str, reason: str, on_error: str) -> UserError:
    """The error of an image that cannot be decoded; `on_error`: "" where leaving out is no way."""
    or_skip = ", or set `on_error`=skip" if on_error == "stop" else ""
    return UserError(f"{name}: cannot be decoded ({reason}); mend or remove it{or_skip}")


def _open(entry: Path) -> tuple[np.ndarray, dict[int, str]] | None:
    """The images and, by index, why the others were skipped; None where it is absent or damaged."""
    try:
        meta = parse_json((entry / "meta.json").read_text())
        images = map_npy(entry / "images.npy")
        if list(images.shape) != meta["shape"] or images.dtype != np.uint8:
            return None
        return images, {int(i): reason for i, reason in meta["skipped"].items()}
    except (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
        return None


def _build(
    entry: Path,
    names: Sequence[str],
    read: Callable[[int], np.ndarray],
    shape: tuple[int, ...],
    on_error: str,
) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    if entry.exists():  # damaged, or _open would have taken it
        damaged = entry.with_name(f"damaged.{_new_name(entry).name}")
        with contextlib.suppress(FileNotFoundError):  # another process was first
            entry.rename(damaged)
        shutil.rmtree(damaged, ignore_errors=True)
    partial, fd = _claim(entry)
    _sweep(entry.parent)
    try:
        skipped = _write_images(fd, partial / "meta.json", names, read, shape, on_error)
        meta = {"shape": [len(names) - len(skipped), *shape], "skipped": skipped}
        write_text(partial / "meta.json", json.dumps(meta))
        try:
            partial.rename(entry)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            shutil.rmtree(partial)  # another process finished first; its entry holds the same
    except Exception:  # an interrupt is none: then the next run goes on here
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(fd)


def _new_name(entry: Path) -> Path:
    return entry.with_name(f"{entry.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")


def _claim(entry: Path) -> tuple[Path, int]:
    """A folder to write `entry` in, an interrupted decode's or new, and its images.npy, locked."""
    for partial in entry.parent.glob(f"{entry.name}.*{PARTIAL}"):
        with contextlib.suppress(OSError):  # of a living process, or just gone
            fd = os.open(partial / "images.npy", os.O_RDWR)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.utime(partial)  # so nobody sweeps it; fails if its owner has just renamed it
                return partial, fd
            except OSError:
                os.close(fd)
    partial = _new_name(entry)
    unlocked = entry.with_name(f"new.{partial.name}")  # a name that no other process looks for
    unlocked.mkdir()
    fd = os.open(unlocked / "images.npy", os.O_RDWR | os.O_CREAT)
    with contextlib.suppress(OSError):  # without locks on this file system nothing is taken up
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    unlocked.rename(partial)
    return partial, fd


def _sweep(folder: Path) -> None:
    """Removes what killed decodes left behind long ago."""
    for partial in folder.glob(f"*{PARTIAL}"):
        with contextlib.suppress(OSError):  # another process sweeps too
            newest = max(path.stat().st_mtime for path in (partial, *partial.iterdir()))
            if time.time() - newest > ABANDONED_S:
                shutil.rmtree(partial, ignore_errors=True)


def _write_images(
    fd: int,
    progress: Path,
    names: Sequence[str],
    read: Callable[[int], np.ndarray],
    shape: tuple[int, ...],
    on_error: str,
) -> dict[int, str]:
    """Writes the .npy file; returns, by index, why images were skipped.

    Rows are written by pwrite and not through a memory map: a full disk is then an OSError in
    place of SIGBUS. The file `progress` tells how many of the first rows are done.
    """
    start = _write_header(fd, (len(names), *shape))
    row_bytes = int(np.prod(shape))
    done, skipped = _read_progress(progress)
    if start + done * row_bytes > os.fstat(fd).st_size:
        done, skipped = 0, {}
    _reserve(fd, start + len(names) * row_bytes)
    decode_one = _row_writer(fd, start, names, read, on_error)
    with ThreadPoolExecutor(threads()) as pool:
        try:
            noted = time.monotonic()
            reasons = pool.map(decode_one, range(done, len(names)))
            for i, reason in enumerate(
                tqdm(reasons, "decoding", len(names), unit=" images", initial=done, disable=None),
                start=done,
            ):
                if reason:
                    skipped[i] = reason
                if time.monotonic() - noted >= PROGRESS_S:
                    os.fsync(fd)
                    write_text(progress, json.dumps({"done": i + 1, "skipped": skipped}))
                    noted = time.monotonic()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if len(skipped) == len(names):
        raise _unreadable(names[0], skipped[0], on_error)
    if skipped:
        progress.unlink(missing_ok=True)  # the rows are about to move
        kept = [i for i in range(len(names)) if i not in skipped]
        _close_gaps(fd, kept, start, row_bytes)
        _write_header(fd, (len(kept), *shape))
    os.fsync(fd)
    return skipped


def _row_writer(
    fd: int, start: int, names: Sequence[str], read: Callable[[int], np.ndarray], on_error: str
) -> Callable[[int], str]:
    """A function that reads image i and writes its row; it returns why not, where it may skip."""

    def decode_one(i: int) -> str:
        try:
            image = read(i)
        except UserError as error:  # of the set as a whole: leaving one image out mends nothing
            raise UserError(f"{names[i]}: {error}") from error
        except MemoryError as error:  # of the machine: it is not to choose what is skipped
            raise _unreadable(names[i], "it wants more memory than there is", "") from error
        except Exception as error:
            # PIL's decoders raise OSError without errno, SyntaxError, ValueError, struct.error
            # and more on broken files. With an errno it is the machine that failed.
            reason = " ".join(str(error).split()) or type(error).__name__
            machine = getattr(error, "errno", None)
            if on_error != "skip" or machine:
                raise _unreadable(names[i], reason, "" if machine else on_error) from error
            return reason
        _write_all(fd, image.tobytes(), start + i * image.nbytes)
        return ""

    return decode_one


def _read_progress(progress: Path) -> tuple[int, dict[int, str]]:
    """How many of the first rows are done, and which of them were skipped."""
    try:
        found = parse_json(progress.read_text())
        return int(found["done"]), {int(i): reason for i, reason in found["skipped"].items()}
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return 0, {}


def threads() -> int:
    """How many images are decoded at a time: the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _write_header(fd: int, shape: tuple[int, ...]) -> int:
    """Writes the .npy header at the start of the file; returns its length.

    The format pads it for growth along the first axis, so the length depends on shape[1:] alone.
    """
    header = io.BytesIO()
    description = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    _write_all(fd, header.getvalue(), 0)
    return header.tell()


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def _reserve(fd: int, size: int) -> None:
    """Takes the disk space now, where the system can: better than failing after ten minutes."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise


def _close_gaps(fd: int, kept: Sequence[int], start: int, row_bytes: int) -> None:
    """Moves the kept rows together and cuts the file off behind them."""
    for new, old in enumerate(kept):
        if new != old:
            _write_all(
                fd, os.pread(fd, row_bytes, start + old * row_bytes), start + new * row_bytes
            )
    os.ftruncate(fd, start + len(kept) * row_bytes)
