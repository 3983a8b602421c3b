"""Crop, flip and normalisation of uint8 images and volumes on the device: pure and jit-able."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def normalize(
    images_BxHxWxC: jax.Array, *, mean: Sequence[float], std: Sequence[float]
) -> jax.Array:
    """(images / 255 - mean) / std, as float32 of the same shape.

    `images` are uint8 [..., C]; `mean` and `std` are in units of the range 0..1, one number or
    one a channel. A network that wants (x - 127) / 128 has mean 127 / 255 and std 128 / 255.
    """
    shape = (1,) * (images_BxHxWxC.ndim - 1) + (-1,)
    scale = np.float32(1 / (255 * np.asarray(std, np.float64))).reshape(shape)
    shift = np.float32(-np.asarray(mean, np.float64) / np.asarray(std, np.float64)).reshape(shape)
    return images_BxHxWxC.astype(jnp.float32) * scale + shift


def random_crop_flip(
    images_BxHxWxC: jax.Array, key: jax.Array, ids_B: jax.Array, *, crop: int, flip: bool
) -> jax.Array:
    """A random crop x crop window of each image, mirrored left to right by a fair coin if `flip`.

    The randomness of an image is fold_in(key, its id): it does not depend on its place in the
    batch, nor on how the batch is split over devices. Any dtype, [B, crop, crop, C].

    Raises:
        ValueError: crop is larger than the images.
    """
    _check_crop(images_BxHxWxC, crop)
    height, width, channels = images_BxHxWxC.shape[1:]

    def one(image_HxWxC: jax.Array, example_id: jax.Array) -> jax.Array:
        key_y, key_x, key_flip = jax.random.split(jax.random.fold_in(key, example_id), 3)
        y = jax.random.randint(key_y, (), 0, height - crop + 1)
        x = jax.random.randint(key_x, (), 0, width - crop + 1)
        window = jax.lax.dynamic_slice(image_HxWxC, (y, x, 0), (crop, crop, channels))
        if not flip:
            return window
        return jnp.where(jax.random.bernoulli(key_flip), window[:, ::-1], window)

    return jax.vmap(one)(images_BxHxWxC, ids_B)


def random_flips(
    volumes: jax.Array, key: jax.Array, ids_B: jax.Array, *, axes: Sequence[int]
) -> jax.Array:
    """Each example mirrored along each of `axes` by a fair coin of its own.

    `volumes` [B, ...]; axis 0 of `axes` is the first one after the batch. The randomness of an
    example is fold_in(key, its id).
    """

    def one(volume: jax.Array, example_id: jax.Array) -> jax.Array:
        coins = jax.random.bernoulli(jax.random.fold_in(key, example_id), shape=(len(axes),))
        for coin, axis in zip(coins, axes, strict=True):
            volume = jnp.where(coin, jnp.flip(volume, axis), volume)
        return volume

    return jax.vmap(one)(volumes, ids_B)


def center_crop(images_BxHxWxC: jax.Array, *, crop: int) -> jax.Array:
    """The central crop x crop window of each image, [B, crop, crop, C].

    Raises:
        ValueError: crop is larger than the images.
    """
    _check_crop(images_BxHxWxC, crop)
    height, width = images_BxHxWxC.shape[1:3]
    top, left = (height - crop) // 2, (width - crop) // 2
    return images_BxHxWxC[:, top : top + crop, left : left + crop]


def _check_crop(images_BxHxWxC: jax.Array, crop: int) -> None:
    height, width = images_BxHxWxC.shape[1:3]
    if not 1 <= crop <= min(height, width):
        raise ValueError(f"crop {crop} does not fit images of {height} x {width}")
