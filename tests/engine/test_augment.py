"""Crop, flip and normalisation on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepknn_jax.engine.augment import center_crop, normalize, random_crop_flip


def pixels(b=8, h=12, w=10, c=3):
    return np.random.default_rng(0).integers(0, 256, (b, h, w, c), dtype=np.uint8)


def test_normalize_is_the_formula_per_channel():
    images = pixels()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (images / 255.0 - np.asarray(mean)) / np.asarray(std)
    got = jax.jit(lambda x: normalize(x, mean=mean, std=std))(images)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, atol=2e-6)
    np.testing.assert_allclose(
        normalize(jnp.asarray(images), mean=[127 / 255], std=[128 / 255]),
        (images.astype(float) - 127) / 128,
        atol=1e-6,
    )


def test_each_window_is_one_of_its_own_image_and_all_occur():
    """Every output equals some (offset, flip) window; over many ids each of them is drawn."""
    image = np.arange(5 * 4, dtype=np.uint8).reshape(5, 4, 1)
    images = np.repeat(image[None], 400, axis=0)
    windows = {}
    for y in range(3):
        for x in range(2):
            window = image[y : y + 3, x : x + 3]
            windows[window.tobytes()] = (y, x, 0)
            windows[window[:, ::-1].tobytes()] = (y, x, 1)
    assert len(windows) == 12
    crop = jax.jit(lambda i: random_crop_flip(images, jax.random.key(3), i, crop=3, flip=True))
    drawn = [windows[np.asarray(out).tobytes()] for out in crop(jnp.arange(400))]
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    # 400 draws of 12 equal cells: mean 33, deviation 5.5; the seed is fixed.
    assert len(counts) == 12
    assert counts.min() > 12
    assert counts.max() < 55


def test_without_flip_nothing_is_mirrored_and_a_full_crop_changes_nothing():
    images = pixels(4, 6, 6)
    ids = jnp.arange(4)
    same = random_crop_flip(jnp.asarray(images), jax.random.key(0), ids, crop=6, flip=False)
    np.testing.assert_array_equal(same, images)


def test_the_result_follows_the_id_and_not_the_place():
    images, ids = pixels(8), np.asarray([5, 900, 17, 3, 42, 8, 77, 1])
    key = jax.random.key(1)

    def crop(rows):
        return np.asarray(
            random_crop_flip(jnp.asarray(images[rows]), key, jnp.asarray(ids[rows]), crop=7,
                             flip=True)
        )  # fmt: skip

    whole = crop(np.arange(8))
    halves = np.concatenate([crop(np.arange(4)), crop(np.arange(4, 8))])
    np.testing.assert_array_equal(whole, halves)
    order = np.asarray([3, 1, 7, 0, 2, 6, 5, 4])
    np.testing.assert_array_equal(crop(order), whole[order])
    other = random_crop_flip(
        jnp.asarray(images), jax.random.key(2), jnp.asarray(ids), crop=7, flip=True
    )
    assert not np.array_equal(other, whole)


def test_center_crop():
    images = pixels(2, 10, 8)
    np.testing.assert_array_equal(center_crop(jnp.asarray(images), crop=4), images[:, 3:7, 2:6])


def test_a_crop_larger_than_the_images_is_an_error():
    images = jnp.asarray(pixels(2, 10, 8))
    with pytest.raises(ValueError, match="crop 9 does not fit images of 10 x 8"):
        center_crop(images, crop=9)
    with pytest.raises(ValueError, match="crop 9"):
        random_crop_flip(images, jax.random.key(0), jnp.arange(2), crop=9, flip=True)
