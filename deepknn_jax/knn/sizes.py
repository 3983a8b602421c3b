"""Numbers of rows rounded up, so that few programs are compiled for many sizes."""

import numpy as np

_LEAST = 128


def rounded_up(count: int) -> int:
    """`count` up to a multiple of a sixteenth of its power of two, 128 at least.

    So at most a sixteenth is added to what has 2,048 rows and more.
    """
    step = max(_LEAST, 2 ** max(count - 1, 0).bit_length() // 32)
    return max(count + -count % step, step)


def filled_up(array: np.ndarray, value: float | None = None) -> np.ndarray:
    """[N, ...] to [rounded_up(N), ...] with `value`, or with copies of the last row; N >= 1."""
    return filled_to(array, rounded_up(len(array)), value)


def filled_to(array: np.ndarray, size: int, value: float | None = None) -> np.ndarray:
    """[N, ...] to [size, ...] as `filled_up` does; 1 <= N <= size. One of the size is itself."""
    missing = size - len(array)
    if not missing:
        return array
    widths = ((0, missing), *((0, 0),) * (array.ndim - 1))
    if value is None:
        return np.pad(array, widths, mode="edge")
    return np.pad(array, widths, constant_values=value)
