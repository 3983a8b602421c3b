"""From a source's name and the options to a data set ready for training: list, split, decode."""

import functools
import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepknn_jax.data.account import classes_line, files_line, inputs_line, left_out_lines
from deepknn_jax.data.cache import cached_files, cached_images
from deepknn_jax.data.copies import COPIES, DIGEST, check_none, contents, digest
from deepknn_jax.data.dataset import TRAIN, Dataset, Listing
from deepknn_jax.data.decode import decode
from deepknn_jax.data.fingerprint import fingerprint
from deepknn_jax.data.images import DECODER_VERSION, check_fit, fit_array
from deepknn_jax.data.levels import scale_arrays
from deepknn_jax.data.near_copies import NEAR_COPIES
from deepknn_jax.data.options import ALWAYS, FILES, check_all_read, check_source_reads
from deepknn_jax.data.sources import SOURCES, list_source, options_of
from deepknn_jax.data.splits import assign_splits, check_class_sizes, chosen_split, split_lines
from deepknn_jax.data.untangle import Pixels, Seen, look, told, untangled
from deepknn_jax.data.view import View
from deepknn_jax.data.walk import open_heic
from deepknn_jax.errors import UserError, check_choice

_MOST_READS = 4  # of a set whose copies change the range of its grey levels


class Survey(NamedTuple):
    """What a source found, the split of each example [N], and the lines that tell of both.

    `split_again(bound=...)` gives the split that keeps copies on one side: `splits.assign_splits`.
    """

    listing: Listing
    splits: np.ndarray
    account: tuple[str, ...]
    split_again: Callable[..., np.ndarray]


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
    copies: str = "warn",
    near_copies: str = "tell",
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
        copies: of equal content in two parts: "warn", "drop" (the training one leaves, or that
            which validates) or "stop".
        near_copies: images that nearly are: "tell", "drop", or "group" where a split is drawn.
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
    dataset = decoded(found, copies=copies, near_copies=near_copies, **fit, **files)
    if copies == "stop":
        check_none(dataset)
    return dataset


def survey(
    source: str,
    *,
    split: str,
    test_share: float,
    validation: float,
    split_seed: int,
    value_range: Sequence[float],
    given: Collection[str] = (),
    copies: str = "warn",
    near_copies: str = "tell",
    **options: Any,
) -> Survey:
    """What `source` finds and how it is split, before files are decoded. As `load_dataset`.

    `given` are the names of those options that the user has set: each must be read by something.

    Raises:
        UserError: as `load_dataset`, save for what decoding finds; an option that nothing reads.
        TypeError: an option that no source reads.
    """
    _check_names(options)
    check_choice("`copies`", copies, COPIES)
    check_choice("`near_copies`", near_copies, NEAR_COPIES)
    if len(value_range) and not (len(value_range) == 2 and value_range[0] < value_range[1]):
        raise UserError(f"`value_range` is {tuple(value_range)}: give (low, high)")
    check_source_reads(source, given)
    listing = list_source(source, options | {"value_range": value_range})
    check_several_classes(listing, options.get("folder") or source)
    used = chosen_split(listing, split)
    check_all_read(source, given, listing, split=used, validation=validation)
    split_again = functools.partial(
        assign_splits, listing, split=split, test_share=test_share, validation=validation,
        split_seed=split_seed,
    )  # fmt: skip
    splits = split_again()
    where = " ".join(filter(None, (source, str(options.get("folder", "")))))
    told = split_lines(listing, split, splits, validation=validation)
    account = (f"source: {where}", *_account(listing), *told)
    return Survey(listing, splits, account, split_again)


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
    copies: str,
    near_copies: str,
    value_range: Sequence[float],
    cache_dir: str | Path,
    set_range: Sequence[float] = (),
    **options: Any,
) -> Dataset:
    """The data set that was surveyed, its files decoded and its arrays fitted: `load_dataset`.

    `set_range`: what an earlier run scaled wide integers by, in place of this training part's.

    What copies change of its split, and what is to tell of them, are further lines of its account;
    with `copies` "stop" the caller checks (`copies.check_none`).
    """
    listing = found.listing
    read = _reader(
        listing, value_range=value_range, cache_dir=cache_dir, set_range=set_range, **options
    )
    splits, lines, seen = _untangled(
        found, read, drop=copies == "drop", near_copies=near_copies, has_range=len(set_range) > 0
    )
    rows = seen.pixels.rows
    labels, names = listing.labels[rows], tuple(listing.names[i] for i in rows)
    if len(rows) < len(listing.names) or lines:
        check_class_sizes(labels, splits[rows], listing.class_names)
    near, more = told(seen, labels, splits[rows], names, near_copies=near_copies)
    groups, trained = (None if of is None else of[rows] for of in (listing.groups, listing.trained))
    return Dataset(
        seen.pixels.inputs, labels, names, listing.class_names, splits[rows],
        (*listing.account.skipped, *seen.pixels.skipped), (*found.account, *lines, *more), groups,
        seen.pixels.set_range, seen.pixels.view, seen.contents,
        _sources(listing, seen, cache_dir), near, trained,
    )  # fmt: skip


def _untangled(
    found: Survey,
    read: Callable[[np.ndarray], Pixels],
    *,
    drop: bool,
    near_copies: str,
    has_range: bool,
) -> tuple[np.ndarray, list[str], Seen]:
    """The parts [N] that copies leave of those found, the lines on it, and what was read.

    Wide integers are scaled by what trains, and copies are known by what was scaled. So where
    copies change the parts, and no range is given, both are done again until they agree: a run that
    goes on, with the range that it kept, then finds the same parts.
    """
    splits = found.splits
    for _ in range(_MOST_READS):
        seen = look(read(splits), given=found.listing.contents)
        after, lines = untangled(
            found.splits, found.split_again, seen, drop=drop, near_copies=near_copies
        )
        settled = has_range or not seen.pixels.set_range or (after == splits).all()
        splits = after
        if settled:
            break
    return splits, lines, seen


def _reader(
    listing: Listing,
    *,
    size: int,
    resize_rule: str,
    channels: int,
    value_range: Sequence[float],
    frame: str,
    on_error: str,
    cache_dir: str | Path,
    set_range: Sequence[float],
) -> Callable[[np.ndarray], Pixels]:
    """A function that decodes or fits the listing's examples, given the part [N] of each."""

    def of_arrays(splits: np.ndarray) -> Pixels:
        assert listing.inputs is not None
        bytes_, ends = scale_arrays(
            listing.inputs, training=np.flatnonzero(splits == TRAIN), value_range=value_range,
            set_range=set_range,
        )  # fmt: skip
        whole = listing._replace(inputs=bytes_)
        inputs = _fit_arrays(whole, size, resize_rule, channels, cache_dir)
        return Pixels(inputs, np.arange(len(inputs)), (), ends, listing.view)

    if listing.files is None:
        return of_arrays
    there, absent = _readable(listing.files, on_error)
    files = [listing.files[i] for i in there]
    open_heic(files)
    how: dict[str, Any] = {"size": size, "resize_rule": resize_rule, "channels": channels or 3,
                           "value_range": value_range, "frame": frame}  # fmt: skip

    def of_files(splits: np.ndarray) -> Pixels:
        images, kept, undecodable, ends = decode(
            files, **how, set_range=set_range, training=np.flatnonzero(splits[there] == TRAIN),
            cache_dir=cache_dir, on_error=on_error,
        )  # fmt: skip
        view = View(tuple(files[i] for i in kept), how | {"set_range": ends})
        return Pixels(images, there[kept], (*absent, *undecodable), ends, view)

    return of_files


def _sources(listing: Listing, seen: Seen, cache_dir: str | Path) -> np.ndarray:
    """Dataset.sources: they are the same at every `size`."""
    rows = seen.pixels.rows
    if listing.files is None:
        assert listing.inputs is not None
        same = listing.inputs is seen.pixels.inputs
        return seen.contents if same else contents(listing.inputs)
    files = [listing.files[i] for i in rows]
    return cached_files(
        fingerprint(files), {"digests": DIGEST}, [str(file) for file in files],
        lambda i: digest(files[i].read_bytes()), shape=(DIGEST,), cache_dir=cache_dir,
    )[0]  # fmt: skip


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
