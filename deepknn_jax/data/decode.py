"""Image files to one array of 8 bits, through the cache."""

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from deepknn_jax.data.cache import ON_ERROR, cached_files, entry_of
from deepknn_jax.data.fingerprint import Fingerprint, fingerprint
from deepknn_jax.data.frames import check_frame
from deepknn_jax.data.images import DECODER_VERSION, check_fit, kind_of, open_image, read_image
from deepknn_jax.data.levels import (
    EIGHT_BITS,
    WIDE,
    Grey,
    SetRange,
    join_ranges,
    pack_range,
    tell_left_aside,
    told_ends,
    warn_of_few_levels,
)
from deepknn_jax.errors import check_choice

Opener = Callable[[int], Path | BinaryIO]


class Decoded(NamedTuple):
    """What became of N image files.

    `images` uint8 [N', size, size, channels], a read-only memory map; `kept` int32 [N'], the
    indices of the files that are in it; `skipped`, the paths of the others; `set_range`, (low,
    high) that wide integers were scaled by where neither an option nor a file gave them, or ().
    """

    images: np.ndarray
    kept: np.ndarray
    skipped: tuple[str, ...]
    set_range: tuple[float, ...]


def decode(
    files: Sequence[Path],
    *,
    size: int,
    resize_rule: str,
    channels: int,
    value_range: Sequence[float] = (),
    frame: str = "",
    set_range: Sequence[float] = (),
    training: Sequence[int] | np.ndarray | None = None,
    cache_dir: str | Path = "",
    on_error: str = "stop",
) -> Decoded:
    """Decodes image files through the cache, in parallel, with a progress bar on stderr.

    Args:
        files: N paths.
        size: side of the result in pixels.
        resize_rule: "square" or "short_side" (see images.fit_image).
        channels: 1 or 3.
        value_range: (low, high) that become 0 and 255 of floats and of integers wider than 8 bits;
            () for the range of the wide integers among the rows `training`, which is then told.
        frame: of files with several (see frames.choose_frame).
        set_range: in the place of that range: what an earlier run had.
        training: rows of `files` that train; None: all of them.
        cache_dir: empty for the per-user default.
        on_error: "stop" at a file that cannot be decoded, or "skip" it.

    Raises:
        UserError: a file that is missing, truncated or no image, in words that name it; wide
            integers without a range; a cache folder that cannot be written; a full disk; an option
            out of range.
    """
    check_fit(size=size, resize_rule=resize_rule, channels=channels)
    check_choice("`on_error`", on_error, ON_ERROR)
    names = [str(file) for file in files]
    return decode_each(
        lambda i: files[i], names, fingerprint(files), {}, size=size, resize_rule=resize_rule,
        channels=channels, value_range=value_range, frame=frame, set_range=set_range,
        training=training, cache_dir=cache_dir, on_error=on_error,
    )  # fmt: skip


def decode_each(
    opener: Opener,
    names: Sequence[str],
    source: Fingerprint,
    options: Mapping[str, object],
    *,
    size: int,
    resize_rule: str,
    channels: int,
    value_range: Sequence[float] = (),
    frame: str = "",
    set_range: Sequence[float] = (),
    training: Sequence[int] | np.ndarray | None = None,
    cache_dir: str | Path = "",
    on_error: str = "",
) -> Decoded:
    """`decode` of N images that lie anywhere: `opener(i)` is image i's path or its bytes.

    `source` are the files that hold them, `options` what tells these images of theirs apart.
    """
    check_fit(size=size, resize_rule=resize_rule, channels=channels)
    check_frame(frame)
    what = {**options, "version": DECODER_VERSION, **({"frame": frame} if frame else {})}
    fit = {**what, "size": size, "resize_rule": resize_rule, "channels": channels}
    ends: tuple[float, ...] = ()
    if len(value_range):
        fit["value_range"] = list(value_range)
        if all(kind_of(opener(i)) == EIGHT_BITS for i in range(len(names))):
            tell_left_aside()
    # An entry without a range was made from images that need none.
    elif not entry_of(source, fit, cache_dir).exists():
        rows = np.arange(len(names)) if training is None else np.asarray(training)
        if len(set_range):  # one wide image tells that it is needed
            wide = (i for i in range(len(names)) if kind_of(opener(i)) == WIDE)
            rows = np.fromiter(itertools.islice(wide, 1), np.int64)
        found = _training_range(opener, names, source, what, rows, frame, cache_dir)
        if found is not None:
            where = "the set" if training is None else "the training part"
            fit["set_range"] = ends = told_ends(found, set_range, where)
    result = cached_files(
        source,
        fit,
        names,
        lambda i: read_image(
            opener(i), size=size, resize_rule=resize_rule, channels=channels,
            value_range=value_range, set_range=ends, frame=frame,
        ),
        shape=(size, size, channels),
        cache_dir=cache_dir,
        on_error=on_error,
    )  # fmt: skip
    warn_of_few_levels(result[0])
    return Decoded(*result, ends)


def _training_range(
    opener: Opener,
    names: Sequence[str],
    source: Fingerprint,
    options: Mapping[str, object],
    rows: np.ndarray,
    frame: str,
    cache_dir: str | Path,
) -> SetRange | None:
    """The range of the wide integers of those `rows`, from the cache; None where none are wide."""

    def read(j: int) -> np.ndarray:
        if kind_of(opener(rows[j])) != WIDE:
            return pack_range(None)
        image = open_image(opener(rows[j]), frame=frame)
        return pack_range(image if isinstance(image, Grey) else None)

    with ThreadPoolExecutor() as pool:
        kinds = pool.map(lambda row: kind_of(opener(row)), rows)
        any_wide = any(kind == WIDE for kind in kinds)
        pool.shutdown(cancel_futures=True)
    if not any_wide:
        return None
    ends, _, _ = cached_files(
        source,
        {**options, "ranges": hashlib.sha256(rows.astype(np.int64).tobytes()).hexdigest()},
        [names[row] for row in rows],
        read,
        shape=(24,),
        cache_dir=cache_dir,
        on_error="skip",  # whether a broken file may be left out is asked when it is decoded
    )
    return join_ranges(ends)
