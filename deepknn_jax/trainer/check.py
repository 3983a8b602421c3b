"""The checks of a config's values that need no data."""

import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from deepknn_jax.config import default, flatten, near_keys
from deepknn_jax.data.cache import ON_ERROR
from deepknn_jax.data.copies import COPIES
from deepknn_jax.data.images import RESIZE_RULES
from deepknn_jax.data.near_copies import NEAR_COPIES
from deepknn_jax.data.sources import SOURCES
from deepknn_jax.data.splits import SPLITS
from deepknn_jax.engine import batching
from deepknn_jax.engine.feed import PLACEMENTS
from deepknn_jax.engine.parallel import MAPPINGS
from deepknn_jax.engine.views import views_of
from deepknn_jax.errors import UserError, check_choice
from deepknn_jax.evaluation.metrics import SCORES
from deepknn_jax.losses.local_margin import REDUCTIONS
from deepknn_jax.models import BACKBONES
from deepknn_jax.trainer.assess import REFERENCES
from deepknn_jax.trainer.keys import naming_keys
from deepknn_jax.trainer.methods import METHODS, method_of
from deepknn_jax.trainer.voting import K_PS, check_vote

_CHOICES: dict[str, tuple[str, ...]] = {
    "data.source": tuple(SOURCES),
    "data.split": ("", *SPLITS),
    "data.resize_rule": ("", *RESIZE_RULES),
    "data.on_error": ON_ERROR,
    "data.copies": COPIES,
    "data.near_copies": NEAR_COPIES,
    "data.placement": PLACEMENTS,
    "model.name": tuple(BACKBONES),
    "model.dtype": ("float32", "bfloat16"),
    "loss.name": tuple(METHODS),
    "loss.reduction": REDUCTIONS,
    "first_stage": ("", *METHODS),
    "optimizer.name": ("sgd", "adam"),
    "optimizer.schedule": ("halving", "cosine"),
    "batch.kind": batching.KINDS,
    "evaluate.best_by": SCORES,
    "evaluate.vote.k_p": K_PS,
    "evaluate.vote.choose_by": SCORES,
    "neighbors": ("batch", "dataset"),
    "parallel": MAPPINGS,
}


# Smallest value allowed.
_LEAST: dict[str, float] = {
    "seed": 0,
    "data.split_seed": 0,
    "data.size": 0,
    "data.channels": 0,
    "data.fold": 0,
    "model.embedding_size": 0,
    "loss.k": 0,
    "loss.class_weight_power": 0.0,
    "loss.tau": 0.0,
    "loss.targets": 1,
    "loss.neighborhood": 0,
    "loss.draws": 1,
    "loss.c_b": 0.0,
    "loss.eps": 0.0,
    "loss.w_lm": 0.0,
    "loss.w_ms": 0.0,
    "loss.w_md": 0.0,
    "loss.w_ss": 0.0,
    "loss.w_sd": 0.0,
    "stop_tolerance": 0.0,
    "loss.m": 0,
    "loss.p": 1.0,
    "loss.margin": 0.0,
    "loss.temperature": 0.0,
    "optimizer.learning_rate": 0.0,
    "optimizer.weight_decay": 0.0,
    "optimizer.halve_every_epochs": 0,
    "batch.size": 0,
    "batch.classes": 0,
    "batch.per_class": 0,
    "epochs": 0,
    "devices": 0,
    "steps_per_call": 0,
    "refresh_steps": 0,
    "augment.crop": 0,
    "optimizer.warmup_epochs": 0.0,
    "evaluate.every_epochs": 0,
    "evaluate.batch_size": 1,
    "checkpoint_seconds": 0.0,
}


def check(config: ConfigDict) -> None:
    """Raises UserError, naming the key, for an unknown key or a value out of range.

    What else may be wrong with a value is found by the function that takes it, in its own room.
    """
    flat, known = flatten(config), flatten(default())
    for key in flat:
        if key not in known:
            raise UserError(f"config key {key} does not exist{near_keys(key)}")
    for key in known:
        if key not in flat:
            raise UserError(f"config key {key} is missing: start from deepknn_jax.config.default()")
    for key, choices in _CHOICES.items():
        check_choice(f"config.{key}", flat[key], choices)
    for key, least in _LEAST.items():
        if not least <= flat[key] < float("inf"):
            raise UserError(f"config.{key} is {flat[key]}: it must be finite and at least {least}")
    _check_ranges(flat)
    _check_lists(flat)
    check_vote(config.evaluate.vote)
    _check_neighbors(config)


def _check_ranges(flat: Mapping[str, Any]) -> None:
    if flat["first_stage"] and not flat["epochs"]:
        raise UserError("config.first_stage goes with config.epochs of 1 or more")
    if flat["optimizer.learning_rate"] == 0:
        raise UserError("config.optimizer.learning_rate is 0: nothing would be learnt")
    for key in ("loss.mu", "loss.class_weight_power"):
        if not 0 <= flat[key] <= 1:
            raise UserError(f"config.{key} is {flat[key]}: choose 0 to 1")
    if flat["loss.squared"] and flat["loss.p"] != 2:
        raise UserError("config.loss.squared goes with config.loss.p=2")
    if flat["augment.crop"] > flat["data.size"] > 0:
        raise UserError(f"config.augment.crop is {flat['augment.crop']}, but config.data.size "
                        f"{flat['data.size']}: choose a smaller crop or a larger size")  # fmt: skip
    if not 0 <= flat["model.dropout"] < 1:
        raise UserError(f"config.model.dropout is {flat['model.dropout']}: choose 0 to below 1")
    if flat["loss.temperature"] <= 0:
        raise UserError(f"config.loss.temperature is {flat['loss.temperature']}: choose above 0")
    for key in ("optimizer.momentum", "optimizer.average"):
        if not 0 <= flat[key] < 1:
            raise UserError(f"config.{key} is {flat[key]}: choose 0 to below 1")


def _check_neighbors(config: ConfigDict) -> None:
    """All neighbours are for the one loss that sums over them, and that in the batch."""
    method, loss = method_of(config), config.loss
    if loss.name == "soft_deep_knn" and config.neighbors == "batch":
        return
    for key in ("k", "m"):
        if key in method.reads and loss[key] == 0:
            raise UserError(
                f"config.loss.{key} is 0, all: that is for config.loss.name=soft_deep_knn with "
                "config.neighbors=batch; choose at least 1"
            )


@naming_keys()
def _check_lists(flat: Mapping[str, Any]) -> None:
    views_of(flat["augment.views"])
    k_p = flat["evaluate.k_p"]
    if not all(isinstance(k, int) and k >= 1 for k in k_p) or list(k_p) != sorted(k_p):
        raise UserError(f"config.evaluate.k_p is {k_p}: ascending whole numbers of at least 1")
    if not all(isinstance(pattern, str) and pattern for pattern in flat["data.ignore"]):
        raise UserError(f"config.data.ignore is {flat['data.ignore']}: patterns as '*_mask.*'")
    for name in flat["evaluate.references"]:
        check_choice("config.evaluate.references", name, REFERENCES)
    for key in ("augment.mean", "augment.std"):
        if not all(isinstance(x, int | float) and math.isfinite(x) for x in flat[key]):
            raise UserError(f"config.{key} is {flat[key]}: it must hold numbers")
    if any(std <= 0 for std in flat["augment.std"]):
        raise UserError(f"config.augment.std is {flat['augment.std']}: it must be above 0")
    if len(flat["augment.mean"]) != len(flat["augment.std"]):
        raise UserError("config.augment.mean and config.augment.std need one number per channel")
