"""The vote's operating point: what a correction for the classes' sizes trades, and the best of it.

Votes of class c count n_c^-tau (`knn.vote.VoteRule`). As tau grows from 0 to 1 rare classes' recall
rises at others' cost; the neighbours are the same, so that the whole curve costs one search.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from deepknn_jax.evaluation import pictures
from deepknn_jax.evaluation.evaluate import Evidence, voters_of
from deepknn_jax.evaluation.metrics import classification_metrics, score
from deepknn_jax.knn.vote import VoteRule, Weights, elect, weights_of

POWERS = tuple(i / 10 for i in range(11))


class Point(NamedTuple):
    """One point of a curve: tau, and the figures of the vote with it (`classification_metrics`)."""

    class_size_power: float
    acc: float
    mcr: float
    rs: float


Curves = dict[int, tuple[Point, ...]]  # by K_p, each by ascending tau


def predictions(
    evidence: Evidence,
    labels_N: np.ndarray,
    *,
    class_counts: np.ndarray,
    powers: Sequence[float] = POWERS,
    temperature: float = 0.0,
) -> dict[int, np.ndarray]:
    """{K_p: labels int32 [T, n]} that the neighbours elect by each of T powers.

    `class_counts` int [C]: how many of each class the gallery has. One program does for all: of a
    smaller K_p the others cast no vote.
    """
    near, voters = jnp.asarray(evidence.distances), voters_of(evidence, labels_N)
    places = np.arange(voters.shape[1])
    heat = jnp.float32(temperature) if temperature else None
    found = {}
    for k in sorted(evidence.predictions):
        voting = jnp.asarray(np.where(places < k, voters, -1))
        by_power = []
        for power in powers:
            weights = weights_of(VoteRule(power, temperature), class_counts)
            weights = weights or Weights(jnp.ones(len(class_counts), jnp.float32), heat)
            by_power.append(elect(near, voting, num_classes=len(class_counts), weights=weights))
        found[k] = np.asarray(jnp.stack(by_power))
    return found


def curves(
    predicted: Mapping[int, np.ndarray],
    truth_n: np.ndarray,
    *,
    class_names: Sequence[str],
    train_counts: np.ndarray,
    powers: Sequence[float] = POWERS,
) -> Curves:
    """The figures of what `predictions` gave, int [T, n] by K_p, where the classes are known."""

    def point(power: float, labels_n: np.ndarray) -> Point:
        found = classification_metrics(
            truth_n, labels_n, class_names=class_names, train_counts=train_counts
        )
        return Point(power, found["acc"], found["mcr"], found["rs"])

    return {
        k: tuple(point(*each) for each in zip(powers, labels_Txn, strict=True))
        for k, labels_Txn in predicted.items()
    }


def choose(found: Mapping[int, Sequence[Point]], *, by: str) -> tuple[int, Point]:
    """The K_p and the point of the largest score; of equals the largest K_p, then the least tau."""
    candidates = [(k, point) for k in sorted(found, reverse=True) for point in found[k]]
    # The first of equals, and what rounding makes of a mean's order is none.
    return max(candidates, key=lambda each: round(score(each[1]._asdict(), by), 12))


_PARTS = {"validation": ("#0173b2", "o", "-"), "test": ("#d55e00", "D", "--")}
_FIGURES = {"acc": "Acc", "mcr": "MCR", "rs": "RS"}


def draw(
    path: Path, parts: Mapping[str, Sequence[Point]], *, k_p: int, power: float, how: str
) -> None:
    """Draw the curves of one K_p: MCR against Acc with tau along it, and the figures by tau.

    Args:
        path: PNG to write.
        parts: the points of "validation" and "test", or of one of them.
        k_p: how many neighbours vote.
        power: the run's tau, which is ringed.
        how: words on where this tau is from.
    """
    figure = pictures.new_figure(10, 5.2)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    for part, points in parts.items():
        _trade(left, part, points, power)
        _by_power(right, part, points)
    left.set(xlabel="Acc, %", ylabel="MCR (mean class recall), %", title=f"K_p = {k_p}")
    left.margins(0.12)
    left.legend(fontsize=8, frameon=False)
    right.legend(
        fontsize=8, frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14)
    )
    right.set(xlabel="tau: votes of class c count n_c^-tau", ylabel="%", title="By tau")
    right.axvline(power, color="#555555", linewidth=0.8, linestyle=":")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6e6e6", linewidth=0.7)
    figure.suptitle(f"The vote's operating point: tau = {power:g}, {how}", fontsize=10)
    pictures.save(path, figure)


def _trade(axes: Any, part: str, points: Sequence[Point], power: float) -> None:
    color, marker, dashes = _PARTS[part]
    x, y = (100 * np.array([getattr(p, key) for p in points]) for key in ("acc", "mcr"))
    axes.plot(x, y, dashes, color=color, marker=marker, markersize=4, label=part)
    place: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8, "color": color}
    named: dict[tuple[float, float], list[str]] = {}  # points that coincide share a name
    for i, point in enumerate(points):
        if point.class_size_power == power:
            axes.plot(x[i], y[i], "o", markersize=13, mfc="none", mec=color, mew=1.8)
        if point.class_size_power in (0, 1, power):
            named.setdefault((x[i], y[i]), []).append(f"{point.class_size_power:g}")
    for at, taus in named.items():
        axes.annotate(f"tau {', '.join(taus)}", at, (9, 5), **place)


def _by_power(axes: Any, part: str, points: Sequence[Point]) -> None:
    color, _, dashes = _PARTS[part]
    x = [point.class_size_power for point in points]
    for (key, name), marker in zip(_FIGURES.items(), "os^", strict=True):
        values = [100 * getattr(point, key) for point in points]
        axes.plot(x, values, dashes, color=color, marker=marker, markersize=4,
                  label=f"{name}, {part}")  # fmt: skip
