"""From a source's name and the options to a data set ready for training: list, split, decode."""

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepknn_jax.data.account import classes_line, files_line, inputs_line, left_out_lines
from deepknn_jax.data.cache import cached_images
from deepknn_jax.data.dataset import TRAIN, Dataset, Listing
from deepknn_jax.data.decode import decode
from deepknn_jax.data.images import DECODER_VERSION, check_fit, fit_array
from deepknn_jax.data.levels import scale_arrays
from deepknn_jax.data.options import ALWAYS, FILES, check_all_read, check_source_reads
from deepknn_jax.data.sources import SOURCES, list_source, options_of
from deepknn_jax.data.splits import assign_splits, check_class_sizes, chosen_split, split_lines
from deepknn_jax.data.view import View
from deepknn_jax.data.walk import open_heic
from deepknn_jax.errors import UserError


class Survey(NamedTuple):
    """What a source found, the split of each example [N], and the lines that tell of both."""

    listing: Listing
    splits: np.ndarray
    account: tuple[str, ...]


def load_dataset(
    source: str,
    *,
    folder: str | Path = "",
    split: str = "",
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
    fit: dict[str, Any] = {"size": size, "resize_rule": resize_rule, "channels": channels,
                           "cache_dir": cache_dir}  # fmt: skip
    files: dict[str, Any] = {"value_range": value_range, "frame": frame, "on_error": on_error}
    found = survey(
        source, split=split, test_share=test_share, validation=validation, split_seed=split_seed,
        folder=folder, **fit, **files, **options,
    )  # fmt: skip
    return decoded(found, **fit, **files)


def survey(
    source: str,
    *,
    split: str,
    test_share: float,
    validation: float,
    split_seed: int,
    value_range: Sequence[float],
    given: Collection[str] = (),
    **options: Any,
) -> Survey:
    """What `source` finds and how it is split, before files are decoded. As `load_dataset`.

    `given` are the names of those options that the user has set: each must be read by something.

    Raises:
        UserError: as `load_dataset`, save for what decoding finds; an option that nothing reads.
        TypeError: an option that no source reads.
    """
    _check_names(options)
    if len(value_range) and not (len(value_range) == 2 and value_range[0] < value_range[1]):
        raise UserError(f"`value_range` is {tuple(value_range)}: give (low, high)")
    check_source_reads(source, given)
    listing = list_source(source, options | {"value_range": value_range})
    check_several_classes(listing, options.get("folder") or source)
    used = chosen_split(listing, split)
    check_all_read(source, given, listing, split=used, validation=validation)
    splits = assign_splits(
        listing, split=split, test_share=test_share, validation=validation, split_seed=split_seed
    )
    where = " ".join(filter(None, (source, str(options.get("folder", "")))))
    told = split_lines(listing, split, splits, validation=validation)
    return Survey(listing, splits, (f"source: {where}", *_account(listing), *told))


def _check_names(options: Mapping[str, Any]) -> None:
    known = {"folder", *FILES, *ALWAYS}.union(*map(options_of, SOURCES))
    if unknown := sorted(options.keys() - known):
        raise TypeError(f"no source reads {', '.join(unknown)}")


def check_several_classes(listing: Listing, where: str | Path) -> None:
    """Raises UserError where all examples are of one class: any answer would be right."""
    if len(found := np.unique(listing.labels)) == 1:
        remedy = listing.account.remedy or "give labels of two classes at least"
        raise UserError(f"{where}: all {len(listing.labels):,} examples are of one class, "
                        f"{listing.class_names[found[0]]!r}; {remedy}")  # fmt: skip


def _account(listing: Listing) -> list[str]:
    lines = [classes_line(listing.labels, listing.class_names)]
    if listing.files is not None:
        lines.append(files_line(listing.files))
    elif listing.inputs is not None:
        lines.append(inputs_line(listing.inputs))
    lines += left_out_lines(listing.account.left_out)
    return [*lines, *listing.account.lines]


def decoded(
    found: Survey,
    *,
    size: int,
    resize_rule: str,
    channels: int,
    value_range: Sequence[float],
    frame: str,
    on_error: str,
    cache_dir: str | Path,
    set_range: Sequence[float] = (),
) -> Dataset:
    """The data set that was surveyed, its files decoded and its arrays fitted: `load_dataset`.

    `set_range`: what an earlier run scaled wide integers by, in place of this training part's.
    """
    listing, splits = found.listing, found.splits
    if listing.files is None:
        assert listing.inputs is not None
        bytes_, ends = scale_arrays(
            listing.inputs, training=np.flatnonzero(splits == TRAIN), value_range=value_range,
            set_range=set_range,
        )  # fmt: skip
        inputs = _fit_arrays(
            listing._replace(inputs=bytes_), size, resize_rule, channels, cache_dir
        )
        return Dataset(inputs, listing.labels, listing.names, listing.class_names, splits,
                       listing.account.skipped, found.account, listing.groups, ends,
                       listing.view)  # fmt: skip
    there, absent = _readable(listing.files, on_error)
    files = [listing.files[i] for i in there]
    open_heic(files)
    how: dict[str, Any] = {"size": size, "resize_rule": resize_rule, "channels": channels or 3,
                           "value_range": value_range, "frame": frame}  # fmt: skip
    images, kept, undecodable, ends = decode(
        files, **how, set_range=set_range, training=np.flatnonzero(splits[there] == TRAIN),
        cache_dir=cache_dir, on_error=on_error,
    )  # fmt: skip
    rows = there[kept]
    if len(rows) < len(listing.files):
        check_class_sizes(listing.labels[rows], splits[rows], listing.class_names)
    return Dataset(
        images, listing.labels[rows], tuple(listing.names[i] for i in rows), listing.class_names,
        splits[rows], (*listing.account.skipped, *absent, *undecodable), found.account,
        None if listing.groups is None else listing.groups[rows], ends,
        View(tuple(listing.files[i] for i in rows), how | {"set_range": ends}),
    )  # fmt: skip


def _readable(files: Sequence[Path], on_error: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The indices int32 of the files that may be read, and the names of the others."""
    why = {i: "no permission to read it" if os.path.exists(file) else "it leads nowhere"
           for i, file in enumerate(files) if not os.access(file, os.R_OK)}  # fmt: skip
    if why and (on_error != "skip" or len(why) == len(files)):
        i, reason = next(iter(why.items()))
        or_skip = "" if on_error == "skip" else ", or set `on_error`=skip"
        raise UserError(f"{files[i]}: {reason}; mend or remove it{or_skip}"
                        + (f" ({len(why)} files are so)" if len(why) > 1 else ""))  # fmt: skip
    there = np.asarray([i for i in range(len(files)) if i not in why], np.int32)
    return there, tuple(str(files[i]) for i in why)


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
