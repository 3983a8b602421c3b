"""Files of plain values: an .npy, read in any thread, and an .npz."""

import lzma
import math
import os
import struct
import threading
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any, Literal

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
        shape, order, dtype = _sized_header(opened)
        array = np.fromfile(opened, dtype, math.prod(shape))
    return array.reshape(shape, order=order)


def map_npy(file: Path) -> np.ndarray:
    """The array of an .npy file as a read-only memory map. Raises as `read_npy`."""
    with file.open("rb") as opened:
        shape, order, dtype = _sized_header(opened)
        return np.memmap(opened, dtype, "r", opened.tell(), shape, order)


def _sized_header(opened: IO[bytes]) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype]:
    """Shape, order and type of what follows in the file, once it is known to hold so much."""
    shape, fortran_order, dtype = _read_header(opened)
    if dtype.hasobject:
        raise ValueError("holds Python objects")
    left = os.fstat(opened.fileno()).st_size - opened.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > left:
        raise ValueError(f"{left} bytes are left for {dtype} {list(shape)}: is it truncated?")
    return shape, "F" if fortran_order else "C", dtype


def read_npy_type(file: Path) -> np.dtype:
    """The type of the values in an .npy file, from its header alone. Raises as `read_npy`."""
    with file.open("rb") as opened:
        return _read_header(opened)[2]


# What zipfile and its decompressors raise on a damaged file.
_DAMAGE = (
    ArithmeticError,
    EOFError,
    LookupError,
    NotImplementedError,
    RuntimeError,  # for encryption
    TypeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
# No method that numpy packs by makes a file smaller by more.
_MOST_PACKED = 1100


def read_npz(file: Path, only: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by their keys, as `np.load` gives them; `only` those, if given.

    What has not the ending .npy inside is passed over. Nothing is allocated before the sizes that
    the file claims are known to agree with each other.

    Raises:
        OSError: the file cannot be opened or read.
        PlainError: an array holds Python objects, which are never unpickled.
        ValueError: it is no sound .npz file.
        MemoryError: it is larger than the memory.
    """
    try:
        with file.open("rb") as opened, zipfile.ZipFile(opened) as archive:
            infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()
                     if info.filename.endswith(".npy")}  # fmt: skip
            return {key: _member(archive, info) for key, info in infos.items()
                    if only is None or key in only}  # fmt: skip
    except _DAMAGE as error:
        raise ValueError(str(error) or type(error).__name__) from error


class PlainError(ValueError):
    """An array of an .npz holds Python objects; the message is its key."""


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One array of an .npz; the claims of its header, the zip and the packing must agree."""
    if info.file_size > _MOST_PACKED * (info.compress_size + 1):
        raise ValueError(f"{info.filename} claims more bytes than it can hold")
    with archive.open(info) as member:
        assert isinstance(member, zipfile.ZipExtFile)
        shape, fortran_order, dtype = _read_header(member)
        if dtype.hasobject:
            raise PlainError(info.filename.removesuffix(".npy"))
        count, left = math.prod(shape), info.file_size - member.tell()
        if min(shape, default=0) < 0 or count * dtype.itemsize != left or (count and not left):
            raise ValueError(f"{info.filename}: {left} bytes for {dtype} {list(shape)}")
        array: np.ndarray[Any, Any] = np.ndarray(count, dtype)
        buffer = array.view(np.uint8).data if count else memoryview(b"")
        while len(buffer):
            if not (read := member.readinto(buffer)):
                raise ValueError(f"{info.filename} ends before its time")
            buffer = buffer[read:]
        member.read()  # to its end, where the checksum is compared
    return array.reshape(shape, order="F" if fortran_order else "C")


def _read_header(opened: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(opened)
    if version not in _READERS:
        raise ValueError(f"version {version} of the .npy format is for tables, not for arrays")
    try:
        with _AST:
            return _READERS[version](opened)
    # The parser's, on a header nested too deep, and the tokenizer's, on one that has no end.
    except (MemoryError, RecursionError, SyntaxError, tokenize.TokenError) as error:
        raise ValueError("its header cannot be parsed") from error
