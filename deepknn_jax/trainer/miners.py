"""The miners, one for each way in which anchors get what they are trained against.

A miner is a function of what it must know of the training (`Run`) and, by their names, of the
options of config.loss that it reads; it returns a Mining. METHODS (methods.py) names them.
"""

import functools
from typing import NamedTuple

import numpy as np

from deepknn_jax.data.dataset import TRAIN, Dataset
from deepknn_jax.engine.inputs import are_features
from deepknn_jax.engine.parallel import Devices
from deepknn_jax.knn.neighbors import ids_at
from deepknn_jax.knn.sharded import searcher
from deepknn_jax.mining.batches import Mining
from deepknn_jax.mining.local_triplets import mine_triplets, neighborhood_size
from deepknn_jax.mining.whole_set import nearest_in_set


class Run(NamedTuple):
    """What a miner must know of the training."""

    dataset: Dataset
    devices: Devices
    batch_size: int
    steps_per_epoch: int
    refresh_steps: int
    seed: int


def nearest_in_the_set(run: Run, *, k: int, m: int, p: float) -> Mining:
    """Deep kNN's neighbours in the whole training set, searched anew every `refresh_steps`."""
    rows = run.dataset.rows(TRAIN)
    shape, most = (run.refresh_steps, run.batch_size), len(rows) - 1
    return Mining(
        mine=functools.partial(
            nearest_in_set,
            rows_N=rows,
            labels_N=run.dataset.labels[rows],
            k=k,
            m=m,
            p=p,
            nearest=searcher(run.devices.mesh),
        ),
        interval=run.refresh_steps,
        empty={
            "positives": np.full((*shape, min(k, most)), -1, np.int32),
            "negatives": np.full((*shape, min(m, most)), -1, np.int32),
        },
        embeds=True,
    )


def fixed_targets(run: Run, *, targets: int) -> Mining:
    """LMNN's targets: neighbours of the same class among the standardised inputs, found once.

    Of features in views, among their averages.
    """
    rows = run.dataset.rows(TRAIN)
    inputs = run.dataset.inputs[rows]
    if are_features(inputs) and inputs.ndim > 2:
        inputs = inputs.mean(axis=1)
    inputs = inputs.reshape(len(rows), -1)
    k = min(targets, len(rows) - 1)
    labels, places = run.dataset.labels[rows], np.arange(len(rows), dtype=np.int32)
    _, found = searcher(run.devices.mesh)(
        inputs,
        inputs,
        k=k,
        query_ids=places,
        gallery_ids=places,
        query_labels=labels,
        gallery_labels=labels,
        same_class=True,
    )
    targets_NxK = ids_at(found, rows)
    return Mining(
        mine=lambda bank, anchors_RxA, step: {"targets": targets_NxK[anchors_RxA]},
        interval=run.steps_per_epoch,
        empty={"targets": np.full((run.steps_per_epoch, run.batch_size, k), -1, np.int32)},
        embeds=False,
    )


def neighborhood_triplets(
    run: Run, *, neighborhood: int, mine: bool, draws: int, squared: bool, p: float
) -> Mining:
    """Neighborhood Watch's triplets and d_{a,k+}, drawn and measured at each epoch's start."""
    shape = run.steps_per_epoch, run.batch_size
    flags = np.zeros(shape, bool)
    return Mining(
        mine=functools.partial(
            _mine_triplets(run, draws),
            k=neighborhood_size(neighborhood, len(run.dataset.rows(TRAIN))),
            mine=mine,
            squared=squared,
            p=p,
        ),
        interval=run.steps_per_epoch,
        empty=_no_triplets(run, draws)
        | {"outside": flags, "pushed": flags, "kth_positive": np.zeros(shape, np.float32)},
        embeds=True,
    )


def random_triplets(run: Run, *, draws: int) -> Mining:
    """MM's triplets: a positive of the anchor's class, a negative of any other, anew each epoch."""
    return Mining(
        mine=_mine_triplets(run, draws),
        interval=run.steps_per_epoch,
        empty=_no_triplets(run, draws),
        embeds=False,
    )


def _mine_triplets(run: Run, draws: int) -> functools.partial:
    rows = run.dataset.rows(TRAIN)
    return functools.partial(
        mine_triplets,
        rows_N=rows,
        labels_N=run.dataset.labels[rows],
        draws=draws,
        seed=run.seed,
        nearest=searcher(run.devices.mesh),
    )


def _no_triplets(run: Run, draws: int) -> dict[str, np.ndarray]:
    listed = np.full((run.steps_per_epoch, run.batch_size, draws), -1, np.int32)
    return {"positives": listed, "negatives": listed}
