"""From a source's name to a data set ready for training: list, split, decode."""

from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from deepknn_jax.data.cache import check_options, decode
from deepknn_jax.data.dataset import Dataset, Listing
from deepknn_jax.data.images import fit_array
from deepknn_jax.data.sources_arrays import breast_cancer, digits, npz
from deepknn_jax.data.sources_files import class_folders, csv_images, skin7
from deepknn_jax.data.sources_tfds import tfds
from deepknn_jax.data.splits import assign_splits, check_class_sizes
from deepknn_jax.errors import UserError

SOURCES = ("digits", "breast_cancer", "skin7", "class_folders", "csv_images", "npz", "tfds")


def load_dataset(
    source: str,
    *,
    folder: str | Path = "",
    split: str,
    fold: int = 0,
    test_share: float = 0.2,
    validation: float = 0.0,
    split_seed: int = 0,
    size: int = 0,
    resize_rule: str = "square",
    channels: int = 0,
    on_error: str = "stop",
    cache_dir: str | Path = "",
    csv: str = "",
    image_column: str = "",
    label_column: str = "",
    group_column: str = "",
    split_column: str = "",
    suffix: str = "",
    group_pattern: str = "",
    tfds_name: str = "",
) -> Dataset:
    """The data set of one config.

    Args:
        source: one of SOURCES.
        folder: the data's folder; the file itself for npz; TFDS's data_dir for tfds.
        split: with test_share, validation and split_seed: see splits.assign_splits.
        fold: 1..5 for skin7's published split.
        size: side of the images in pixels. Arrays keep their own size with 0.
        resize_rule: "square" or "short_side".
        channels: 1 or 3; arrays keep their own with 0, and files are read as 3.
        on_error: "stop" at a file that cannot be decoded, or "skip" it.
        cache_dir: of decoded images; empty for the per-user default.
        csv: with the columns and suffix: see sources_files.csv_images.
        image_column: of csv_images.
        label_column: of csv_images.
        group_column: of csv_images.
        split_column: of csv_images.
        suffix: of csv_images.
        group_pattern: of class_folders.
        tfds_name: of tfds.

    Raises:
        UserError: for everything wrong with the data or these values.
    """
    listing: Listing
    match source:
        case "digits":
            listing = digits()
        case "breast_cancer":
            listing = breast_cancer()
        case "skin7":
            listing = skin7(folder, fold=fold)
        case "class_folders":
            listing = class_folders(folder, group_pattern=group_pattern)
        case "csv_images":
            listing = csv_images(
                folder, csv=csv, image_column=image_column, label_column=label_column,
                group_column=group_column, split_column=split_column, suffix=suffix,
            )  # fmt: skip
        case "npz":
            listing = npz(folder)
        case "tfds":
            listing = tfds(
                tfds_name, data_dir=folder, size=size, rule=resize_rule, channels=channels,
                cache_dir=cache_dir,
            )  # fmt: skip
        case _:
            near = get_close_matches(source, SOURCES) or SOURCES
            raise UserError(f"data source {source!r} is unknown; did you mean {', '.join(near)}?")
    splits = assign_splits(
        listing, split=split, test_share=test_share, validation=validation, seed=split_seed
    )
    if listing.files is None:
        assert listing.inputs is not None
        inputs = _fit_arrays(listing.inputs, size, resize_rule, channels)
        return Dataset(inputs, listing.labels, listing.names, listing.class_names, splits)
    return _decoded(
        listing, splits, size=size, rule=resize_rule, channels=channels or 3,
        cache_dir=cache_dir, on_error=on_error,
    )  # fmt: skip


def _decoded(
    listing: Listing,
    splits: np.ndarray,
    *,
    size: int,
    rule: str,
    channels: int,
    cache_dir: str | Path,
    on_error: str,
) -> Dataset:
    assert listing.files is not None
    images, kept, skipped = decode(
        listing.files, size=size, rule=rule, channels=channels, cache_dir=cache_dir,
        on_error=on_error,
    )  # fmt: skip
    if skipped:
        check_class_sizes(listing.labels[kept], splits[kept], listing.class_names)
    names = tuple(listing.names[i] for i in kept)
    return Dataset(images, listing.labels[kept], names, listing.class_names, splits[kept], skipped)


def _fit_arrays(inputs: np.ndarray, size: int, rule: str, channels: int) -> np.ndarray:
    """uint8 [N, H, W, C] brought to `size` and `channels` where these are given and differ."""
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

    def fit(image: np.ndarray) -> np.ndarray:
        return fit_array(image, size=size, rule=rule, channels=channels)

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(fit, inputs)))
