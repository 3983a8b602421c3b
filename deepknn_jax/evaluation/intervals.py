"""Figures of each class with 95 % intervals, by the percentile bootstrap over independent units.

What is drawn anew are patients or lesions where they are known, else images: images of one patient
are not independent, and intervals that take them so are too narrow (Efron & Tibshirani 1993).
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

LEVEL, DRAWS, FEW = 0.95, 1000, 20  # below FEW units an interval is rough, and is said to be
_ENTRIES = 2**22  # weights of draws that are held at a time
# Examples times classes, above which AUC has no interval, and none at all: it would take minutes.
_MOST_DRAWN, MOST_SCORED = 2**18, 2**24


class Judged(NamedTuple):
    """n answers whose truth is known.

    `labels` int [n]; `predicted` int [n], -1 where there was none; `scores` float [n, C], larger
    where a class is more likely, which AUC is of (None: no AUC); `groups` int [n] or None.
    """

    labels: np.ndarray
    predicted: np.ndarray
    scores: np.ndarray | None = None
    groups: np.ndarray | None = None


class _Drawn(NamedTuple):
    """Figures under d weightings of the units: acc, mcr [d], the others [d, C]; NaN: undefined."""

    acc: np.ndarray
    mcr: np.ndarray
    sensitivity: np.ndarray
    specificity: np.ndarray
    auc: np.ndarray


def fine_scores(shares_nxC: np.ndarray, nearest_nxC: np.ndarray) -> np.ndarray:
    """Scores float64 [n, C] for AUC: the share of the votes, equal shares ordered by nearness.

    With five voters a share has six values, and most images that nobody votes for would tie. So
    among equal shares (closer than 1e-6) a class counts more the nearer its nearest example is,
    beside the nearest of any other class: d_other / (d_own + d_other), between 0 and 1.

    Args:
        shares_nxC: of the votes.
        nearest_nxC: distances to the nearest example of each class; inf where there is none.
    """
    nearest = np.asarray(nearest_nxC, np.float64)
    if nearest.shape[1] == 1:
        return np.asarray(shares_nxC, np.float64)
    two = np.partition(nearest, 1, axis=1)[:, :2]
    others = np.where(nearest == two[:, :1], two[:, 1:], two[:, :1])
    with np.errstate(invalid="ignore"):
        nearness = np.where(np.isinf(others), 1.0, others / (nearest + others))
    nearness[(nearest == 0) & (others == 0)] = 0.5
    nearness[np.isinf(nearest)] = 0.0
    return np.asarray(shares_nxC, np.float64) + 1e-6 * nearness


def class_figures(
    judged: Judged,
    class_names: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """Sensitivity, specificity and AUC of each class, acc and mcr, with intervals; for JSON.

    AUC is of one class against the rest. A figure is {"value", "low", "high"}: None where it is
    undefined, or where there is no interval: fewer than 2 units, or examples, stand behind it.
    Where all draws are equal, as all answers of a class are right, a percentile would be a
    point: shares then have the exact binomial bounds (Clopper and Pearson) of as many units as
    there are, and mcr and AUC none. `units` counts groups or images; `few`: fewer than FEW.
    """
    labels = np.asarray(judged.labels)
    n, count = len(labels), len(class_names)
    unit_n = np.arange(n) if judged.groups is None else _numbered(judged.groups)
    units = int(unit_n.max()) + 1
    point = _figures(judged, unit_n, count, np.ones((1, units), np.float32), auc=True)
    parts = [
        _figures(judged, unit_n, count, weights, auc=n * count <= _MOST_DRAWN)
        for weights in draw_weights(units, draws, seed)
    ]
    drawn = _Drawn(*(np.concatenate(each) for each in zip(*parts, strict=True)))
    of_class, others = _units_of(labels, unit_n, count)
    images = np.bincount(labels, minlength=count)
    return {
        "level": LEVEL,
        "draws": draws,
        "unit": "images" if judged.groups is None else "groups",
        "units": units,
        "few": units < FEW,
        "acc": _figure(point.acc[0], drawn.acc, units, n, exact=True),
        "mcr": _figure(point.mcr[0], drawn.mcr, units, n, exact=False),
        "per_class": {
            name: {
                "n": int(images[c]),
                "units": of_class[c],
                "few": of_class[c] < FEW,
                "sensitivity": _figure(point.sensitivity[0, c], drawn.sensitivity[:, c],
                                       of_class[c], images[c], exact=True),
                "specificity": _figure(point.specificity[0, c], drawn.specificity[:, c],
                                       others[c], n - images[c], exact=True),
                "auc": _figure(point.auc[0, c], drawn.auc[:, c], min(of_class[c], others[c]),
                               min(images[c], n - images[c]), exact=False),
            }
            for c, name in enumerate(class_names)
        },
    }  # fmt: skip


def _numbered(groups_n: np.ndarray) -> np.ndarray:
    """0, 1, ... by first appearance, so that the draws do not depend on what groups are called."""
    _, first, number = np.unique(np.asarray(groups_n), return_index=True, return_inverse=True)
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    return place[number.reshape(-1)]


def _units_of(labels_n: np.ndarray, unit_n: np.ndarray, count: int) -> tuple[list, list]:
    """Of each class: how many units have examples of it, and how many have some of others."""
    pairs = np.unique(unit_n.astype(np.int64) * count + labels_n)
    unit, label = pairs // count, pairs % count
    of_class = np.bincount(label, minlength=count)
    alone = np.bincount(unit)[unit] == 1  # such a unit has examples of no other class
    others = int(unit_n.max()) + 1 - np.bincount(label[alone], minlength=count)
    return of_class.tolist(), others.tolist()


def draw_weights(units: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each unit is drawn: float32 [d, units] at a time, `draws` rows in all.

    As many are drawn as there are, with replacement; the same ones for the same seed.
    """
    rng = np.random.default_rng(seed)
    at_once = max(1, _ENTRIES // units)
    for start in range(0, draws, at_once):
        d = min(at_once, draws - start)
        chosen = rng.integers(units, size=(d, units)) + np.arange(d)[:, None] * units
        counts = np.bincount(chosen.ravel(), minlength=d * units)
        yield counts.reshape(d, units).astype(np.float32)


def _figures(
    judged: Judged, unit_n: np.ndarray, count: int, weights_dxU: np.ndarray, *, auc: bool
) -> _Drawn:
    labels, predicted = np.asarray(judged.labels), np.asarray(judged.predicted)
    right, voted = labels == predicted, predicted >= 0

    def sums(of_n: np.ndarray, classes_n: np.ndarray) -> np.ndarray:
        """[d, C]: how often the examples of each class are drawn."""
        units, classes = unit_n[of_n], classes_n[of_n]
        table = sparse.csr_matrix(
            (np.ones(len(units)), (classes, units)), (count, weights_dxU.shape[1])
        )
        return np.asarray((table @ weights_dxU.T).T, np.float64)

    images = sums(np.ones(len(labels), bool), labels)
    found, called = sums(right, labels), sums(voted, predicted)
    total = images.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        sensitivity = found / images
        specificity = 1 - (called - found) / (total - images)
    occurs = images > 0
    mcr = np.where(occurs, sensitivity, 0.0).sum(axis=1) / occurs.sum(axis=1)
    areas = np.full(images.shape, np.nan)
    for c, scores in enumerate(judged.scores.T if auc and judged.scores is not None else ()):
        areas[:, c] = _areas(scores, labels == c, unit_n, weights_dxU)
    return _Drawn(
        found.sum(axis=1) / total[:, 0],
        mcr,
        sensitivity,
        np.where(total > images, specificity, np.nan),
        areas,
    )


def _areas(
    scores_n: np.ndarray, positive_n: np.ndarray, unit_n: np.ndarray, weights_dxU: np.ndarray
) -> np.ndarray:
    """Area under the ROC curve [d], ties counted half, under each weighting; NaN without a pair."""
    order = np.argsort(scores_n, kind="stable")
    positive, ranked = positive_n[order], np.asarray(scores_n)[order]
    starts = np.flatnonzero(np.append(True, np.diff(ranked) != 0))
    areas = np.empty(len(weights_dxU))
    at_once = max(1, _ENTRIES // len(order))
    for start in range(0, len(areas), at_once):
        weights = weights_dxU[start : start + at_once, unit_n[order]].astype(np.float64)
        above = np.add.reduceat(np.where(positive, weights, 0.0), starts, axis=1)
        below = np.add.reduceat(np.where(positive, 0.0, weights), starts, axis=1)
        pairs = above.sum(axis=1) * below.sum(axis=1)
        won = (above * (np.cumsum(below, axis=1) - 0.5 * below)).sum(axis=1)
        with np.errstate(invalid="ignore"):
            areas[start : start + at_once] = won / pairs
    return areas


def _figure(
    value: float, drawn_d: np.ndarray, units: int, images: int, *, exact: bool
) -> dict[str, float | None]:
    if not np.isfinite(value):
        return {"value": None, "low": None, "high": None}
    found: dict[str, float | None] = {"value": float(value), "low": None, "high": None}
    there = drawn_d[np.isfinite(drawn_d)]
    if units < 2 or images < 2 or not len(there):
        return found
    tail = (1 - LEVEL) / 2
    if np.ptp(there) > 1e-12:
        low, high = np.quantile(there, (tail, 1 - tail))
    elif exact and value > 1 - 1e-12:
        low, high = tail ** (1 / units), 1.0
    elif exact and value < 1e-12:
        low, high = 0.0, 1 - tail ** (1 / units)
    else:
        return found
    return found | {"low": float(low), "high": float(high)}
