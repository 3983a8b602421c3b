"""The error that a user can cause and mend."""


class UserError(Exception):
    """Wrong input, named in one line with its remedy; main prints it without a traceback."""
