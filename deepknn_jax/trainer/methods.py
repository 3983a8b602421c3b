"""The methods, a record for each, and what a config makes of its own.

A new method is its loss, a function in a file of losses/, and one entry in METHODS.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from ml_collections import ConfigDict

from deepknn_jax.data.dataset import Dataset
from deepknn_jax.engine.parallel import Devices, collectives
from deepknn_jax.errors import UserError
from deepknn_jax.logs import say
from deepknn_jax.losses.base import LossFn, class_weights, with_class_weights
from deepknn_jax.losses.cross_entropy import (
    cross_entropy_sums,
    logit_adjusted_cross_entropy_sums,
)
from deepknn_jax.losses.lmnn import lmnn_anchor_sums
from deepknn_jax.losses.local_margin import (
    TermWeights,
    local_margin_sums,
    max_margin_hard_sums,
    max_margin_sums,
    safe_c_b,
)
from deepknn_jax.losses.nca import nca_sums
from deepknn_jax.losses.soft_deep_knn import listed_soft_deep_knn_sums, soft_deep_knn_sums
from deepknn_jax.losses.triplet import batch_hard_triplet_sums, deep_knn_sums, listed_triplet_sums
from deepknn_jax.mining.batches import Mining
from deepknn_jax.trainer import miners


class Method(NamedTuple):
    """A way to train the features.

    `loss(anchors, gallery, **mined, **options, **facts)` gives losses.base.Sums. Of config.loss it
    takes the `options` by their names, and `facts` are what else it wants: see _FACTS. With a
    `miner` (trainer/miners.py), which reads the options `mined_by`, the anchors come with what that
    found; without one all is found in the batch. `head`: the loss is of a classifier's logits.
    `warning` tells what the user of these options should know; "" for nothing. `in_set` is the
    same method with config.neighbors=dataset, where that exists. `class_weight_power` is the
    method's own; None: config.loss.class_weight_power.
    """

    title: str
    loss: Callable[..., Any]
    options: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    miner: Callable[..., Mining] | None = None
    mined_by: tuple[str, ...] = ()
    head: bool = False
    warning: Callable[[ConfigDict], str] = lambda options: ""
    in_set: "Method | None" = None
    class_weight_power: float | None = None

    @property
    def reads(self) -> frozenset[str]:
        """The options of config.loss that make a difference."""
        term_weights = _TERM_WEIGHTS if "weights" in self.facts else ()
        power = ("class_weight_power",) if self.class_weight_power is None else ()
        return frozenset((*self.options, *self.mined_by, *term_weights, *power))


def title_of(config: ConfigDict) -> str:
    """What a run of the config is called in results and tables."""
    return METHODS[config.loss.name].title if config.epochs else "no training"


# The options that weigh the terms of Neighborhood Watch's objective.
_TERM_WEIGHTS = tuple(f"w_{name}" for name in TermWeights._fields)


def _class_counts(config: ConfigDict, dataset: Dataset, devices: Devices) -> Array:
    return jnp.asarray(dataset.train_counts())


def _term_weights(config: ConfigDict, dataset: Dataset, devices: Devices) -> TermWeights:
    return TermWeights(*(config.loss[name] for name in _TERM_WEIGHTS))


def _total(config: ConfigDict, dataset: Dataset, devices: Devices) -> Callable[[Array], Array]:
    return collectives(devices.axis).total


# What a loss may want beside its options, by the name of its argument: class_counts [C] of the
# training part, the weights of the objective's terms, the sum over devices.
_FACTS: dict[str, Callable[[ConfigDict, Dataset, Devices], Any]] = {
    "class_counts": _class_counts,
    "weights": _term_weights,
    "total": _total,
}


def _small_c_b(options: ConfigDict) -> str:
    least = safe_c_b(squared=options.squared)
    if options.c_b >= least:
        return ""
    return f"config.loss.c_b is {options.c_b:g}: the theorem on the kNN wants at least {least:g}"


def _few_negatives(options: ConfigDict) -> str:
    if not options.m:
        return ""
    return (
        f"config.loss.m is {options.m}: the soft form learnt best against all negatives of the "
        "batch, config.loss.m=0 (docs/losses.md)"
    )


# Of all losses with Neighborhood Watch's objective.
_WATCH_OPTIONS = ("reduction", "squared", "p")
_WATCH_FACTS = ("weights", "total")
_SOFT_OPTIONS = ("temperature", "margin", "each_positive")

METHODS: dict[str, Method] = {
    "deep_knn": Method(
        "deep kNN",
        deep_knn_sums,
        ("k", "m", "margin", "p"),
        in_set=Method(
            "deep kNN",
            listed_triplet_sums,
            ("margin", "p"),
            miner=miners.nearest_in_the_set,
            mined_by=("k", "m", "p"),
        ),
    ),
    "soft_deep_knn": Method(
        "soft deep kNN",
        soft_deep_knn_sums,
        ("k", "m", *_SOFT_OPTIONS),
        warning=_few_negatives,
        in_set=Method(
            "soft deep kNN",
            listed_soft_deep_knn_sums,
            _SOFT_OPTIONS,
            miner=miners.nearest_in_the_set,
            mined_by=("k", "m", "p"),
        ),
    ),
    "triplet": Method("triplet (batch hard)", batch_hard_triplet_sums, ("margin", "p")),
    "cross_entropy": Method("cross entropy", cross_entropy_sums, head=True),
    "weighted_cross_entropy": Method(
        "weighted cross entropy", cross_entropy_sums, head=True, class_weight_power=1.0
    ),
    "logit_adjusted_cross_entropy": Method(
        "logit-adjusted cross entropy",
        logit_adjusted_cross_entropy_sums,
        ("tau",),
        facts=("class_counts",),
        head=True,
    ),
    "nca": Method("NCA", nca_sums, ("temperature", "log")),
    "lmnn": Method(
        "LMNN",
        lmnn_anchor_sums,
        ("mu", "margin"),
        miner=miners.fixed_targets,
        mined_by=("targets",),
    ),
    "local_margin": Method(
        "local margin",
        local_margin_sums,
        ("c_b", "eps", *_WATCH_OPTIONS),
        facts=_WATCH_FACTS,
        miner=miners.neighborhood_triplets,
        mined_by=("neighborhood", "mine", "draws", "squared", "p"),
        warning=_small_c_b,
    ),
    "max_margin": Method(
        "max margin (MM)",
        max_margin_sums,
        ("margin", *_WATCH_OPTIONS),
        facts=_WATCH_FACTS,
        miner=miners.random_triplets,
        mined_by=("draws",),
    ),
    "max_margin_hard": Method(
        "max margin, hardest of the batch (MM-HardMin)",
        max_margin_hard_sums,
        ("margin", "hard_positives", *_WATCH_OPTIONS),
        facts=_WATCH_FACTS,
    ),
}


def method_of(config: ConfigDict) -> Method:
    """The record of the config's loss.

    Raises:
        UserError: config.neighbors=dataset with a method that has no such form.
    """
    method = METHODS[config.loss.name]
    if config.neighbors == "batch":
        return method
    if method.in_set is None:
        able = ", ".join(name for name, each in METHODS.items() if each.in_set)
        raise UserError(
            f"config.neighbors=dataset is for config.loss.name={able}, not {config.loss.name}"
        )
    return method.in_set


def unread(config: ConfigDict) -> set[str]:
    """The keys of config.loss that the config's method does not read."""
    known = method_of(config).reads | {"name", "p"}  # p is the norm of the kNN that evaluates, too
    return {f"loss.{key}" for key in config.loss if key not in known}


def loss_function(config: ConfigDict, dataset: Dataset, devices: Devices) -> LossFn:
    """The config's loss as a function of (anchors, gallery) and what is mined for the anchors."""
    method = method_of(config)
    if words := method.warning(config.loss):
        say(words)
    options = {name: config.loss[name] for name in method.options}
    facts = {name: _FACTS[name](config, dataset, devices) for name in method.facts}
    loss = functools.partial(method.loss, **options, **facts)
    power = method.class_weight_power
    power = config.loss.class_weight_power if power is None else power
    if not power:
        return loss
    return with_class_weights(loss, class_weights(jnp.asarray(dataset.train_counts()), power))


def miner(config: ConfigDict, dataset: Dataset, devices: Devices, per_epoch: int) -> Mining | None:
    """How a training mines for the config's loss; None where the loss finds all in the batch."""
    method = method_of(config)
    if method.miner is None:
        return None
    run = miners.Run(
        dataset=dataset,
        devices=devices,
        batch_size=config.batch.size,
        steps_per_epoch=per_epoch,
        refresh_steps=config.refresh_steps or per_epoch,
        seed=config.seed,
    )
    return method.miner(run, **{name: config.loss[name] for name in method.mined_by})
