"""Saving and restoring a training; the only module that knows orbax."""

import errno
import shutil
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from deepknn_jax.errors import UserError

# Of a checkpoint beside its arrays: descriptions, and blocks of many small files.
_MARGIN_BYTES = 2**20


def open_manager(folder: Path, *, keep: int) -> ocp.CheckpointManager:
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


def save(manager: ocp.CheckpointManager, step: int, state: Any, extra: dict[str, Any]) -> None:
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


def _not_written(manager: ocp.CheckpointManager, step: int, reason: str) -> UserError:
    return UserError(
        f"{manager.directory}: checkpoint of step {step} not written ({reason}); "
        "earlier ones are kept: make room and start again"
    )


def latest_step(manager: ocp.CheckpointManager) -> int | None:
    """Step of the newest checkpoint, None where there is none."""
    return manager.latest_step()


def restore(manager: ocp.CheckpointManager, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
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
    try:
        restored = manager.restore(step, args=arguments)
    except Exception as error:  # orbax raises plain ones too
        if isinstance(error, RuntimeError | MemoryError):  # of the machine, not the checkpoint
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{manager.directory}/{step}: checkpoint cannot be restored ({reason}); "
            "delete that folder to go on from an earlier one"
        ) from error
    return restored.state, restored.extra
