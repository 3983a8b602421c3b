"""What stays fixed while a config is trained or embedded: network, optimizer, inputs, loss."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from deepknn_jax import models
from deepknn_jax.data.dataset import Dataset
from deepknn_jax.engine.averaging import averaging
from deepknn_jax.engine.inputs import InputFunctions, input_functions
from deepknn_jax.engine.parallel import Devices
from deepknn_jax.engine.step import Recipe, embedding_recipe
from deepknn_jax.logs import say
from deepknn_jax.models.network import Network
from deepknn_jax.trainer.methods import loss_function, method_of


def training_recipe(
    config: ConfigDict, dataset: Dataset, devices: Devices, schedule: Callable[[int], Any]
) -> Recipe:
    """The recipe of the config's training."""
    head = len(dataset.class_names) if method_of(config).head else None
    net = network(config, devices, head)
    loss = loss_function(config, dataset, devices)
    functions = _functions(config, dataset)
    return Recipe(net, optimizer(config, schedule), loss, seed=config.seed, **functions._asdict())


def backbone_recipe(config: ConfigDict, dataset: Dataset, devices: Devices) -> Recipe:
    """The recipe of the config's backbone alone, without a head, to embed with and not to train."""
    net = network(config, devices, None)
    return embedding_recipe(net, *_functions(config, dataset), seed=config.seed)


def _functions(config: ConfigDict, dataset: Dataset) -> InputFunctions:
    """What turns the stored inputs into the network's, in training and in evaluation."""
    functions = input_functions(
        dataset,
        config.model.name,
        crop=config.augment.crop,
        flip=config.augment.flip,
        mean=tuple(config.augment.mean),
        std=tuple(config.augment.std),
        views=tuple(config.augment.views),
        all_views=config.evaluate.views,
    )
    if functions.views > 1:
        say(f"views: {functions.views} of each example; training draws one of them, evaluation "
            f"embeds all, which takes {functions.views} times as long")  # fmt: skip
    return functions


def learning_rate(config: ConfigDict, per_epoch: int) -> Callable[[int], Any]:
    """Step -> learning rate, in steps of `per_epoch` an epoch.

    Halved every so many epochs (Deep kNN, section 3), or along half a cosine to 0 at the end
    (Loshchilov and Hutter, 2017); in the warmup's epochs times a share that grows step by step.
    """
    options = config.optimizer
    rate = options.learning_rate
    if options.schedule == "cosine":
        whole = max(config.epochs * per_epoch, 1)  # without an epoch nothing is trained
        schedule = optax.cosine_decay_schedule(rate, whole)
    elif not options.halve_every_epochs:
        schedule = optax.constant_schedule(rate)
    else:
        every = options.halve_every_epochs * per_epoch
        schedule = optax.exponential_decay(rate, every, 0.5, staircase=True)
    steps = round(options.warmup_epochs * per_epoch)
    if not steps:
        return schedule
    share = optax.linear_schedule(1 / (steps + 1), 1.0, steps)
    return lambda step: schedule(step) * share(step)


def optimizer(config: ConfigDict, schedule: Callable[[int], Any]) -> optax.GradientTransformation:
    """SGD with momentum, weight decay added to the gradient as in PyTorch; or AdamW."""
    options = config.optimizer
    decayed = None if options.decay_all else _matrices
    if options.name == "adam":
        found = optax.adamw(
            schedule, weight_decay=options.weight_decay, mask=decayed, nesterov=options.nesterov
        )
    else:
        found = optax.chain(
            optax.add_decayed_weights(options.weight_decay, decayed),
            optax.sgd(schedule, options.momentum, options.nesterov),
        )
    return optax.chain(found, averaging(options.average)) if options.average else found


def _matrices(params: Any) -> Any:
    """True for kernels; BatchNorm's scale and all biases are vectors."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def network(config: ConfigDict, devices: Devices, head: int | None) -> Network:
    """The config's backbone, with a head of so many classes if any."""
    options = config.model
    backbone = models.build(
        options.name,
        embedding_size=options.embedding_size or None,
        dtype=jnp.dtype(options.dtype),
        bn_axis=devices.axis,
        dropout=options.dropout,
    )
    return Network(backbone, head, normalize=options.normalize)
