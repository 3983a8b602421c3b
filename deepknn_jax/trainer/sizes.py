"""Sizes that a config leaves open, chosen by the training part; and whether those it names fit."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from deepknn_jax.config import flatten
from deepknn_jax.engine.batching import check_batching
from deepknn_jax.engine.parallel import Devices, get_devices
from deepknn_jax.errors import UserError
from deepknn_jax.logs import say
from deepknn_jax.models import INPUTS
from deepknn_jax.trainer.keys import naming_keys
from deepknn_jax.trainer.methods import method_of

# What is chosen where the training part is large enough: a batch, images a class, votes.
BATCH, PER_CLASS, K_P = 16, 8, (1, 5)
# Of feature vectors, batches an epoch, and the least and largest (docs/results.md).
_BATCHES, _VECTORS = 8, (96, 480)
# The keys that may be left open: at 0, or ().
_OPEN = ("batch.size", "batch.per_class", "evaluate.k_p")


@naming_keys()
def devices_of(config: ConfigDict) -> Devices:
    """The devices that share the config's batches.

    Raises:
        UserError: the machine has fewer, or they cannot share a batch evenly.
    """
    devices = get_devices(config.devices, config.parallel)
    if config.batch.size % devices.size:
        raise UserError(
            f"config.batch.size is {config.batch.size}: the {devices.size} devices cannot share "
            "it evenly; change it, or config.devices"
        )
    return devices


def with_sizes(config: ConfigDict, n: int) -> ConfigDict:
    """The config with what it leaves open chosen to fit `n` training examples; else as it is.

    Batches are of BATCH images or of an eighth of the feature vectors, 96 to 480; balanced ones
    have as many of each class, PER_CLASS at least; and the votes are K_P. Smaller ones where the
    training part, which the batch is drawn from, is smaller, and such as the devices share evenly.
    """
    flat = flatten(config)
    if all(flat[key] for key in _OPEN if key != "batch.per_class" or flat["batch.classes"]):
        return config
    config = config.copy_and_resolve_references().unlock()
    batch, devices = config.batch, get_devices(config.devices, config.parallel)
    if batch.kind == "balanced" and batch.classes > 0:
        if not batch.per_class and batch.size:
            batch.per_class = batch.size // batch.classes
        usual = max(PER_CLASS, _usual(config, n) // batch.classes)
        most = min(usual, n // batch.classes)
        batch.per_class = batch.per_class or _shared(most, batch.classes, devices.size)
        batch.size = batch.size or batch.classes * batch.per_class
    batch.size = batch.size or _shared(min(_usual(config, n), n), 1, devices.size)
    config.evaluate.k_p = config.evaluate.k_p or tuple(k for k in K_P if k < n)
    return config.lock()


def _usual(config: ConfigDict, n: int) -> int:
    """A batch's usual size."""
    if INPUTS.get(config.model.name) != "feature vectors":
        return BATCH
    return int(np.clip(n // _BATCHES, *_VECTORS))


def _shared(most: int, of: int, devices: int) -> int:
    """The largest number up to `most` of which the devices share `of` times evenly, or `most`."""
    return next((n for n in range(most, 0, -1) if n * of % devices == 0), most)


def take_stored(config: ConfigDict, stored: Mapping[str, Any]) -> None:
    """Puts what an earlier start of the run chose, as its config.json tells, where it is open."""
    earlier = flatten(stored)
    for key in _OPEN:
        group, name = key.split(".")
        if not config[group][name] and (value := earlier.get(key)):
            config[group][name] = tuple(value) if isinstance(value, list) else value


def tell_sizes(config: ConfigDict, chosen: ConfigDict, labels_N: np.ndarray) -> None:
    """Says where `with_sizes` chose less than is usual, and which neighbours are fewer than asked.

    `labels_N` are those of the training part.
    """
    usual, after = flatten(with_sizes(config, sys.maxsize)), flatten(chosen)
    if smaller := [f"config.{key}={after[key]}" for key in _OPEN if after[key] != usual[key]]:
        say(f"chosen for {len(labels_N):,} training examples: {', '.join(smaller)}")
    sizes = np.unique(labels_N, return_counts=True)[1]
    own, others = int(sizes.min()) - 1, int(len(labels_N) - sizes.max())
    where = "the training part"
    if chosen.batch.kind == "balanced" and chosen.neighbors == "batch":
        own = min(own, chosen.batch.per_class - 1)
        others = min(others, (chosen.batch.classes - 1) * chosen.batch.per_class)
        where = "a batch"
    offered = {"k": ("positives", own), "targets": ("targets", own), "m": ("negatives", others)}
    for name in sorted(method_of(chosen).reads & offered.keys()):
        what, count = offered[name]
        if chosen.loss[name] > count:
            say(f"config.loss.{name} is {chosen.loss[name]}; where {where} holds fewer {what} of "
                f"an anchor, at least {count}, these are taken")  # fmt: skip


@naming_keys()
def check_enough(config: ConfigDict, labels_N: np.ndarray) -> None:
    """Raises UserError where N training examples are too few for the batches or the neighbours."""
    config = with_sizes(config, len(labels_N))
    most = max(config.evaluate.k_p)
    if most >= len(labels_N):
        raise UserError(
            f"config.evaluate.k_p has {most}, but leave-one-out leaves {len(labels_N) - 1} of the "
            f"{len(labels_N)} training examples: choose smaller numbers, or () for those of "
            f"{' and '.join(map(str, K_P))} that fit"
        )
    batch = config.batch
    check_batching(
        batch.kind,
        labels_N,
        batch_size=batch.size,
        classes=batch.classes,
        per_class=batch.per_class,
    )
