"""Named tensors out of torch's and safetensors' files, without torch and without running them.

What the pickles in a .pth describe is found by torch_pickle.py. The two forms of a .pth, as torch's
serialization.py writes them:
- since torch 1.6 a zip with data.pkl (the object), byteorder and data/KEY (each storage's bytes);
- before it a stream: pickles of a magic number, a protocol number, facts of the system, the object
  and a list of storage keys; then each storage's length (int64) and its numbers.
"""

import io
import itertools
import math
import mmap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from deepknn_jax.errors import UserError
from deepknn_jax.models.weights.torch_pickle import Storage, Tensor, read_pickle, shown

_SAFETENSORS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
# Where training programs keep the state_dict beside other things.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# Tensors that share numbers are copied apart; more than this many times the file is no model.
_MOST_SHARED = 4
# What a damaged file makes the standard library raise.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,  # zipfile's, for encryption
    TypeError,
    ValueError,
    Warning,  # pickletools', where warnings are errors
    zipfile.BadZipFile,
)

Fetch = Callable[[Storage], Any]  # to a buffer of the storage's `total` numbers, little-endian


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a .pth, .pt or .bin of torch.save (both forms) or of a .safetensors, by name.

    Arrays are C-contiguous, writable copies in the file's own types (bfloat16 is ml_dtypes').
    A checkpoint that keeps its tensors under "state_dict" or "model" is unwrapped, and "module." of
    DataParallel is taken off the names. Memory is bounded by a few times the file's size, whatever
    sizes the file claims.

    Raises:
        UserError: the file is absent, damaged, or holds anything but named tensors.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if not start:
            raise UserError("is empty: fetch it again")
        if path.suffix == ".safetensors":
            tensors = _from_safetensors(path)
        elif start == b"PK\x03\x04":
            tensors = _from_zip(path)
        else:
            tensors = _from_stream(path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except _DAMAGE as error:
        reason = shown(getattr(error, "strerror", None) or str(error) or type(error).__name__)
        raise UserError(f"{path}: cannot be read ({reason}): truncated or damaged?") from error
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): array for name, array in tensors.items()}
    return tensors


def _from_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, deserialize

    try:
        found = deserialize(path.read_bytes())
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    tensors = {}
    for name, entry in found:
        if entry["dtype"] not in _SAFETENSORS:
            raise UserError(f"{shown(name)} is of type {shown(entry['dtype'])}, which is not read")
        flat = np.frombuffer(entry["data"], _SAFETENSORS[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"]).copy()
    if not tensors:
        raise UserError("holds no tensors")
    return tensors


def _from_zip(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        infos, most = archive.infolist(), path.stat().st_size
        # Neither packed nor overlapping: a small file cannot claim much.
        if any(info.compress_type or info.file_size != info.compress_size for info in infos):
            raise UserError("is a compressed zip, which torch.save never writes")
        if sum(info.file_size for info in infos) > most:
            raise ValueError("its parts are larger than the file")
        records = {info.filename.partition("/")[2]: info for info in infos}
        if "data.pkl" not in records:
            raise UserError("is a zip without data.pkl: not of torch.save")
        big_endian = "byteorder" in records and archive.read(records["byteorder"]) == b"big"
        tensors = _state_dict(read_pickle(io.BytesIO(archive.read(records["data.pkl"])), {}))

        def fetch(storage: Storage) -> bytes:
            info = records[f"data/{storage.key}"]
            if info.file_size != storage.total * storage.dtype.itemsize:
                raise ValueError(f"storage {shown(storage.key)} has not the length it claims")
            raw = archive.read(info)
            if big_endian:
                raw = np.frombuffer(raw, f"u{storage.dtype.itemsize}").byteswap().tobytes()
            return raw

        return _arrays(tensors, fetch, most)


def _from_stream(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file:
        # Mapped: the numbers are copied once, from the file to their array.
        stream = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if (start := stream[:8])[:1] != b"\x80":
        raise UserError(f"is no file of torch.save: it begins with {start!r}")
    if read_pickle(stream) != _MAGIC or read_pickle(stream) != _PROTOCOL:
        raise UserError("is a pickle, but not of torch.save")
    read_pickle(stream)  # of the system that wrote it: numbers are little-endian on all
    storages: dict[str, Storage] = {}
    tensors = _state_dict(read_pickle(stream, storages))
    places = {}
    for key in read_pickle(stream):
        if not isinstance(key, str):
            raise UserError("has a storage without a proper key")
        storage = storages[key]
        total = int.from_bytes(stream.read(8), "little", signed=True)
        begin, size = stream.tell(), storage.total * storage.dtype.itemsize
        if total != storage.total or begin + size > len(stream):
            raise ValueError(f"storage {shown(key)} has not the length it claims")
        places[key] = memoryview(stream)[begin : begin + size]
        stream.seek(begin + size)
    return _arrays(tensors, lambda storage: places[storage.key], len(stream))


def _state_dict(tree: Any) -> dict[str, Tensor]:
    """The named tensors of a state_dict, or of a checkpoint around one."""
    for key in _WRAPPERS:
        if isinstance(tree, dict) and isinstance(tree.get(key), dict):
            tree = tree[key]
            break
    if not isinstance(tree, dict) or not tree:
        raise UserError("holds no state_dict, that is, no tensors by name")
    for name, value in tree.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise UserError(f"holds {shown(name)}, which is no tensor: not a state_dict")
    return tree


def _arrays(tensors: dict[str, Tensor], fetch: Fetch, file_size: int) -> dict[str, np.ndarray]:
    """Copies of the tensors; each storage is fetched once and not kept."""
    sizes = (math.prod(t.size) * t.storage.dtype.itemsize for t in tensors.values())
    if sum(sizes) > _MOST_SHARED * file_size:
        raise UserError(f"has tensors of more than {_MOST_SHARED} times its size: not read")
    arrays: dict[str, Any] = dict.fromkeys(tensors)  # in the file's order

    def key(name: str) -> str:
        return tensors[name].storage.key

    for _, names in itertools.groupby(sorted(tensors, key=key), key):
        buffer = None
        for name in names:
            storage, offset, size, stride = tensors[name]
            buffer = fetch(storage) if buffer is None else buffer
            item = storage.dtype.itemsize
            start = (storage.first + offset) * item
            # The stride along an axis of one number is free, and may be any number.
            steps = [s * item if n > 1 else 0 for n, s in zip(size, stride, strict=True)]
            # numpy checks the bounds once more.
            view = np.ndarray(size, storage.dtype, buffer, start if math.prod(size) else 0, steps)
            arrays[name] = view.copy(order="C")
    return arrays
