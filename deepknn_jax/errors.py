"""The error that a user can cause and mend."""

from collections.abc import Collection


class UserError(ValueError):
    """Wrong input, named in one line with its remedy; commands print it without a traceback.

    Functions that a config knows nothing of name their arguments in backticks: `size`.
    """


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raises UserError unless `value` is one of the `choices` for what is called `name`."""
    if value not in choices:
        raise UserError(f"{name} is {value!r}: choose from {', '.join(choices)}")
