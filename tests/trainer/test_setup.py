"""From a config to functions: each against the same written out in numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from support.batches import images
from support.interop import import_vision
from support.optional import require
from support.runs import digits_file, small_config

from deepknn_jax.data.dataset import Dataset
from deepknn_jax.engine.parallel import get_devices
from deepknn_jax.errors import UserError
from deepknn_jax.knn.neighbors import Examples
from deepknn_jax.losses import base
from deepknn_jax.trainer import methods, recipe, setup


def test_the_rate_is_halved_every_so_many_epochs():
    config = small_config(optimizer__learning_rate=0.08, optimizer__halve_every_epochs=3)
    rate = recipe.learning_rate(config, 7)
    for step in (0, 20, 21, 41, 42, 62, 63):
        assert float(rate(step)) == pytest.approx(0.08 * 0.5 ** (step // 21), rel=1e-6)
    constant = recipe.learning_rate(small_config(optimizer__halve_every_epochs=0), 7)
    assert constant(0) == constant(10**6) == 0.01


def test_the_rate_follows_a_cosine_after_a_warmup():
    config = small_config(
        epochs=4, optimizer__schedule="cosine", optimizer__learning_rate=0.2,
        optimizer__warmup_epochs=0.5,
    )  # fmt: skip
    rate = recipe.learning_rate(config, 10)
    for step in (0, 3, 5, 20, 39, 40):
        share = min(1.0, (1 + step) / 6)
        wanted = share * 0.2 * (1 + np.cos(np.pi * step / 40)) / 2
        assert float(rate(step)) == pytest.approx(wanted, abs=1e-7)
    without = small_config(epochs=0, optimizer__schedule="cosine", optimizer__learning_rate=0.2)
    assert float(recipe.learning_rate(without, 10)(0)) == pytest.approx(0.2)  # and nothing trains


def test_nesterov_looks_ahead():
    config = small_config(
        optimizer__learning_rate=0.1, optimizer__momentum=0.9, optimizer__nesterov=True
    )
    gradients = [0.5, -1.0, 2.0]
    weight, velocity, wanted = 1.0, 0.0, []
    for gradient in gradients:
        velocity = 0.9 * velocity + gradient
        weight -= 0.1 * (gradient + 0.9 * velocity)
        wanted.append(weight)
    np.testing.assert_allclose(list(steps(config, gradients)), wanted, rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_decay_may_leave_vectors_alone(name):
    config = small_config(
        optimizer__name=name, optimizer__weight_decay=0.5, optimizer__decay_all=False
    )
    optimizer = recipe.optimizer(config, recipe.learning_rate(config, 10))
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    nothing = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(nothing, optimizer.init(params), params)
    assert (np.asarray(updates["kernel"]) < 0).all()
    assert (np.asarray(updates["bias"]) == 0).all()


def steps(config, gradients):
    """The parameter after each gradient, from 1."""
    optimizer = recipe.optimizer(config, recipe.learning_rate(config, 10))
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
        loss = methods.loss_function(small_config(**changes), dataset, get_devices(1, "shard_map"))
        return float(jax.jit(lambda: base.mean(loss(batch._replace(logits=logits), batch)))())

    options = {"loss__margin": 0.5, "loss__p": 1.0}
    found = value(loss__name="deep_knn", loss__k=2, loss__m=4, **options)
    wanted, _ = reference.triplet_loss(embeddings, labels, k=2, m=4, margin=0.5, p=1.0)
    assert found == pytest.approx(wanted, rel=1e-5)
    found = value(loss__name="triplet", **options)
    wanted, _ = reference.triplet_loss(embeddings, labels, margin=0.5, p=1.0, hard=True)
    assert found == pytest.approx(wanted, rel=1e-5)

    each = -np.asarray(jax.nn.log_softmax(logits))[np.arange(20), labels].astype(np.float64)
    assert value(loss__name="cross_entropy") == pytest.approx(each.mean(), rel=1e-5)
    counts = np.bincount(dataset.labels[dataset.splits == "train"])
    weights = (counts.sum() / (3 * counts))[labels]
    wanted = (weights * each).sum() / weights.sum()
    assert value(loss__name="weighted_cross_entropy") == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_head_only_where_the_loss_needs_one(name):
    config = small_config(loss__name=name, model__embedding_size=5, model__normalize=True)
    config.model.name = "cnn"
    schedule = optax.constant_schedule(0.1)
    network = recipe.training_recipe(
        config, images(), get_devices(1, "shard_map"), schedule
    ).network
    assert network.num_classes == (3 if "cross_entropy" in name else None)
    assert (network.backbone.embedding_size, network.normalize) == (5, True)
    assert network.backbone.bn_axis is None


def test_loading_checks_the_batch_and_the_neighbours(tmp_path):
    source = {"data__source": "npz", "data__dir": str(digits_file(tmp_path))}
    published = source | {"data__split": "published"}
    setup.load(small_config(**published, evaluate__k_p=(1, 399), batch__size=400))
    for changes, words in (
        ({"evaluate__k_p": (1, 400)}, "k_p has 400, but leave-one-out leaves 399 of the 400"),
        ({"batch__size": 401}, "401: choose 1 to the 400"),
        ({"batch__kind": "balanced", "batch__classes": 11, "batch__per_class": 9}, "classes is 11"),
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
    batches, mined = built.sampler(0, {})(range(3, 9))
    assert mined == {}
    assert batches.shape == (6, 64)
    assert set(batches.ravel()) <= set(built.dataset.rows("train").tolist())
    np.testing.assert_array_equal(built.sampler(0, {})(range(5, 6)).ids[0], batches[2])
    assert built.total_steps == config.epochs * built.steps_per_epoch == 14


@pytest.mark.parametrize(
    ("shape", "steps"),
    [((30,), 100), ((8, 8, 1), 100), ((64, 64, 3), 1), ((224, 224, 3), 1), ((32, 32, 1), 21)],
)
def test_steps_in_one_call_shrink_as_inputs_grow(shape, steps):
    inputs = np.zeros((2, *shape), np.uint8)
    dataset = Dataset(inputs, np.zeros(2, np.int32), ("a", "b"), ("c",), np.array(["train"] * 2))
    assert setup.steps_per_call(small_config(batch__size=96), dataset) == steps


def test_what_a_config_leaves_open_is_filled_in():
    config, weights = setup.resolve(small_config(), None)
    assert weights is None
    assert config.data.resize_rule == "square"
    assert tuple(config.augment.mean) == ()
    dataset = images(n=400)
    settled = setup.settle(small_config(model__name="cnn"), dataset)
    pixels = dataset.inputs[dataset.rows("train")] / 255
    np.testing.assert_allclose(settled.augment.mean, pixels.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(settled.augment.std, pixels.std((0, 1, 2)), rtol=1e-5)
    stored = settled.to_dict()
    again, _ = setup.resolve(small_config(model__name="cnn"), stored)
    assert tuple(again.augment.mean) == tuple(settled.augment.mean)
    given = small_config(augment__mean=(0.1,), augment__std=(0.2,))
    assert tuple(setup.resolve(given, stored)[0].augment.mean) == (0.1,)
    assert setup.settle(given, dataset) is given


@pytest.mark.interop
def test_published_weights_bring_their_preprocessing(tmp_path, capsys, monkeypatch):
    """A config may choose the resize rule; mean and deviation belong to the weights."""
    torch = require("torch")
    model = import_vision("torchvision.models").resnet18()
    model.bn1.running_var.uniform_(0.5, 2)
    path = tmp_path / "resnet18.pth"
    torch.save(model.state_dict(), path)
    given = {"model__name": "resnet18", "model__weights": str(path)}
    config, weights = setup.resolve(small_config(**given), None)
    told = "100 tensors of resnet18.pth are used; left out: fc.weight, fc.bias and 20 counters"
    assert told in capsys.readouterr().out
    np.testing.assert_allclose(config.augment.mean, (0.485, 0.456, 0.406))
    np.testing.assert_allclose(config.augment.std, (0.229, 0.224, 0.225))
    assert config.data.resize_rule == "short_side"
    squashed, _ = setup.resolve(small_config(data__resize_rule="square", **given), None)
    assert squashed.data.resize_rule == "square"
    other = small_config(augment__mean=(0.5,) * 3, augment__std=(0.5,) * 3, **given)
    with pytest.raises(UserError, match=r"augment\.mean is \(0\.5.*weights' own is \(0\.485"):
        setup.resolve(other, None)

    # A projection of its own beside the published weights.
    config.unlock().model.embedding_size = 7
    built = setup.build(config, images(n=200, shape=(40, 40, 3)), weights)
    state = setup.first_state(built)
    kernel = state.params["backbone"]["conv1"]["kernel"]
    expected = model.conv1.weight.detach().numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(kernel, expected)
    variance = state.batch_stats["backbone"]["bn1"]["var"]
    np.testing.assert_array_equal(variance, model.bn1.running_var)
    assert state.params["backbone"]["projection"]["kernel"].shape == (512, 7)

    config.augment.mean, config.augment.std = (0.5,), (0.5,)
    grey = setup.build(config, images(n=200, shape=(40, 40, 1)), weights)
    init = setup.init_state  # of which the shapes do: drawing takes seconds
    monkeypatch.setattr(
        setup, "init_state", lambda recipe, x: jax.eval_shape(functools.partial(init, recipe), x)
    )
    with pytest.raises(UserError, match=r"\[7, 7, 3, 64\] for conv1/kernel, .*other channels"):
        setup.first_state(grey)
