"""predictions.csv: a row an image, with its answer, its doubt and its evidence."""

import csv
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np

from deepknn_jax.answers.judge import Predictions
from deepknn_jax.answers.model import Model


def header(classes: Sequence[str], k: int) -> list[str]:
    """The names of the columns, for `k` neighbours."""
    by_class = [f"{what}_{name}" for what in ("share", "p", "nearest") for name in classes]
    beside = [f"{what}_{i + 1}" for i in range(k) for what in ("neighbor", "label", "distance")]
    return ["name", "prediction", "credibility", "set", "abstain", "error", *by_class, *beside]


def rows_of(found: Predictions, model: Model) -> Iterator[list[str]]:
    """The row of each image."""
    classes, gallery = model.classes, model.gallery
    for i, name in enumerate(found.names):
        label = found.labels[i]
        row = [name, classes[label] if label >= 0 else ""]
        row.append("" if found.credibility is None else _number(found.credibility[i]))
        row.append("" if found.sets is None else ";".join(set_of(found, i, classes)))
        row += [found.abstain[i], ""]
        row += map(_number, found.shares[i])
        row += [""] * len(classes) if found.p_values is None else map(_number, found.p_values[i])
        row += map(_number, found.nearest[i])
        for neighbor, distance in zip(found.indices[i], found.distances[i], strict=True):
            known = neighbor >= 0
            row += (
                [gallery.name(neighbor), classes[gallery.labels[neighbor]]] if known else ["", ""]
            )
            row.append(_number(distance) if known else "")
        yield row


def error_row(name: str, reason: str, width: int) -> list[str]:
    """The row of an image that could not be read, of `width` cells."""
    return [name, "", "", "", "", reason, *[""] * (width - 6)]


def set_of(found: Predictions, row: int, classes: Sequence[str]) -> list[str]:
    """The names of the classes in an image's set, none where there are no sets."""
    if found.sets is None:
        return []
    return [classes[c] for c in np.flatnonzero(found.sets[row]).tolist()]


def _number(value: Any) -> str:
    return f"{value:.6g}" if np.isfinite(value) else ""


def writer(file: IO[str]) -> Any:  # csv.writer, whose class has no public name
    """What writes the rows to an open file."""
    return csv.writer(file)
