"""From indices to arrays on the devices: the whole set once, or each call's examples."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from deepknn_jax.engine import hosts
from deepknn_jax.engine.parallel import Devices, replicate, shard
from deepknn_jax.engine.step import Call
from deepknn_jax.knn.sizes import filled_to
from deepknn_jax.mining.batches import Batches

# Of inputs that are kept in device memory where the device does not tell how large that is.
_RESIDENT_BYTES = 4 * 2**30
PLACEMENTS = ("auto", "device", "stream")


class Store(NamedTuple):
    """Inputs and labels [N] of all examples; `pool`: the inputs on each device, where they fit."""

    inputs: np.ndarray
    labels: Array
    pool: Array | None

    @property
    def streams(self) -> bool:
        """Whether each call brings its own examples."""
        return self.pool is None


def make_store(devices: Devices, inputs: np.ndarray, labels: np.ndarray, placement: str) -> Store:
    """Inputs [N, ...] and labels [N] placed as `placement`, one of PLACEMENTS, says."""
    resident = is_resident(devices, inputs.nbytes, placement)
    pool = replicate(devices, np.asarray(inputs)) if resident else None
    return Store(inputs, replicate(devices, labels), pool)


def is_resident(devices: Devices, nbytes: int, placement: str) -> bool:
    """Whether inputs of so many bytes are kept in the memory of each device."""
    fits = placement == "auto" and hosts.by_main(lambda: nbytes <= _most_bytes(devices))
    return placement == "device" or fits


def _most_bytes(devices: Devices) -> int:
    """Bytes of device memory that inputs may take: a quarter of it, the rest is for training."""
    stats = devices.mesh.local_devices[0].memory_stats() or {}
    return stats.get("bytes_limit", 4 * _RESIDENT_BYTES) // 4


def plan_calls(first: int, last: int, *, intervals: Sequence[int], most: int) -> list[range]:
    """The steps first..last-1 cut into calls of at most `most`.

    None goes across a multiple of one of the `intervals`: the steps of an epoch, or between two
    minings. Where a cut falls depends on the step alone, so a resumed run makes the same calls.
    """
    calls, step = [], first
    while step < last:
        start = max(step - step % interval for interval in intervals)
        end = min(step - step % interval + interval for interval in intervals)
        stop = min(start + ((step - start) // most + 1) * most, end, last)
        calls.append(range(step, stop))
        step = stop
    return calls


def train_calls(
    store: Store,
    devices: Devices,
    calls: Sequence[range],
    batches: Callable[[range], Batches],
    *,
    most: int,
) -> Iterator[Call]:
    """The arguments of each call in turn.

    Args:
        store: where the inputs are.
        devices: over which a batch is cut, evenly.
        calls: ranges of steps, each no longer than `most`.
        batches: a pure function, steps -> the examples of each.
        most: T, to which shorter calls are filled up so that all run one program.
    """

    def filled(call: range) -> Batches:
        return jax.tree.map(lambda x: filled_to(x, most), batches(call))

    if store.pool is not None:
        for call in calls:
            ids, mined = filled(call)
            yield Call(store.pool, store.labels, ids, ids, mined, len(call))
        return

    def load(number: int) -> tuple[np.ndarray, Batches, int]:
        found = filled(calls[number])
        return store.inputs[_own(found.ids, devices)], found, len(calls[number])

    for inputs, (ids, mined), steps in _ahead(len(calls), load):
        rows = _rows(ids, devices.size)
        yield Call(shard(devices, inputs), store.labels, rows, ids, mined, steps)


def _own(ids_TxB: np.ndarray, devices: Devices) -> np.ndarray:
    """The ids on this process's devices: all steps of its first device's part, ..."""
    parts = np.split(ids_TxB, devices.size, axis=1)
    return np.concatenate([parts[place].ravel() for place in devices.own])


def _rows(ids_TxB: np.ndarray, count: int) -> np.ndarray:
    """Where in its device's part of the pool each example is, for the order of `_own`."""
    steps, size = ids_TxB.shape
    local = np.arange(ids_TxB.size // count, dtype=np.int32).reshape(steps, size // count)
    return np.tile(local, (1, count))


def _ahead(count: int, load: Callable[[int], tuple]) -> Iterator[tuple]:
    """load(0), load(1), ... in order, loaded by threads ahead of their use."""
    import grain

    threads = min(16, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    yield from grain.MapDataset.range(count).map(load).to_iter_dataset(options)


def eval_batches(
    store: Store, devices: Devices, rows_n: np.ndarray, batch_size: int
) -> Iterator[tuple[Array, np.ndarray, int]]:
    """(pool, rows [B], count) to embed the examples `rows_n`, in order, each exactly once.

    The last batch is filled up with copies of its last row: only the first `count` rows are wanted.
    """
    batch_size += -batch_size % devices.size
    for start in range(0, len(rows_n), batch_size):
        wanted = rows_n[start : start + batch_size]
        ids = filled_to(wanted, batch_size)
        if store.pool is not None:
            yield store.pool, ids, len(wanted)
        else:
            inputs = shard(devices, store.inputs[_own(ids[None, :], devices)])
            yield inputs, _rows(ids[None, :], devices.size)[0], len(wanted)
