"""Which frame of a file that has several: a stack in TIFF, a series in one DICOM file."""

from deepknn_jax.errors import UserError

MIDDLE = "middle"


def check_frame(frame: str) -> None:
    """Raises UserError unless `frame` is "", "middle" or a number from 0."""
    if frame not in ("", MIDDLE) and not (frame.isascii() and frame.isdecimal()):
        raise UserError(f"`frame` is {frame!r}: give middle, or a frame's number, from 0")


def choose_frame(frame: str, count: int) -> int:
    """The index, from 0, of the frame that `frame` names among `count`; the only one needs no name.

    The middle of an even number is the later one of two.

    Raises:
        UserError: several and none is named.
        ValueError: it has not so many.
    """
    if count == 1:
        return 0
    if not frame:
        raise UserError(f"has {count} frames: set `frame` to middle or to one of 0..{count - 1}")
    index = count // 2 if frame == MIDDLE else int(frame)
    if index >= count:
        raise ValueError(f"has {count} frames, 0..{count - 1}, and `frame` is {frame}")
    return index
