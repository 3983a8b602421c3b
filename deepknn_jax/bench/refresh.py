"""What an epoch of Neighborhood Watch costs: its refresh (embedding and search), and its steps."""

import functools
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deepknn_jax import config
from deepknn_jax.bench.timing import Row
from deepknn_jax.data.dataset import TRAIN, Dataset
from deepknn_jax.knn.neighbors import nearest_neighbors
from deepknn_jax.mining.local_triplets import (
    kth_positive_by_class,
    mine_triplets,
    neighborhood_size,
)
from deepknn_jax.trainer import assess, loop
from deepknn_jax.trainer.setup import Setup, build, first_state

SIZES = (10_000, 50_000)  # training images of MNIST's size
# Anchors, gallery, k: a whole search, and a hundredth of a million's; the rest is extrapolated.
LARGE = ((100_000, 100_000, 5), (10_000, 1_000_000, 200), (10_000, 1_000_000, 1000))
_CLASSES, _WIDTH, _STEPS = 10, 128, 40


def measure(
    sizes: Sequence[int] = SIZES,
    large: Sequence[tuple[int, int, int]] = LARGE,
    *,
    repeats: int = 3,
) -> Iterator[Row]:
    """Rows of each size: embedding, both searches, and an epoch's steps, from 40 of them."""
    for size in sizes:
        options = _options()
        setup = build(options, _made_up(size))
        k = neighborhood_size(0, size)
        variables = assess.variables_of(first_state(setup))
        embed = functools.partial(assess.embed_split, options, setup, variables, TRAIN)
        bank = embed().embeddings
        labels = setup.dataset.labels
        yield _row(f"embedding, n {size}", embed, repeats)
        within = functools.partial(kth_positive_by_class, bank, labels, k=k, p=2.0, squared=False)
        yield _row(f"LM: search within {_CLASSES} classes, n {size}, k {k}", within, repeats)
        yield _row(
            f"LM-Mining: both searches and draws, n {size}, k {k}",
            functools.partial(_mine, bank, labels, k),
            repeats,
        )
        yield _steps_row(options, setup, size, repeats)
    for anchors, gallery, k in large:
        rng = np.random.default_rng(0)
        rows = jnp.asarray(rng.normal(size=(gallery, _WIDTH)), jnp.float32)
        search = jax.jit(functools.partial(nearest_neighbors, k=k))
        call = functools.partial(search, rows[:anchors], rows)
        yield _row(f"{k}-NN of {anchors} anchors in {gallery} x {_WIDTH}", call, 1)


def _options() -> Any:
    options = config.default()
    options.update_from_flattened_dict(
        {
            "model.name": "mnist_cnn",
            "loss.name": "local_margin",
            "loss.neighborhood": 0,
            "batch.size": 128,
            "optimizer.name": "adam",
            "optimizer.learning_rate": 1e-4,
            "devices": 1,
        }
    )
    return options


def _made_up(size: int) -> Dataset:
    rng = np.random.default_rng(0)
    return Dataset(
        inputs=rng.integers(0, 256, (size, 28, 28, 1), np.uint8),
        labels=rng.integers(0, _CLASSES, size).astype(np.int32),
        names=tuple(map(str, range(size))),
        class_names=tuple(map(str, range(_CLASSES))),
        splits=np.full(size, TRAIN),
    )


def _mine(bank: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    rows = np.arange(len(labels), dtype=np.int32)
    found = mine_triplets(
        bank, rows[None, :], 0, rows_N=rows, labels_N=labels, k=k, mine=True, draws=1,
        squared=False, p=2.0, seed=0,
    )  # fmt: skip
    return found["kth_positive"]


def _steps_row(options: Any, setup: Setup, size: int, repeats: int) -> Row:
    """An epoch's steps, from the seconds that the trainer counts for some of them."""
    limited = setup._replace(total_steps=2 * _STEPS)
    assert setup.mining is not None
    empty, load = setup.mining.empty, os.getloadavg()[0]

    def run() -> float:
        seconds: dict[str, float] = {}
        calls = loop.train(options, limited, first_state(setup), empty, seconds)
        for _ in itertools.takewhile(lambda made: made[2]["step"] < limited.total_steps, calls):
            pass
        done = limited.total_steps - setup.steps_per_call
        return seconds["training"] / done * setup.steps_per_epoch

    taken = sorted(run() for _ in range(repeats))[repeats // 2]
    return Row(f"an epoch's {setup.steps_per_epoch} steps, n {size}", {"xla": 1e3 * taken}, load)


def _row(task: str, call: Callable[[], Any], repeats: int) -> Row:
    """The median of `repeats` calls after the one that compiles; none of them is short."""
    load, seconds = os.getloadavg()[0], []
    jax.block_until_ready(call())
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return Row(task, {"xla": 1e3 * statistics.median(seconds)}, load)
