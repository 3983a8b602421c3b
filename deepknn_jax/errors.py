"""The error that a user can cause and mend, and the names that it gives to things."""

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping


class UserError(ValueError):
    """Wrong input, named in one line with its remedy; commands print it without a traceback.

    Functions that know nothing of a config name their arguments in backticks: `size`. Whoever calls
    them for a user puts what the user knows in their place (`renaming`).
    """


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raises UserError unless `value` is one of the `choices` for what is called `name`."""
    if value not in choices:
        raise UserError(f"{name} is {value!r}: choose from {', '.join(choices)}")


@contextlib.contextmanager
def renaming(names: Mapping[str, str]) -> Iterator[None]:
    """In the block, or the function it decorates, UserErrors call arguments as a user does.

    `names`: {an argument's name, which stands in backticks: an option's or a flag's}.
    """
    try:
        yield
    except UserError as error:
        raise UserError(renamed(str(error), names)) from error


def renamed(words: str, names: Mapping[str, str]) -> str:
    """The words with what `names` gives in the place of arguments in backticks."""
    return re.sub(r"`(\w+)`", lambda found: names.get(found[1], found[0]), words)
