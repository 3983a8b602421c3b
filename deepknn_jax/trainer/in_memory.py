"""A training of feature vectors in memory: no workdir, no files, nothing said.

The loop, the step and the methods are those of a run (`trainer.loop.train`). What differs is how
often it is compiled: a run is one training, here one may follow another, as in a grid search. So
the program is compiled once a shape: what changes from fit to fit (seed, margin, rate,
labels) is its argument, and the number of rows is rounded up.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from deepknn_jax.config import default, flatten, of_json, to_json
from deepknn_jax.data.dataset import TRAIN, Dataset
from deepknn_jax.engine.inputs import Scale, feature_scale
from deepknn_jax.engine.parallel import collectives, get_devices
from deepknn_jax.engine.step import (
    Call,
    Recipe,
    StepLog,
    TrainState,
    embed,
    embedding_recipe,
    init_state,
    train_steps,
)
from deepknn_jax.errors import UserError
from deepknn_jax.knn.sizes import filled_to, filled_up, rounded_up
from deepknn_jax.logs import quiet
from deepknn_jax.models.mlp import MLP
from deepknn_jax.models.network import Network
from deepknn_jax.trainer.check import check
from deepknn_jax.trainer.loop import train
from deepknn_jax.trainer.methods import METHODS, method_of
from deepknn_jax.trainer.recipe import training_recipe
from deepknn_jax.trainer.setup import Setup, build

Variables = tuple[Any, Any]  # params, batch_stats

# Options that are arguments of the compiled program: other values of them run the same one.
_TRACED = ("loss.margin", "loss.temperature")
# Options that the program does not know: the seed and the learning rates are its arguments, too.
_OUTSIDE = ("seed", "epochs", "optimizer.learning_rate", "optimizer.halve_every_epochs")
_STEPS_PER_CALL = 100
_ROWS = 1024  # embedded at a time


class Widths(NamedTuple):
    """The network: an MLP with these `hidden` layers and this embedding, of length 1 or not."""

    hidden: tuple[int, ...]
    embedding_size: int
    normalize: bool


class Trained(NamedTuple):
    """What a training leaves, all numpy's.

    `variables`: params and batch_stats; `scale`: of the features; `losses` float [epochs], the mean
    over each epoch's steps.
    """

    variables: Variables
    scale: Scale
    losses: np.ndarray


class _Program(NamedTuple):
    """What a compiled training is known by: `options` as text, without _TRACED and _OUTSIDE."""

    options: str
    widths: Widths
    features: int
    classes: int


class _Numbers(NamedTuple):
    """What changes from fit to fit: the values of _TRACED, learning rates [T], counts [C]."""

    options: dict[str, Any]
    rates: Any
    counts: Any


class _Facts(NamedTuple):
    """In the place of a Dataset for `training_recipe`: what a recipe asks of one."""

    inputs: np.ndarray
    class_names: tuple[str, ...]
    counts: Array

    def train_counts(self) -> Array:
        """Examples of each class [C]."""
        return self.counts


def options_of(method: str) -> frozenset[str]:
    """The options of config.loss that a method of METHODS reads."""
    return METHODS[method].reads


@quiet()
def fit(
    inputs_NxF: np.ndarray,
    labels_N: np.ndarray,
    *,
    num_classes: int,
    widths: Widths,
    options: Mapping[str, Any],
    start: Variables | None = None,
) -> Trained:
    """Trains an MLP on feature vectors, which are standardised first.

    Args:
        inputs_NxF: float [N, F], finite, N >= 2.
        labels_N: int [N] in 0..num_classes-1.
        num_classes: C.
        widths: of the network.
        options: those of a run that differ from their defaults, by their dotted keys.
        start: variables to go on from, as of an earlier `Trained`; None: random ones.

    Raises:
        UserError: an option out of range; the training came to a loss that is not finite.
    """
    config = _config(options, widths, len(labels_N))
    dataset = _dataset(inputs_NxF, labels_N, num_classes)
    scale = feature_scale(dataset)
    assert scale is not None
    setup = build(config, dataset, None, scale)
    logs: list[StepLog] = []
    program, numbers = _described(setup, config, widths)
    setup = _compiled_once(setup, program, numbers, logs)
    state: TrainState = _begin(config.seed, setup.dataset.inputs[:1], numbers, program=program)
    if start is not None:
        params, batch_stats = jax.tree.map(jnp.array, start)
        state = state._replace(params=params, batch_stats=batch_stats)
    mined = setup.mining.empty if setup.mining else {}
    try:
        for new_state, _, _ in train(config, setup, state, mined, {}):
            state = new_state
    except UserError as error:
        raise UserError("the training came to a loss, a gradient or embeddings that are not finite:"
                        " choose a smaller learning_rate") from error  # fmt: skip
    variables = jax.tree.map(np.asarray, (state.params, state.batch_stats))
    losses = np.concatenate([log.loss for log in logs]).reshape(config.epochs, -1).mean(axis=1)
    return Trained(variables, scale, losses.astype(np.float64))


def embed_features(
    variables: Variables, inputs_nxF: np.ndarray, scale: Scale, widths: Widths
) -> np.ndarray:
    """Embeddings float32 [n, D] of feature vectors float [n, F] by what `fit` has trained."""
    found = ((inputs_nxF - scale.mean[None, :]) / scale.std[None, :]).astype(np.float32)
    network = _network(widths, None)
    parts = [np.zeros((0, widths.embedding_size), np.float32)]
    for first in range(0, len(found), _ROWS):
        block = found[first : first + _ROWS]
        pool = filled_up(block)
        rows = np.arange(len(pool), dtype=np.int32)
        embedded = _embed(*variables, pool, rows, network=network)
        parts.append(np.asarray(embedded[0])[: len(block)])
    return np.concatenate(parts)


def _config(options: Mapping[str, Any], widths: Widths, count: int) -> ConfigDict:
    """The config of a run with these options, on one device."""
    config = default()
    own = {
        "devices": 1,
        "model.name": "mlp",
        "model.embedding_size": widths.embedding_size,
        "model.normalize": widths.normalize,
        "steps_per_call": _STEPS_PER_CALL,
    }
    config.update_from_flattened_dict(own | dict(options))
    config.batch.size = min(config.batch.size, count)
    check(config)
    return config.lock()


def _dataset(inputs_NxF: np.ndarray, labels_N: np.ndarray, num_classes: int) -> Dataset:
    return Dataset(
        inputs=inputs_NxF,
        labels=labels_N.astype(np.int32),
        names=tuple(map(str, range(len(labels_N)))),
        class_names=tuple(map(str, range(num_classes))),
        splits=np.full(len(labels_N), TRAIN),
    )


def _compiled_once(
    setup: Setup, program: _Program, numbers: _Numbers, logs: list[StepLog]
) -> Setup:
    """The setup with the programs of this module; each call's log is added to `logs`."""
    dataset = setup.dataset

    def own_train(state: TrainState, call: Call) -> tuple[TrainState, StepLog]:
        state, log = _train(state, _of_full_length(call), numbers, program=program)
        logs.append(jax.tree.map(lambda x: np.asarray(x)[: call.steps], log))
        return state, log

    store = setup.store._replace(
        labels=jnp.asarray(filled_up(dataset.labels)), pool=jnp.asarray(filled_up(dataset.inputs))
    )
    return setup._replace(
        store=store,
        train=own_train,
        embed=functools.partial(_embed, network=_network(program.widths, None)),
        # Nothing is done at an epoch's end unless something is mined: calls may go across it.
        steps_per_epoch=setup.steps_per_epoch if setup.mining else setup.total_steps,
    )


def _of_full_length(call: Call) -> Call:
    """The call with places for _STEPS_PER_CALL steps, whatever the training's length."""
    arrays = call.rows, call.ids, call.mined
    rows, ids, mined = jax.tree.map(lambda x: filled_to(x, _STEPS_PER_CALL), arrays)
    return call._replace(rows=rows, ids=ids, mined=mined)


def _described(setup: Setup, config: ConfigDict, widths: Widths) -> tuple[_Program, _Numbers]:
    """The setup's training as what it is compiled for, and what it is called with."""
    plain, usual = config.copy_and_resolve_references().unlock(), flatten(default())
    plain.update_from_flattened_dict({key: usual[key] for key in (*_TRACED, *_OUTSIDE)})
    counts = setup.dataset.train_counts()
    if not method_of(config).head:  # then the number of classes shapes nothing
        counts = filled_up(counts, 0)
    steps = jnp.arange(rounded_up(setup.total_steps), dtype=jnp.int32)
    schedule: Callable[[Any], Any] = setup.schedule
    rates = np.broadcast_to(np.asarray(schedule(steps), np.float32), steps.shape)
    flat = flatten(config)
    numbers = _Numbers({key: np.float32(flat[key]) for key in _TRACED}, rates, counts)
    features = setup.dataset.inputs.shape[1]
    return _Program(to_json(plain), widths, features, len(counts)), numbers


def _recipe(program: _Program, numbers: _Numbers) -> Recipe:
    """The recipe of the program's training, with the numbers in their places; for jit."""
    config = of_json(program.options)
    with config.ignore_type():
        for key, number in numbers.options.items():
            group, name = key.split(".")
            config[group][name] = number
    names = tuple(map(str, range(program.classes)))
    inputs = np.zeros((0, program.features), np.float32)
    facts = cast(Dataset, _Facts(inputs, names, numbers.counts))
    devices = get_devices(1, config.parallel)
    recipe = training_recipe(config, facts, devices, lambda step: numbers.rates[step])
    return recipe._replace(network=_network(program.widths, recipe.network.num_classes))


@functools.partial(jax.jit, static_argnames="program", donate_argnames="state")
def _train(
    state: TrainState, call: Call, numbers: _Numbers, *, program: _Program
) -> tuple[TrainState, StepLog]:
    recipe = _recipe(program, numbers)
    return train_steps(state, call, recipe=recipe, collectives=collectives(None))


@functools.partial(jax.jit, static_argnames="program")
def _begin(seed: Any, inputs: Array, numbers: _Numbers, *, program: _Program) -> TrainState:
    return init_state(_recipe(program, numbers)._replace(seed=seed), inputs)


@functools.partial(jax.jit, static_argnames="network")
def _embed(
    params: Any, batch_stats: Any, pool: Array, rows: Array, *, network: Network
) -> tuple[Array, Array | None]:
    recipe = embedding_recipe(network, lambda x, *_: x, lambda x: x, 1, seed=0)
    return embed(params, batch_stats, pool, rows, recipe=recipe)


def _network(widths: Widths, head: int | None) -> Network:
    backbone = MLP(embedding_size=widths.embedding_size, hidden=widths.hidden)
    return Network(backbone, head, normalize=widths.normalize)
