"""Cells, the single runs that tables are made of; and the rows and sections that they make."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from deepknn_jax import config as config_lib
from deepknn_jax.reproduce.methods import LOSSES, ON_FEATURES, VOTES, Changes
from deepknn_jax.reproduce.sets import SETS, config_of, folder

# Where things lie, and what does not touch a result: not part of a cell's name.
_PLACES = ("data.dir", "data.cache_dir", "data.placement", "checkpoint_seconds", "model.weights")
# Training images per second of two CPU cores at 224 px. resnet50 and cnn are measured (the cnn at
# 28 px, where a pixel costs as much); the others follow from the numbers of operations.
_IMAGES_PER_S = {
    "resnet50": 3.6, "seresnet50": 3.2, "densenet121": 4.0, "vgg19": 0.8,
    "efficientnet_lite0": 5.0, "resnet18": 9.0, "cnn": 7.0,
}  # fmt: skip
_TRAIN_IMAGES = {
    "skin7": 8010, "pneumonia": 21345, "sd198": 5206, "stl10": 5000, "cub200": 5994,
    "tiny_imagenet": 100_000, "chest_xray": 4170, "pneumoniamnist": 4708, "mnist": 60_000,
    "omniglot": 2040,
}  # fmt: skip
_EVALUATION = 4  # times as fast as training
_GPU = 100  # times as fast as two CPU cores: an estimate
_RUN: Changes = {
    "evaluate.every_epochs": 0,
    "evaluate.k_p": VOTES,
    "evaluate.references": (),
    "evaluate.pictures": False,
}


class Cell(NamedTuple):
    """One run of a config.

    `name` is "set/method-...-digest", the digest that of the config: another config is another
    cell. `minutes` is a guess for two CPU cores. `keep`: its workdir stays. `start`: the cell from
    whose network it starts. `reference`: "pixels" or "untrained", kNN without any training.
    """

    name: str
    set: str
    changes: Changes
    minutes: float
    keep: bool = False
    start: "Cell | None" = None
    reference: str = ""


class Row(NamedTuple):
    """Figures at `vote` ("5": K_p, "head") over `cells`, beside the paper's."""

    label: str
    cells: Sequence[Cell]
    vote: str
    paper: Mapping[str, float] = {}


class Section(NamedTuple):
    """Rows that are compared. `beside` is a class whose recall stands beside the smallest's."""

    title: str
    rows: Sequence[Row]
    beside: str = ""


class Table(NamedTuple):
    """A table or figure: `absent` tells what cannot be run here and what that needs."""

    title: str
    sections: Sequence[Section]
    absent: Sequence[str] = ()

    @property
    def cells(self) -> list[Cell]:
        """Each cell once."""
        rows = (row for section in self.sections for row in section.rows)
        return list({cell.name: cell for row in rows for cell in row.cells}.values())


class Options(NamedTuple):
    """What the command was given: where the data and the results are, how many seeds, and more.

    `weights` is a folder of published weights, <model>.pth or .safetensors, or None; `tuned` what a
    search chose for each method of table 3; `gpu` whether there is one.
    """

    data_root: Path
    out: Path
    seeds: int
    weights: Path | None = None
    tuned: Mapping[str, Changes] = {}
    gpu: bool = False


def cell(
    options: Options,
    name: str,
    label: str,
    changes: Changes,
    *,
    minutes: float,
    keep: bool = False,
    start: Cell | None = None,
    reference: str = "",
) -> Cell:
    """The cell of the set `name` with `changes` to its config; `label` is for the reader."""
    changes = _RUN | changes | {"data.dir": str(folder(name, options.data_root, options.out))}
    now = config_lib.flatten(config_of(SETS[name].config, changes))
    default = config_lib.flatten(config_lib.default())
    parts: dict[str, Any] = {
        key: now[key] for key in now if now[key] != default[key] and key not in _PLACES
    }
    if reference:  # without training the optimizer's options make no other cell
        parts = {key: value for key, value in parts.items() if not key.startswith("optimizer.")}
    weights = changes.get("model.weights", "")
    parts |= {"weights": Path(weights).name} if weights else {}
    parts |= {"start": start.name} if start else {}
    parts |= {"reference": reference} if reference else {}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
    minutes /= _GPU if options.gpu else 1
    return Cell(f"{name}/{label}-{digest}", name, changes, minutes, keep, start, reference)


def on_features(
    options: Options,
    method: str,
    *,
    fold: int,
    seed: int,
    extra: Changes | None = None,
    minutes: float = 0.3,
) -> Cell:
    """A run of table 3: `method` on Skin-7's features; folds above 5 are the grouped splits."""
    changes = ON_FEATURES[method] | options.tuned.get(method, {}) | (extra or {})
    # A run of seconds is not worth a checkpoint before its end.
    changes |= {"data.fold": fold, "seed": seed, "checkpoint_seconds": 600.0}
    label = f"{method}-fold{fold}-seed{seed}"
    return cell(options, "skin7_features", label, changes, minutes=minutes)


def knn_on_features(options: Options, fold: int) -> Cell:
    """Table 3's kNN-basic: the standardised features themselves."""
    changes = {"data.fold": fold}
    label = f"knn-fold{fold}"
    return cell(options, "skin7_features", label, changes, minutes=0.1, reference="pixels")


def backbone(options: Options, wanted: str = "resnet50") -> tuple[str, str]:
    """The backbone `wanted` and its weights; without any EfficientNet-Lite0 and its own."""
    if options.weights is not None:
        for suffix in (".safetensors", ".pth"):
            if (path := options.weights / f"{wanted}{suffix}").is_file():
                return wanted, str(path)
    return "efficientnet_lite0", "efficientnet_lite0"


def on_images(
    options: Options,
    name: str,
    method: str,
    *,
    seed: int,
    model: tuple[str, str] | None = None,
    extra: Changes | None = None,
    metric: Changes | None = None,
) -> Cell:
    """A run of table 2, 4 or S2: `method` on the images of the set `name`, from the weights.

    `method` is one of LOSSES, or deep_knn_star: deep_knn from the trained Weighted-CE network.
    Without a `model` the config's own is trained from random weights. `metric` is for losses of
    distances alone, not for those of logits.
    """
    shared = _model_changes(model) | (extra or {}) | {"seed": seed}
    if name == "omniglot":
        shared["data.split_seed"] = seed
    start = None
    if method == "deep_knn_star":
        start = on_images(options, name, "weighted_ce", seed=seed, model=model, extra=extra)
        shared["model.weights"] = ""
    changes = shared | LOSSES["deep_knn" if start else method]
    if not method.endswith("ce"):
        changes |= metric or {}
    minutes = _minutes(name, changes)
    label = f"{method}-seed{seed}"
    return cell(options, name, label, changes, minutes=minutes, keep=True, start=start)


def knn_on_images(
    options: Options,
    name: str,
    reference: str,
    *,
    model: tuple[str, str] | None = None,
    extra: Changes | None = None,
) -> Cell:
    """Neighbours by the network's features before any training, or on the pixels."""
    changes = _model_changes(model) | (extra or {})
    minutes = 0.5 if reference == "pixels" else _minutes(name, changes | {"epochs": 1}) / 3
    label = f"knn-{reference}"
    return cell(options, name, label, changes, minutes=minutes, reference=reference)


def _model_changes(model: tuple[str, str] | None) -> Changes:
    return {"model.name": model[0], "model.weights": model[1]} if model else {}


def _minutes(name: str, changes: Changes) -> float:
    """A guess at the minutes that two CPU cores take."""
    config = config_of(SETS[name].config, changes)
    pixels = config.augment.crop or config.data.size or 28
    speed = _IMAGES_PER_S[config.model.name] * (224 / pixels) ** 2
    passes: float = config.epochs + 1 / _EVALUATION
    if config.evaluate.every_epochs:
        passes += config.epochs / config.evaluate.every_epochs / _EVALUATION
    return _TRAIN_IMAGES[name] * passes / speed / 60
