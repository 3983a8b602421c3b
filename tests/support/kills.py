"""A run that dies at a chosen moment."""

import contextlib

import pytest

from deepknn_jax.trainer import loop


class KilledError(Exception):
    """In place of SIGKILL."""


@contextlib.contextmanager
def killed_before_saving(step, times=1):
    """In the block the checkpoint of `step` is not written: all that it should hold is logged.

    The `times`-th save of that step is the one.
    """
    save, seen = loop.checkpoint.save, []

    def until(manager, at, *arguments):
        seen.append(at)
        if seen.count(step) == times:
            raise KilledError
        save(manager, at, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.checkpoint, "save", until)
        with pytest.raises(KilledError):
            yield
