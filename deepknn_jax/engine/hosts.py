"""One run on several processes: found, joined, kept in step, and ended together.

A process is one copy of the command, with devices of its own; the devices of all processes are one
mesh (engine.parallel). Process 0, the main one, speaks and writes for all. What is small and must
be the same everywhere goes through the key-value store of JAX's coordination service, which has no
public name yet; arrays go through collectives. JAX is imported by `join`, not before: it reads its
environment then.
"""

import contextlib
import itertools
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TypeVar

import numpy as np

from deepknn_jax import logs
from deepknn_jax.engine.cluster import Cluster, find_cluster
from deepknn_jax.errors import StoppedError, UserError, check_choice

WAYS = ("auto", "on", "off")
SAVED = 85  # exit status of several processes that were told to stop, and saved: go on
_HEARTBEAT_S = 10  # silence after which JAX takes a process for dead, and ends the others
_VERDICT_S = 14.0  # in which it says so
_LONG_S = 7 * 86400  # others may decode, or draw, for very long

_T = TypeVar("_T")
_numbers = itertools.count()  # of agreements and waits: the same on all processes


def join(way: str, environment: dict[str, str] | None = None) -> None:
    """Joins the processes of this run, before anything else of JAX, and says what was found.

    Args:
        way: of WAYS. auto: where the environment is that of several processes; on: it must be;
            off: this process alone, whatever the environment.
        environment: in the place of os.environ.

    Raises:
        UserError: the environment is incomplete, or the others are not reached.
    """
    check_choice("--distributed", way, WAYS)
    cluster = find_cluster(environment or os.environ) if way != "off" else None
    if cluster is None and way == "on":
        cluster = Cluster("JAX's own search", {})
    if cluster is None:
        return
    import jax

    try:
        jax.distributed.initialize(
            **cluster.arguments,
            heartbeat_timeout_seconds=_HEARTBEAT_S,
            shutdown_timeout_seconds=_LONG_S,
        )
    except (ValueError, RuntimeError) as error:
        if cluster.uncertain and way == "auto":
            return
        raise UserError(
            f"several processes ({cluster.name}): {str(error).splitlines()[0]}; set "
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or --distributed=off"
        ) from error
    sys.excepthook = _end_all
    if not is_main():
        logs.mute()
        os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported
    kinds = sorted({device.device_kind for device in jax.devices()})
    logs.say(
        f"processes: {count()} ({cluster.name}), {jax.local_device_count()} device(s) each, "
        f"{jax.device_count()} in all: {', '.join(kinds)}, backend {jax.default_backend()}"
    )


def count() -> int:
    """How many processes make this run."""
    if "jax" not in sys.modules:
        return 1
    import jax

    return jax.process_count() if jax.distributed.is_initialized() else 1


def number() -> int:
    """Which of them this one is, from 0."""
    if count() == 1:
        return 0
    import jax

    return jax.process_index()


def is_main() -> bool:
    """Whether this process speaks and writes for all."""
    return number() == 0


def by_main(work: Callable[[], _T]) -> _T:
    """What `work` returns on the main process, on all; it is done there alone, and is JSON-able.

    All processes call it, in the same order. A UserError is raised on all.
    """
    if count() == 1:
        return work()
    key = f"deepknn_jax/agreed/{next(_numbers)}"
    if is_main():
        try:
            answer: dict[str, Any] = {"value": work()}
        except UserError as error:
            answer = {"error": str(error)}
        _store().key_value_set(key, json.dumps(answer))
    else:
        answer = json.loads(_store().blocking_key_value_get(key, 1000 * _LONG_S))
    if "error" in answer:
        raise UserError(answer["error"])
    value: _T = answer["value"]
    return value


def wait() -> None:
    """Returns once all processes have come here."""
    if count() > 1:
        _store().wait_at_barrier(f"deepknn_jax/wait/{next(_numbers)}", 1000 * _LONG_S)


def largest(value: int) -> int:
    """The largest of all processes' values, by a collective of the devices: a few milliseconds."""
    if count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def broadcast(tree: Any) -> Any:
    """The main process's arrays, to the bit, on all; others bring arrays of the same shapes."""
    if count() == 1:
        return tree
    import jax
    from jax.experimental import multihost_utils

    def one(x: Any) -> np.ndarray:
        array = np.asarray(x)
        # As bytes: a sum with zeros, which a broadcast is, takes the sign from -0.0.
        raw = np.frombuffer(array.tobytes(), np.uint8)
        found = np.asarray(multihost_utils.broadcast_one_to_all(raw))
        return np.frombuffer(found.tobytes(), array.dtype).reshape(array.shape)

    return jax.tree.map(one, tree)


def in_turns(folder: Path, work: Callable[[], _T]) -> _T:
    """`work()` on each process, where its result is left in `folder` for those who come later.

    Where all hosts see one folder the main process comes first, else the first process of each
    host; the others follow once these are done.
    """
    if count() == 1:
        return work()
    shared = _is_shared(folder)
    first_here = _first_of_this_host()  # all tell their host, also who need not ask
    goes_first = is_main() or (not shared and number() == first_here)
    if goes_first:
        found = work()
    wait()
    return found if goes_first else work()


def _is_shared(folder: Path) -> bool:
    """Whether what the main process puts into the folder is seen by this one."""
    token = folder / by_main(lambda: f".{secrets.token_hex(8)}.seen")
    if is_main():
        with contextlib.suppress(OSError):  # such a folder is no use to the others either
            folder.mkdir(parents=True, exist_ok=True)
            token.touch()
    wait()
    seen = token.exists()
    wait()
    if is_main():
        token.unlink(missing_ok=True)
    return seen


def _first_of_this_host() -> int:
    prefix = f"deepknn_jax/hosts/{next(_numbers)}"
    own = socket.gethostname()
    _store().key_value_set(f"{prefix}/{number()}", own)
    names = [
        _store().blocking_key_value_get(f"{prefix}/{other}", 1000 * _LONG_S)
        for other in range(number() + 1)
    ]
    return names.index(own)


@contextlib.contextmanager
def watched(seconds: float, what: str) -> Iterator[None]:
    """Ends this process, with a line, where the block takes longer than so many seconds; 0: never.

    A process that hangs in a collective, since another is stuck, is not noticed by heartbeats.
    """
    if seconds <= 0:
        yield
        return
    timer = threading.Timer(seconds, _end, (f"{what} takes longer than {seconds:g} s",))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def fail(line: str) -> NoReturn:
    """Ends the process with exit status 1 after `line`; of several the others hear it, and end."""
    if count() == 1:
        sys.exit(line)
    if not is_main():
        time.sleep(1.0)  # what is wrong for all is said once: the main process ends the others
    _end(line)


def stop(line: str, status: int) -> NoReturn:
    """Ends the process as a signal wanted; of several by the status SAVED: nothing is lost."""
    if count() > 1:
        _end(line, SAVED)
    sys.stderr.write(f"{line}\n")
    sys.exit(status)


def status_once_saved(number: int) -> int:
    """The exit status after the signal `number`, which all agreed on; of several SAVED.

    These wait for the main process, which saves: where one has left, srun ends the others. For that
    reason they no longer listen either.
    """
    if count() == 1:
        return 128 + number
    with contextlib.suppress(ValueError):  # signals are the main thread's
        for other in (signal.SIGTERM, signal.SIGINT):
            signal.signal(other, signal.SIG_IGN)
    wait()
    return SAVED


def _end(line: str, status: int = 1) -> NoReturn:
    if count() > 1:
        line = f"process {number()} of {count()} on {socket.gethostname()}: {line}"
        with contextlib.suppress(Exception):
            _store().key_value_set(f"deepknn_jax/ended/{number()}", line)
    _tell(line)
    os._exit(status)


def _end_all(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """sys.excepthook of several processes: the others would wait for this one for ever.

    An error of JAX's runtime may be another process's end, of which the others then hear: by what
    that left, or by JAX, which names it and ends this process as well.
    """
    import jax

    if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
        first = str(error).splitlines()[0]
        _tell(f"process {number()} of {count()}: {first}; is another process gone?")
        until = time.monotonic() + _VERDICT_S
        with contextlib.suppress(StoppedError):  # what started the processes knows by now
            while time.monotonic() < until:
                if ended := _ended():
                    _tell(f"process {number()} of {count()} ends, as another did: {ended}")
                    os._exit(1)
                time.sleep(0.5)
    traceback.print_exception(kind, error, trace)
    _end(f"{kind.__name__}: {error}".splitlines()[0])


def _ended() -> str:
    """What a process that has ended left as its last line, or ""."""
    with contextlib.suppress(Exception):
        left = _store().key_value_dir_get("deepknn_jax/ended")
        return next((line for _, line in left), "")
    return ""


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
    sys.stdout.flush()


def _store() -> Any:
    from jax._src import distributed

    return distributed.global_state.client
