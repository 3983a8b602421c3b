import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.batches import BATCH, CLASSES, LOSSES, assert_close, make_recipe

from deepknn_jax.engine.parallel import (
    get_devices,
    map_embed,
    map_train_steps,
    replicate,
    shard,
)
from deepknn_jax.engine.step import Call, init_state
from deepknn_jax.errors import UserError
from deepknn_jax.knn.neighbors import Examples
from deepknn_jax.losses import lmnn, triplet
from deepknn_jax.mining.batches import with_partners
from deepknn_jax.mining.whole_set import nearest_in_set


def uneven_batch(dtype):
    """Features, labels and ids, of which the first eight, one device's, have few triplets."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(BATCH, 6)).astype(dtype)
    labels = rng.integers(0, 2, BATCH).astype(np.int32)
    ids = np.arange(BATCH, dtype=np.int32)
    labels[:7] = 2  # the class's only rows ...
    ids[:7] = 0  # ... and all copies of one example: no positives
    features[:7] = features[0]
    return features, labels, ids


@functools.cache
def first_state(loss, dtype):
    """In arrays of numpy, and made without an axis: outside the mapping there is none."""
    state = init_state(make_recipe(loss, None, dtype), jnp.zeros((1, 6), dtype))
    floating = lambda x: jnp.issubdtype(x.dtype, jnp.floating)  # noqa: E731
    return jax.tree.map(lambda x: np.asarray(x, dtype if floating(x) else x.dtype), state)


@functools.cache
def run_steps(count, mode, loss, dtype, *, steps=1, is_spread=False):
    """State and logs after the steps, from the same start on any devices."""
    devices = get_devices(count, mode)
    recipe, state = make_recipe(loss, devices.axis, dtype), first_state(loss, dtype)
    features, labels, ids = uneven_batch(dtype)
    rows = np.tile(np.arange(BATCH, dtype=np.int32), (steps, 1))
    # `labels` stand at the ids in a data set; here copies share an id and a label.
    labels_by_id = np.zeros(BATCH, np.int32)
    labels_by_id[ids] = labels
    pool = replicate(devices, features)
    if is_spread:
        pool = shard(devices, features)
        rows = np.tile(np.arange(BATCH // devices.size, dtype=np.int32), (steps, devices.size))
    train = map_train_steps(devices, recipe, pool_is_cut=is_spread)
    ids = np.tile(ids, (steps, 1))
    call = Call(pool, labels_by_id, rows, ids, {}, steps)
    return jax.device_get(train(replicate(devices, state), call))


def test_the_first_shard_has_far_fewer_triplets():
    features, labels, ids = uneven_batch(np.float32)
    everyone = Examples(jnp.asarray(features), labels, ids, np.ones(BATCH, bool))
    counts = [
        float(LOSSES["deep_knn"](jax.tree.map(lambda x, p=p: x[p], everyone), everyone).weight)
        for p in np.split(np.arange(BATCH), 4)
    ]
    assert counts[0] * 5 < min(counts[1:])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_four_devices_give_the_one_device_step_in_float64(mode, loss):
    with jax.enable_x64(True):
        expected, expected_log = run_steps(1, "shard_map", loss, np.float64)
        found, log = run_steps(4, mode, loss, np.float64)
        # sgd with momentum: the trace after one step is the gradient itself.
        assert_close(found.opt_state, expected.opt_state, 1e-9)
        assert_close(found.params, expected.params, 1e-9)
        assert_close(found.batch_stats, expected.batch_stats, 1e-9)
        assert log.loss.dtype == np.float64
        assert_close(log, expected_log, 1e-9)


@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_float32_losses_agree_to_1e5(mode):
    """Of the first of two steps."""
    _, expected = run_steps(1, mode, "deep_knn", np.float32, steps=2)
    _, log = run_steps(4, mode, "deep_knn", np.float32, steps=2)
    np.testing.assert_allclose(log.loss[0], expected.loss[0], rtol=1e-5)


@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_a_spread_pool_gives_what_a_whole_one_gives(mode):
    whole, _ = run_steps(4, mode, "deep_knn", np.float32, steps=2)
    parts, _ = run_steps(4, mode, "deep_knn", np.float32, steps=2, is_spread=True)
    jax.tree.map(np.testing.assert_array_equal, parts, whole)


@pytest.mark.parametrize("mode", ["shard_map", "pmap"])
def test_embedding_is_the_same_on_four_devices(mode):
    features, _, _ = uneven_batch(np.float32)
    results = []
    for count in (1, 4):
        devices = get_devices(count, mode)
        state = first_state("deep_knn", np.float32)
        embed = map_embed(devices, make_recipe("deep_knn", devices.axis), pool_is_cut=False)
        variables = replicate(devices, (state.params, state.batch_stats))
        rows = np.arange(BATCH, dtype=np.int32)[::-1].copy()
        results.append(embed(*variables, replicate(devices, features), rows))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), *results)
    assert results[0][0].shape == (BATCH, 8)
    assert results[0][1].shape == (BATCH, CLASSES)


def test_more_devices_than_there_are():
    with pytest.raises(UserError, match=r"`devices` is 5, but this machine shows 4"):
        get_devices(5, "shard_map")
    assert get_devices(0, "shard_map").size == 4  # 0: all


MINED_LOSSES = {
    "deep_knn": functools.partial(triplet.listed_triplet_sums, margin=1.0),
    "lmnn": functools.partial(lmnn.lmnn_anchor_sums, mu=0.4, margin=3.0),
}


@functools.cache
def mined_step(count, mode, places, loss):
    """One step over mined neighbours: 16 anchors of 60 examples, in float64."""
    devices = get_devices(count, mode)
    rng = np.random.default_rng(1)
    labels = rng.choice(3, 60, p=[0.7, 0.2, 0.1]).astype(np.int32)
    features = rng.normal(size=(60, 6)) + labels[:, None]
    recipe = make_recipe("deep_knn", devices.axis, np.float64)._replace(loss=MINED_LOSSES[loss])
    rows = np.arange(60, dtype=np.int32)
    anchors = np.random.default_rng(2).permutation(60)[None, :16].astype(np.int32)
    mined = nearest_in_set(features, anchors, 0, rows_N=rows, labels_N=labels, k=3, m=2, p=2.0)
    if loss == "lmnn":
        mined = {"targets": mined["positives"]}
    ids = with_partners(anchors, mined, rows, devices=devices.size)
    assert devices.size == 1 or ids.shape == (1, places)
    ids = np.pad(ids, ((0, 0), (0, places - ids.shape[1])), constant_values=-1)
    assert (ids < 0).any()
    train = map_train_steps(devices, recipe, pool_is_cut=False)
    state, pool = (
        replicate(devices, first_state("deep_knn", np.float64)),
        replicate(devices, features),
    )
    return jax.device_get(train(state, Call(pool, labels, ids, ids, mined, 1)))


@pytest.mark.parametrize("loss", MINED_LOSSES)
@pytest.mark.parametrize(
    ("count", "mode", "places"), [(1, "shard_map", 128), (4, "shard_map", 64), (4, "pmap", 64)]
)
def test_mined_neighbours_give_the_same_with_padding_and_on_four_devices(count, mode, places, loss):
    with jax.enable_x64(True):
        expected, expected_log = mined_step(1, "shard_map", 64, loss)
        assert 0 < expected_log.active[0] < 1
        found, log = mined_step(count, mode, places, loss)
        assert_close(found._asdict(), expected._asdict(), 1e-9)
        assert_close(log._asdict(), expected_log._asdict(), 1e-9)
