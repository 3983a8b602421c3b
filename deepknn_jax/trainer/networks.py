"""A run's network as its model folder has it, and the one that made the features it is given."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import deepknn_jax
from deepknn_jax.answers import source as source_lib
from deepknn_jax.answers.network import Form
from deepknn_jax.answers.source import Source
from deepknn_jax.data.dataset import Dataset
from deepknn_jax.data.npy import read_npz
from deepknn_jax.engine.inputs import KINDS, Scale
from deepknn_jax.engine.parallel import Devices
from deepknn_jax.errors import UserError
from deepknn_jax.logs import say
from deepknn_jax.trainer.assess import Variables, variables_of
from deepknn_jax.trainer.setup import Embedder


def about_network(
    config: ConfigDict, dataset: Dataset, devices: Devices, scale: Scale | None
) -> dict[str, Any]:
    """What model.json holds of a network; features are standardised by `scale`."""
    batch = config.evaluate.batch_size
    batch += -batch % devices.size
    return {
        "deepknn_jax": deepknn_jax.__version__,
        "backbone": config.model.name,
        "embedding_size": config.model.embedding_size,
        "normalize": config.model.normalize,
        "dtype": config.model.dtype,
        "batch": batch // devices.size,  # what one device embeds at a time
        "inputs": _form(config, dataset, scale)._asdict(),
    }


def _form(config: ConfigDict, dataset: Dataset, scale: Scale | None) -> Form:
    shape = tuple(int(side) for side in dataset.inputs.shape[1:])
    kind = KINDS[dataset.inputs.ndim]
    if kind == "feature vectors":
        assert scale is not None
        return Form(kind, shape, mean=tuple(scale.mean.tolist()), std=tuple(scale.std.tolist()))
    square = kind == "images" and shape[0] == shape[1]
    return Form(
        kind,
        shape,
        size=shape[0] if square else 0,
        channels=shape[-1],
        resize_rule=config.data.resize_rule or "square",
        value_range=tuple(map(float, config.data.value_range)),
        set_range=dataset.set_range,
        frame=config.data.frame,
        crop=config.augment.crop,
        mean=tuple(config.augment.mean),
        std=tuple(config.augment.std),
        views=tuple(config.augment.views) if config.evaluate.views else (),
    )


def backbone_of(variables: Variables) -> dict[str, Any]:
    """The network's variables without a head, which only training wants."""
    collections = zip(("params", "batch_stats"), variables, strict=True)
    return {
        name: {"backbone": jax.tree.map(np.asarray, dict(tree)["backbone"])}
        for name, tree in collections
        if "backbone" in tree
    }


def write_source(config: ConfigDict, embedder: Embedder, workdir: Path) -> str:
    """Writes WORKDIR/source/, the network that embeds; what features.npz is to call it by."""
    about = about_network(config, embedder.dataset, embedder.devices, embedder.scale)
    found = Source(about, backbone_of(variables_of(embedder.state)), source_of(config))
    return source_lib.write(workdir / source_lib.FOLDER, found)


def source_of(config: ConfigDict) -> Source | None:
    """The network that made the features which the config trains on; None where it is not known.

    It lies beside their .npz file, which names it: another one is told of, and not taken.
    """
    path = Path(config.data.dir).expanduser()
    if config.data.source != "npz" or not (named := _named_by(path)):
        return None
    folder = path.parent / source_lib.FOLDER
    if source_lib.fingerprint(folder) == named:
        try:
            return source_lib.read(folder)
        except UserError as error:
            say(f"warning: {error}")
    else:
        there = "is another network" if folder.exists() else "does not lie beside it"
        say(f"warning: {path}: {folder.name}/, the network that made it, {there}")
    say("the model folder will answer features, not images; with the network there, remove the "
        "model folder, and predict makes it anew")  # fmt: skip
    return None


def _named_by(path: Path) -> str:
    try:
        found: Mapping[str, np.ndarray] = read_npz(path, only=("network",))
    except (OSError, ValueError, MemoryError):  # as the data set it is judged elsewhere
        return ""
    return str(found["network"]) if "network" in found else ""
