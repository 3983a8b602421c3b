"""Saving and restoring a training; the only module that knows orbax.

Of several processes the main one writes and reads: all hold the same arrays, and it alone needs the
folder.

A checkpoint is a folder named by its step. What tells that its files are as they were written
(files.write_checksums) is written last.
"""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
import orbax.checkpoint as ocp

from deepknn_jax.engine import hosts
from deepknn_jax.errors import UserError
from deepknn_jax.files import damage, has_checksums, parse_json, write_checksums
from deepknn_jax.logs import say

Manager: TypeAlias = ocp.CheckpointManager
# Of what a checkpoint holds: to be raised when one that an older program wrote no longer fits.
# Before there was a number (0) it held the same.
VERSION = 1
# What a checkpoint takes beside its arrays: descriptions, and blocks of many small files.
_MARGIN_BYTES = 2**20


class Restored(NamedTuple):
    """A checkpoint: the training's step, its arrays, and the JSON-able dict beside them."""

    step: int
    arrays: Any
    extra: dict[str, Any]


class _DamagedError(Exception):
    """A checkpoint's files are not what was written."""


def open_manager(folder: Path, *, keep: int) -> Manager:
    """The checkpoints in `folder` (made if absent), of which the newest `keep` stay.

    Saves are synchronous: the training state is donated to the next call, so no thread may still
    be reading it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    alone = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        create=False,
        **({"multiprocessing_options": alone} if hosts.count() > 1 else {}),
        enable_async_checkpointing=False,
        cleanup_tmp_directories=True,  # of saves that were killed
    )
    return ocp.CheckpointManager(folder.absolute(), options=options)


def restore_on_all(manager: Manager | None, like: Any) -> Restored | None:
    """`restore_newest` by the main process, which has the manager, and for all."""
    if hosts.count() == 1:
        assert manager is not None
        return restore_newest(manager, like)
    on_host = jax.tree.map(np.asarray, like)
    found: list[Restored] = []

    def restore() -> tuple[int, dict[str, Any]] | None:
        assert manager is not None
        if (restored := restore_newest(manager, on_host)) is None:
            return None
        found.append(restored)
        return restored.step, restored.extra

    if (told := hosts.by_main(restore)) is None:
        return None
    arrays = hosts.broadcast(found[0].arrays if found else on_host)

    def place(x: np.ndarray, old: jax.Array) -> jax.Array:
        return jax.make_array_from_callback(x.shape, old.sharding, lambda index: x[index])

    return Restored(told[0], jax.tree.map(place, arrays, like), told[1])


def save(manager: Manager, step: int, state: Any, extra: dict[str, Any]) -> None:
    """Saves arrays and a JSON-able dict as one checkpoint, whole or not at all.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    needed = sum(x.nbytes for x in jax.tree.leaves(state)) + _MARGIN_BYTES
    if (free := shutil.disk_usage(manager.directory).free) < needed:
        # Asked first, as orbax's threads would each print how they failed.
        needs = f"it needs {needed / 2**20:.1f} MiB, the disk has {free / 2**20:.1f} left"
        raise _not_written(manager, step, needs)
    if hosts.count() > 1:
        state = jax.tree.map(np.asarray, state)
    arguments = ocp.args.Composite(
        state=ocp.args.StandardSave(state), extra=ocp.args.JsonSave(extra | {"version": VERSION})
    )
    try:
        manager.save(step, args=arguments, force=True)
        manager.wait_until_finished()
        write_checksums(Path(manager.directory) / str(step))
    except Exception as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        if not full and not isinstance(error, OSError):
            raise
        what = "the disk is full" if full else str(error).splitlines()[0]
        raise _not_written(manager, step, what) from error


def _not_written(manager: Manager, step: int, reason: str) -> UserError:
    return UserError(
        f"{manager.directory}: checkpoint of step {step} not written ({reason}); "
        "earlier ones are kept: make room and start again"
    )


def steps_in(folder: Path) -> list[int]:
    """The steps of the checkpoints in `folder`, ascending, damaged ones among them."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(int(path.name) for path in found if path.name.isdecimal() and path.is_dir())


def newest_extra(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """Step and dict of the newest checkpoint whose dict can be read, None where there is none."""
    for step in reversed(steps_in(folder)):
        with contextlib.suppress(_DamagedError):
            return step, _extra(folder / str(step))
    return None


def restore_newest(manager: Manager, like: Any) -> Restored | None:
    """The newest sound checkpoint, its arrays shaped and placed as those of `like`, or None.

    Damaged ones that are newer are told of and renamed, to STEP.damaged-1.

    Raises:
        UserError: it does not fit `like`, or is of another version; or none of them is sound.
    """
    folder, damaged = Path(manager.directory), {}
    for step in reversed(steps_in(folder)):
        try:
            arrays, extra = _restore(manager, step, like)
        except _DamagedError as error:
            damaged[step] = str(error)
            continue
        for each, reason in damaged.items():
            words = f"{folder / str(each)}: checkpoint is damaged ({reason})"
            say(f"{words}; kept as {_set_aside(folder, each)}, that of step {step} is taken")
        manager.reload()
        return Restored(step, arrays, extra)
    if damaged:
        raise _none_sound(folder, damaged)
    return None


def _restore(manager: Manager, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
    path = Path(manager.directory) / str(step)
    if reason := damage(path):
        raise _DamagedError(reason)
    extra = _extra(path)
    if extra.get("version", 0) not in (0, VERSION):
        raise UserError(
            f"{path}: checkpoint is of version {extra['version']}, this program reads {VERSION}: "
            "go on with the version of deepknn_jax that wrote it, or choose another --workdir"
        )
    with _named(path):
        stored = _shapes(_stored_tree(path / "state"))
    if differs := _difference(stored, _shapes(like)):
        raise UserError(
            f"{path}: checkpoint is sound, but does not fit this config or version ({differs}): go "
            "on with those that wrote it, or choose another --workdir"
        )
    target = jax.tree.map(_target, like)
    with _named(path):
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        return manager.restore(step, args=arguments).state, extra


def _target(x: Any) -> Any:
    """What is restored in the place of x: an array placed as it, or numpy's."""
    if isinstance(x, np.ndarray):
        return x
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _extra(path: Path) -> dict[str, Any]:
    """The dict of the checkpoint at `path`."""
    if reason := damage(path, below="extra/"):
        raise _DamagedError(reason)
    try:
        return dict(parse_json((path / "extra" / "metadata").read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise _DamagedError("extra/metadata is gone") from error
    except (ValueError, TypeError) as error:
        raise _DamagedError(f"extra/metadata: {error}") from error


def _stored_tree(path: Path) -> Any:
    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
        return handler.metadata(path.absolute()).tree


def _shapes(tree: Any) -> dict[str, str]:
    """{where a leaf is: its type and shape}, alike for named tuples and the dicts they become."""
    return {
        "/".join(str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key))))
                 for key in path): f"{np.dtype(leaf.dtype)}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }  # fmt: skip


def _difference(stored: dict[str, str], wanted: dict[str, str]) -> str:
    """Words on the first array that is not alike, or ""."""
    for name in sorted(stored.keys() | wanted.keys()):
        there, here = (found.get(name, "nothing") for found in (stored, wanted))
        if there != here:
            return f"{name} is {there} there and {here} here"
    return ""


def _set_aside(folder: Path, step: int) -> str:
    """Renames a damaged checkpoint; its new name."""
    number = 1
    while (aside := folder / f"{step}.damaged-{number}").exists():
        number += 1
    (folder / str(step)).rename(aside)
    return aside.name


def _none_sound(folder: Path, damaged: dict[int, str]) -> UserError:
    told = ", ".join(f"{step}: {reason}" for step, reason in damaged.items())
    return UserError(
        f"{folder}: no checkpoint is sound ({told}); choose another --workdir, or move them away "
        "to begin from the start"
    )


def newest_arrays(folder: Path) -> Any:
    """The arrays of the newest sound checkpoint as numpy's; the folder is left as it is.

    They stand as saved, but tuples have become lists and named tuples dicts.

    Raises:
        UserError: there is no checkpoint, or none is sound.
    """
    damaged: dict[int, str] = {}
    for step in reversed(steps_in(folder)):
        try:
            arrays = _numpy_arrays(folder / str(step))
        except _DamagedError as error:
            damaged[step] = str(error)
            continue
        for each, reason in damaged.items():
            say(f"{folder / str(each)}: checkpoint is damaged ({reason}); that of {step} is taken")
        return arrays
    raise _none_sound(folder, damaged) if damaged else UserError(f"{folder}: holds no checkpoint")


def _numpy_arrays(path: Path) -> Any:
    if reason := damage(path):
        raise _DamagedError(reason)
    state = (path / "state").absolute()
    with _named(path), contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
        # Numpy's: the devices that the arrays were saved from need not be here.
        kinds = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), handler.metadata(state).tree
        )
        return handler.restore(state, args=ocp.args.PyTreeRestore(restore_args=kinds))


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever orbax raises in the block, which may be anything, by what it means.

    Files that are as they were written are sound, whatever orbax says.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, RuntimeError | MemoryError):  # of the machine, not the checkpoint
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if not has_checksums(path):
            raise _DamagedError(reason) from error
        raise UserError(
            f"{path}: checkpoint is sound, but cannot be restored here ({reason}): take the "
            "versions of orbax and deepknn_jax that wrote it, or choose another --workdir"
        ) from error
