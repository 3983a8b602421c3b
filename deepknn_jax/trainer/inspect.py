"""What a run would find, and what it would take, told without training."""

import time

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from deepknn_jax.data.dataset import TRAIN, Dataset
from deepknn_jax.engine.batching import steps_per_epoch
from deepknn_jax.engine.inputs import input_functions
from deepknn_jax.engine.parallel import get_devices
from deepknn_jax.logs import duration, say
from deepknn_jax.trainer import provenance
from deepknn_jax.trainer.check import check
from deepknn_jax.trainer.keys import naming_keys
from deepknn_jax.trainer.loading import check_copies, tell_and_load
from deepknn_jax.trainer.setup import network, resolve

_TIMED = 16  # images that go forward through the network to tell its speed
_BACKWARD = 3  # a training step takes about three times the time of the forward pass


def run(config: ConfigDict) -> None:
    """Tells the account of the config's data, and the memory and time that a run would take.

    Images are decoded, through the cache that the run will use: copies are known by their pixels.

    Raises:
        UserError: for whatever would stop the run before its first step.
    """
    check(config)
    config, _ = resolve(config, None)
    dataset = tell_and_load(config)
    check_copies(config, dataset)
    provenance.tell(provenance.marked(dataset, config.model.weights))
    for line in expected(config, dataset):
        say(line)


@naming_keys()
def expected(config: ConfigDict, dataset: Dataset) -> list[str]:
    """Lines on memory and time, from the model, the data's shape, and a measurement here."""
    devices = get_devices(config.devices, config.parallel)
    channels = dataset.inputs.shape[-1]
    _, prepare = input_functions(
        dataset, config.model.name, crop=config.augment.crop, flip=config.augment.flip,
        mean=tuple(config.augment.mean) or (0.5,) * channels,
        std=tuple(config.augment.std) or (0.5,) * channels,
    )  # fmt: skip
    net = network(config, dataset, devices)
    images = jnp.asarray(dataset.inputs[:_TIMED])
    shapes = jax.eval_shape(net.init, jax.random.key(0), jax.eval_shape(prepare, images))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def forward(images: jax.Array) -> jax.Array:
        return jax.block_until_ready(embed(variables, images))

    embed = jax.jit(lambda variables, images: net.apply(variables, prepare(images), train=False))
    forward(images)  # compiles
    began = time.monotonic()
    for _ in range(3):
        forward(images)
    speed = 3 * len(images) / (time.monotonic() - began)
    rows = len(dataset.rows(TRAIN))
    steps = config.epochs * steps_per_epoch(rows, config.batch.size)
    stages = 2 if config.first_stage else 1
    seconds = stages * steps * config.batch.size * _BACKWARD / speed
    shape = " x ".join(map(str, dataset.inputs.shape[1:]))
    return [
        f"data: {len(dataset.labels):,} examples of {shape}, {dataset.inputs.nbytes / 1e6:,.1f} MB",
        f"model: {config.model.name}, {parameters:,} parameters, {4 * parameters / 1e6:,.1f} MB",
        f"training: {config.epochs} epochs, {steps:,} steps of {config.batch.size}; about"
        f" {duration(seconds)} by {len(images)} images timed here; decoding, compiling, evaluation"
        " and pictures besides",
    ]
