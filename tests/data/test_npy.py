""".npy files: what numpy writes, hostile headers, and many threads at once."""

import gc
import io
import struct
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from deepknn_jax.data import cache
from deepknn_jax.data.decode import decode
from deepknn_jax.data.npy import read_npy, read_npz
from deepknn_jax.errors import UserError


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(5, dtype=">i4"),
        np.array(7),
        np.zeros((0, 3), np.float32),
        np.eye(3, dtype=bool)[::2],
    ],
)
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_it_gives_what_numpy_gives(tmp_path, array, version):
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, array, version=version)
    read = read_npy(tmp_path / "a.npy")
    assert (read.dtype, read.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_is_what_numpy_gives(tmp_path, save):
    arrays = {
        "a": np.arange(24, dtype=np.uint8).reshape(2, 3, 4), "b": np.asarray(["x", "long"]),
        "c": np.asfortranarray(np.arange(12.0).reshape(3, 4)), "d": np.array(7),
        "e": np.zeros((0, 3), np.float32), "f": np.asarray([b"x", b"yz"]),
    }  # fmt: skip
    save(tmp_path / "a.npz", **arrays)
    found = read_npz(tmp_path / "a.npz")
    assert list(found) == list(arrays)
    for key, array in arrays.items():
        assert (found[key].dtype, found[key].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[key], array)
        found[key][...] = array[:1] if array.ndim else array  # it may be written to


def header(words, body=b""):
    return b"\x93NUMPY\1\0" + len(words).to_bytes(2, "little") + words.encode() + body


def described(descr, shape):
    return f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}\n"


def zipped(data, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("a.npy", data)
    return file.getvalue()


ZIPPED = zipped(header(described("|u1", (3, 999))) + bytes(range(27)) * 111, zipfile.ZIP_DEFLATED)


def patched(offset, form, value):
    """A zip in whose directory the number at `offset` of the one entry is another."""
    data, entry = bytearray(ZIPPED), ZIPPED.index(b"PK\1\2")
    struct.pack_into(form, data, entry + offset, value)
    return bytes(data)


HOSTILE_NPZ = {
    "huge": (zipped(header(described("<f8", (10**15, 10**15)))), "0 bytes for float64"),
    "larger than the member": (zipped(header(described("|u1", (9, 9))) + bytes(80)), "80 bytes"),
    "smaller than the member": (zipped(header(described("|u1", (9, 9))) + bytes(82)), "82 bytes"),
    "negative": (zipped(header(described("|u1", (-2, -4))) + bytes(8)), "8 bytes for"),
    "values of no size": (zipped(header(described("|V0", (10**15,)))), "0 bytes for"),
    "objects": (zipped(header(described("|O", (1,)), b"cos\nsystem\n")), "^a$"),
    "a claim": (patched(24, "<I", 2**31), "claims more bytes than it can hold"),
    "packing damaged": (ZIPPED[:60] + b"\xff" * 20 + ZIPPED[80:], "while decompressing|Bad CRC"),
    "another method": (patched(10, "<H", 99), "compression method|local|header"),
    "encrypted": (patched(8, "<H", 1), "encrypted"),
    "no zip": (b"PK\3\4", "not a zip"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE_NPZ)
def test_a_hostile_npz_is_a_value_error(tmp_path, case):
    data, words = HOSTILE_NPZ[case]
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(ValueError, match=words):
        read_npz(tmp_path / "a.npz")


HOSTILE = {
    "huge": (header(described("<f8", (10**15, 10**15))), "0 bytes are left for float64"),
    "larger than the file": (header(described("|u1", (9, 9)), b"\0" * 80), "80 bytes are left"),
    "negative": (header(described("|u1", (-1, 4)), b"\0" * 8), "8 bytes are left"),
    "objects": (header(described("|O", (1,)), b"cos\nsystem\n"), "holds Python objects"),
    "objects in fields": (header(described([("a", "|O")], (1,))), "holds Python objects"),
    "deep": (header("-" * 9000 + "1"), "header cannot be parsed"),
    "no end": (header("{'descr': ("), "header cannot be parsed"),
    "a call": (header("__import__('os')"), "malformed"),
    "no header": (header("\0"), "Cannot parse"),
    "another version": (b"\x93NUMPY\3\0\0\0\0\0", r"version \(3, 0\)"),
    "text": (b"no image", "magic string"),
    "empty": (b"", "EOF"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_an_error_and_nothing_is_unpickled_or_allocated(tmp_path, case):
    data, words = HOSTILE[case]
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(ValueError, match=words):
        read_npy(tmp_path / "a.npy")
    with pytest.raises(UserError, match=f"a.npy: cannot be decoded .*{words}"):
        decode(
            [tmp_path / "a.npy"], size=4, resize_rule="square", channels=1,
            cache_dir=tmp_path / "cache",
        )  # fmt: skip


@pytest.fixture
def switching(monkeypatch):
    """Eight decoding threads, which switch wherever Python allocates: there `ast` was not safe."""

    def switch(phase, info):
        time.sleep(0)

    monkeypatch.setattr(cache, "threads", lambda: 8)
    threshold = gc.get_threshold()
    gc.callbacks.append(switch)
    gc.set_threshold(5)
    yield
    gc.set_threshold(*threshold)
    gc.callbacks.remove(switch)


def test_many_threads_read_at_once(tmp_path, switching):
    """In CPython 3.11.7 two of three of these decodes failed with np.load."""
    files = [tmp_path / f"{i:03d}.npy" for i in range(200)]
    for i, file in enumerate(files):
        np.save(file, np.full((4, 4), i, np.uint8))
    for turn in range(8):
        images, *_ = decode(
            files, size=4, resize_rule="square", channels=1, cache_dir=tmp_path / f"cache{turn}"
        )
        assert images[:, 0, 0, 0].tolist() == list(range(200))
    with ThreadPoolExecutor(8) as pool:  # and as sarcoma's volumes are read
        for i, array in enumerate(pool.map(read_npy, files)):
            assert (array == i).all()
