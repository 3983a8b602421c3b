"""From a source's name and the options to a data set ready for training: list, split, decode."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepknn_jax.data.cache import cached_images
from deepknn_jax.data.dataset import TRAIN, Dataset, Listing
from deepknn_jax.data.decode import decode
from deepknn_jax.data.images import DECODER_VERSION, check_fit, fit_array
from deepknn_jax.data.levels import scale_arrays
from deepknn_jax.data.sources import SOURCES, list_source, options_of
from deepknn_jax.data.splits import assign_splits, check_class_sizes
from deepknn_jax.errors import UserError


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
    frame: str = "",
    on_error: str = "stop",
    cache_dir: str | Path = "",
    **options: Any,
) -> Dataset:
    """The data set `source`, split and decoded.

    Args:
        source: one of sources.SOURCES.
        folder: the data's folder; the file itself for npz; TFDS's data_dir for tfds.
        split: with test_share, validation and split_seed: see splits.assign_splits.
        size: side of the images in pixels, of volumes in voxels. Arrays keep their own with 0.
        resize_rule: "square" or "short_side".
        channels: 1 or 3; arrays keep their own with 0, and files are read as 3.
        value_range: (low, high) of floats and of integers wider than 8 bits: see decode.decode.
        frame: of files that have several: see frames.choose_frame.
        on_error: "stop" at a file that cannot be decoded, or "skip" it.
        cache_dir: of decoded images; empty for the per-user default.
        options: what the one or the other source reads besides (sources.options_of); what only
            others read does not matter.

    Raises:
        UserError: for everything wrong with the data or these values.
        TypeError: an option that no source reads.
    """
    known = {name for each in SOURCES for name in options_of(each)}
    if unknown := sorted(options.keys() - known):
        raise TypeError(f"no source reads {', '.join(unknown)}")
    if len(value_range) and not (len(value_range) == 2 and value_range[0] < value_range[1]):
        raise UserError(f"`value_range` is {tuple(value_range)}: give (low, high)")
    own = {"folder": folder, "size": size, "resize_rule": resize_rule, "channels": channels,
           "value_range": value_range, "cache_dir": cache_dir}  # fmt: skip
    listing = list_source(source, own | options)
    splits = assign_splits(
        listing, split=split, test_share=test_share, validation=validation, split_seed=split_seed
    )
    if listing.files is None:
        assert listing.inputs is not None
        bytes_ = scale_arrays(
            listing.inputs, training=np.flatnonzero(splits == TRAIN), value_range=value_range
        )
        listing = listing._replace(inputs=bytes_)
        inputs = _fit_arrays(listing, size, resize_rule, channels, cache_dir)
        return Dataset(inputs, listing.labels, listing.names, listing.class_names, splits)
    return _decoded(
        listing, splits, size=size, resize_rule=resize_rule, channels=channels or 3,
        value_range=value_range, frame=frame, cache_dir=cache_dir, on_error=on_error,
    )  # fmt: skip


def _decoded(
    listing: Listing,
    splits: np.ndarray,
    *,
    size: int,
    resize_rule: str,
    channels: int,
    value_range: Sequence[float],
    frame: str,
    cache_dir: str | Path,
    on_error: str,
) -> Dataset:
    assert listing.files is not None
    images, kept, skipped = decode(
        listing.files, size=size, resize_rule=resize_rule, channels=channels,
        value_range=value_range, frame=frame, training=np.flatnonzero(splits == TRAIN),
        cache_dir=cache_dir, on_error=on_error,
    )  # fmt: skip
    if skipped:
        check_class_sizes(listing.labels[kept], splits[kept], listing.class_names)
    names = tuple(listing.names[i] for i in kept)
    return Dataset(images, listing.labels[kept], names, listing.class_names, splits[kept], skipped)


def _fit_arrays(
    listing: Listing, size: int, resize_rule: str, channels: int, cache_dir: str | Path
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
        raise UserError(f"images of {height} x {width}: set `size`, too, to change `channels`")
    size, _, channels = wanted
    check_fit(size=size, resize_rule=resize_rule, channels=channels)
    content = hashlib.sha256(repr((DECODER_VERSION, inputs.shape, wanted, resize_rule)).encode())
    content.update(np.ascontiguousarray(inputs).data)
    return cached_images(
        content.hexdigest()[:32],
        listing.names,
        lambda i: fit_array(inputs[i], size=size, resize_rule=resize_rule, channels=channels),
        shape=wanted,
        cache_dir=cache_dir,
    )[0]
