"""Data sets as their authors publish them and users have them, a file a family.

A source is a function that returns a Listing, and its parameters are its declaration: each is the
option of config.data that it reads, under the option's own name; `folder` is config.data.dir. One
without a default must be given. To add a source, write the function and enter it in SOURCES. What
is heavy to import (tensorflow_datasets, nibabel, scikit-learn) a source imports when it is called.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from deepknn_jax.data.dataset import Listing
from deepknn_jax.data.sources.arrays import breast_cancer, digits, npz
from deepknn_jax.data.sources.binary import cifar10, mnist, stl10
from deepknn_jax.data.sources.csv_images import csv_images
from deepknn_jax.data.sources.files import class_folders, skin7
from deepknn_jax.data.sources.papers import cub200, pneumonia, sd198, tiny_imagenet
from deepknn_jax.data.sources.survival_csv import survival_csv
from deepknn_jax.data.sources.tfds import tfds
from deepknn_jax.data.sources.volumes import sarcoma
from deepknn_jax.errors import UserError, check_choice

SOURCES: dict[str, Callable[..., Listing]] = {
    "breast_cancer": breast_cancer,
    "cifar10": cifar10,
    "class_folders": class_folders,
    "csv_images": csv_images,
    "cub200": cub200,
    "digits": digits,
    "mnist": mnist,
    "npz": npz,
    "pneumonia": pneumonia,
    "sarcoma": sarcoma,
    "sd198": sd198,
    "skin7": skin7,
    "stl10": stl10,
    "survival_csv": survival_csv,
    "tfds": tfds,
    "tiny_imagenet": tiny_imagenet,
}


def options_of(source: str) -> tuple[str, ...]:
    """The names of the options that `source` reads, "folder" among them.

    Raises:
        UserError: an unknown source.
    """
    return tuple(inspect.signature(_function(source)).parameters)


def list_source(source: str, options: Mapping[str, Any]) -> Listing:
    """What `source` finds, by those of the `options` that it reads; the others are left aside.

    Raises:
        UserError: an unknown source, an option that it cannot do without, or what the source's own
            function raises.
    """
    function = _function(source)
    parameters = inspect.signature(function).parameters.values()
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.name not in options:
            raise UserError(f"data source {source} needs `{parameter.name}`, which is not given")
    return function(**{p.name: options[p.name] for p in parameters if p.name in options})


def _function(source: str) -> Callable[..., Listing]:
    check_choice("`source`", source, SOURCES)
    return SOURCES[source]
