"""What a network is given: each against the same written out in numpy."""

import jax
import numpy as np
import pytest
from support.batches import images

from deepknn_jax.data.dataset import Dataset
from deepknn_jax.engine.inputs import (
    Scale,
    feature_scale,
    input_functions,
    pixel_statistics,
    standardized,
)
from deepknn_jax.errors import UserError


def features(n=50):
    rng = np.random.default_rng(0)
    inputs = rng.normal([5, -3, 0], [2, 0.1, 1], (n, 3)).astype(np.float32)
    inputs[:, 2] = 7  # constant
    splits = np.where(np.arange(n) % 4 == 3, "test", "train")
    labels = (np.arange(n) % 2).astype(np.int32)
    return Dataset(inputs, labels, tuple(map(str, range(n))), ("a", "b"), splits)


def functions(dataset, model="cnn", *, crop=0, flip=False, mean=(), std=()):
    return input_functions(dataset, model, crop=crop, flip=flip, mean=mean, std=std)[:2]


def test_features_are_standardised_by_the_training_part():
    dataset = features()
    augment, prepare = functions(dataset, "mlp")
    found = standardized(dataset).inputs
    train = dataset.inputs[dataset.rows("train")].astype(np.float64)
    wanted = (dataset.inputs - train.mean(0)) / np.where(train.std(0) > 0, train.std(0), 1)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert (found[:, 2] == 0).all()
    np.testing.assert_array_equal(augment(found, None, None), found)
    np.testing.assert_array_equal(prepare(found), found)


def test_features_of_large_offsets_keep_their_digits():
    """POSIX seconds: in float32 their steps are 128 s."""
    dataset = features()
    seconds = 1.7e9 + np.random.default_rng(1).uniform(0, 60, len(dataset.labels))
    inputs = np.stack([seconds, np.full_like(seconds, 0.1 + 1e9)], axis=1)
    found = standardized(dataset._replace(inputs=inputs)).inputs
    train = seconds[dataset.rows("train")] - 1.7e9
    wanted = (seconds - 1.7e9 - train.mean()) / train.std()
    np.testing.assert_allclose(found[:, 0], wanted, atol=1e-6)
    assert found.dtype == np.float32
    assert (found[:, 1] == 0).all()  # a constant, whatever the rounding of its mean


def test_features_are_standardised_by_a_scale_that_is_given():
    dataset = features()
    scale = Scale(np.array([1.0, 2.0, 3.0]), np.array([0.5, 4.0, 1.0]))
    found = standardized(dataset, scale).inputs
    np.testing.assert_allclose(found, (dataset.inputs - scale.mean) / scale.std, rtol=1e-5)
    own = feature_scale(dataset)
    np.testing.assert_array_equal(standardized(dataset, own).inputs, standardized(dataset).inputs)
    assert feature_scale(VOLUMES) is None
    with pytest.raises(UserError, match=r"there are 3 features, .* had 2"):
        standardized(dataset, Scale(np.zeros(2), np.ones(2)))


def test_pixels_are_normalised_by_the_training_part_or_by_the_config():
    dataset = images(n=800)
    pixels = dataset.inputs[dataset.rows("train")].astype(np.float64) / 255
    means, stds = pixel_statistics(dataset)
    np.testing.assert_allclose(means, pixels.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(stds, pixels.std((0, 1, 2)), rtol=1e-6)
    _, prepare = functions(dataset, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3))
    wanted = (dataset.inputs / 255 - (0.5, 0.4, 0.3)) / (0.1, 0.2, 0.3)
    np.testing.assert_allclose(prepare(dataset.inputs), wanted, atol=1e-5)


def test_pixel_statistics_of_many_images_come_from_some_of_them():
    dataset = images(n=12000, shape=(2, 2, 1))
    rows = dataset.rows("train")
    assert len(rows) == 9000
    seen = dataset.inputs[rows[::5]] / 255
    means, _ = pixel_statistics(dataset)
    np.testing.assert_allclose(means, [seen.mean()], rtol=1e-6)


def test_testing_takes_the_middle_and_training_some_crop():
    dataset = images(n=40)
    augment, prepare = functions(dataset, crop=5, mean=(0.0,) * 3, std=(1.0,) * 3)
    np.testing.assert_allclose(
        prepare(dataset.inputs), dataset.inputs[:, 2:7, 1:6] / 255, rtol=1e-5
    )
    ids, key = np.arange(40, dtype=np.int32), jax.random.key(0)
    crops = np.asarray(augment(dataset.inputs, ids, key))
    windows = np.lib.stride_tricks.sliding_window_view(dataset.inputs / 255, (5, 5), (1, 2))
    windows = windows.transpose(0, 1, 2, 4, 5, 3)
    matches = np.isclose(windows, crops[:, None, None], atol=1e-5).all((3, 4, 5))
    assert (matches.sum((1, 2)) == 1).all()
    assert len(np.unique(np.argwhere(matches)[:, 1:], axis=0)) > 5


def test_volumes_are_flipped_along_two_axes_each_by_its_own_coin():
    dataset = images(n=200, shape=(2, 3, 4, 1))
    augment, prepare = functions(dataset, "sarcoma_cnn", flip=True, mean=(0.0,), std=(1.0,))
    ids, key = np.arange(200, dtype=np.int32), jax.random.key(0)
    flipped = np.asarray(augment(dataset.inputs, ids, key))
    plain = dataset.inputs / 255
    np.testing.assert_allclose(prepare(dataset.inputs), plain, rtol=1e-5)
    axes = [(), (2,), (3,), (2, 3)]
    same = [np.isclose(np.flip(plain, a), flipped, atol=1e-5).all((1, 2, 3, 4)) for a in axes]
    np.testing.assert_array_equal(np.sum(same, axis=0), 1)
    assert min(np.sum(same, axis=1)) > 25
    # An example's coins are its own: its place in the batch does not matter.
    np.testing.assert_array_equal(augment(dataset.inputs[50:60], ids[50:60], key), flipped[50:60])


def test_volumes_have_statistics_per_channel():
    dataset = images(n=40, shape=(2, 3, 4, 2))
    pixels = dataset.inputs[dataset.rows("train")].astype(np.float64) / 255
    means, stds = pixel_statistics(dataset)
    np.testing.assert_allclose(means, pixels.mean((0, 1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(stds, pixels.std((0, 1, 2, 3)), rtol=1e-6)


VOLUMES = images(8, (2, 3, 4, 1))


@pytest.mark.parametrize(
    ("changes", "dataset", "words"),
    [
        ({"crop": 9}, images(8), "`crop` is 9, .* 9 x 8"),
        ({"flip": True}, images(8), "`flip` needs `crop`"),
        ({"mean": (0.5,), "std": (0.5,)}, images(8), "`mean` has 1 numbers for 3"),
        ({"model": "mlp", "flip": True}, features(), "are for images"),
        ({"model": "cnn"}, features(), "are feature vectors, .*=cnn takes images: .* to mlp"),
        ({"model": "mlp"}, images(8), "are images, .*=mlp takes feature vectors: .* to cnn"),
        ({"model": "cnn"}, VOLUMES, "are volumes, .*=cnn takes images: .*sarcoma_cnn"),
        ({"model": "sarcoma_cnn", "crop": 2}, VOLUMES, "data are volumes: set it to 0"),
    ],
)
def test_inputs_that_do_not_fit_are_named(changes, dataset, words):
    with pytest.raises(UserError, match=words):
        functions(dataset, **changes)
