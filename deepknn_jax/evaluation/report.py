"""What a finished run leaves in its workdir: results, embeddings, evidence and pictures."""

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from deepknn_jax.data.dataset import Dataset
from deepknn_jax.engine import hosts
from deepknn_jax.errors import UserError
from deepknn_jax.evaluation import pictures
from deepknn_jax.evaluation.classes import shown_classes
from deepknn_jax.evaluation.evaluate import Embedded, Evidence
from deepknn_jax.evaluation.metrics import confusion_matrix, format_table
from deepknn_jax.files import read_json, replacing, write_arrays, write_text
from deepknn_jax.logs import read_records, say

# Test images shown beside their neighbours, and at most so many of these.
_SHOWN, _BESIDE = 8, 20
_CONFUSED = 200  # classes that a confusion matrix can name, small print and all
PICTURES = ("training_curves.png", "confusion.png", "tsne.png", "neighbors.png")


def write_results(workdir: Path, results: dict[str, Any]) -> None:
    """results.json; its presence marks the run as finished, so what may not fail comes before."""
    write_text(workdir / "results.json", json.dumps(results, indent=2, allow_nan=False) + "\n")


def read_results(workdir: Path) -> dict[str, Any] | None:
    """results.json, or None where the run is not finished; a damaged one is told of, and none.

    The main process's, on all.
    """
    return hosts.by_main(lambda: _results_at(workdir / "results.json"))


def _results_at(path: Path) -> dict[str, Any] | None:
    try:
        found: Any = read_json(path)
    except UserError:
        found = {}
    if found is None or (isinstance(found, dict) and {"test", "references"} <= found.keys()):
        return found
    say(f"{path}: is damaged, so that the run does not count as finished")
    return None


def table(results: dict[str, Any]) -> str:
    """The run's metrics on the test part below those of its references, as plain text."""
    rows = [(f"kNN, {name}", entry["test"]) for name, entry in results["references"].items()]
    return format_table([*rows, (results["method"], results["test"])])


def write_embeddings(
    path: Path, dataset: Dataset, parts: Iterable[Embedded], *, key: str = "embeddings"
) -> None:
    """An .npz of `key` [N, D], labels [N], names, splits and classes, in the data set's order.

    And of groups [N], numbers, where the data set has some.
    """
    rows, embeddings = _joined(parts)
    order = np.argsort(rows)
    rows = rows[order]
    arrays = {
        key: embeddings[order],
        "labels": dataset.labels[rows],
        "names": np.asarray(dataset.names)[rows],
        "splits": dataset.splits[rows],
        "classes": np.asarray(dataset.class_names),
    }
    if dataset.groups is not None:
        arrays["groups"] = dataset.groups[rows]
    write_arrays(path, arrays)


def _joined(parts: Iterable[Embedded]) -> tuple[np.ndarray, np.ndarray]:
    """Rows [n] and embeddings [n, D] of all parts, one after the other."""
    rows, embeddings = zip(*((part.rows, part.embeddings) for part in parts), strict=True)
    return np.concatenate(rows), np.concatenate(embeddings)


def write_neighbors(path: Path, dataset: Dataset, queries: Embedded, evidence: Evidence) -> None:
    """neighbors.csv: a line per query, with its prediction and the neighbours that voted for it."""
    k, predicted = max(evidence.predictions.items())
    heads = [f"{what}_{i + 1}" for i in range(k) for what in ("neighbor", "label", "distance")]
    classes, labels, names = dataset.class_names, dataset.labels, dataset.names
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["name", "label", "prediction", *heads])
        for i, row in enumerate(queries.rows):
            line = [names[row], classes[labels[row]], classes[predicted[i]]]
            for neighbor, distance in zip(evidence.rows[i, :k], evidence.distances[i], strict=True):
                known = neighbor >= 0
                line += [names[neighbor], classes[labels[neighbor]]] if known else ["", ""]
                line.append(f"{distance:.6g}" if known else "")
            lines.writerow(line)


def remove_pictures(workdir: Path) -> None:
    """Removes the run's pictures: what they show no longer holds."""
    for name in PICTURES:
        (workdir / name).unlink(missing_ok=True)


def draw(
    workdir: Path,
    dataset: Dataset,
    parts: Iterable[Embedded],
    queries: Embedded,
    evidence: Evidence,
) -> dict[str, str]:
    """The run's pictures, as PNG files; a picture that fails is told, and the others are drawn.

    Returns:
        {file: "drawn", or why it is not}.
    """
    _, predicted = max(evidence.predictions.items())
    truth = dataset.labels[queries.rows]
    rows, embeddings = _joined(parts)
    labels, splits = dataset.labels[rows], dataset.splits[rows]
    curves, confusion, tsne, neighbors = (workdir / name for name in PICTURES)
    records = workdir / "metrics.jsonl"
    drawings = {
        curves: lambda: pictures.training_curves(curves, read_records(records)),
        confusion: lambda: _draw_confusion(confusion, dataset, truth, predicted),
        tsne: lambda: pictures.tsne(tsne, embeddings, labels, dataset.class_names, splits),
    }
    if dataset.inputs.ndim == 4:
        drawings[neighbors] = lambda: _draw_neighbors(
            neighbors, dataset, queries, evidence, predicted
        )
    return {path.name: _attempt(path, drawing) for path, drawing in drawings.items()}


def _attempt(path: Path, drawing: Callable[[], None]) -> str:
    """What became of a drawing: "drawn", or why it is not. Nothing that it raises ends the run."""
    try:
        drawing()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
        say(f"warning: {path} is not drawn ({reason}); all else is written")
        return reason
    return "drawn"


def _draw_confusion(path: Path, dataset: Dataset, truth: np.ndarray, predicted: np.ndarray) -> None:
    """Of more than _CONFUSED classes the largest of the data set, and the rest as one."""
    names = dataset.class_names
    counts = np.bincount(dataset.labels, minlength=len(names))
    shown = shown_classes(counts, names, enough=_CONFUSED)
    matrix = confusion_matrix(shown.place[truth], shown.place[predicted], len(shown.names))
    note = f"{shown.names[-1]}: right there is any of them" if shown.rest else ""
    pictures.confusion(path, matrix, shown.names, note)


def _draw_neighbors(
    path: Path, dataset: Dataset, queries: Embedded, evidence: Evidence, predicted: np.ndarray
) -> None:
    """A few queries of different classes, the wrongly classified among them, with neighbours."""
    truth = dataset.labels[queries.rows]
    wrong = np.flatnonzero(predicted != truth)[: _SHOWN // 3]
    right = np.flatnonzero(predicted == truth)
    first_of_class = right[np.unique(truth[right], return_index=True)[1]]
    shown = np.concatenate([first_of_class[: _SHOWN - len(wrong)], wrong])
    if (evidence.rows[shown] < 0).any():
        raise ValueError("a test image has fewer neighbours than vote")
    rows = evidence.rows[shown, :_BESIDE]
    pictures.neighbors(
        path,
        dataset.inputs[queries.rows[shown]],
        truth[shown],
        predicted[shown],
        dataset.inputs[rows.ravel()].reshape(*rows.shape, *dataset.inputs.shape[1:]),
        dataset.labels[rows],
        evidence.distances[shown, :_BESIDE],
        dataset.class_names,
    )
