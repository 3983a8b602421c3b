"""The methods of the tables as changes to a config, and the options that are searched for each."""

import itertools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepknn_jax.files import read_json

Changes = dict[str, Any]

TUNED = "tuned_table3.json"

# K_p of every run: tables 2 to 4 take 1 and 5, table S4 the rest.
VOTES = (1, 3, 5, 7, 9)

BALANCED = {"batch.kind": "balanced", "batch.size": 96, "batch.classes": 6, "batch.per_class": 16}
SHUFFLED = {"batch.kind": "shuffled", "batch.size": 96}
_LINEAR = {"model.name": "linear", "model.embedding_size": 128, "optimizer.name": "adam"}

# Cross entropy needs no positives in a batch, and its class weights are those of the whole set.
LOSSES: dict[str, Changes] = {
    "deep_knn": {"loss.name": "deep_knn"},
    "triplet": {"loss.name": "triplet"},
    "ce": {"loss.name": "cross_entropy", "batch.kind": "shuffled"},
    "weighted_ce": {"loss.name": "weighted_cross_entropy", "batch.kind": "shuffled"},
}
# Of table 3, on configs/skin7_features.py, before any search.
ON_FEATURES: dict[str, Changes] = LOSSES | {
    "nca": _LINEAR
    | SHUFFLED
    | {"loss.name": "nca", "loss.temperature": 10.0, "optimizer.learning_rate": 1e-3},
    "lmnn": _LINEAR | {"loss.name": "lmnn", "loss.margin": 10.0, "optimizer.learning_rate": 1e-4},
    "soft": {"loss.name": "nca", "loss.temperature": 0.1, "model.normalize": True},
}
TITLES = {
    "knn": "kNN-basic",
    "nca": "NCA",
    "lmnn": "LMNN",
    "triplet": "MLP+triplets",
    "ce": "MLP+CE",
    "weighted_ce": "MLP+Weighted-CE",
    "deep_knn": "MLP+deep-kNN",
    "soft": "MLP+NCA, normalised (ours)",
}
# What a method's figures are read from, K_p or the head: the table's own columns.
VOTE = {"weighted_ce": "head"}

# A method's trials: of two learning rates x three batches x two ways against overfitting x three
# options of its own as many as TRIALS, at random: the same places of the grid for every method.
TRIALS = 20
_SGD_RATES, _ADAM_RATES = (0.01, 0.05), (1e-4, 1e-3)
_BATCHES = (SHUFFLED, BALANCED, {"batch.kind": "shuffled", "batch.size": 480})
_DROPOUTS: tuple[Changes, ...] = ({"model.dropout": 0.0}, {"model.dropout": 0.3})
_WIDTHS: tuple[Changes, ...] = ({"model.embedding_size": 128}, {"model.embedding_size": 32})
_MARGINS: tuple[Changes, ...] = (
    {"loss.margin": 1.0},
    {"loss.margin": 4.0},
    {"loss.margin": 0.3, "model.normalize": True},
)
_DECAYS: tuple[Changes, ...] = (
    {"optimizer.weight_decay": 0.0},
    {"optimizer.weight_decay": 5e-3},
    {"optimizer.weight_decay": 5e-3, "model.normalize": True},
)
_OWN: dict[str, tuple[Changes, ...]] = {
    "deep_knn": _MARGINS,
    "triplet": _MARGINS,
    "ce": _DECAYS,
    "weighted_ce": _DECAYS,
    "nca": (
        {"loss.temperature": 10.0, "loss.log": True},
        {"loss.temperature": 100.0, "loss.log": True},
        {"loss.temperature": 0.1, "loss.log": True, "model.normalize": True},
    ),
    "lmnn": ({"loss.margin": 10.0}, {"loss.margin": 100.0}, {"loss.margin": 100.0, "loss.mu": 0.9}),
    "soft": (
        {"loss.temperature": 0.1},
        {"loss.temperature": 0.1, "loss.log": True},
        {"loss.temperature": 0.5, "loss.log": True},
    ),
}


def trials(method: str) -> list[Changes]:
    """The changes of each trial of `method`, on top of ON_FEATURES: as many for every method."""
    linear = ON_FEATURES[method].get("model.name") == "linear"
    rates, simpler = (_ADAM_RATES, _WIDTHS) if linear else (_SGD_RATES, _DROPOUTS)
    grid = [
        {"optimizer.learning_rate": rate} | batch | less | own
        for rate, batch, less, own in itertools.product(rates, _BATCHES, simpler, _OWN[method])
    ]
    return some_of(grid, TRIALS)


def some_of(grid: Sequence[Changes], count: int) -> list[Changes]:
    """`count` of the grid, in its order: the same places of every grid of that size."""
    places = random.Random(0).sample(range(len(grid)), count)
    return [grid[i] for i in sorted(places)]


def searched(out: Path, name: str) -> dict[str, Any]:
    """The methods of a search's file `name`: that of `out`, or what we found; {} for none."""
    found: Mapping[str, Any] | None = read_json(out / name) or read_json(
        Path(__file__).parent / name
    )
    return dict(found["methods"]) if found else {}


def chosen(out: Path) -> dict[str, Changes]:
    """What the search of tune.py found best, {method: changes}; of `out`, or what we found."""
    return {method: dict(entry["changes"]) for method, entry in searched(out, TUNED).items()}
