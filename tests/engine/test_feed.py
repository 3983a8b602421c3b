import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepknn_jax.engine.feed import eval_batches, make_store, plan_calls, train_calls
from deepknn_jax.engine.parallel import get_devices
from deepknn_jax.mining.batches import Batches

INPUTS = np.arange(40, dtype=np.float32)[:, None] * np.ones((1, 3), np.float32)
LABELS = np.arange(40, dtype=np.int32) % 4


@given(
    st.integers(0, 50), st.integers(1, 60), st.integers(1, 13), st.integers(1, 9),
    st.integers(1, 20),
)  # fmt: skip
def test_calls_cover_each_step_once_and_do_not_depend_on_the_start(
    first, more, per_epoch, most, between
):
    last = first + more
    options = {"intervals": (per_epoch, between), "most": most}
    calls = plan_calls(first, last, **options)
    assert [step for call in calls for step in call] == list(range(first, last))
    for call in calls:
        assert 1 <= len(call) <= most
        for interval in options["intervals"]:
            assert call.start // interval == (call.stop - 1) // interval
    whole = {call.stop for call in plan_calls(0, last, **options)}
    assert {call.stop for call in calls} <= whole


def batches(steps):
    """Eight of the forty, of which what was mined are numbers that belong to the ids."""
    ids = np.stack([np.random.default_rng(step).permutation(40)[:8] for step in steps])
    return Batches(ids, {"doubled": 2 * ids[:, :, None]})


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("placement", ["device", "stream"])
def test_every_device_finds_its_examples(size, placement):
    devices = get_devices(size, "shard_map")
    store = make_store(devices, INPUTS, LABELS, placement)
    calls = plan_calls(3, 9, intervals=(5,), most=2)
    for steps, call in zip(calls, train_calls(store, devices, calls, batches, most=2), strict=True):
        assert call.steps == len(steps)
        assert call.rows.shape == call.ids.shape == (2, 8)
        np.testing.assert_array_equal(call.ids[: len(steps)], batches(steps).ids)
        np.testing.assert_array_equal(call.mined["doubled"], 2 * call.ids[:, :, None])
        for number, shard in enumerate(call.pool.addressable_shards):
            mine = slice(number * 8 // size, (number + 1) * 8 // size)
            seen = np.asarray(shard.data)[call.rows[:, mine]]
            np.testing.assert_array_equal(seen, INPUTS[call.ids[:, mine]])


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("placement", ["device", "stream"])
@pytest.mark.parametrize("count", [1, 5, 16, 37])
def test_evaluation_sees_each_example_once_in_order(size, placement, count):
    devices = get_devices(size, "shard_map")
    store = make_store(devices, INPUTS, LABELS, placement)
    wanted = np.random.default_rng(0).permutation(40)[:count].astype(np.int32)
    seen = []
    for pool, rows, filled in eval_batches(store, devices, wanted, 6):
        assert len(rows) % size == 0
        cut = np.split(rows, size)
        shards = [np.asarray(shard.data) for shard in pool.addressable_shards]
        batch = np.concatenate([s[r] for s, r in zip(shards, cut, strict=True)])
        seen.append(batch[:filled])
    np.testing.assert_array_equal(np.concatenate(seen), INPUTS[wanted])


def test_auto_keeps_a_small_set_on_the_device():
    devices = get_devices(1, "shard_map")
    assert not make_store(devices, INPUTS, LABELS, "auto").streams
    huge = np.broadcast_to(np.float32(0), (2**31, 4))  # 32 GiB, of which none exist
    assert make_store(devices, huge, LABELS, "auto").streams
