"""Pictures for people: from the files where these are larger, small ones to the pixel."""

import io

import numpy as np
from PIL import Image

from deepknn_jax.answers import thumbnails
from deepknn_jax.answers.thumbnails import SIDE, encode, encode_array, joined, of_rows, smaller
from deepknn_jax.data.dataset import Dataset
from deepknn_jax.data.view import View

HOW = {"value_range": (), "set_range": (), "frame": ""}


def opened(webp):
    return Image.open(io.BytesIO(webp))


def dataset_of(inputs, view=None):
    n = len(inputs)
    return Dataset(inputs, np.zeros(n, np.int32), (), (), np.full(n, "train"), view=view)


def test_small_ones_keep_each_pixel_and_large_ones_their_aspect():
    tiny = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(opened(encode_array(tiny))), tiny)
    large = encode(Image.new("L", (600, 450), 90))
    assert opened(large).size == (SIDE, SIDE * 450 // 600)
    assert opened(smaller(large, 80, 70)).size == (80, 60)
    assert smaller(b"", 80, 70) == b""


def test_pictures_lie_one_after_the_other():
    found = joined([b"ab", b"", b"cde"])
    assert [found.webp(i) for i in range(3)] == [b"ab", b"", b"cde"]


def test_they_come_from_the_files_and_where_these_are_gone_from_the_inputs(tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for i, file in enumerate(files):
        Image.new("RGB", (50, 40), (70 * i, 0, 0)).save(file)
    inputs = np.full((3, 8, 8, 3), 200, np.uint8)
    files[1].unlink()
    found = of_rows(dataset_of(inputs, View(tuple(files), HOW)), np.array([2, 1]))
    assert opened(found.webp(0)).size == (50, 40)
    np.testing.assert_array_equal(np.asarray(opened(found.webp(1))), inputs[1])
    features = of_rows(dataset_of(np.zeros((3, 4)), View(tuple(files), HOW)), np.array([0, 1]))
    assert opened(features.webp(0)).size == (50, 40)
    assert features.webp(1) == b""


def test_arrays_and_kept_thumbnails_are_shown_and_vectors_are_not():
    inputs = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    found = of_rows(dataset_of(inputs), np.array([1]))
    np.testing.assert_array_equal(np.asarray(opened(found.webp(0)))[..., :1], inputs[1])
    kept = of_rows(dataset_of(np.zeros((3, 4)), View(thumbnails=inputs)), np.array([2]))
    np.testing.assert_array_equal(np.asarray(opened(kept.webp(0)))[..., :1], inputs[2])
    assert of_rows(dataset_of(np.zeros((3, 4))), np.array([0])) is None
    assert of_rows(dataset_of(np.zeros((3, 4, 4, 4, 1), np.uint8)), np.array([0])) is None


def test_of_many_images_smaller_ones_are_kept(tmp_path, monkeypatch):
    file = tmp_path / "large.png"
    Image.new("RGB", (600, 300)).save(file)
    dataset = dataset_of(np.zeros((2, 8, 8, 3), np.uint8), View((file, file), HOW))
    sizes = []
    for few in (2, 1):
        monkeypatch.setattr(thumbnails, "_FEW", few)
        sizes.append(opened(of_rows(dataset, np.arange(2)).webp(1)).size)
    assert sizes == [(256, 128), (160, 80)]
