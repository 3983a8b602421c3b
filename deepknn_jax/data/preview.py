"""A few images of a set decoded, to tell what the decoding of all would take and find."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deepknn_jax.data.cache import threads, unreadable
from deepknn_jax.data.dataset import TRAIN
from deepknn_jax.data.images import check_fit, kind_of, open_image, read_image
from deepknn_jax.data.levels import (
    EIGHT_BITS,
    LEFT_ASIDE,
    WIDE,
    Grey,
    array_range,
    few_levels_line,
    join_ranges,
    pack_range,
    range_line,
    scale_arrays,
)
from deepknn_jax.data.load import Survey
from deepknn_jax.data.walk import open_heic
from deepknn_jax.errors import UserError

LOOKED_AT = 16


class Preview(NamedTuple):
    """What is told of a few images: `lines`, and the `seconds` that one took (0: arrays)."""

    lines: tuple[str, ...]
    seconds: float = 0.0


def preview(
    found: Survey,
    *,
    size: int,
    resize_rule: str,
    channels: int,
    value_range: Sequence[float],
    frame: str,
    on_error: str,
    set_range: Sequence[float] = (),
) -> Preview:
    """Grey levels and speed by LOOKED_AT training images; the options as in `data.load`.

    Raises:
        UserError: what would stop the decoding at one of these.
    """
    training = np.flatnonzero(found.splits == TRAIN)
    rows = training[np.unique(np.linspace(0, len(training) - 1, LOOKED_AT).round().astype(int))]
    if found.listing.files is None:
        return Preview(tuple(_of_arrays(found, training, rows, value_range, set_range)))
    check_fit(size=size, resize_rule=resize_rule, channels=channels or 3)
    files = [found.listing.files[row] for row in rows]
    open_heic(files)
    kinds = [kind_of(file) for file in files]
    lines, ends = [], tuple(set_range)
    if len(value_range) and all(kind == EIGHT_BITS for kind in kinds):
        lines.append(LEFT_ASIDE)
    elif not len(value_range):
        wide = [file for file, kind in zip(files, kinds, strict=True) if kind == WIDE]
        told, ends = _range(wide, frame, set_range)
        lines += told
    began = time.monotonic()

    def read(file: Path) -> np.ndarray | None:
        try:
            return read_image(
                file, size=size, resize_rule=resize_rule, channels=channels or 3,
                value_range=value_range, set_range=ends, frame=frame,
            )  # fmt: skip
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
        except Exception as error:  # whatever a decoder raises
            if on_error != "skip":
                reason = " ".join(str(error).split()) or type(error).__name__
                raise unreadable(str(file), reason, on_error) from error
            return None

    with ThreadPoolExecutor(threads()) as pool:
        images = [image for image in pool.map(read, files) if image is not None]
    seconds = (time.monotonic() - began) / len(files)
    if images and (warning := few_levels_line(np.stack(images))):
        lines.append(f"{warning} (by {len(images)} of them)")
    return Preview(tuple(lines), seconds)


def _range(
    wide: Sequence[Path], frame: str, set_range: Sequence[float]
) -> tuple[list[str], tuple[float, ...]]:
    """The line that tells the range of those files, and the range; none where none needs one."""
    opened = [open_image(file, frame=frame) for file in wide]
    packed = [pack_range(image if isinstance(image, Grey) else None) for image in opened]
    found = join_ranges(np.stack(packed)) if packed else None
    if found is None:
        return [], tuple(set_range)
    if len(set_range):
        own = found._replace(low=set_range[0], high=set_range[1])
        return [range_line(own, "an earlier run's training part")], tuple(set_range)
    where = f"{len(wide)} images looked at; a run takes the range of the whole training part"
    return [range_line(found, where)], (found.low, found.high)


def _of_arrays(
    found: Survey,
    training: np.ndarray,
    rows: np.ndarray,
    value_range: Sequence[float],
    set_range: Sequence[float],
) -> list[str]:
    inputs = found.listing.inputs
    assert inputs is not None
    if inputs.ndim < 4 or inputs.dtype == np.uint8:
        return []
    if len(value_range) or len(set_range) or (own := array_range(inputs, training)) is None:
        scale_arrays(inputs[rows], training=rows, value_range=value_range, set_range=set_range)
        return []
    scale_arrays(inputs[rows], training=rows, value_range=(own.low, own.high))  # it may warn
    return [range_line(own, "the training part")]
