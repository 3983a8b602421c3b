"""Dropout of the MLP; what it shares with other backbones is in test_registry.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from deepknn_jax import models
from deepknn_jax.engine.parallel import collectives, get_devices
from deepknn_jax.engine.step import Recipe, TrainState, train_step
from deepknn_jax.errors import UserError
from deepknn_jax.losses.triplet import deep_knn_sums
from deepknn_jax.models.mlp import MLP
from deepknn_jax.models.network import Network

BATCH = 64


@pytest.fixture(scope="module")
def inputs():
    """Features [64, 9] and the MLP's variables on them."""
    x = jax.random.normal(jax.random.key(0), (BATCH, 9)) * jnp.arange(1.0, 10.0)[None, :]
    return x, jax.jit(MLP().init)(jax.random.key(1), x)


def embed(model, variables, x, key, train=True):
    found = model.apply(
        variables, x, train=train, rngs={"dropout": key}, mutable=["batch_stats"] if train else []
    )
    return found[0]


def hidden_of(dropout, variables, x, key):
    """What enters the second and the third layer [B, 512], [B, 256]."""
    entered = []

    def watch(call, args, kwargs, context):
        if isinstance(context.module, nn.Dense):
            entered.append(args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        embed(MLP(dropout=dropout), variables, x, key)
    return entered[1:]


@pytest.mark.parametrize("dropout", [0.2, 0.5])
def test_the_share_of_zeros_and_what_is_kept(inputs, dropout):
    """The first hidden layer: each number is 0, or itself over 1 - dropout."""
    x, variables = inputs
    (plain, _), (dropped, second) = (
        hidden_of(rate, variables, x, jax.random.key(2)) for rate in (0.0, dropout)
    )
    positive = np.asarray(plain) > 0
    zeroed = np.asarray(dropped == 0) & positive
    count, share = positive.sum(), zeroed.sum() / positive.sum()
    assert abs(share - dropout) < 4 * np.sqrt(dropout * (1 - dropout) / count)
    kept = positive & ~zeroed
    np.testing.assert_allclose(dropped[kept], plain[kept] / (1 - dropout), rtol=1e-6)
    # Of each example and of each unit some: no row or column is dropped as a whole.
    rows, columns = zeroed.sum(1) / positive.sum(1), zeroed.sum(0) / np.maximum(positive.sum(0), 1)
    assert 0 < rows.min() < rows.max() < 1
    assert np.std(columns[positive.sum(0) > 20]) > 0.02
    # The second layer has about half its numbers below 0 by the ReLU.
    assert abs(np.mean(second == 0) - (1 - (1 - dropout) / 2)) < 0.06


def test_the_expectation_is_kept(inputs):
    """Of what the second layer gives out, which is linear in what is dropped."""
    x, variables = inputs
    kernel = variables["params"]["Dense_1"]["kernel"]
    plain = hidden_of(0.0, variables, x, jax.random.key(0))[0] @ kernel

    @jax.jit
    def mean(keys):
        each = jax.vmap(lambda key: hidden_of(0.3, variables, x, key)[0] @ kernel)(keys)
        return each.mean(0), each.std(0)

    found, deviation = jax.device_get(mean(jax.random.split(jax.random.key(3), 400)))
    z = (found - plain) / (deviation / 20)
    assert np.abs(np.mean(z)) < 0.2
    assert 0.8 < np.std(z) < 1.2


def test_none_in_evaluation_and_none_at_0(inputs):
    x, variables = inputs
    wanted = embed(MLP(), variables, x, jax.random.key(0), train=False)
    found = MLP(dropout=0.5).apply(variables, x)  # no key is asked for
    np.testing.assert_array_equal(found, wanted)
    trained = MLP(dropout=0.0).apply(variables, x, train=True, mutable=["batch_stats"])[0]
    other = embed(MLP(dropout=0.5), variables, x, jax.random.key(0))
    assert np.abs(trained - other).max() > 0.1


def test_another_key_draws_another_mask_and_the_same_the_same(inputs):
    x, variables = inputs
    masks = [
        np.asarray(hidden_of(0.5, variables, x, jax.random.key(key))[0] == 0) for key in (5, 5, 6)
    ]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert np.mean(masks[0] != masks[2]) > 0.2


@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_four_devices_draw_what_one_draws(inputs, mode):
    x, variables = inputs
    key, devices = jax.random.key(7), get_devices(4, mode)
    wanted = embed(MLP(dropout=0.5), variables, x, key)
    model = MLP(dropout=0.5, bn_axis=devices.axis)

    def part(x):
        return embed(model, variables, x, key)

    if mode == "pmap":
        found = jax.pmap(part, axis_name=devices.axis)(x.reshape(4, -1, 9)).reshape(BATCH, -1)
    else:
        spec = P(devices.axis)
        mapped = jax.shard_map(
            part, mesh=devices.mesh, in_specs=spec, out_specs=spec, check_vma=False
        )
        found = jax.jit(mapped)(x)
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * scale)


def test_each_step_draws_anew(inputs):
    """Nothing but the step's number differs; without dropout it makes no difference."""
    x, variables = inputs
    labels, ids = jnp.arange(BATCH) % 2, jnp.arange(BATCH)
    state = TrainState(
        step=jnp.asarray(0), key=jax.random.key_data(jax.random.key(0)),
        params={"backbone": variables["params"]},
        batch_stats={"backbone": variables["batch_stats"]}, opt_state=optax.EmptyState(),
    )  # fmt: skip
    for dropout in (0.0, 0.5):
        recipe = Recipe(
            network=Network(MLP(dropout=dropout)), optimizer=optax.identity(),
            loss=functools.partial(deep_knn_sums, k=2, m=2, margin=1.0),
            augment=lambda x, ids, key: x, prepare=lambda x: x, seed=0,
        )  # fmt: skip
        run = jax.jit(functools.partial(train_step, recipe=recipe, collectives=collectives(None)))
        first, again, other = (
            float(run(state._replace(step=jnp.asarray(step)), x, labels, ids, {})[1].loss)
            for step in (0, 0, 1)
        )
        assert first == again
        assert (first == other) == (dropout == 0)


def test_no_other_backbone_has_dropout():
    assert models.build("mlp", dropout=0.25).dropout == 0.25
    for name in set(models.BACKBONES) - {"mlp"}:
        with pytest.raises(UserError, match=rf"{name} has no dropout.*`dropout` at 0"):
            models.build(name, dropout=0.25)
