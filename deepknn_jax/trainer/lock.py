"""One run writes to a workdir at a time: a file in it says which.

A lock of a process of this machine that has ended is taken over at once. Whether one of another
machine (or container) lives shows in the file's time, which its holder renews. A scheduler that
starts a job again, elsewhere, has ended its earlier start: DEEPKNN_JOB names the job.
"""

import contextlib
import functools
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from ml_collections import ConfigDict

from deepknn_jax.engine import hosts
from deepknn_jax.errors import UserError
from deepknn_jax.files import naming, parse_json
from deepknn_jax.logs import duration, say

LOCK = "lock"
BEAT_S = 30.0  # between two signs of life
SILENT_S = 600.0  # without one a holder on another machine counts as dead
_TRIES = 10  # when others take and release it meanwhile

_P = ParamSpec("_P")
_T = TypeVar("_T")
Owner = dict[str, Any]


def holding(
    run: Callable[Concatenate[ConfigDict, Path, _P], _T],
) -> Callable[Concatenate[ConfigDict, Path | str, _P], _T]:
    """Decorates a function of (config, workdir): the workdir is locked while it runs."""

    @functools.wraps(run)
    def held_run(
        config: ConfigDict, workdir: Path | str, *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        with held(Path(workdir)):
            return run(config, Path(workdir), *args, **kwargs)

    return held_run


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """In the block this run alone writes to `workdir`, which is made if absent.

    Of several processes of a run the main one holds it for all.

    A folder that was made for it and is empty at the end is removed.

    Raises:
        UserError: another run holds it, in words that say which; it cannot be written to.
    """
    if not hosts.is_main():
        yield
        return
    check_writable(workdir)
    absent = [path for path in (workdir, *workdir.parents) if not path.exists()]
    path, ended = workdir / LOCK, threading.Event()
    try:
        own = _take(path)
        beats = threading.Thread(target=_beat, args=(path, ended), daemon=True)
        beats.start()
        try:
            yield
        finally:
            ended.set()
            beats.join()
            if _read(path) == own:
                path.unlink(missing_ok=True)
    finally:
        with contextlib.suppress(OSError):  # not empty
            for folder in absent:
                folder.rmdir()


def check_writable(workdir: Path) -> None:
    """Raises UserError unless files can be made in `workdir`, which may be absent yet."""
    existing = next(path for path in (workdir, *workdir.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{existing}: cannot be written to; choose another --workdir")


def check_held(workdir: Path) -> None:
    """Raises UserError where another run took `workdir` over, as this process gave no sign."""
    owner = _read(workdir / LOCK)
    if owner is not None and owner.get("token") != _TOKEN:
        raise UserError(
            f"{workdir}: was taken over by {_named(owner)}, as this run had given no sign of life; "
            "stopped, nothing more is written"
        )


def _take(path: Path) -> Owner:
    """Makes the lock, whole at once; what it says."""
    own = _this_process()
    temporary = path.with_name(f".{LOCK}.{secrets.token_hex(4)}.tmp")
    for _ in range(_TRIES):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with naming(path):
                temporary.write_text(json.dumps(own), encoding="utf-8")
            now = temporary.stat().st_mtime  # by the clock that the lock's time is of
            if _link(temporary, path):
                return own
            _remove_if_stale(path, now)
        except FileNotFoundError:  # another run has just released it, and removed the folder
            continue
        finally:
            temporary.unlink(missing_ok=True)
    raise UserError(f"{path}: other runs take it again and again; start this one later")


def _link(temporary: Path, path: Path) -> bool:
    """Whether `path` was absent; it then has the content of `temporary`."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links
        try:
            with naming(path), path.open("x", encoding="utf-8") as file:
                file.write(temporary.read_text(encoding="utf-8"))
        except FileExistsError:
            return False
    return True


def _remove_if_stale(path: Path, now: float) -> None:
    """Removes a lock whose holder is dead.

    Raises:
        UserError: it lives, or may.
    """
    owner, silent = _read(path), now - path.stat().st_mtime
    if owner is None:
        raise FileNotFoundError(path)
    here = owner.get("place") == _place()
    again = owner.get("job", "") == _job() != ""
    if not (_ended(owner) if here else again or silent > SILENT_S):
        sign = "" if here else f"; its last sign of life is {duration(max(silent, 0))} old"
        remedy = "wait for it" if here else f"wait for it, or remove {path} if that run is dead"
        raise UserError(
            f"{path.parent}: {_named(owner)} writes to it{sign}: {remedy}, or choose another "
            "--workdir"
        )
    aside = path.with_name(f".{LOCK}.{secrets.token_hex(4)}.tmp")
    path.rename(aside)
    taken = _read(aside)
    if taken != owner:  # another run was faster: it is its lock
        _link(aside, path)
    else:
        say(f"{path.parent}: taken over from {_named(owner)}, which has ended")
    aside.unlink(missing_ok=True)


def _named(owner: Owner) -> str:
    who = f"process {owner.get('pid', '?')} of {owner.get('host', 'an unknown machine')}"
    return f"a run ({who}, since {owner.get('since', '?')})"


def _read(path: Path) -> Owner | None:
    """What the lock says: None where there is none, {} where it cannot be read."""
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        with contextlib.suppress(OSError):
            os.utime(path)


_TOKEN = secrets.token_hex(8)  # of this process


def _this_process() -> Owner:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "place": _place(),
        "started": _started(os.getpid()),
        "token": _TOKEN,
        "job": _job(),
    }


def _job() -> str:
    """What a scheduler starts, and starts again once that start has ended; or ""."""
    return os.environ.get("DEEPKNN_JOB", "")


def _place() -> str:
    """Where a process number means the same process: a machine, or a container on it."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}"


def _ended(owner: Owner) -> bool:
    """Whether the process, one of this place, is no more."""
    pid = owner.get("pid")
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        pass
    began = _started(pid)  # the number may be another process's by now
    return None not in (began, owner.get("started")) and began != owner["started"]


def _started(pid: int) -> str | None:
    """When the process began; "" once it is over, None where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return "" if state in "ZX" else f"{boot} {fields[18]}"
