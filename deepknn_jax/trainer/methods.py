"""What a config's method means: its loss as a function, and what it mines beside the batch."""

import functools
import math

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from deepknn_jax.data.dataset import TRAIN, Dataset
from deepknn_jax.engine.parallel import Devices, collectives, map_queries
from deepknn_jax.errors import UserError
from deepknn_jax.knn.neighbors import Spread, ids_at
from deepknn_jax.logs import say
from deepknn_jax.losses import base, cross_entropy, lmnn, local_margin, nca, triplet
from deepknn_jax.mining.local_triplets import mine_triplets
from deepknn_jax.mining.whole_set import Mining, nearest_in_set

METHODS = {
    "deep_knn": "deep kNN",
    "triplet": "triplet (batch hard)",
    "cross_entropy": "cross entropy",
    "weighted_cross_entropy": "weighted cross entropy",
    "nca": "NCA",
    "lmnn": "LMNN",
    "local_margin": "local margin",
    "max_margin": "max margin (MM)",
    "max_margin_hard": "max margin, hardest of the batch (MM-HardMin)",
}


def miner(config: ConfigDict, dataset: Dataset, devices: Devices, per_epoch: int) -> Mining | None:
    """What the config's loss needs beside the batch, None where that is nothing."""
    options, rows = config.loss, dataset.rows(TRAIN)
    labels, most = dataset.labels[rows], len(rows) - 1
    if config.neighbors == "dataset" and options.name != "deep_knn":
        raise UserError(
            f"config.neighbors=dataset is for config.loss.name=deep_knn, not {options.name}"
        )
    if options.name == "lmnn":
        return _lmnn_mining(dataset, options.k, per_epoch, config.batch.size)
    if options.name in ("local_margin", "max_margin"):
        return _triplet_mining(config, dataset, devices, per_epoch)
    if config.neighbors == "batch":
        return None
    interval = config.refresh_steps or per_epoch
    shape = interval, config.batch.size
    return Mining(
        mine=functools.partial(
            nearest_in_set,
            rows_N=rows,
            labels_N=labels,
            k=options.k,
            m=options.m,
            p=options.p,
            spread=_spread_over(devices),
        ),
        interval=interval,
        empty={
            "positives": np.full((*shape, min(options.k, most)), -1, np.int32),
            "negatives": np.full((*shape, min(options.m, most)), -1, np.int32),
        },
        embeds=True,
    )


def _lmnn_mining(dataset: Dataset, k: int, per_epoch: int, batch_size: int) -> Mining:
    """LMNN's targets: fixed neighbours of the same class among the standardised inputs."""
    rows = dataset.rows(TRAIN)
    inputs = dataset.inputs[rows].reshape(len(rows), -1)
    k = min(k, len(rows) - 1)
    targets_NxK = ids_at(lmnn.target_neighbors(inputs, dataset.labels[rows], k=k), rows)
    return Mining(
        mine=lambda bank, anchors_RxA, step: {"targets": targets_NxK[anchors_RxA]},
        interval=per_epoch,
        empty={"targets": np.full((per_epoch, batch_size, k), -1, np.int32)},
        embeds=False,
    )


def _triplet_mining(
    config: ConfigDict, dataset: Dataset, devices: Devices, per_epoch: int
) -> Mining:
    """Neighborhood Watch's triplets: drawn anew at the start of each epoch."""
    options, rows = config.loss, dataset.rows(TRAIN)
    local = options.name == "local_margin"
    shape = per_epoch, config.batch.size
    listed = np.full((*shape, options.draws), -1, np.int32)
    empty = {"positives": listed, "negatives": listed}
    if local:
        flags = np.zeros(shape, bool)
        empty |= {"outside": flags, "pushed": flags, "kth_positive": np.zeros(shape, np.float32)}
    mine = functools.partial(
        mine_triplets,
        rows_N=rows,
        labels_N=dataset.labels[rows],
        k=neighborhood_size(options.k, len(rows)),
        mine=local and options.mine,
        draws=options.draws,
        squared=options.squared,
        p=options.p,
        seed=config.seed,
        spread=_spread_over(devices),
    )
    return Mining(mine=mine, interval=per_epoch, empty=empty, embeds=local)


def _spread_over(devices: Devices) -> Spread:
    """Maps a search over the devices; the same search once."""
    return functools.lru_cache(functools.partial(map_queries, devices))


def neighborhood_size(k: int, count: int) -> int:
    """`k`, or for 0 the square root of the number of training examples, rounded up (section 4)."""
    return k or math.isqrt(count - 1) + 1


def loss_function(config: ConfigDict, dataset: Dataset, devices: Devices) -> base.LossFn:
    """The config's loss as a function of (anchors, gallery)."""
    options = config.loss
    match options.name:
        case "deep_knn" if config.neighbors == "dataset":
            return functools.partial(
                triplet.listed_triplet_sums, margin=options.margin, p=options.p
            )
        case "deep_knn":
            return functools.partial(
                triplet.deep_knn_sums, k=options.k, m=options.m, margin=options.margin, p=options.p
            )
        case "triplet":
            return functools.partial(
                triplet.batch_hard_triplet_sums, margin=options.margin, p=options.p
            )
        case "nca":
            return functools.partial(nca.nca_sums, temperature=options.temperature, log=options.log)
        case "lmnn":
            return functools.partial(lmnn.lmnn_anchor_sums, mu=options.mu, margin=options.margin)
        case "cross_entropy":
            return cross_entropy.cross_entropy_sums
        case "weighted_cross_entropy":
            weights_C = cross_entropy.balanced_class_weights(jnp.asarray(train_counts(dataset)))
            return functools.partial(cross_entropy.cross_entropy_sums, class_weights=weights_C)
        case "local_margin" | "max_margin" | "max_margin_hard":
            return _margin_loss(config, devices)
    raise UserError(f"config.loss.name is {options.name!r}: choose from {', '.join(METHODS)}")


def _margin_loss(config: ConfigDict, devices: Devices) -> base.LossFn:
    """The losses of Neighborhood Watch, with its penalty on means and variances of distances."""
    options = config.loss
    shared = {
        "weights": local_margin.Weights(
            options.w_lm, options.w_ms, options.w_md, options.w_ss, options.w_sd
        ),
        "reduction": options.reduction,
        "squared": options.squared,
        "p": options.p,
        "total": collectives(devices.axis).total,
    }
    if options.name != "local_margin":
        select = triplet.select_batch_hard
        if not options.hard_positives:
            select = local_margin.select_next_and_hardest
        return functools.partial(
            local_margin.max_margin_sums, margin=options.margin, select=select, **shared
        )
    least = local_margin.safe_c_b(squared=options.squared)
    if options.c_b < least:
        say(f"config.loss.c_b is {options.c_b:g}: the theorem on the kNN wants at least {least:g}")
    return functools.partial(
        local_margin.local_margin_sums, c_b=options.c_b, eps=options.eps, **shared
    )


def train_counts(dataset: Dataset) -> np.ndarray:
    """Training examples of each class [C]."""
    labels = dataset.labels[dataset.rows(TRAIN)]
    return np.bincount(labels, minlength=len(dataset.class_names))
