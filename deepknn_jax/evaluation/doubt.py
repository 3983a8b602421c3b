"""Conformal prediction on nearest neighbours: p-values, sets of classes, and when to abstain.

After Papernot & McDaniel (arXiv 1803.04765), with the ratio of distances as the score and, for the
sets, one calibration for each class (Mondrian). Valid only where the calibration images come from
where the new ones come from and have not trained the network.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deepknn_jax.knn.distances import pairwise_distances
from deepknn_jax.knn.sizes import filled_to, rounded_up

_ENTRIES = 2**24  # of the distances that are held at a time
# Outside of jit its loop would be compiled anew at each call, and kept.
_distances = jax.jit(pairwise_distances, static_argnames=("p",))


class Calibration(NamedTuple):
    """Scores [n] of calibration examples for their own classes `labels` int [n]; `classes`: C."""

    scores: np.ndarray
    labels: np.ndarray
    classes: int

    @property
    def counts(self) -> np.ndarray:
        """Calibration examples int [C] of each class."""
        return np.bincount(self.labels, minlength=self.classes)


class Curve(NamedTuple):
    """Error among the answered and share answered, [m] each, by ascending `thresholds` [m]."""

    thresholds: np.ndarray
    coverage: np.ndarray
    error: np.ndarray


class NearestOfClasses(NamedTuple):
    """Distances float32 [Q, M] of queries to the k nearest of each class, in any order.

    `owners` int [M] are the columns' classes, of `classes`: a class of n has min(k, n) columns.
    """

    distances: np.ndarray
    owners: np.ndarray
    classes: int
    k: int


def nearest_of_classes(
    queries_QxD: np.ndarray,
    gallery_GxD: np.ndarray,
    gallery_labels_G: np.ndarray,
    *,
    num_classes: int,
    k: int = 5,
    p: float = 2.0,
    query_groups_Q: np.ndarray | None = None,
    gallery_groups_G: np.ndarray | None = None,
) -> NearestOfClasses:
    """The nearest of each class; G >= 1. Groups, int [Q] and [G], leave a query's own out: inf.

    Both sides are filled up to few sizes, so that a gallery that grows meets compiled programs.

    Raises:
        ValueError: groups of one side only; k below 1.
    """
    if (query_groups_Q is None) != (gallery_groups_G is None):
        raise ValueError("give query_groups_Q and gallery_groups_G both, or neither")
    if k < 1:
        raise ValueError(f"k = {k} is below 1")
    order = np.argsort(gallery_labels_G, kind="stable")
    labels = np.asarray(gallery_labels_G)[order]
    ends = np.searchsorted(labels, np.arange(num_classes + 1))
    kept = np.minimum(np.diff(ends), k)
    # From the first row on again: the centre, which the product measures from, stays the data's.
    again = np.arange(rounded_up(len(order))) % len(order)
    gallery = jnp.asarray(np.asarray(gallery_GxD)[order[again]])
    found = np.empty((len(queries_QxD), kept.sum()), np.float32)
    block = min(max(1, _ENTRIES // len(gallery)), rounded_up(len(queries_QxD)))
    for start in range(0, len(queries_QxD), block):
        queries = np.asarray(queries_QxD)[start : start + block]
        rows = slice(start, start + len(queries))
        distances = np.array(_distances(jnp.asarray(filled_to(queries, block)), gallery, p=p))
        distances = distances[: len(queries), : len(order)]
        if query_groups_Q is not None and gallery_groups_G is not None:
            own = np.asarray(query_groups_Q)[rows, None] == np.asarray(gallery_groups_G)[order]
            distances[own] = np.inf
        found[rows] = np.concatenate(
            [
                np.partition(distances[:, low:high], n - 1)[:, :n]
                for low, high, n in zip(ends[:-1], ends[1:], kept, strict=True)
                if n
            ],
            axis=1,
        )
    return NearestOfClasses(found, np.repeat(np.arange(num_classes), kept), num_classes, k)


def to_nearest(near: NearestOfClasses) -> np.ndarray:
    """The distance to the nearest of each class, float32 [Q, C]; inf for one that has none."""
    found = np.full((len(near.distances), near.classes), np.inf, np.float32)
    for c in range(near.classes):
        found[:, c] = near.distances[:, near.owners == c].min(axis=1, initial=np.inf)
    return found


def ratio_scores(
    queries_QxD: np.ndarray, gallery_GxD: np.ndarray, gallery_labels_G: np.ndarray, **options: Any
) -> np.ndarray:
    """`ratios` of the nearest of each class: options of `nearest_of_classes`."""
    return ratios(nearest_of_classes(queries_QxD, gallery_GxD, gallery_labels_G, **options))


def ratios(near: NearestOfClasses) -> np.ndarray:
    """How strange each query would be in each class: float64 [Q, C], at least 0.

    The mean distance to the k nearest of the class over that to the k nearest of all others; of
    fewer where there are fewer, inf for a class of which none is there.
    """
    block = max(1, _ENTRIES // max(1, len(near.owners)))
    parts = [
        _ratios(near.distances[start : start + block], near.owners, near.classes, near.k)
        for start in range(0, len(near.distances), block)
    ]
    return np.concatenate(parts) if parts else np.empty((0, near.classes))


def _ratios(nearest_bxM: np.ndarray, owners_M: np.ndarray, classes: int, k: int) -> np.ndarray:
    """Scores [b, C] from each class's nearest distances, whose classes are `owners_M`."""
    nearest = nearest_bxM.astype(np.float64)
    there = np.isfinite(nearest)
    own = np.full((len(nearest), classes), np.inf)
    others = np.full((len(nearest), classes), np.inf)
    # A class holds at most k of them, so the k nearest of all others are among the first 2 k.
    first = np.argsort(nearest, axis=1, kind="stable")[:, : 2 * k]
    ranked, ranked_owners = np.take_along_axis(nearest, first, axis=1), owners_M[first]
    for c in range(classes):
        own[:, c] = _mean(nearest[:, owners_M == c], there[:, owners_M == c])
        may = (ranked_owners != c) & np.isfinite(ranked)
        others[:, c] = _mean(ranked, may & (np.cumsum(may, axis=1) <= k))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = own / others
    ratio[(own == 0) & (others == 0)] = 1.0  # copies on both sides
    ratio[np.isinf(own)] = np.inf
    return ratio


def _mean(values_bxm: np.ndarray, where_bxm: np.ndarray) -> np.ndarray:
    """Mean [b] of what is there; inf where nothing is."""
    count = where_bxm.sum(axis=1)
    total = np.where(where_bxm, values_bxm, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.inf)


def p_values(scores_QxC: np.ndarray, calibration: Calibration) -> np.ndarray:
    """p-values float64 [Q, C], class by class (Mondrian), not smoothed.

    The share of a class's calibration examples, the query counted among them, that are as strange
    as the query. NaN for a class without calibration examples: nothing can be said of it.
    """
    p_QxC = np.full(np.shape(scores_QxC), np.nan)
    for c in np.flatnonzero(calibration.counts):
        own = calibration.scores[calibration.labels == c]
        p_QxC[:, c] = _share_as_strange(np.asarray(scores_QxC)[:, c], own)
    return p_QxC


def marginal_p_values(scores_QxC: np.ndarray, calibration: Calibration) -> np.ndarray:
    """p-values float64 [Q, C] against all calibration examples, whatever their class."""
    return _share_as_strange(np.asarray(scores_QxC), calibration.scores)


def _share_as_strange(scores: np.ndarray, calibration_n: np.ndarray) -> np.ndarray:
    ascending = np.sort(calibration_n)
    at_least = len(ascending) - np.searchsorted(ascending, scores, side="left")
    share: np.ndarray = (at_least + 1) / (len(ascending) + 1)
    return share


def prediction_sets(p_QxC: np.ndarray, *, level: float) -> np.ndarray:
    """Bool [Q, C]: the classes that cannot be ruled out at `level`, such as 0.9.

    Of each class's new images a share of `level` or more has its class in its set. A class without
    a p-value is in every set, and so is one with too few calibration examples: see `too_few`.

    Raises:
        ValueError: level outside 0..1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level = {level} is outside 0..1")
    # The margin takes in 1 - 0.9 = 0.09999999999999998.
    inside: np.ndarray = ~(p_QxC <= 1 - level + 1e-12)
    return inside


def too_few(calibration: Calibration, *, level: float) -> np.ndarray:
    """Bool [C]: classes that no score could rule out at `level`, for want of calibration."""
    return prediction_sets(1 / (calibration.counts[None, :] + 1), level=level)[0]


def credibility(p_QxC: np.ndarray) -> np.ndarray:
    """The largest p-value [Q]: how well the query fits anywhere; NaN where there is none."""
    found: np.ndarray = np.fmax.reduce(p_QxC, axis=1)
    return found


def error_coverage(credibility_n: np.ndarray, wrong_n: np.ndarray) -> Curve:
    """What is answered, and how wrong, where answers of lower credibility are withheld.

    Args:
        credibility_n: [n], of examples whose answers are known.
        wrong_n: bool [n].
    """
    order = np.argsort(-credibility_n, kind="stable")
    sorted_, wrong = np.asarray(credibility_n)[order], np.cumsum(np.asarray(wrong_n)[order])
    last = np.flatnonzero(np.append(np.diff(sorted_) != 0, True))  # of equals, all or none
    answered = last + 1
    return Curve(
        sorted_[last][::-1],
        (answered / len(order))[::-1],
        (wrong[last] / answered)[::-1],
    )


def abstain_threshold(curve: Curve, *, error: float) -> float:
    """The least credibility to answer at, so that at most `error` of the answers were wrong.

    inf where no threshold gives that: then nothing is answered.
    """
    good = np.flatnonzero(curve.error <= error)
    return float(curve.thresholds[good[0]]) if len(good) else float("inf")
