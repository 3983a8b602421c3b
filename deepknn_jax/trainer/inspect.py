"""What a run would find, and what it would take, told without training."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from deepknn_jax.data.dataset import TRAIN, Dataset
from deepknn_jax.engine.batching import steps_per_epoch
from deepknn_jax.engine.feed import is_resident
from deepknn_jax.engine.inputs import input_functions, standardized
from deepknn_jax.engine.parallel import get_devices
from deepknn_jax.logs import duration, say
from deepknn_jax.models.network import Network
from deepknn_jax.trainer import inherited, provenance
from deepknn_jax.trainer.check import check
from deepknn_jax.trainer.keys import naming_keys
from deepknn_jax.trainer.loading import check_copies, tell_and_load
from deepknn_jax.trainer.recipe import learning_rate, network, optimizer
from deepknn_jax.trainer.setup import resolve, steps_per_call
from deepknn_jax.trainer.sizes import devices_of, tell_sizes, with_sizes

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
    devices_of(config)
    kept = inherited.of_weights(config)
    began = time.monotonic()
    dataset = tell_and_load(config, kept.set_range)
    read = time.monotonic() - began
    check_copies(config, dataset)
    provenance.tell(provenance.marked(dataset, config.model.weights))
    labels = dataset.labels[dataset.rows(TRAIN)]
    given, config = config, with_sizes(config, len(labels))
    tell_sizes(given, config, labels)
    dataset = standardized(dataset, inherited.scale_of(kept, dataset))
    for line in expected(config, dataset, read):
        say(line)


class _Costs(NamedTuple):
    """Of the network: forward passes a second, and bytes.

    Those of the parameters, of what the optimizer keeps beside them, and of a step's activations
    (0: not known).
    """

    speed: float
    parameters: int
    optimizer: int
    activations: int


@naming_keys()
def expected(config: ConfigDict, dataset: Dataset, read: float) -> list[str]:
    """Lines on memory and time, from the model, the data's shape, and measurements here.

    `read` are the seconds that it took to read the data.
    """
    devices = devices_of(config)
    costs = _costs(config, dataset, config.batch.size // devices.size or 1)
    per_epoch = steps_per_epoch(len(dataset.rows(TRAIN)), config.batch.size)
    steps = config.epochs * per_epoch
    seconds = (2 if config.first_stage else 1) * steps * config.batch.size * _BACKWARD / costs.speed
    shape, nbytes = " x ".join(map(str, dataset.inputs.shape[1:])), dataset.inputs.nbytes
    resident = is_resident(devices, nbytes, config.data.placement)
    call = steps_per_call(config, dataset) * config.batch.size // devices.size
    held = nbytes if resident else 2 * call * dataset.inputs[:1].nbytes  # one is being loaded
    lines = [f"data: {len(dataset.labels):,} examples of {shape}, {_mb(nbytes)}"]
    if isinstance(dataset.inputs, np.memmap):
        lines.append(
            f"decoding: done here, in {duration(read)} with the search for copies; a run finds the "
            f"images in the cache, {_mb(nbytes)} on the disk"
        )
    parts = {
        "parameters": costs.parameters, "gradients": costs.parameters,
        "optimizer": costs.optimizer, "activations": costs.activations,
        "examples, all of them" if resident else "examples, streamed": held,
    }  # fmt: skip
    known = ", ".join(f"{name} {_mb(size)}" for name, size in parts.items() if size)
    without = "" if costs.activations else " without the activations, which are not known"
    return [
        *lines,
        f"model: {config.model.name}, {costs.parameters // 4:,} parameters, "
        f"{_mb(costs.parameters)}",
        f"memory: about {_mb(sum(parts.values()))} a device{without}: {known}",
        f"training: {config.epochs} epochs of {per_epoch:,} steps, {steps:,} steps of "
        f"{config.batch.size}; about {duration(seconds)} by {min(_TIMED, len(dataset.labels))} "
        "images timed here; decoding, compiling, evaluation and pictures besides",
    ]


def _mb(nbytes: float) -> str:
    return f"{nbytes / 1e6:,.1f} MB"


def _costs(config: ConfigDict, dataset: Dataset, batch: int) -> _Costs:
    """What the config's network takes for examples of this shape, `batch` of them a device."""
    channels = dataset.inputs.shape[-1]
    _, prepare, _ = input_functions(
        dataset, config.model.name, crop=config.augment.crop, flip=config.augment.flip,
        mean=tuple(config.augment.mean) or (0.5,) * channels,
        std=tuple(config.augment.std) or (0.5,) * channels,
    )  # fmt: skip
    net = network(config, get_devices(1, config.parallel), None)
    images = jnp.asarray(dataset.inputs[:_TIMED])
    shapes = jax.eval_shape(net.init, jax.random.key(0), jax.eval_shape(prepare, images))
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    embed = jax.jit(lambda variables, images: net.apply(variables, prepare(images), train=False))

    def forward() -> None:
        jax.block_until_ready(embed(variables, images))

    forward()  # compiles
    began = time.monotonic()
    for _ in range(3):
        forward()
    speed = 3 * len(images) / (time.monotonic() - began)
    state = jax.eval_shape(optimizer(config, learning_rate(config, 1)).init, shapes["params"])
    inputs = jax.ShapeDtypeStruct((batch, *images.shape[1:]), images.dtype)
    activations = _activation_bytes(net, prepare, shapes, inputs)
    return _Costs(speed, _bytes(shapes["params"]), _bytes(state), activations)


def _activation_bytes(
    net: Network, prepare: Callable[[Array], Array], shapes: Any, inputs: jax.ShapeDtypeStruct
) -> int:
    """What the compiler sets aside for the gradient of one batch; 0 where it does not tell.

    Of a sum of squares in the loss's place: beside the network's activations a loss's are few.
    """

    def objective(params: Any, rest: Any, images: Array) -> Array:
        (embeddings, _), _ = net.apply(
            {**rest, "params": params}, prepare(images), train=True, mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )  # fmt: skip
        return jnp.sum(embeddings.astype(jnp.float32) ** 2)

    rest = {name: leaves for name, leaves in shapes.items() if name != "params"}
    compiled = jax.jit(jax.grad(objective)).lower(shapes["params"], rest, inputs).compile()
    analysis = compiled.memory_analysis()
    return int(getattr(analysis, "temp_size_in_bytes", 0) or 0)


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
