"""From a config to functions: each against the same written out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from runs import digits_file, small_config

from deepknn_jax import losses, setup
from deepknn_jax.data.dataset import Dataset
from deepknn_jax.errors import UserError
from deepknn_jax.neighbors import Examples
from deepknn_jax.parallel import get_devices


def images(n=2500, shape=(9, 8, 3)):
    """Three quarters train; the classes have 4 : 2 : 1 of the examples."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, n, p=[4 / 7, 2 / 7, 1 / 7]).astype(np.int32)
    inputs = rng.integers(0, 256, (n, *shape), np.uint8)
    inputs[..., -1] //= 2
    splits = np.where(np.arange(n) % 4 == 3, "test", "train")
    names = tuple(map(str, range(n)))
    return Dataset(inputs, labels, names, ("a", "b", "c"), splits)


def features(n=50):
    rng = np.random.default_rng(0)
    inputs = rng.normal([5, -3, 0], [2, 0.1, 1], (n, 3)).astype(np.float32)
    inputs[:, 2] = 7  # constant
    splits = np.where(np.arange(n) % 4 == 3, "test", "train")
    labels = (np.arange(n) % 2).astype(np.int32)
    return Dataset(inputs, labels, tuple(map(str, range(n))), ("a", "b"), splits)


def test_the_rate_is_halved_every_so_many_epochs():
    config = small_config(optimizer__learning_rate=0.08, optimizer__halve_every_epochs=3)
    rate = setup.learning_rate(config, 7)
    for step in (0, 20, 21, 41, 42, 62, 63):
        assert float(rate(step)) == pytest.approx(0.08 * 0.5 ** (step // 21), rel=1e-6)
    constant = setup.learning_rate(small_config(optimizer__halve_every_epochs=0), 7)
    assert constant(0) == constant(10**6) == 0.01


def steps(config, gradients):
    """The parameter after each gradient, from 1."""
    optimizer = setup.optimizer(config, setup.learning_rate(config, 10))
    parameter = jnp.asarray(1.0)
    state = optimizer.init(parameter)
    for gradient in gradients:
        update, state = optimizer.update(jnp.asarray(gradient), state, parameter)
        parameter = optax.apply_updates(parameter, update)
        yield float(parameter)


def test_sgd_is_pytorch_s():
    """Decay is added to the gradient, then momentum: v = 0.9 v + (g + 0.1 w), w -= rate v."""
    config = small_config(
        optimizer__learning_rate=0.1, optimizer__momentum=0.9, optimizer__weight_decay=0.1
    )
    gradients = [0.5, -1.0, 2.0]
    weight, velocity, wanted = 1.0, 0.0, []
    for gradient in gradients:
        velocity = 0.9 * velocity + gradient + 0.1 * weight
        weight -= 0.1 * velocity
        wanted.append(weight)
    np.testing.assert_allclose(list(steps(config, gradients)), wanted, rtol=1e-6)


def test_adam_decays_beside_the_gradient():
    config = small_config(
        optimizer__name="adam", optimizer__learning_rate=0.1, optimizer__weight_decay=0.5
    )
    # The first step of Adam has length 1 whatever the gradient; the decay is 0.5 x 1.
    (first,) = steps(config, [3.0])
    assert first == pytest.approx(1 - 0.1 * (1 + 0.5), rel=1e-5)


def test_each_loss_is_the_one_that_is_named():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 20).astype(np.int32)
    logits = jnp.asarray(rng.normal(size=(20, 3)), jnp.float32)
    embeddings = jnp.asarray(rng.normal(size=(20, 4)), jnp.float32)
    batch = Examples(embeddings, labels, np.arange(20), np.ones(20, bool))
    dataset = images()

    def value(**changes):
        loss = setup.loss_function(small_config(**changes), dataset)
        return float(losses.mean(loss(batch._replace(logits=logits), batch)))

    options = {"loss__margin": 0.5, "loss__p": 1.0}
    found = value(loss__name="deep_knn", loss__k=2, loss__m=4, **options)
    wanted = losses.deep_knn_loss(embeddings, labels, k=2, m=4, margin=0.5, p=1.0)
    assert found == pytest.approx(float(wanted), rel=1e-6)
    found = value(loss__name="triplet", **options)
    wanted = losses.batch_hard_triplet_loss(embeddings, labels, margin=0.5, p=1.0)
    assert found == pytest.approx(float(wanted), rel=1e-6)

    each = -np.asarray(jax.nn.log_softmax(logits))[np.arange(20), labels].astype(np.float64)
    assert value(loss__name="cross_entropy") == pytest.approx(each.mean(), rel=1e-5)
    counts = np.bincount(dataset.labels[dataset.splits == "train"])
    weights = (counts.sum() / (3 * counts))[labels]
    wanted = (weights * each).sum() / weights.sum()
    assert value(loss__name="weighted_cross_entropy") == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", setup.METHODS)
def test_a_head_only_where_the_loss_needs_one(name):
    config = small_config(loss__name=name, model__embedding_size=5, model__normalize=True)
    network = setup.network(config, images(), get_devices(1, "shard_map"))
    assert network.num_classes == (3 if "cross_entropy" in name else None)
    assert (network.backbone.embedding_size, network.normalize) == (5, True)
    assert network.backbone.bn_axis is None


def test_features_are_standardised_by_the_training_part():
    dataset = features()
    augment, prepare = setup.input_functions(small_config(), dataset)
    train = dataset.inputs[dataset.rows("train")].astype(np.float64)
    wanted = (dataset.inputs - train.mean(0)) / np.where(train.std(0) > 0, train.std(0), 1)
    np.testing.assert_allclose(prepare(dataset.inputs), wanted, atol=1e-5)
    np.testing.assert_array_equal(augment(dataset.inputs, None, None), prepare(dataset.inputs))
    assert (np.asarray(prepare(dataset.inputs))[:, 2] == 0).all()


def test_pixels_are_normalised_by_the_training_part_or_by_the_config():
    dataset = images(n=800)
    pixels = dataset.inputs[dataset.rows("train")].astype(np.float64) / 255
    means, stds = setup.pixel_statistics(dataset)
    np.testing.assert_allclose(means, pixels.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(stds, pixels.std((0, 1, 2)), rtol=1e-6)
    given = {"augment__mean": (0.5, 0.4, 0.3), "augment__std": (0.1, 0.2, 0.3)}
    _, prepare = setup.input_functions(small_config(model__name="cnn", **given), dataset)
    wanted = (dataset.inputs / 255 - (0.5, 0.4, 0.3)) / (0.1, 0.2, 0.3)
    np.testing.assert_allclose(prepare(dataset.inputs), wanted, atol=1e-5)


def test_pixel_statistics_of_many_images_come_from_some_of_them():
    dataset = images(n=12000, shape=(2, 2, 1))
    rows = dataset.rows("train")
    assert len(rows) == 9000
    seen = dataset.inputs[rows[::5]] / 255
    means, _ = setup.pixel_statistics(dataset)
    np.testing.assert_allclose(means, [seen.mean()], rtol=1e-6)


def test_testing_takes_the_middle_and_training_some_crop():
    dataset = images(n=40)
    config = small_config(
        model__name="cnn", augment__crop=5, augment__mean=(0.0,) * 3, augment__std=(1.0,) * 3
    )
    augment, prepare = setup.input_functions(config, dataset)
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


@pytest.mark.parametrize(
    ("changes", "dataset", "words"),
    [
        ({"augment__crop": 9, "model__name": "cnn"}, images(8), "augment.crop is 9, .* 9 x 8"),
        (
            {"augment__flip": True, "model__name": "cnn"},
            images(8),
            "flip needs .*crop",
        ),
        (
            {"augment__mean": (0.5,), "augment__std": (0.5,), "model__name": "cnn"},
            images(8),
            "mean has 1 numbers for 3",
        ),
        ({"augment__flip": True}, features(), "are for images"),
        ({"model__name": "cnn"}, features(), "config.model.name to mlp"),
    ],
)
def test_inputs_that_do_not_fit_are_named(changes, dataset, words):
    with pytest.raises(UserError, match=words):
        setup.input_functions(small_config(**changes), dataset)


def test_loading_checks_the_batch_and_the_neighbours(tmp_path):
    source = {"data__source": "npz", "data__dir": str(digits_file(tmp_path))}
    published = source | {"data__split": "published"}
    setup.load(small_config(**published, evaluate__k_p=(1, 399), batch__size=400))
    for changes, words in (
        ({"evaluate__k_p": (1, 400)}, "k_p has 400, but leave-one-out leaves 399 of the 400"),
        ({"batch__size": 401}, "401 .* 400"),
        ({"batch__kind": "balanced", "batch__classes": 11, "batch__per_class": 9}, "classes 11"),
    ):
        with pytest.raises(UserError, match=words):
            setup.load(small_config(**published, **changes))


def test_a_batch_is_shared_evenly():
    dataset = setup.load(small_config())
    with pytest.raises(UserError, match=r"batch\.size is 63: the 4 devices"):
        setup.build(small_config(devices=4, batch__size=63), dataset)
    assert setup.build(small_config(devices=4), dataset).devices.size == 4


def test_batches_are_rows_of_the_training_part_whatever_was_asked_before():
    config = small_config()
    built = setup.build(config, setup.load(config))
    batches = built.batches(range(3, 9))
    assert batches.shape == (6, 64)
    assert set(batches.ravel()) <= set(built.dataset.rows("train").tolist())
    np.testing.assert_array_equal(built.batches(range(5, 6))[0], batches[2])
    assert built.total_steps == config.epochs * built.steps_per_epoch == 14


@pytest.mark.parametrize(
    ("shape", "steps"),
    [((30,), 100), ((8, 8, 1), 100), ((64, 64, 3), 1), ((224, 224, 3), 1), ((32, 32, 1), 21)],
)
def test_steps_in_one_call_shrink_as_inputs_grow(shape, steps):
    inputs = np.zeros((2, *shape), np.uint8)
    dataset = Dataset(inputs, np.zeros(2, np.int32), ("a", "b"), ("c",), np.array(["train"] * 2))
    assert setup._steps_per_call(small_config(batch__size=96), dataset) == steps
