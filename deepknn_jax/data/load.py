"""From a source's name to a data set ready for training: list, split, decode."""

import hashlib
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from deepknn_jax.data.cache import cached_images, check_options, decode
from deepknn_jax.data.dataset import Dataset, Listing
from deepknn_jax.data.images import DECODER_VERSION, fit_array
from deepknn_jax.data.sources.arrays import breast_cancer, digits, npz
from deepknn_jax.data.sources.binary import cifar10, mnist, stl10
from deepknn_jax.data.sources.files import class_folders, csv_images, skin7
from deepknn_jax.data.sources.papers import cub200, pneumonia, sd198, tiny_imagenet
from deepknn_jax.data.sources.survival_csv import survival_csv
from deepknn_jax.data.sources.tfds import tfds
from deepknn_jax.data.sources.volumes import sarcoma
from deepknn_jax.data.splits import assign_splits, check_class_sizes
from deepknn_jax.errors import UserError

# Sources that need a folder and nothing else.
BY_FOLDER: dict[str, Callable[[str | Path], Listing]] = {
    "cifar10": cifar10,
    "cub200": cub200,
    "mnist": mnist,
    "pneumonia": pneumonia,
    "stl10": stl10,
    "tiny_imagenet": tiny_imagenet,
}
SOURCES = (
    "breast_cancer", "class_folders", "csv_images", "digits", "npz", "sarcoma", "sd198", "skin7",
    "survival_csv", "tfds", *BY_FOLDER,
)  # fmt: skip


def load_dataset(
    source: str,
    *,
    folder: str | Path = "",
    split: str,
    test_share: float = 0.2,
    validation: float = 0.0,
    split_seed: int = 0,
    size: int = 0,
    resize_rule: str = "square",
    channels: int = 0,
    value_range: Sequence[float] = (),
    on_error: str = "stop",
    cache_dir: str | Path = "",
    **options: Any,
) -> Dataset:
    """The data set of one config.

    Args:
        source: one of SOURCES.
        folder: the data's folder; the file itself for npz; TFDS's data_dir for tfds.
        split: with test_share, validation and split_seed: see splits.assign_splits.
        size: side of the images in pixels, of volumes in voxels. Arrays keep their own with 0.
        resize_rule: "square" or "short_side".
        channels: 1 or 3; arrays keep their own with 0, and files are read as 3.
        value_range: (low, high) of pixels that are floats: see images.read_image.
        on_error: "stop" at a file that cannot be decoded, or "skip" it.
        cache_dir: of decoded images; empty for the per-user default.
        options: of the one or the other source, see list_source.

    Raises:
        UserError: for everything wrong with the data or these values.
    """
    if len(value_range) and not (len(value_range) == 2 and value_range[0] < value_range[1]):
        raise UserError(f"config.data.value_range is {tuple(value_range)}: give (low, high)")
    listing = list_source(
        source, folder, size=size, resize_rule=resize_rule, channels=channels, cache_dir=cache_dir,
        **options,
    )  # fmt: skip
    splits = assign_splits(
        listing, split=split, test_share=test_share, validation=validation, seed=split_seed
    )
    if listing.files is None:
        assert listing.inputs is not None
        inputs = _fit_arrays(listing, size, resize_rule, channels, cache_dir)
        return Dataset(inputs, listing.labels, listing.names, listing.class_names, splits)
    return _decoded(
        listing, splits, size=size, rule=resize_rule, channels=channels or 3,
        value_range=value_range, cache_dir=cache_dir, on_error=on_error,
    )  # fmt: skip


def list_source(
    source: str,
    folder: str | Path,
    *,
    size: int = 0,
    resize_rule: str = "square",
    channels: int = 0,
    cache_dir: str | Path = "",
    fold: int = 0,
    train_list: str = "",
    test_list: str = "",
    csv: str = "",
    image_column: str = "",
    label_column: str = "",
    group_column: str = "",
    split_column: str = "",
    suffix: str = "",
    group_pattern: str = "",
    tfds_name: str = "",
    leave_out_censored: bool = False,
    name_column: str = "name",
    time_column: str = "time",
    event_column: str = "event",
    feature_prefixes: Sequence[str] = (),
) -> Listing:
    """What `source` finds in `folder`; the source's own function tells what the options mean."""
    match source:
        case "digits":
            return digits()
        case "breast_cancer":
            return breast_cancer()
        case "npz":
            return npz(folder, fold=fold)
        case "skin7":
            return skin7(folder, fold=fold)
        case "sd198":
            return sd198(folder, train_list=train_list, test_list=test_list)
        case "class_folders":
            return class_folders(folder, group_pattern=group_pattern)
        case "csv_images":
            return csv_images(
                folder, csv=csv, image_column=image_column, label_column=label_column,
                group_column=group_column, split_column=split_column, suffix=suffix,
            )  # fmt: skip
        case "sarcoma":
            return sarcoma(
                folder, size=size, leave_out_censored=leave_out_censored, cache_dir=cache_dir
            )
        case "survival_csv":
            return survival_csv(
                folder, csv=csv, time_column=time_column, event_column=event_column,
                name_column=name_column, feature_prefixes=feature_prefixes, fold=fold,
                leave_out_censored=leave_out_censored,
            )  # fmt: skip
        case "tfds":
            return tfds(
                tfds_name, data_dir=folder, size=size, rule=resize_rule, channels=channels,
                cache_dir=cache_dir,
            )  # fmt: skip
    if source in BY_FOLDER:
        return BY_FOLDER[source](folder)
    near = get_close_matches(source, SOURCES) or SOURCES
    raise UserError(f"data source {source!r} is unknown; did you mean {', '.join(near)}?")


def _decoded(
    listing: Listing,
    splits: np.ndarray,
    *,
    size: int,
    rule: str,
    channels: int,
    value_range: Sequence[float],
    cache_dir: str | Path,
    on_error: str,
) -> Dataset:
    assert listing.files is not None
    images, kept, skipped = decode(
        listing.files, size=size, rule=rule, channels=channels, value_range=value_range,
        cache_dir=cache_dir, on_error=on_error,
    )  # fmt: skip
    if skipped:
        check_class_sizes(listing.labels[kept], splits[kept], listing.class_names)
    names = tuple(listing.names[i] for i in kept)
    return Dataset(images, listing.labels[kept], names, listing.class_names, splits[kept], skipped)


def _fit_arrays(
    listing: Listing, size: int, rule: str, channels: int, cache_dir: str | Path
) -> np.ndarray:
    """uint8 [N, H, W, C] brought to `size` and `channels` where these are given and differ.

    Through the cache, as of files: CIFAR-10 at 224 pixels is 9 GB.
    """
    inputs = listing.inputs
    assert inputs is not None
    if inputs.ndim != 4:
        return inputs
    height, width, own_channels = inputs.shape[1:]
    wanted = (size or height, size or width, channels or own_channels)
    if wanted == inputs.shape[1:]:
        return inputs
    if wanted[0] != wanted[1]:
        raise UserError(f"images of {height} x {width}: set the image size, to change channels")
    size, _, channels = wanted
    check_options(size=size, rule=rule, channels=channels)
    content = hashlib.sha256(repr((DECODER_VERSION, inputs.shape, wanted, rule)).encode())
    content.update(np.ascontiguousarray(inputs).data)
    return cached_images(
        content.hexdigest()[:32],
        listing.names,
        lambda i: fit_array(inputs[i], size=size, rule=rule, channels=channels),
        shape=wanted,
        cache_dir=cache_dir,
        on_error="stop",
    )[0]
