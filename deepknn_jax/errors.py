"""The error that a user can cause and mend, and the names that it gives to things."""

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping
from contextvars import ContextVar
from difflib import get_close_matches
from types import MappingProxyType


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
