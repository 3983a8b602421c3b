"""An .npy file of plain values, read in any thread."""

import math
import os
import threading
from pathlib import Path
from typing import BinaryIO

import numpy as np

# Numpy parses the header with `ast`. Up to CPython 3.11.7 that fails at random where two threads do
# so at once ("AST constructor recursion depth mismatch"): github.com/python/cpython/issues/106905.
_AST = threading.Lock()
_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npy(file: Path) -> np.ndarray:
    """The array of an .npy file, as `np.load` gives it, but safe in threads.

    Raises:
        OSError: the file cannot be opened or read.
        ValueError: it is no .npy file, is shorter than its header says, or holds Python objects,
            which are never unpickled, or anything else that is no plain value.
    """
    with file.open("rb") as opened:
        shape, fortran_order, dtype = _read_header(opened)
        if dtype.hasobject:
            raise ValueError("holds Python objects")
        count = math.prod(shape)
        left = os.fstat(opened.fileno()).st_size - opened.tell()
        if min(shape, default=0) < 0 or count * dtype.itemsize > left:  # before it is allocated
            raise ValueError(f"{left} bytes are left for {dtype} {list(shape)}: is it truncated?")
        array = np.fromfile(opened, dtype, count)
    return array.reshape(shape, order="F" if fortran_order else "C")


def read_npy_type(file: Path) -> np.dtype:
    """The type of the values in an .npy file, from its header alone. Raises as `read_npy`."""
    with file.open("rb") as opened:
        return _read_header(opened)[2]


def _read_header(opened: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(opened)
    if version not in _READERS:
        raise ValueError(f"version {version} of the .npy format is for tables, not for arrays")
    try:
        with _AST:
            return _READERS[version](opened)
    except (MemoryError, RecursionError) as error:  # the parser's, on a header nested too deep
        raise ValueError("its header cannot be parsed") from error
