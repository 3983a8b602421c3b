"""What copies change of a split, and what is told of them: between the decoding and the Dataset."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from deepknn_jax.data import copies
from deepknn_jax.data.dataset import LEFT_OUT, TEST, TRAIN, VALIDATION, Pairs
from deepknn_jax.data.near_copies import (
    LEAST_R,
    SIDE,
    are_compared,
    nearest,
    nearly_joined,
    thumbnails,
)
from deepknn_jax.data.splits import sizes_of
from deepknn_jax.data.view import View
from deepknn_jax.errors import UserError


class Pixels(NamedTuple):
    """`inputs` [n, ...], as a network takes them, of `rows` [n] of a listing; `skipped`: others.

    `set_range` and `view` as in a Dataset.
    """

    inputs: np.ndarray
    rows: np.ndarray
    skipped: tuple[str, ...]
    set_range: tuple[float, ...] = ()
    view: View | None = None


class Seen(NamedTuple):
    """Pixels, their `contents` uint8 [n, 16], and `thumbs` [n, T], None of what is not compared."""

    pixels: Pixels
    contents: np.ndarray
    thumbs: np.ndarray | None


def look(pixels: Pixels, given: np.ndarray | None) -> Seen:
    """The contents of the inputs, or those `given` [N] with the listing, and their thumbnails."""
    inputs = pixels.inputs
    found = copies.contents(inputs) if given is None else given[pixels.rows]
    return Seen(pixels, found, thumbnails(inputs) if are_compared(inputs) else None)


def untangled(
    splits_N: np.ndarray,
    split_again: Callable[..., np.ndarray],
    seen: Seen,
    *,
    drop: bool,
    near_copies: str,
) -> tuple[np.ndarray, list[str]]:
    """The parts [N] with copies on one side where they are drawn, and dropped where that is asked.

    And the lines that tell what has changed: none without copies, when the parts are `splits_N`.
    `split_again(bound=...)` draws them with what is `bound`, int [N], together; `drop` and
    `near_copies` are what to do with copies across the parts, and with near-copies.
    """
    rows, thumbs = seen.pixels.rows, seen.thumbs
    numbers = copies.numbered(seen.contents)
    bound = -1 - np.arange(len(splits_N))  # what was not read is like nothing else
    bound[rows] = numbers
    if near_copies == "group" and thumbs is not None:
        bound[rows] = copies.joined(numbers, nearly_joined(thumbs))
    linked = len(bound) - len(np.unique(bound))
    try:
        splits = split_again(bound=bound) if linked else splits_N.copy()
    except UserError as error:
        raise UserError(f"{error} ({linked:,} of {len(bound):,} examples are copies of others, "
                        "which are kept on one side)") from error  # fmt: skip
    lines = []
    if moved := int((splits != splits_N).sum()):
        lines.append(f"split: copies are kept on one side, for which {moved:,} examples changed "
                     f"theirs: {sizes_of(splits)}")  # fmt: skip
    leaves = np.zeros(len(rows), bool)
    if drop or near_copies == "drop":
        leaves |= copies.to_drop(numbers, splits[rows])
    if near_copies == "drop" and thumbs is not None:
        leaves |= _near_to_drop(thumbs, splits[rows])
    if leaves.any():
        gone = sizes_of(splits[rows[leaves]])
        splits[rows[leaves]] = LEFT_OUT
        option = "near_copies" if near_copies == "drop" else "copies"
        lines.append(f"copies: {gone} examples are left out, as a copy tests or validates "
                     f"(`{option}`=drop), which leaves {sizes_of(splits)}")  # fmt: skip
    return splits, lines


def _near_to_drop(thumbs: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """As `copies.to_drop`, of near-copies."""
    leaves = np.zeros(len(splits), bool)
    for part, others in ((VALIDATION, (TEST,)), (TRAIN, (TEST, VALIDATION))):
        mine, theirs = np.flatnonzero(splits == part), np.flatnonzero(np.isin(splits, others))
        if len(mine) and len(theirs):
            leaves[mine] = nearest(thumbs, mine, theirs).r > LEAST_R
    return leaves


def told(
    seen: Seen,
    labels_n: np.ndarray,
    splits_n: np.ndarray,
    names: Sequence[str],
    *,
    near_copies: str,
) -> tuple[Pairs | None, list[str]]:
    """The near-copies in two parts, None of what is not compared; lines on them and on copies."""
    numbers = copies.numbered(seen.contents)
    lines = copies.lines(numbers, labels_n, splits_n, names)
    if seen.thumbs is None:
        if near_copies != "tell":
            lines.append(f"near-copies: images of less than {SIDE} pixels are not compared")
        return None, lines
    found = []
    for part, other in copies.ACROSS:
        mine, theirs = splits_n == part, splits_n == other
        rows = np.flatnonzero(mine & ~copies.has_copy(numbers, mine, theirs))
        if not len(rows) or not theirs.any():
            continue
        best = nearest(seen.thumbs, rows, np.flatnonzero(theirs))
        near = best.r > LEAST_R
        if near.any():
            pairs = Pairs(rows[near], best.rows[near], best.r[near])
            found.append(pairs)
            lines.append(_near_line(pairs, int(mine.sum()), part, other, names))
    return copies.chained(found), lines


def _near_line(pairs: Pairs, n: int, part: str, other: str, names: Sequence[str]) -> str:
    first = f"{names[pairs.rows[0]]} and {names[pairs.others[0]]} (r {pairs.r[0]:.3f})"
    return (f"near-copies: {len(pairs.rows):,} of {n:,} {part} examples nearly are {other} examples"
            f" (thumbnails of {SIDE} x {SIDE} pixels with r above {LEAST_R:g}); the first are "
            f"{first}")  # fmt: skip
