"""A run that dies at a chosen moment."""

import contextlib
import signal

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


@contextlib.contextmanager
def terminated_at(step):
    """In the block SIGTERM comes while the call that ends at `step` runs."""
    plain = loop.train

    def until(*arguments):
        for made in plain(*arguments):
            if made[-1]["step"] == step:
                signal.raise_signal(signal.SIGTERM)
            yield made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train", until)
        with pytest.raises(SystemExit) as stopped:
            yield
    assert stopped.value.code == 128 + signal.SIGTERM
