"""From a config to what a training needs: data on the devices, a recipe, mapped functions.

A ConfigDict is read in the room trainer alone: `main` and `reproduce` make one and hand it over,
and the rooms below take plain values.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from deepknn_jax.config import default
from deepknn_jax.data import load as data_load
from deepknn_jax.data.dataset import TRAIN, Dataset
from deepknn_jax.data.load import Survey
from deepknn_jax.engine import hosts
from deepknn_jax.engine.batching import batch_indices, steps_per_epoch
from deepknn_jax.engine.feed import Store, make_store
from deepknn_jax.engine.inputs import (
    Scale,
    are_features,
    feature_scale,
    pixel_statistics,
    standardized,
)
from deepknn_jax.engine.parallel import (
    Devices,
    Embed,
    TrainSteps,
    get_devices,
    map_embed,
    map_train_steps,
    replicate,
)
from deepknn_jax.engine.step import Recipe, TrainState, embed, embed_views, flat_inputs, init_state
from deepknn_jax.errors import UserError
from deepknn_jax.logs import say
from deepknn_jax.mining.batches import Batches, Mined, Mining, with_partners
from deepknn_jax.models.weights.load import find_weights
from deepknn_jax.trainer import inherited, run_folder
from deepknn_jax.trainer.content import of_data
from deepknn_jax.trainer.keys import naming_keys
from deepknn_jax.trainer.methods import miner
from deepknn_jax.trainer.recipe import backbone_recipe, learning_rate, training_recipe
from deepknn_jax.trainer.sizes import (
    check_enough,
    devices_of,
    take_stored,
    tell_sizes,
    with_sizes,
)

# How many numbers of input the steps of one call take in together: enough work to hide the
# dispatch, and little enough that progress shows and a signal is heard (docs/measurements.md,
# "Steps in one call").
_NUMBERS_PER_CALL = 2**21
# Keys of config.data that are not load_dataset's arguments under the same name.
_NOT_PASSED_ON = ("source", "dir", "placement", "resize_rule")
_OF_DECODING = (
    *("size", "channels", "value_range", "frame", "on_error", "copies", "near_copies", "cache_dir"),
)


class Setup(NamedTuple):
    """Everything of a training but its state.

    `sampler(first, mined)` gives the batches of the steps from `first` to the next mining;
    `positions(steps)` [T, A] are the anchors' places in the training part. `weights` are the
    backbone's variables to start from, None where it starts at random. `content` are digests of the
    data and the weights (trainer/content.py).
    """

    dataset: Dataset
    devices: Devices
    store: Store
    recipe: Recipe
    schedule: Callable[[int], Any]
    train: TrainSteps
    embed: Embed
    flat: Embed
    mining: Mining | None
    positions: Callable[[range], np.ndarray]
    sampler: Callable[[int, Mined], Callable[[range], Batches]]
    steps_per_epoch: int
    steps_per_call: int
    total_steps: int
    weights: Mapping[str, Any] | None
    content: Mapping[str, str]


class Embedder(NamedTuple):
    """What embeds a data set, each view by itself (engine.step.embed_views) or their average.

    `state` is of the network, `embed` as `parallel.map_embed` gives it. `scale` has standardised
    its features; None of images.
    """

    dataset: Dataset
    devices: Devices
    store: Store
    embed: Embed
    state: TrainState
    scale: Scale | None


def resolve(
    config: ConfigDict, stored: Mapping[str, Any] | None, start: str = ""
) -> tuple[ConfigDict, Mapping[str, Any] | None]:
    """The config with what the weights and an earlier start decide, and the weights' variables.

    Mean and deviation belong to the weights and are always theirs; channels and the resize rule are
    theirs where the config leaves them unset, and of a run's weights whatever
    `inherited.of_run` takes. They are those of config.model.weights, or of `start` in its place:
    the run of the first stage. `stored` is the config.json of the run that goes on, if any: what
    was decided for it, as the mean and deviation of its training part, holds.

    Raises:
        UserError: weights that cannot be read or do not fit; a mean, channels or, beside a run's
            weights, other options that are not the weights' own.
    """
    path = start or config.model.weights
    config = inherited.as_begun(config, stored) if stored else inherited.of_run(config, path)
    config = config.copy_and_resolve_references().unlock()
    name, augment, data = config.model.name, config.augment, config.data
    if stored:
        take_stored(config, stored)
    variables = None
    if path:
        variables, own, unused = run_folder.open_weights(
            name, path, embedding_size=config.model.embedding_size
        )
        _tell_unused(name, path, variables, unused)
        if augment.mean and (tuple(augment.mean), tuple(augment.std)) != (own.mean, own.std):
            raise UserError(
                f"config.augment.mean is {tuple(augment.mean)}, but the weights' own is {own.mean}:"
                " leave config.augment.mean and .std out"
            )
        augment.mean, augment.std = own.mean, own.std
        data.resize_rule = data.resize_rule or own.resize_rule
        if not stored:
            data.channels = inherited.channels(config, path, own.mean)
    data.resize_rule = data.resize_rule or "square"
    if stored and not augment.mean:
        earlier = stored.get("augment", {})
        augment.mean = tuple(earlier.get("mean", ()))
        augment.std = tuple(earlier.get("std", ()))
    return config.lock(), variables


def _tell_unused(name: str, path: str, variables: Mapping[str, Any], unused: Sequence[str]) -> None:
    if unused:
        file = find_weights(name, path).name
        counters = [key for key in unused if key.endswith("num_batches_tracked")]
        others = [key for key in unused if key not in counters]
        left = f"{', '.join(others) or 'nothing else'} and {len(counters)} counters of batches"
        used = len(jax.tree.leaves(variables))
        say(f"weights: {used} tensors of {file} are used; left out: {left}")


def first_stage(config: ConfigDict) -> ConfigDict:
    """The config of the run that config.first_stage names a loss for: deep kNN*'s cross entropy.

    All but the loss is the same; in shuffled batches, as cross entropy needs no positives.
    """
    first = config.copy_and_resolve_references().unlock()
    first.loss.name, first.first_stage = config.first_stage, ""
    first.batch.kind, first.neighbors = "shuffled", "batch"
    return first.lock()


def settle(config: ConfigDict, dataset: Dataset) -> ConfigDict:
    """The config with the sizes in it, and the pixels' mean and deviation, that are the data's."""
    labels = dataset.labels[dataset.rows(TRAIN)]
    given, config = config, with_sizes(config, len(labels))
    tell_sizes(given, config, labels)
    if config.augment.mean or are_features(dataset.inputs):
        return config
    config = config.copy_and_resolve_references()
    found = hosts.by_main(lambda: pixel_statistics(dataset))
    config.augment.mean, config.augment.std = map(tuple, found)
    return config


@naming_keys()
def survey(config: ConfigDict) -> Survey:
    """What the config's source finds and how it is split, before files are decoded."""
    data = config.data
    return data_load.survey(
        data.source,
        folder=data.dir,
        resize_rule=data.resize_rule or "square",
        given=_given(config),
        **{key: data[key] for key in data if key not in _NOT_PASSED_ON},
    )


def _given(config: ConfigDict) -> set[str]:
    """The arguments of load_dataset that differ from their option's default."""
    data, usual = config.data, default().data
    given = {key for key in usual if key not in _NOT_PASSED_ON and data[key] != usual[key]}
    given |= {"folder"} if data.dir else set()
    given |= {"resize_rule"} if data.resize_rule not in ("", "square") else set()
    return given - inherited.options(config)


@naming_keys()
def load(
    config: ConfigDict, found: Survey | None = None, set_range: Sequence[float] = ()
) -> Dataset:
    """The config's data set, checked against its batching and evaluation.

    `found` is what `survey` gave, if that was asked before; `set_range` as in `decoded`.
    """
    found = found or survey(config)
    check_enough(config, found.listing.labels[found.splits == TRAIN])
    dataset = decoded(config, found, set_range)
    check_enough(config, dataset.labels[dataset.rows(TRAIN)])  # some may have been skipped
    return dataset


@naming_keys()
def decoded(config: ConfigDict, found: Survey, set_range: Sequence[float] = ()) -> Dataset:
    """What was surveyed, decoded as the config says; `set_range` as in `data.load.decoded`."""
    data = config.data
    fit = {key: data[key] for key in _OF_DECODING}
    rule = data.resize_rule or "square"
    return data_load.decoded(found, resize_rule=rule, set_range=set_range, **fit)


@naming_keys()
def build(
    config: ConfigDict,
    dataset: Dataset,
    weights: Mapping[str, Any] | None = None,
    scale: Scale | None = None,
) -> Setup:
    """The setup of a training on `dataset` that starts from the backbone's `weights`, if any.

    Features are standardised by `scale`, by default that of the training part.
    """
    config = with_sizes(config, len(dataset.rows(TRAIN)))  # as `settle`, where that was not asked
    devices = devices_of(config)
    content = of_data(dataset, weights)
    dataset = standardized(dataset, scale)
    rows = dataset.rows(TRAIN)
    per_epoch = steps_per_epoch(len(rows), config.batch.size)
    schedule = learning_rate(config, per_epoch)
    recipe = training_recipe(config, dataset, devices, schedule)
    store = make_store(devices, dataset.inputs, dataset.labels, config.data.placement)
    positions = _positions(config, dataset.labels[rows])
    mining = miner(config, dataset, devices, per_epoch)
    mapped = functools.partial(map_embed, devices, recipe, pool_is_cut=store.streams)
    return Setup(
        dataset=dataset,
        devices=devices,
        store=store,
        recipe=recipe,
        schedule=schedule,
        train=map_train_steps(devices, recipe, pool_is_cut=store.streams),
        embed=mapped(),
        flat=mapped(function=flat_inputs),
        mining=mining,
        positions=positions,
        sampler=_sampler(rows, positions, mining, devices.size),
        steps_per_epoch=per_epoch,
        steps_per_call=steps_per_call(config, dataset),
        total_steps=config.epochs * per_epoch,
        weights=weights,
        content=content,
    )


def _positions(config: ConfigDict, labels_N: np.ndarray) -> Callable[[range], np.ndarray]:
    """Setup.positions, of a training part with these labels."""
    batch = config.batch

    def positions(steps: range) -> np.ndarray:
        return batch_indices(
            batch.kind,
            labels_N,
            batch_size=batch.size,
            classes=batch.classes,
            per_class=batch.per_class,
            seed=config.seed,
            steps=steps,
        )

    return positions


def _sampler(
    rows_N: np.ndarray,
    positions: Callable[[range], np.ndarray],
    mining: Mining | None,
    devices: int,
) -> Callable[[int, Mined], Callable[[range], Batches]]:
    """Setup.sampler, of the training part at `rows_N`."""

    def sampler(first: int, mined: Mined) -> Callable[[range], Batches]:
        if mining is None:
            return lambda steps: Batches(rows_N[positions(steps)], {})
        anchors = rows_N[positions(range(first, first + mining.interval))]
        ids = with_partners(anchors, mined, rows_N, devices=devices)

        def batches(steps: range) -> Batches:
            own = slice(steps.start - first, steps.stop - first)
            return Batches(ids[own], {name: values[own] for name, values in mined.items()})

        return batches

    return sampler


@naming_keys()
def build_embedder(
    config: ConfigDict,
    dataset: Dataset,
    weights: Mapping[str, Any] | None = None,
    scale: Scale | None = None,
    *,
    each_view: bool = True,
) -> Embedder:
    """What embeds `dataset` by the backbone with its `weights`; nothing of a training is asked."""
    devices = get_devices(config.devices, config.parallel)
    scale = scale or feature_scale(dataset)
    dataset = standardized(dataset, scale)
    recipe = backbone_recipe(config, dataset, devices)
    store = make_store(devices, dataset.inputs, dataset.labels, config.data.placement)
    function = embed_views if each_view else embed
    mapped = map_embed(devices, recipe, pool_is_cut=store.streams, function=function)
    state = replicate(devices, hosts.broadcast(_started(recipe, dataset, weights)))
    return Embedder(dataset, devices, store, mapped, state, scale)


@naming_keys()
def first_state(setup: Setup) -> TrainState:
    """The state before training, on every device."""
    state = _started(setup.recipe, setup.dataset, setup.weights)
    return replicate(setup.devices, hosts.broadcast(state))


def _started(recipe: Recipe, dataset: Dataset, weights: Mapping[str, Any] | None) -> TrainState:
    """The state before the first step, with the backbone's `weights` in it, if any."""
    state = init_state(recipe, jnp.asarray(dataset.inputs[:1]))
    if weights is None:
        return state
    params = state.params | {"backbone": _placed("params", state.params, weights)}
    state = state._replace(params=params)
    if not state.batch_stats:
        return state
    own = _placed("batch_stats", state.batch_stats, weights)
    return state._replace(batch_stats=state.batch_stats | {"backbone": own})


def _placed(
    collection: str, initial: Mapping[str, Any], weights: Mapping[str, Any]
) -> dict[str, Any]:
    """The backbone's `collection` with the weights' arrays; a projection of its own stays."""
    found = weights.get(collection, {})

    def place(path: tuple[Any, ...], array: Array) -> Array:
        keys = [key.key for key in path]
        node: Any = found
        for key in keys:
            node = node.get(key) if isinstance(node, Mapping) else None
        if node is None and keys[0] == "projection":
            return array
        if node is None or node.shape != array.shape:
            has = "nothing" if node is None else list(node.shape)
            raise UserError(
                f"config.model.weights has {has} for {'/'.join(keys)}, the network wants "
                f"{list(array.shape)}: its inputs have other channels or features"
            )
        return jnp.asarray(node, array.dtype)

    placed: dict[str, Any] = jax.tree_util.tree_map_with_path(place, initial["backbone"])
    return placed


def steps_per_call(config: ConfigDict, dataset: Dataset) -> int:
    """The training steps of one call; where the config leaves it open 1 to 100, by inputs' size."""
    if config.steps_per_call:
        return int(config.steps_per_call)
    one = dataset.inputs.shape[-1:] if are_features(dataset.inputs) else dataset.inputs.shape[1:]
    numbers = config.batch.size * int(np.prod(one))  # of features a view
    return int(np.clip(_NUMBERS_PER_CALL // numbers, 1, 100))
