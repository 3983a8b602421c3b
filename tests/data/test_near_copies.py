"""Near-copies: thumbnails' correlation against numpy's own, and what is no near-copy."""

import numpy as np
import pytest

from deepknn_jax.data import near_copies
from deepknn_jax.data.near_copies import LEAST_R, nearest, nearly_joined, thumbnails

RNG = np.random.default_rng(3)


def scene(height, width, channels):
    """An image with structure: a few random waves."""
    y, x = np.mgrid[:height, :width] / min(height, width)
    numbers = RNG.normal(0, 9, (6, 4))
    waves = sum(d * np.sin(a * x + b * y + c) for a, b, c, d in numbers)
    image = 255 * (waves - waves.min()) / np.ptp(waves)
    return np.repeat(image[..., None], channels, axis=2).astype(np.uint8)


@pytest.mark.parametrize("shape", [(64, 96, 1), (96, 32, 3)])
def test_products_are_correlations_of_means_over_boxes(shape):
    images = np.stack([scene(*shape) for _ in range(5)])
    found = thumbnails(images) @ thumbnails(images).T
    means = []
    for image in images:
        fine = np.repeat(np.repeat(image[..., 0], 32, axis=0), 32, axis=1).astype(np.float64)
        means.append(fine.reshape(32, shape[0], 32, shape[1]).mean(axis=(1, 3)).ravel())
    np.testing.assert_allclose(found, np.corrcoef(means), atol=2e-3)  # of 8 bits


def test_saved_anew_or_brighter_is_near_and_another_image_is_not():
    one, other = scene(80, 80, 3), scene(80, 80, 3)
    noisy = np.clip(one * 0.8 + 20 + RNG.normal(0, 5, one.shape), 0, 255).astype(np.uint8)
    best = nearest(thumbnails(np.stack([one, other, noisy])), np.array([2]), np.array([0, 1]))
    assert best.rows.tolist() == [0]
    assert best.r[0] > 0.99


def test_constant_images_are_near_to_nothing():
    levels = [0, 7, 7, 255]
    images = np.stack([*(np.full((40, 40, 3), v, np.uint8) for v in levels), scene(40, 40, 3)])
    thumbs = thumbnails(images)
    assert np.isfinite(thumbs).all()
    assert not thumbs[:4].any()
    assert nearest(thumbs, np.arange(4), np.arange(5)).r.tolist() == [0.0] * 4
    assert len(np.unique(nearly_joined(thumbs))) == 5


def test_small_images_volumes_and_features_are_not_compared():
    shapes = {(3, 28, 28, 1): False, (3, 32, 32, 1): True, (3, 64, 31, 3): False,
              (3, 40, 40, 40, 1): False, (3, 64): False}  # fmt: skip
    for shape, compared in shapes.items():
        assert near_copies.are_compared(np.broadcast_to(np.uint8(0), shape)) == compared


def test_blocks_change_nothing(monkeypatch):
    thumbs = RNG.normal(size=(90, 9)).astype(np.float32)
    thumbs[40:80] = thumbs[:40] + 0.02 * RNG.normal(size=(40, 9)).astype(np.float32)
    thumbs[80:] = thumbs[40:50]
    thumbs /= np.linalg.norm(thumbs, axis=1, keepdims=True)
    rows, others = np.arange(0, 90, 2), np.arange(1, 90, 2)
    r = thumbs @ thumbs.T
    monkeypatch.setattr(near_copies, "_BLOCK", 7)
    best = nearest(thumbs, rows, others)
    np.testing.assert_allclose(best.r, r[np.ix_(rows, others)].max(axis=1), atol=1e-6)
    np.testing.assert_allclose(r[rows, best.rows], best.r, atol=1e-6)
    joined = nearly_joined(thumbs)
    for i in range(90):
        for j in np.flatnonzero(r[i] > LEAST_R):
            assert joined[i] == joined[j]
    assert len(np.unique(joined)) == len(np.unique(joined[:40]))
