"""What weights bring besides their arrays: how the examples that they know were made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from deepknn_jax import models
from deepknn_jax.config import default, flatten
from deepknn_jax.data.dataset import Dataset
from deepknn_jax.data.npy import read_npz
from deepknn_jax.engine import hosts
from deepknn_jax.engine.inputs import Scale, feature_scale
from deepknn_jax.errors import UserError
from deepknn_jax.files import write_arrays
from deepknn_jax.logs import say
from deepknn_jax.trainer import run_folder

FILE = "inputs.npz"
# What a run decides for whoever takes its weights: the form of its network, and how its examples
# were made. That of others would be met by other pixels, or end in other embeddings.
_NETWORK = ("model.name", "model.embedding_size")
_EXAMPLES = (
    *("data.size", "data.resize_rule", "data.value_range", "data.frame"),
    *("augment.crop", "model.normalize"),
)


class Kept(NamedTuple):
    """What a run keeps in inputs.npz of its training part.

    `shape` of an example, () where it is not known; `scale` of its features; `set_range` of its
    wide integers, () where there were none.
    """

    shape: tuple[int, ...] = ()
    scale: Scale | None = None
    set_range: tuple[float, ...] = ()


def write(workdir: Path, dataset: Dataset, scale: Scale | None) -> None:
    """Writes inputs.npz: of a run on `dataset`, with features standardised by `scale`."""
    arrays: dict[str, Any] = {"shape": np.asarray(dataset.inputs.shape[1:])}
    if scale is not None:
        arrays |= {"mean": scale.mean, "std": scale.std}
    if dataset.set_range:
        arrays["set_range"] = np.asarray(dataset.set_range, np.float64)
    write_arrays(workdir / FILE, arrays)


def read(folder: Path) -> Kept | None:
    """What the run in `folder` keeps; None where it keeps nothing, as runs before inputs.npz.

    Raises:
        UserError: inputs.npz is damaged.
    """
    path = folder / FILE
    try:
        found = read_npz(path)
        scale = Scale(found["mean"], found["std"]) if "mean" in found else None
        shape = tuple(int(side) for side in found["shape"])
        return Kept(shape, scale, tuple(found.get("set_range", np.empty(0)).tolist()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, MemoryError) as error:
        raise UserError(f"{path}: is damaged; delete it, and what is scaled by it is scaled by the "
                        "training part at hand") from error  # fmt: skip


def of_run(config: ConfigDict, path: str) -> ConfigDict:
    """The config with what the run at `path` decides, where the config has the default.

    A run's folder of checkpoints in the place of the run's leaves to the config what it gives.

    Raises:
        UserError: the config gives another value, by whose keys.
    """
    folder = Path(path).expanduser()
    if not path or not folder.is_dir():
        return config
    config = config.copy_and_resolve_references().unlock()
    own, flat, usual = _decided(folder), flatten(config), flatten(default())
    taken = {key: value for key, value in own.items() if _same(flat[key], usual[key])}
    config.update_from_flattened_dict(taken)
    differ = [
        f"config.{key} is {flat[key]!r}, but {folder} was trained with {own[key]!r}"
        for key in _EXAMPLES
        if key not in taken and not _same(flat[key], own[key])
    ]
    if differ and run_folder.workdir_of(folder) == folder:
        raise UserError(
            f"{'; '.join(differ)}: set what the run had; to go on with another all the same, "
            f"config.model.weights={folder / 'checkpoints'}"
        )
    told = [
        f"{key} {value!r}"
        for key, value in taken.items()
        if not _same(value, flat[key]) and value != "square"
    ]  # which it is without a word, too
    if told:
        say(f"as {folder} was trained: {', '.join(told)}")
    return config.lock()


def options(config: ConfigDict) -> set[str]:
    """The options of config.data that stand as the config's weights decide: nobody gave them."""
    folder = Path(config.model.weights).expanduser()
    if not config.model.weights:
        return set()
    own = _decided(folder) if folder.is_dir() else {}
    flat = flatten(config)
    same = {key for key in own if key.startswith("data.") and _same(flat[key], own[key])}
    return {key.removeprefix("data.") for key in same} | {"channels"}


def _decided(folder: Path) -> dict[str, Any]:
    stored = flatten(default()) | flatten(run_folder.run_config(folder))
    own = {key: _tuples(stored[key]) for key in (*_NETWORK, *_EXAMPLES)}
    own["data.resize_rule"] = own["data.resize_rule"] or "square"
    kept = read(run_folder.workdir_of(folder)) or Kept()
    if len(kept.shape) == 3 and kept.shape[0] == kept.shape[1]:
        own["data.size"] = kept.shape[0]  # 0 of arrays: as they were
    return own


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _same(one: Any, other: Any) -> bool:
    return bool(_tuples(one) == _tuples(other))


def channels(config: ConfigDict, path: str, mean: tuple[float, ...]) -> int:
    """The channels of images for the weights at `path`: one for each number of their `mean`.

    Raises:
        UserError: the config gives others.
    """
    wanted, given = len(mean), int(config.data.channels)
    if not wanted or models.INPUTS.get(config.model.name, "images") != "images":
        return given
    if given not in (0, wanted):
        raise UserError(
            f"config.data.channels is {given}, but the weights {path} take {wanted}: set it to "
            f"{wanted}, or to 0, which takes that of the weights"
        )
    return wanted


def as_begun(config: ConfigDict, stored: Mapping[str, Any]) -> ConfigDict:
    """The config of a run that goes on, with what was decided for it at its start.

    `stored` is its config.json. What it gives is compared with that elsewhere.
    """
    config = config.copy_and_resolve_references().unlock()
    usual, then, flat = flatten(default()), flatten(stored), flatten(config)
    keys = ["data.split", "data.channels"]  # chest_xray's were 1
    keys += [*_NETWORK, *_EXAMPLES] if config.model.weights else []
    open_ = {key: _tuples(then[key]) for key in keys if key in then and flat[key] == usual[key]}
    config.update_from_flattened_dict(open_)
    return config.lock()


def kept_for(config: ConfigDict, workdir: Path) -> Kept:
    """What scales the examples of the run in `workdir`: its own numbers where it goes on.

    Else those of the run that config.model.weights names; else none, and they are of its own
    training part.
    """
    if hosts.by_main((workdir / "config.json").exists):
        shape, scale, set_range = hosts.by_main(lambda: _listed(read(workdir) or Kept()))
        return Kept(tuple(shape), scale and Scale(*map(np.asarray, scale)), tuple(set_range))
    return of_weights(config)


def _listed(kept: Kept) -> Any:
    return kept.shape, kept.scale and [part.tolist() for part in kept.scale], kept.set_range


def of_weights(config: ConfigDict) -> Kept:
    """What the run that config.model.weights names keeps, told where it should and does not."""
    folder = Path(config.model.weights).expanduser()
    if not config.model.weights or not folder.is_dir():
        return Kept()
    found = read(run_folder.workdir_of(folder))
    if found is None and models.INPUTS.get(config.model.name) == "feature vectors":
        say(
            f"warning: {folder} is of a version that kept no {FILE}: features are standardised by "
            "the training part here, not by that of the weights"
        )
    return found or Kept()


def scale_of(kept: Kept, dataset: Dataset) -> Scale | None:
    """What standardises the features of `dataset`; None of images.

    Raises:
        UserError: its examples are not of the kept shape, which weights were trained on.
    """
    shape = dataset.inputs.shape[1:]
    if kept.scale is not None and kept.shape[-1:] != shape[-1:]:  # whatever the views
        raise UserError(f"examples of {_words(shape)}, but those of config.model.weights, or of "
                        f"this run before, were of {_words(kept.shape)}")  # fmt: skip
    if kept.set_range and not dataset.set_range:
        low, high = kept.set_range
        say(f"grey levels: the range {low:.10g}..{high:.10g} of the weights' run is not used: the "
            "images here have 8 bits, or a range of their own")  # fmt: skip
    return kept.scale or feature_scale(dataset)


def _words(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
