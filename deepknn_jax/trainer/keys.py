"""The one place where errors get the config's keys: lower rooms name arguments in backticks."""

from collections.abc import Mapping
from contextlib import ContextDecorator

from deepknn_jax.config import default, flatten
from deepknn_jax.errors import renaming
from deepknn_jax.logs import say

# Arguments that are called otherwise than the option, or as several options are.
_KEYS = {
    "all_views": "evaluate.views",
    "batch_size": "batch.size",
    "classes": "batch.classes",
    "folder": "data.dir",
    "k_p": "evaluate.k_p",
    "kind": "batch.kind",
    "model": "model.name",
    "per_class": "batch.per_class",
    "size": "data.size",
    "views": "augment.views",
    "temperature": "loss.temperature",
}


def naming_keys() -> ContextDecorator:
    """Decorates a function: its UserErrors name config keys, config.data.size for `size`."""
    return renaming(_names())


def say_in_keys(line: str) -> None:
    """Says a line that lower rooms have made."""
    with renaming(_names()):
        say(line)


def _names() -> Mapping[str, str]:
    leaves = {key.rsplit(".", 1)[-1]: key for key in flatten(default())} | _KEYS
    return {name: f"config.{key}" for name, key in leaves.items()}
