"""Saving and restoring a training; the only module that knows orbax."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
import orbax.checkpoint as ocp

from deepknn_jax.errors import UserError

Manager: TypeAlias = ocp.CheckpointManager
# What a checkpoint takes beside its arrays: descriptions, and blocks of many small files.
_MARGIN_BYTES = 2**20


def open_manager(folder: Path, *, keep: int) -> Manager:
    """The checkpoints in `folder` (made if absent), of which the newest `keep` stay.

    Saves are synchronous: the training state is donated to the next call, so no thread may still
    be reading it.
    """
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        create=True,
        enable_async_checkpointing=False,
        cleanup_tmp_directories=True,  # of saves that were killed
    )
    return ocp.CheckpointManager(folder.absolute(), options=options)


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
    arguments = ocp.args.Composite(
        state=ocp.args.StandardSave(state), extra=ocp.args.JsonSave(extra)
    )
    try:
        manager.save(step, args=arguments, force=True)
        manager.wait_until_finished()
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


def latest_step(manager: Manager) -> int | None:
    """Step of the newest checkpoint, None where there is none."""
    return manager.latest_step()


def restore(manager: Manager, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
    """The arrays, shaped and placed as those of `like`, and the extra dict of checkpoint `step`.

    Raises:
        UserError: the checkpoint does not fit `like` or is damaged.
    """
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
    )
    arguments = ocp.args.Composite(
        state=ocp.args.StandardRestore(target), extra=ocp.args.JsonRestore()
    )
    with _damage_named(manager.directory / str(step), "to go on from an earlier one"):
        restored = manager.restore(step, args=arguments)
    return restored.state, restored.extra


def newest_arrays(folder: Path) -> Any:
    """The arrays of the newest checkpoint in `folder` as numpy's; the folder is left as it is.

    They stand as saved, but tuples have become lists and named tuples dicts.

    Raises:
        UserError: there is no checkpoint, or it is damaged.
    """
    steps = ocp.utils.checkpoint_steps(folder) if folder.is_dir() else []
    if not steps:
        raise UserError(f"{folder}: holds no checkpoint")
    path = (folder / str(max(steps)) / "state").absolute()
    with (
        _damage_named(path.parent, "to take an earlier one"),
        contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler,
    ):
        # Numpy's: the devices that the arrays were saved from need not be here.
        kinds = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), handler.metadata(path).tree
        )
        return handler.restore(path, args=ocp.args.PyTreeRestore(restore_args=kinds))


@contextlib.contextmanager
def _damage_named(path: Path, purpose: str) -> Iterator[None]:
    """Whatever orbax raises in the block, which may be anything, as a UserError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, RuntimeError | MemoryError):  # of the machine, not the checkpoint
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path}: checkpoint cannot be restored ({reason}); delete that folder {purpose}"
        ) from error
