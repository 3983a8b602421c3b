"""The data sets of the tables: where each lies, and the config file that reads it."""

import importlib.util
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from deepknn_jax.data.dataset import Listing
from deepknn_jax.data.sources import list_source
from deepknn_jax.data.splits import assign_splits
from deepknn_jax.errors import UserError
from deepknn_jax.shell import find_config


class DataSet(NamedTuple):
    """A data set of the tables.

    `config` is a file of configs/ and `path` where it finds the data below data_root; `made` where
    the runner puts what it makes of that below its own folder, if it makes anything.
    """

    title: str
    config: str
    path: str
    made: str = ""


SETS = {
    "skin7": DataSet("Skin-7", "skin7", "skin7"),
    "skin7_features": DataSet(
        "Skin-7, features", "skin7_features", "skin7", "features/skin7/folds.npz"
    ),
    "skin7_tuning": DataSet(
        "Skin-7, fold 1's training part", "skin7_features", "skin7", "features/skin7/tuning.npz"
    ),
    "chest_features": DataSet(
        "chest X-rays (Kermany), features", "nw_features", "chest_xray", "features/chest/splits.npz"
    ),
    "chest_tuning": DataSet(
        "chest X-rays, draw 1's training part",
        "nw_features",
        "chest_xray",
        "features/chest/tuning.npz",
    ),
    "pneumoniamnist_tuning": DataSet(
        "PneumoniaMNIST, training and validation part",
        "nw_pneumoniamnist",
        "pneumoniamnist/pneumoniamnist.npz",
        "data/pneumoniamnist_tuning.npz",
    ),
    "nw_pneumoniamnist": DataSet(
        "PneumoniaMNIST", "nw_pneumoniamnist", "pneumoniamnist/pneumoniamnist.npz"
    ),
    "nw_mnist": DataSet("MNIST", "nw_mnist", "mnist/mnist.npz"),
    "mnist_part": DataSet(
        "MNIST, 600 training images a class", "nw_mnist", "mnist/mnist.npz", "data/mnist_part.npz"
    ),
    "nw_skin7": DataSet("Skin-7, features", "nw_features", "skin7", "features/skin7/folds.npz"),
    "nw_skin7_tuning": DataSet(
        "Skin-7, fold 1's training part", "nw_features", "skin7", "features/skin7/tuning.npz"
    ),
    "lung1": DataSet("Lung1, radiomics", "lung1", "lung1_survival"),
    "cifar10": DataSet("CIFAR-10", "cifar10", "cifar10"),
    "epid": DataSet("EPID", "nw_epid", "epid"),
    "sarcoma": DataSet("Sarcoma", "nw_sarcoma", "sarcoma"),
    "pneumonia": DataSet("Pneumonia", "pneumonia", "pneumonia"),
    "sd198": DataSet("SD-198", "sd198", "sd198"),
    "stl10": DataSet("STL10", "stl10", "stl10"),
    "cub200": DataSet("CUB200-2011", "cub200", "cub200"),
    "tiny_imagenet": DataSet("Tiny-ImageNet", "tiny_imagenet", "tiny_imagenet"),
    "chest_xray": DataSet("chest X-rays (Kermany)", "chest_xray", "chest_xray"),
    "pneumoniamnist": DataSet(
        "PneumoniaMNIST", "pneumoniamnist", "pneumoniamnist/pneumoniamnist.npz"
    ),
    "mnist": DataSet("MNIST", "mnist", "mnist/mnist.npz"),
    "omniglot": DataSet(
        "Omniglot, small set 1",
        "omniglot",
        "omniglot/images_background_small1.zip",
        "data/omniglot.npz",
    ),
    "omniglot_tuning": DataSet(
        "Omniglot, training part of draw 0",
        "omniglot",
        "omniglot/images_background_small1.zip",
        "data/omniglot_tuning.npz",
    ),
}


@lru_cache
def _config_module(name: str) -> ModuleType:
    path = find_config(f"configs/{name}.py")
    spec = importlib.util.spec_from_file_location(f"reproduced_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config_of(name: str, changes: Mapping[str, Any]) -> ConfigDict:
    """configs/<name>.py with `changes`, whose keys are dotted names such as "loss.k"."""
    config: ConfigDict = _config_module(name).get_config()
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
    if path.exists():
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


def listing(name: str, path: Path) -> Listing:
    """What the set's source finds at `path`, with the split of the set's config."""
    data = config_of(SETS[name].config, {"data.dir": str(path)}).data
    found = list_source(data.source, {**data, "folder": path})
    splits = assign_splits(
        found,
        split=data.split,
        test_share=data.test_share,
        validation=0.0,
        split_seed=data.split_seed,
    )
    return found._replace(splits=splits)
