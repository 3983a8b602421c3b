"""Stored inputs (uint8 images or volumes, features) to what a network takes."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from deepknn_jax import models
from deepknn_jax.data.dataset import TRAIN, Dataset
from deepknn_jax.engine.augment import center_crop, normalize, random_crop_flip, random_flips
from deepknn_jax.engine.views import View, check_views, draw_views, in_view, random_views, views_of
from deepknn_jax.errors import UserError

# At most so many training examples give the mean and deviation of the pixels.
_STATISTICS_IMAGES = 2000
# What the data are, by the dimensions of their array; of features with V views: [N, V, F].
KINDS = {2: "feature vectors", 3: "feature vectors", 4: "images", 5: "volumes"}


class InputFunctions(NamedTuple):
    """`augment`, `prepare` and `views`, as engine.step.Recipe describes them."""

    augment: Callable[[Array, Array, Array], Array]
    prepare: Callable[..., Array]
    views: int


class Scale(NamedTuple):
    """Mean and deviation float64 [F] of F features, as (x - mean) / std takes them."""

    mean: np.ndarray
    std: np.ndarray


def input_functions(
    dataset: Dataset,
    model: str,
    *,
    crop: int,
    flip: bool,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    views: Sequence[str] = (),
    all_views: bool = True,
) -> InputFunctions:
    """How `dataset` goes into the backbone `model`.

    Args:
        dataset: its statistics stand in for an empty `mean`.
        model: a name of models.BACKBONES.
        crop: side of the random and the central crop of images; 0 for none.
        flip: images left to right with the crop; volumes along their second and third axes.
        mean: per channel, on the scale 0..1; with `std`. Not for features, which are standardised
            as data (`standardized`).
        std: likewise.
        views: names of engine.views.SYMMETRIES that images and volumes have; training draws one of
            the views that they make. Features bring theirs, [N, V, F].
        all_views: whether evaluation takes all of them, or the images as they are.

    Raises:
        UserError: options, backbone and data do not go together.
    """
    kind = KINDS[dataset.inputs.ndim]
    wanted = models.INPUTS.get(model, "images")
    if kind != wanted:
        fit = [name for name in models.BACKBONES if models.INPUTS.get(name, "images") == kind]
        raise UserError(
            f"the data are {kind}, but `model`={model} takes {wanted}: set it to {' or '.join(fit)}"
        )
    if kind == "feature vectors":
        if crop or flip or views:
            raise UserError("`crop`, `flip` and `views` are for images; the data are features")
        return _of_features(dataset, all_views=all_views)
    channels = dataset.inputs.shape[-1]
    if not mean:
        mean, std = pixel_statistics(dataset)
    elif len(mean) != channels:
        raise UserError(
            f"`mean` has {len(mean)} numbers for {channels} channel(s): set `channels` to "
            f"{len(mean)}, or give one number a channel"
        )
    of_kind = _of_volumes if kind == "volumes" else _of_images
    seen = views_of(views)
    check_views(seen, *((crop, crop) if crop else dataset.inputs.shape[-3:-1]))
    functions = of_kind(dataset, crop, flip, mean, std)
    return _with_views(functions, seen, all_views) if len(seen) > 1 else functions


def _of_features(dataset: Dataset, *, all_views: bool) -> InputFunctions:
    """Features are taken as they are; of [N, V, F] one view at a time."""
    if not all_views:
        raise UserError("`all_views` is for images; features are evaluated in all their views")
    if dataset.inputs.ndim == 2:
        return InputFunctions(lambda features, ids, key: features, lambda features: features, 1)
    count = dataset.inputs.shape[1]

    def augment(features: Array, ids: Array, key: Array) -> Array:
        drawn = draw_views(key, ids, count)
        return jnp.take_along_axis(features, drawn[:, None, None], axis=1)[:, 0]

    def prepare(features: Array, view: Array | int = 0) -> Array:
        return features[:, view]

    return InputFunctions(augment, prepare, count)


def _with_views(
    functions: InputFunctions, views: tuple[View, ...], all_views: bool
) -> InputFunctions:
    """The functions of images, with what they give seen in one of the views."""

    def augment(images: Array, ids: Array, key: Array) -> Array:
        return random_views(functions.augment(images, ids, key), key, ids, views)

    def prepare(images: Array, view: Array | int = 0) -> Array:
        return in_view(functions.prepare(images), views, view)

    return InputFunctions(augment, prepare, len(views) if all_views else 1)


def _of_images(
    dataset: Dataset, crop: int, flip: bool, mean: tuple[float, ...], std: tuple[float, ...]
) -> InputFunctions:
    height, width = dataset.inputs.shape[1:3]
    if crop > min(height, width):
        raise UserError(
            f"`crop` is {crop}, but the images are {height} x {width}: choose a smaller crop or a "
            "larger `size`"
        )
    if not crop and flip:
        raise UserError("`flip` needs `crop` (the images' side will do)")

    def augment(images: Array, ids: Array, key: Array) -> Array:
        if crop:
            images = random_crop_flip(images, key, ids, crop=crop, flip=flip)
        return normalize(images, mean=mean, std=std)

    def prepare(images: Array) -> Array:
        return normalize(center_crop(images, crop=crop) if crop else images, mean=mean, std=std)

    return InputFunctions(augment, prepare, 1)


def _of_volumes(
    dataset: Dataset, crop: int, flip: bool, mean: tuple[float, ...], std: tuple[float, ...]
) -> InputFunctions:
    if crop:
        raise UserError("`crop` is for images; the data are volumes: set it to 0")

    def augment(volumes: Array, ids: Array, key: Array) -> Array:
        if flip:
            volumes = random_flips(volumes, key, ids, axes=(1, 2))
        return normalize(volumes, mean=mean, std=std)

    return InputFunctions(augment, lambda volumes: normalize(volumes, mean=mean, std=std), 1)


def are_features(inputs: np.ndarray) -> bool:
    """Whether the inputs of a data set are features, [N, F] or [N, V, F]."""
    return KINDS[inputs.ndim] == "feature vectors"


def feature_scale(dataset: Dataset) -> Scale | None:
    """Mean and deviation of each feature in the training part; None where there are no features.

    Over all views, where the features have several. The deviation of a constant one is 1.
    """
    if not are_features(dataset.inputs):
        return None
    features = dataset.inputs[dataset.rows(TRAIN)].astype(np.float64)
    features = features.reshape(-1, features.shape[-1])
    mean, std = features.mean(axis=0), features.std(axis=0)
    # A constant's deviation may be rounding alone: 0.1 + 1e9 is not the mean of many of it.
    varies = (std > 0) & (np.ptp(features, axis=0) > 0)
    return Scale(np.where(varies, mean, features[0]), np.where(varies, std, 1.0))


def standardized(dataset: Dataset, scale: Scale | None = None) -> Dataset:
    """With features as (x - mean) / std, taken in float64, then float32; images as they are.

    `scale` is by default that of the training part, which then has mean 0 and deviation 1. Done to
    the data, not by the program that trains on them: every fold runs the same one.

    Raises:
        UserError: the features are of another number than `scale`.
    """
    if not are_features(dataset.inputs):
        return dataset
    scale = scale or feature_scale(dataset)
    assert scale is not None
    if len(scale.mean) != dataset.inputs.shape[-1]:
        raise UserError(f"there are {dataset.inputs.shape[-1]} features, but the run that "
                        f"standardises them had {len(scale.mean)}")  # fmt: skip
    found = (dataset.inputs - scale.mean[None, :]) / scale.std[None, :]
    return dataset._replace(inputs=found.astype(np.float32))


def pixel_statistics(dataset: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel, on the scale 0..1, of (at most 2,000) training examples."""
    rows = dataset.rows(TRAIN)
    rows = rows[:: -(-len(rows) // _STATISTICS_IMAGES)]
    pixels = dataset.inputs[rows].astype(np.float32) / 255
    axes = tuple(range(pixels.ndim - 1))
    std = pixels.std(axis=axes, dtype=np.float64)
    mean = pixels.mean(axis=axes, dtype=np.float64)
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1).tolist())
