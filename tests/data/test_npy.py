""".npy files: what numpy writes, hostile headers, and many threads at once."""

import gc
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from deepknn_jax.data import cache
from deepknn_jax.data.decode import decode
from deepknn_jax.data.npy import read_npy
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


def header(words, body=b""):
    return b"\x93NUMPY\1\0" + len(words).to_bytes(2, "little") + words.encode() + body


def described(descr, shape):
    return f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}\n"


HOSTILE = {
    "huge": (header(described("<f8", (10**15, 10**15))), "0 bytes are left for float64"),
    "larger than the file": (header(described("|u1", (9, 9)), b"\0" * 80), "80 bytes are left"),
    "negative": (header(described("|u1", (-1, 4)), b"\0" * 8), "8 bytes are left"),
    "objects": (header(described("|O", (1,)), b"cos\nsystem\n"), "holds Python objects"),
    "objects in fields": (header(described([("a", "|O")], (1,))), "holds Python objects"),
    "deep": (header("-" * 9000 + "1"), "header cannot be parsed"),
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
