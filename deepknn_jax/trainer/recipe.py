"""What stays fixed while a config is trained or embedded: network, optimizer, inputs, loss."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from deepknn_jax import models
from deepknn_jax.data.dataset import Dataset
from deepknn_jax.engine.inputs import input_functions
from deepknn_jax.engine.parallel import Devices
from deepknn_jax.engine.step import Recipe, embedding_recipe
from deepknn_jax.models.network import Network
from deepknn_jax.trainer.methods import loss_function, method_of


def training_recipe(
    config: ConfigDict, dataset: Dataset, devices: Devices, schedule: Callable[[int], Any]
) -> Recipe:
    """The recipe of the config's training."""
    head = len(dataset.class_names) if method_of(config).head else None
    net = network(config, devices, head)
    loss = loss_function(config, dataset, devices)
    return Recipe(
        net, optimizer(config, schedule), loss, *_functions(config, dataset), seed=config.seed
    )


def backbone_recipe(config: ConfigDict, dataset: Dataset, devices: Devices) -> Recipe:
    """The recipe of the config's backbone alone, without a head, to embed with and not to train."""
    net = network(config, devices, None)
    return embedding_recipe(net, *_functions(config, dataset), seed=config.seed)


def _functions(config: ConfigDict, dataset: Dataset) -> tuple[Callable, Callable]:
    """What turns the stored inputs into the network's, in training and in evaluation."""
    return input_functions(
        dataset,
        config.model.name,
        crop=config.augment.crop,
        flip=config.augment.flip,
        mean=tuple(config.augment.mean),
        std=tuple(config.augment.std),
    )


def learning_rate(config: ConfigDict, per_epoch: int) -> Callable[[int], Any]:
    """Step -> learning rate, halved every so many epochs (Deep kNN, section 3)."""
    options = config.optimizer
    if not options.halve_every_epochs:
        return optax.constant_schedule(options.learning_rate)
    return optax.exponential_decay(
        options.learning_rate, options.halve_every_epochs * per_epoch, 0.5, staircase=True
    )


def optimizer(config: ConfigDict, schedule: Callable[[int], Any]) -> optax.GradientTransformation:
    """SGD with momentum, weight decay added to the gradient as in PyTorch; or AdamW."""
    options = config.optimizer
    if options.name == "adam":
        return optax.adamw(schedule, weight_decay=options.weight_decay)
    return optax.chain(
        optax.add_decayed_weights(options.weight_decay), optax.sgd(schedule, options.momentum)
    )


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
