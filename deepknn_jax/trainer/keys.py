"""The one place where errors get the config's keys: lower rooms name arguments in backticks."""

import contextlib
import re
from collections.abc import Iterator

from deepknn_jax.config import default, flatten
from deepknn_jax.errors import UserError

# Arguments that are called otherwise than the option, or as several options are.
_KEYS = {
    "batch_size": "batch.size",
    "classes": "batch.classes",
    "folder": "data.dir",
    "kind": "batch.kind",
    "model": "model.name",
    "per_class": "batch.per_class",
    "size": "data.size",
}


@contextlib.contextmanager
def naming_keys() -> Iterator[None]:
    """In the block, or the function, a UserError names config keys: `size` is config.data.size."""
    try:
        yield
    except UserError as error:
        raise UserError(with_keys(str(error))) from error


def with_keys(message: str) -> str:
    """The message with the config's key for each argument in backticks that an option is of."""
    leaves = {key.rsplit(".", 1)[-1]: key for key in flatten(default())} | _KEYS
    return re.sub(
        r"`(\w+)`",
        lambda name: f"config.{leaves[name[1]]}" if name[1] in leaves else name[0],
        message,
    )
