"""Grey levels: how values of more than 8 bits, or floats, become 8 bits.

By a range that the user gives, by the file's own window, or by the range of the whole training
part: never by the range of the one image, so that images stay comparable.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from deepknn_jax.errors import UserError
from deepknn_jax.logs import say

FEWEST_LEVELS = 32  # a set with fewer is warned of
LEFT_ASIDE = "grey levels: `value_range` is left aside: the images have 8 bits, or are colour"

# What a file's pixels are: 8 bits a channel, taken as they are; grey values with a window of their
# own; integers that need a range; floats, of which only the user knows it.
EIGHT_BITS, WINDOWED, WIDE, FLOATS = "8 bits", "windowed", "wide", "floats"


class Grey(NamedTuple):
    """Grey values [H, W] of any numbers, before they are scaled to 8 bits.

    `bits` are those stored for a pixel, 0 for floats. `window` is what the file itself gives as
    black and white. `low_is_white`: the scale runs the other way.
    """

    values: np.ndarray
    bits: int
    window: tuple[float, float] | None = None
    low_is_white: bool = False


class SetRange(NamedTuple):
    """What becomes 0 and 255 of a set's wide integers, and the `bits` that they were stored in."""

    low: float
    high: float
    bits: tuple[int, ...]


def scale(
    grey: Grey, *, value_range: Sequence[float] = (), set_range: Sequence[float] = ()
) -> Image.Image:
    """Grey values as an "L" image: the range becomes 0..255, beyond it clipped.

    The range is `value_range` where given, else the file's window, else, for integers, `set_range`.

    Raises:
        UserError: integers and none of the three, floats and none of the first two.
        ValueError: values that are not finite.
    """
    if not np.isfinite(grey.values).all():
        raise ValueError("NaN or infinite pixels")
    if len(value_range):
        low, high = value_range
    elif grey.window is not None:
        low, high = grey.window
    elif not grey.bits:
        raise UserError(f"{grey.values.dtype} pixels have no range of their own: "
                         "set `value_range`")  # fmt: skip
    elif len(set_range):
        low, high = set_range
    else:
        raise UserError(f"pixels of {grey.bits} bits, and the training part has none to take a "
                        "range from: set `value_range`")  # fmt: skip
    scaled = _spread(grey.values, low, high)
    return Image.fromarray(np.rint(255 - scaled if grey.low_is_white else scaled).astype(np.uint8))


def scale_to_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Numbers of any shape as uint8: `low` becomes 0, `high` 255, beyond them clipped."""
    return np.rint(_spread(values, low, high)).astype(np.uint8)


def _spread(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Numbers of any shape on the scale 0..255, which `low` and `high` become; beyond it clipped.

    Where the two are equal, what is above them is 255, as a window of no width has it.
    """
    return np.clip((values.astype(np.float64) - low) * (255 / ((high - low) or 1e-6)), 0, 255)


def pack_range(grey: Grey | None) -> np.ndarray:
    """One image's low, high and bits as uint8 [24], for the cache; NaN of one without a need."""
    ends = (np.nan,) * 3 if grey is None else (grey.values.min(), grey.values.max(), grey.bits)
    return np.asarray(ends, np.float64).view(np.uint8)


def join_ranges(packed_Nx24: np.ndarray) -> SetRange | None:
    """The range of all images packed by `pack_range`; None where none of them needs one."""
    ends = np.array(packed_Nx24).view(np.float64)
    ends = ends[~np.isnan(ends[:, 0])]
    if not len(ends):
        return None
    bits = tuple(int(b) for b in np.unique(ends[:, 2]))
    return SetRange(float(ends[:, 0].min()), float(ends[:, 1].max()), bits)


def range_line(found: SetRange, where: str) -> str:
    """The line that tells how wide integers are scaled; `where` is the part that gave the range."""
    bits = "- and ".join(map(str, found.bits))
    ends = f"{found.low:.10g}..{found.high:.10g}"
    return f"grey levels: {bits}-bit images scaled from {ends} of {where}"


def warn_of_few_levels(images: np.ndarray) -> None:
    """Says so where uint8 [N, ...] images hold fewer than FEWEST_LEVELS values among them all."""
    if line := few_levels_line(images):
        say(line)


def few_levels_line(images: np.ndarray) -> str:
    """The line of `warn_of_few_levels`, or "" where the images have enough."""
    seen = np.zeros(256, bool)
    for image in images:  # nearly always the first one tells
        seen[np.unique(image)] = True
        if seen.sum() >= FEWEST_LEVELS:
            return ""
    levels = "one grey level" if seen.sum() == 1 else f"{seen.sum()} grey levels"
    return (
        f"warning: the images have only {levels}; set `value_range` to the (low, high) "
        "that matter in them (images of 8 bits are taken as they are: save those anew)"
    )


def array_range(images_NxHxWxC: np.ndarray, training: np.ndarray) -> SetRange | None:
    """The range of the wide integers of the rows `training`; None where there are none."""
    images = images_NxHxWxC
    if images.ndim < 4 or images.dtype == np.uint8 or images.dtype.kind == "f":
        return None
    ends = [(int(images[i].min()), int(images[i].max())) for i in training]
    low, high = min(e[0] for e in ends), max(e[1] for e in ends)
    return SetRange(low, high, (8 * images.dtype.itemsize,))


def scale_arrays(
    images_NxHxWxC: np.ndarray,
    *,
    training: np.ndarray,
    value_range: Sequence[float] = (),
    set_range: Sequence[float] = (),
) -> tuple[np.ndarray, tuple[float, ...]]:
    """A source's images, volumes or features with images as uint8; what is not one stays as it is.

    Integers wider than 8 bits are scaled by `value_range`, else by `set_range`, that of an earlier
    run, else by the range of the rows `training`; the last two are told. Floats need a
    `value_range`.

    Returns:
        The images, and the set's range (low, high) that they were scaled by; () where by none.

    Raises:
        UserError: floats without a range, or that are not finite.
    """
    images = images_NxHxWxC
    if images.ndim < 4 or images.dtype == np.uint8:
        return images, ()
    is_float = images.dtype.kind == "f"
    if is_float and not len(value_range):
        raise UserError(f"images of {images.dtype} have no range of their own: set `value_range`")
    if is_float and not all(np.isfinite(image).all() for image in images):
        raise UserError("an image has NaN or infinite pixels; leave it out")
    ends: tuple[float, ...] = ()
    if not len(value_range):
        found = array_range(images, np.arange(1) if len(set_range) else training)
        assert found is not None
        ends = told_ends(found, set_range, "the training part")
    low, high = value_range if len(value_range) else ends
    scaled = np.empty(images.shape, np.uint8)
    for i, image in enumerate(images):
        scaled[i] = scale_to_bytes(image, low, high)
    warn_of_few_levels(scaled)
    return scaled, ends


def told_ends(found: SetRange, given: Sequence[float], where: str) -> tuple[float, ...]:
    """Low and high that the set's wide integers are scaled by, told: those `given`, or `found`."""
    if len(given):
        found, where = SetRange(given[0], given[1], found.bits), "an earlier run's training part"
    say(range_line(found, where))
    return found.low, found.high


def tell_left_aside() -> None:
    """Says that a `value_range` was given to images that have no use for it."""
    say(LEFT_ASIDE)
