"""The data sets of the tables: their configs, their folders, and what is missing where one is."""

import importlib.util
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from deepknn_jax.data.dataset import Listing
from deepknn_jax.data.sources import list_source
from deepknn_jax.data.splits import assign_splits
from deepknn_jax.errors import UserError
from deepknn_jax.reproduce.catalog import SETS
from deepknn_jax.shell import find_config


@lru_cache
def config_module(name: str) -> ModuleType:
    """The module configs/<name>.py, of the repository or the installed package."""
    path = find_config(f"configs/{name}.py")
    spec = importlib.util.spec_from_file_location(f"reproduced_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config_of(name: str, changes: Mapping[str, Any]) -> ConfigDict:
    """The config of the set `name` with `changes`, whose keys are dotted names as "loss.k"."""
    config: ConfigDict = config_module(SETS[name].config).get_config()
    config.update_from_flattened_dict(dict(changes))
    return config


def folder(name: str, data_root: Path, out: Path) -> Path:
    """What config.data.dir is for the set `name`."""
    found = SETS[name]
    return out / found.made if found.made else data_root / found.path


def absent(name: str, data_root: Path) -> str | None:
    """Why the set `name` is not at hand, with the layout it needs; None where it is.

    Paths are given as below data_root: the words are for a table that others read, too.
    """
    found = SETS[name]
    path = data_root / found.path
    if path.exists() or not found.path:
        return None
    if found.made:
        return f"{found.title}: {found.path}: not below --data_root"
    try:
        listing(name, path)
    except UserError as error:
        words = str(error).replace(str(path), found.path)
        return f"{found.title}: {words.replace('(`folder`)', 'below --data_root')}"
    raise AssertionError(f"{path} does not exist, but was read")


def all_absent(data_root: Path, *names: str) -> list[str]:
    """What `absent` says of each of the sets that are not at hand, once."""
    found = (absent(name, data_root) for name in names)
    return list(dict.fromkeys(words for words in found if words))


def listing(name: str, path: Path, **options: Any) -> Listing:
    """What the set's source finds at `path`, with the split of the set's config.

    `options` are of config.data, in place of the config's.
    """
    changes = {f"data.{key}": value for key, value in options.items()}
    data = config_of(name, changes | {"data.dir": str(path)}).data
    found = list_source(data.source, {**data, "folder": path})
    splits = assign_splits(
        found, split=data.split, test_share=data.test_share, validation=0.0,
        split_seed=data.split_seed,
    )  # fmt: skip
    return found._replace(splits=splits)
