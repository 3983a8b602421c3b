"""From a config to what a training needs: data on the devices, a recipe, mapped functions.

Here and in train.py a ConfigDict is read; whatever they call takes plain values.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from ml_collections import ConfigDict

from deepknn_jax import losses, models
from deepknn_jax.batching import batch_indices, check_batching, steps_per_epoch
from deepknn_jax.data.augment import center_crop, normalize, random_crop_flip
from deepknn_jax.data.dataset import TRAIN, Dataset
from deepknn_jax.data.load import load_dataset
from deepknn_jax.errors import UserError
from deepknn_jax.feed import Store, make_store
from deepknn_jax.models.network import Network
from deepknn_jax.parallel import Devices, get_devices, map_embed, map_train_steps, replicate
from deepknn_jax.step import Recipe, TrainState, flat_inputs, init_state

METHODS = {
    "deep_knn": "deep kNN",
    "triplet": "triplet (batch hard)",
    "cross_entropy": "cross entropy",
    "weighted_cross_entropy": "weighted cross entropy",
}
# Input numbers that go through one call: enough work to hide the dispatch, and little enough
# that progress shows and a signal is heard. Measured in docs/decisions.md, "Steps in one call".
_NUMBERS_PER_CALL = 2**21
# Training images that the mean and deviation of the pixels are taken from.
_STATISTICS_IMAGES = 2000


class Setup(NamedTuple):
    """Everything of a training but its state."""

    dataset: Dataset
    devices: Devices
    store: Store
    recipe: Recipe
    schedule: Callable[[int], Any]
    train: Callable[..., Any]
    embed: Callable[..., Any]
    flat: Callable[..., Any]
    batches: Callable[[range], np.ndarray]
    steps_per_epoch: int
    steps_per_call: int
    total_steps: int


def load(config: ConfigDict) -> Dataset:
    """The config's data set, checked against its batching and evaluation."""
    data = config.data
    dataset = load_dataset(
        data.source,
        folder=data.dir,
        **{key: data[key] for key in data if key not in ("source", "dir", "placement")},
    )
    rows = dataset.rows(TRAIN)
    most = max(config.evaluate.k_p)
    if most >= len(rows):
        raise UserError(
            f"config.evaluate.k_p has {most}, but leave-one-out leaves {len(rows) - 1} of the "
            f"{len(rows)} training examples: choose smaller numbers"
        )
    batch = config.batch
    check_batching(
        batch.kind,
        dataset.labels[rows],
        batch_size=batch.size,
        classes=batch.classes,
        per_class=batch.per_class,
    )
    return dataset


def build(config: ConfigDict, dataset: Dataset) -> Setup:
    """The setup of a training on `dataset`."""
    devices = get_devices(config.devices, config.parallel)
    if config.batch.size % devices.size:
        raise UserError(
            f"config.batch.size is {config.batch.size}: the {devices.size} devices cannot share "
            "it evenly; change it, or config.devices"
        )
    rows = dataset.rows(TRAIN)
    labels = dataset.labels[rows]
    per_epoch = steps_per_epoch(len(rows), config.batch.size)
    schedule = learning_rate(config, per_epoch)
    augment, prepare = input_functions(config, dataset)
    recipe = Recipe(
        network=network(config, dataset, devices),
        optimizer=optimizer(config, schedule),
        loss=loss_function(config, dataset),
        augment=augment,
        prepare=prepare,
        seed=config.seed,
    )
    store = make_store(devices, dataset.inputs, dataset.labels, config.data.placement)

    def batches(steps: range) -> np.ndarray:
        chosen = batch_indices(
            config.batch.kind,
            labels,
            batch_size=config.batch.size,
            classes=config.batch.classes,
            per_class=config.batch.per_class,
            seed=config.seed,
            steps=steps,
        )
        return rows[chosen]

    mapped = functools.partial(map_embed, devices, recipe, pool_is_spread=store.streams)
    return Setup(
        dataset=dataset,
        devices=devices,
        store=store,
        recipe=recipe,
        schedule=schedule,
        train=map_train_steps(devices, recipe, pool_is_spread=store.streams),
        embed=mapped(),
        flat=mapped(function=flat_inputs),
        batches=batches,
        steps_per_epoch=per_epoch,
        steps_per_call=config.steps_per_call or _steps_per_call(config, dataset),
        total_steps=config.epochs * per_epoch,
    )


def first_state(setup: Setup) -> TrainState:
    """The state before training, on every device."""
    return replicate(setup.devices, init_state(setup.recipe, jnp.asarray(setup.dataset.inputs[:1])))


def _steps_per_call(config: ConfigDict, dataset: Dataset) -> int:
    numbers = config.batch.size * int(np.prod(dataset.inputs.shape[1:]))
    return int(np.clip(_NUMBERS_PER_CALL // numbers, 1, 100))


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


def network(config: ConfigDict, dataset: Dataset, devices: Devices) -> Network:
    """The config's backbone, with a head where its loss needs one."""
    options = config.model
    backbone = models.build(
        options.name,
        embedding_size=options.embedding_size or None,
        dtype=jnp.dtype(options.dtype),
        bn_axis=devices.axis,
    )
    head = len(dataset.class_names) if "cross_entropy" in config.loss.name else None
    return Network(backbone, head, normalize=options.normalize)


def loss_function(config: ConfigDict, dataset: Dataset) -> losses.LossFn:
    """The config's loss as a function of (anchors, gallery)."""
    options = config.loss
    match options.name:
        case "deep_knn":
            return functools.partial(
                losses.deep_knn_sums, k=options.k, m=options.m, margin=options.margin, p=options.p
            )
        case "triplet":
            return functools.partial(
                losses.batch_hard_triplet_sums, margin=options.margin, p=options.p
            )
        case "cross_entropy":
            return losses.cross_entropy_sums
        case "weighted_cross_entropy":
            weights_C = losses.balanced_class_weights(jnp.asarray(train_counts(dataset)))
            return functools.partial(losses.cross_entropy_sums, class_weights=weights_C)
    raise UserError(f"config.loss.name is {options.name!r}: choose from {', '.join(METHODS)}")


def train_counts(dataset: Dataset) -> np.ndarray:
    """Training examples of each class [C]."""
    labels = dataset.labels[dataset.rows(TRAIN)]
    return np.bincount(labels, minlength=len(dataset.class_names))


def input_functions(
    config: ConfigDict, dataset: Dataset
) -> tuple[Callable[[Array, Array, Array], Array], Callable[[Array], Array]]:
    """`augment` and `prepare` of the Recipe, for images or for features."""
    if dataset.inputs.ndim == 2:
        if config.augment.crop or config.augment.flip:
            raise UserError("config.augment.crop and .flip are for images; the data are features")
        if config.model.name != "mlp":
            raise UserError("the data are feature vectors: set config.model.name to mlp")
        mean, std = feature_statistics(dataset)

        def standardize(features: Array) -> Array:
            return (features - mean[None, :]) / std[None, :]

        return lambda features, ids, key: standardize(features), standardize

    height, width, channels = dataset.inputs.shape[1:]
    crop = config.augment.crop
    if crop > min(height, width):
        raise UserError(
            f"config.augment.crop is {crop}, but the images are {height} x {width}: "
            "choose a smaller crop or a larger config.data.size"
        )
    if not crop and config.augment.flip:
        raise UserError("config.augment.flip needs config.augment.crop (the images' side will do)")
    means, stds = config.augment.mean, config.augment.std
    if not means:
        means, stds = pixel_statistics(dataset)
    elif len(means) != channels:
        raise UserError(f"config.augment.mean has {len(means)} numbers for {channels} channel(s)")

    def augment(images: Array, ids: Array, key: Array) -> Array:
        if crop:
            images = random_crop_flip(images, key, ids, crop=crop, flip=config.augment.flip)
        return normalize(images, mean=means, std=stds)

    def prepare(images: Array) -> Array:
        return normalize(center_crop(images, crop=crop) if crop else images, mean=means, std=stds)

    return augment, prepare


def feature_statistics(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation [F] of the training part's features; deviation 1 for a constant one."""
    features = dataset.inputs[dataset.rows(TRAIN)].astype(np.float64)
    std = features.std(axis=0)
    return features.mean(axis=0).astype(np.float32), np.where(std > 0, std, 1).astype(np.float32)


def pixel_statistics(dataset: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel, on the scale 0..1, of (at most 2,000) training images."""
    rows = dataset.rows(TRAIN)
    rows = rows[:: -(-len(rows) // _STATISTICS_IMAGES)]
    pixels = dataset.inputs[rows].astype(np.float32) / 255
    std = pixels.std(axis=(0, 1, 2), dtype=np.float64)
    mean = pixels.mean(axis=(0, 1, 2), dtype=np.float64)
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1).tolist())
