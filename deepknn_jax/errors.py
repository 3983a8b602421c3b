"""The error that a user can cause and mend, and the names that it gives to things."""

import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from contextvars import ContextVar
from difflib import get_close_matches
from types import FrameType, MappingProxyType


class UserError(ValueError):
    """Wrong input, named in one line with its remedy; commands print it without a traceback.

    Functions that know nothing of a config name their arguments in backticks: `size`. Whoever calls
    them for a user puts what the user knows in their place (`renaming`).
    """


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raises UserError unless `value` is one of the `choices` for what is called `name`.

    The message names those that are nearly so called first; "" among the choices as "empty".
    """
    if value in choices:
        return
    near = get_close_matches(str(value), choices)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    empty = ", or leave it empty" if "" in choices else ""
    raise UserError(f"{name} is {value!r}: {hint}choose from {', '.join(filter(None, choices))}"
                    f"{empty}")  # fmt: skip


# What arguments are called at present, see `renaming`.
_NAMES: ContextVar[Mapping[str, str]] = ContextVar("names", default=MappingProxyType({}))


@contextlib.contextmanager
def renaming(names: Mapping[str, str]) -> Iterator[None]:
    """In the block, or the function, users read of arguments by what they know them by.

    That is in a UserError, and in lines that are said. `names`: {an argument's name, which stands
    in backticks: an option's or a flag's}.

    Raises:
        UserError: the block's own, in these words.
    """
    before = _NAMES.set(names)
    try:
        yield
    except UserError as error:
        raise UserError(renamed(str(error))) from error
    finally:
        _NAMES.reset(before)


def renamed(words: str) -> str:
    """The words with what `renaming` says in the place of arguments in backticks."""
    names = _NAMES.get()
    return re.sub(r"`(\w+)`", lambda found: names.get(found[1], found[0]), words)


# What a command ends by in one line, and what to call it.
STOPS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


def end_at_interrupt() -> None:
    """From now on Ctrl-C and SIGTERM end the process, in one line and at once.

    For the imports of a command, in which an exception could end anywhere. Not where they are to be
    ignored, or are handled by somebody else.
    """
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    with contextlib.suppress(ValueError):  # signals are the main thread's
        for number, handler in usual.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, _end)


def raise_at_interrupt() -> None:
    """From now on they raise what may be cleaned up after: StoppedError."""
    for number in STOPS:
        if signal.getsignal(number) is _end:
            signal.signal(number, _raise)


class StoppedError(KeyboardInterrupt):
    """A signal came; `code` is the exit status that tells which."""

    def __init__(self, number: int) -> None:
        super().__init__(stopped_by(number))
        self.code = 128 + number


def stopped_by(number: int) -> str:
    """The line on a signal that ended a command."""
    return f"stopped by {STOPS[signal.Signals(number)]}; the same command goes on, or begins anew"


def _end(number: int, frame: FrameType | None) -> None:
    sys.stderr.write(stopped_by(number) + "\n")
    sys.stderr.flush()
    os._exit(128 + number)


# Python drops what is raised in these: JAX's function of the garbage collector, and any __del__.
_DEAF = ("_xla_gc_callback", "__del__")


def _raise(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_name in _DEAF:
            threading.Timer(0.05, os.kill, (os.getpid(), number)).start()  # once it is over
            return
        frame = frame.f_back
    raise StoppedError(number)
