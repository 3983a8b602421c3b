"""MNIST's idx files, CIFAR-10's and STL-10's binary files: the layouts, and what is wrong."""

import functools
import gzip
import struct
import tracemalloc

import numpy as np
import pytest
from support import tiny_sets

from deepknn_jax.data.load import load_dataset
from deepknn_jax.data.sources.binary import cifar10, mnist, stl10
from deepknn_jax.data.splits import assign_splits
from deepknn_jax.errors import UserError


def write_idx(path, array):
    header = struct.pack(f">4B{array.ndim}i", 0, 0, 8, array.ndim, *array.shape)
    data = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def claim(path, *sides):
    """Writes an idx file of those sides and 200 bytes."""
    data = struct.pack(f">4B{len(sides)}i", 0, 0, 8, len(sides), *sides) + bytes(200)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def test_a_label_file_that_unpacks_to_more_is_not_unpacked(idx):
    """A bomb of 64 MiB: no more is read than the sizes ask for."""
    path = idx[0] / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(struct.pack(">4Bi", 0, 0, 8, 1, 20) + bytes(2**26)))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="not a sound idx"):
            mnist(idx[0])
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.fixture
def idx(tmp_path):
    """(folder, images [30, 5, 4], labels [30]): 20 and 10, the labels compressed."""
    images = np.random.default_rng(0).integers(0, 256, (30, 5, 4), np.uint8)
    labels = np.arange(30) % 10
    for name, rows in (("train", slice(20)), ("t10k", slice(20, 30))):
        write_idx(tmp_path / f"{name}-images-idx3-ubyte", images[rows])
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte.gz", labels[rows])
    return tmp_path, images, labels


def test_mnist_as_idx_files_and_as_npz(idx):
    folder, images, labels = idx
    listing = mnist(folder)
    np.testing.assert_array_equal(listing.inputs[..., 0], images)
    np.testing.assert_array_equal(listing.labels, labels)
    assert listing.splits.tolist() == ["train"] * 20 + ["test"] * 10
    keras = folder / "mnist.npz"
    np.savez(keras, x_train=images[:20], y_train=labels[:20], x_test=images[20:],
             y_test=labels[20:])  # fmt: skip
    same = mnist(keras)
    for key in ("inputs", "labels", "splits"):
        np.testing.assert_array_equal(getattr(same, key), getattr(listing, key))
    assert (same.names, same.class_names) == (listing.names, listing.class_names)


def test_mnists_npz_of_wider_numbers_takes_a_range(tmp_path):
    """As any npz; without one the range is that of the training part."""
    wide = np.arange(0, 4000, 50, dtype=np.uint16).reshape(5, 4, 4)
    labels = np.asarray([0, 1, 0, 1, 1])
    np.savez(tmp_path / "mnist.npz", x_train=wide[:4], y_train=labels[:4], x_test=wide[4:],
             y_test=labels[4:])  # fmt: skip
    load = functools.partial(load_dataset, "mnist", folder=tmp_path / "mnist.npz")
    expected = np.rint(np.clip((wide - 100.0) * 255 / 1900, 0, 255))
    np.testing.assert_array_equal(load(value_range=(100, 2000)).inputs[..., 0], expected)
    own = np.rint(np.clip(wide * (255 / wide[:4].max()), 0, 255))
    np.testing.assert_array_equal(load().inputs[..., 0], own)


def test_idx_files_leave_a_range_aside_and_say_so(idx, capsys):
    assert mnist(idx[0], value_range=(0, 9)).inputs.dtype == np.uint8
    assert "`value_range` is left aside" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: (d / "t10k-images-idx3-ubyte").unlink(),
         r"holds no t10k-images-idx3-ubyte\[.gz\]; wanted: train-images-idx3-ubyte\[.gz\], train-"),
        (lambda d: (d / "t10k-images-idx3-ubyte").write_bytes(b"\0\0\x08"), "not a sound idx file"),
        (lambda d: (d / "t10k-images-idx3-ubyte").write_bytes(b"\0\0\x08\3\0"), "not a sound idx"),
        (lambda d: (d / "t10k-images-idx3-ubyte").write_bytes(b"\0\0\x0d\1\0\0\0\1\0\0\0\0"),
         "not a sound idx"),
        (lambda d: claim(d / "t10k-images-idx3-ubyte", -10, -5, 4), "not a sound idx"),
        (lambda d: claim(d / "t10k-images-idx3-ubyte", 10, 0, 4), "not a sound idx"),
        (lambda d: claim(d / "t10k-images-idx3-ubyte", *[1] * 200), "not a sound idx"),
        (lambda d: claim(d / "train-labels-idx1-ubyte.gz", 2**31 - 1), "not a sound idx"),
        (lambda d: write_idx(d / "t10k-images-idx3-ubyte", np.zeros((10, 4, 4))), "differ in size"),
        (lambda d: (d / "train-labels-idx1-ubyte.gz").write_bytes(b"no gzip"), "cannot be read"),
        (lambda d: write_idx(d / "train-labels-idx1-ubyte.gz", np.zeros(3)), r"labels \[3\] for"),
    ],
)  # fmt: skip
def test_what_mnist_refuses(idx, spoil, words):
    spoil(idx[0])
    with pytest.raises(UserError, match=words):
        mnist(idx[0])


def test_a_folder_that_is_not_there_is_told_with_the_layout(tmp_path):
    with pytest.raises(
        UserError, match=r"no such folder \(`folder`\); it should hold train-images-idx3-ubyte"
    ):
        mnist(tmp_path / "gone")
    with pytest.raises(UserError, match=r"gone.npz: no such file"):
        mnist(tmp_path / "gone.npz")
    with pytest.raises(UserError, match=r"holds data_batch_\{1..5\}.bin, test_batch.bin"):
        cifar10("")
    tiny_sets.cifar10(tmp_path)
    (tmp_path / "test_batch.bin").unlink()
    with pytest.raises(UserError, match=r"holds no test_batch.bin; wanted: data_batch"):
        cifar10(tmp_path)
    with pytest.raises(UserError, match=r"holds no train_X.bin; wanted: train_X.bin, train_y.bin"):
        stl10(tmp_path)


def test_cifar10(tmp_path):
    images = tiny_sets.cifar10(tmp_path / "cifar-10-batches-bin", batch=20, test=10)
    listing = cifar10(tmp_path)
    assert listing.inputs.shape == (110, 32, 32, 3)
    np.testing.assert_array_equal(listing.inputs, images)
    assert listing.labels.tolist() == [i % 10 for i in range(110)]
    assert listing.splits.tolist() == ["train"] * 100 + ["test"] * 10
    assert listing.class_names[1] == "automobile"
    np.testing.assert_array_equal(cifar10(tmp_path / "cifar-10-batches-bin").inputs, images)
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(b"\0" * 3072)
    with pytest.raises(UserError, match=r"test_batch.bin: 3072 bytes are not .* of 3073"):
        cifar10(tmp_path)


def test_stl10(tmp_path):
    images = tiny_sets.stl10(tmp_path / "stl10_binary", train=20, test=10)
    listing = stl10(tmp_path)
    np.testing.assert_array_equal(listing.inputs, images)
    assert listing.labels.tolist() == [i % 10 for i in range(30)]
    assert listing.splits.tolist() == ["train"] * 20 + ["test"] * 10
    assert listing.class_names[1] == "bird"
    (tmp_path / "stl10_binary" / "test_y.bin").write_bytes(bytes([1, 2]))
    with pytest.raises(UserError, match="2 test labels for 10 images"):
        stl10(tmp_path)
    (tmp_path / "stl10_binary" / "test_y.bin").write_bytes(bytes([11] * 10))
    with pytest.raises(UserError, match="label 10 is outside the 10 classes"):
        stl10(tmp_path)


@pytest.mark.data
def test_the_real_mnist_leaves_6000_to_validate(data_root):
    listing = mnist(data_root / "mnist" / "mnist.npz")
    assert np.bincount(listing.labels[listing.splits == "train"]).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949
    ]  # fmt: skip
    splits = assign_splits(listing, split="published", test_share=0.2, validation=0.1, split_seed=0)
    sizes = [int((splits == part).sum()) for part in ("train", "validation", "test")]
    assert sizes == [54000, 6000, 10000]
