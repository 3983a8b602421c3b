"""A network in a folder, and the one that made the feature vectors of a run.

`--mode=embed` leaves it as source/ beside features.npz, a run on these keeps it as model/source/:
there images become the features that the run's own network takes.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors.numpy import save

from deepknn_jax.errors import UserError
from deepknn_jax.files import (
    CHECKSUMS,
    damage,
    has_checksums,
    parse_json,
    replacing_folder,
    write_checksums,
    write_text,
)
from deepknn_jax.models.weights.torch_files import read_tensors

VERSION = 2  # of the form of a folder with a network; a reader refuses a larger one
FOLDER = "source"  # in the folder of what it is the source of
KEYS = ("backbone", "batch", "dtype", "embedding_size", "inputs", "normalize")


class Source(NamedTuple):
    """A network that made features: `about` and `variables` as a `model.Model`'s.

    `source` made what it was given itself, where that were features, too.
    """

    about: Mapping[str, Any]
    variables: Mapping[str, Any]
    source: "Source | None" = None


def write_network(
    folder: Path, about: Mapping[str, Any], variables: Mapping[str, Any], source: Source | None
) -> None:
    """Writes parameters.safetensors and model.json into `folder`, and what made its inputs."""
    (folder / "parameters.safetensors").write_bytes(save(named_variables(variables)))
    text = json.dumps({"version": VERSION, **about}, indent=1, allow_nan=False)
    write_text(folder / "model.json", text + "\n")
    if source is not None:
        (folder / FOLDER).mkdir()
        write_network(folder / FOLDER, *source)


def read_network(
    folder: Path, keys: tuple[str, ...] = KEYS
) -> tuple[dict[str, Any], dict[str, Any], Source | None]:
    """What `write_network` wrote, with these `keys` at least in its model.json.

    Raises:
        OSError, ValueError, LookupError, TypeError: it is damaged.
    """
    about = parse_json((folder / "model.json").read_text(encoding="utf-8"))
    _ = [about[key] for key in keys]
    variables = tree_of(read_tensors(folder / "parameters.safetensors"))
    has_source = (folder / FOLDER / "model.json").exists()
    source = Source(*read_network(folder / FOLDER)) if has_source else None
    return about, variables, source


def write(folder: Path, source: Source) -> str:
    """Replaces `folder` by the network's, whole or not; its `fingerprint`."""
    with replacing_folder(folder) as temporary:
        write_network(temporary, *source)
        write_checksums(temporary)
    return fingerprint(folder)


def fingerprint(folder: Path) -> str:
    """Sha256, in hex, of a folder that `write` wrote: by its checksums; "" where it is none."""
    if not has_checksums(folder):
        return ""
    return hashlib.sha256((folder / CHECKSUMS).read_bytes()).hexdigest()


def read(folder: Path) -> Source:
    """What `write` wrote.

    Raises:
        UserError: it is damaged, or of a later version.
    """
    try:
        if reason := damage(folder):
            raise ValueError(reason)
        found = Source(*read_network(folder))
        later = int(found.about["version"]) > VERSION
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{folder}: is damaged ({error}): make the features anew") from error
    if later:
        raise UserError(f"{folder}: was made by a later deepknn_jax: install that")
    return found


def named_variables(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A network's variables by their paths, such as params/backbone/bias."""
    leaves = jax.tree_util.tree_leaves_with_path(dict(variables))
    return {"/".join(key.key for key in path): np.ascontiguousarray(leaf) for path, leaf in leaves}


def tree_of(named: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays by their paths as nested dicts."""
    tree: dict[str, Any] = {}
    for name, array in named.items():
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array
    return tree
