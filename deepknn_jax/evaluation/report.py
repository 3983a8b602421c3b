"""What a finished run leaves in its workdir: results, embeddings, evidence and pictures."""

import contextlib
import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepknn_jax.data import view
from deepknn_jax.data.copies import chained, conflicts, numbered, pairs_across
from deepknn_jax.data.dataset import Dataset
from deepknn_jax.engine import hosts
from deepknn_jax.engine.inputs import are_features
from deepknn_jax.errors import UserError
from deepknn_jax.evaluation import neighbors, pictures, tsne
from deepknn_jax.evaluation.baselines import BASELINES
from deepknn_jax.evaluation.classes import shown_classes
from deepknn_jax.evaluation.evaluate import Embedded, Evidence
from deepknn_jax.evaluation.metrics import confusion_matrix, format_table
from deepknn_jax.files import read_json, replacing, write_arrays, write_text
from deepknn_jax.knn.vote import MAJORITY, VoteRule
from deepknn_jax.logs import read_records, say

# Test images shown beside their neighbours, and at most so many of these.
_SHOWN, _BESIDE = 8, 20
_CONFUSED = 200  # classes that a confusion matrix can name, small print and all
COPIES, TRAINED = "copies.csv", "trained_before.csv"
# What results.json holds of the test part, and what the table says of it.
_TESTS = {
    "test": "",
    "test_without_copies": ", without copies",
    "test_with_trained": ", with trained",
}
REPORT = "report.html"  # its writer is answers.page
OPERATING_POINT = "operating_point.png"
MapOf = Callable[[Dataset, Iterable[Embedded]], tsne.Map | None]
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
    all_of = {
        name.replace("_", " ") if name in BASELINES else f"kNN, {name}": entry
        for name, entry in results["references"].items()
    }
    all_of[results["method"]] = results
    lines = format_table([
        (f"{name}{of_which}", entry[key])
        for name, entry in all_of.items()
        for key, of_which in _TESTS.items()
        if entry.get(key)
    ])  # fmt: skip
    return "\n".join([lines, *vote_lines(results)])


def vote_lines(results: Mapping[str, Any]) -> list[str]:
    """A line on the run's vote where it is not the papers', the largest K_p by majority."""
    vote = results.get("vote")
    if not vote:
        return []
    rule = VoteRule(vote["class_size_power"], vote["temperature"])
    if rule == MAJORITY and not vote["chosen"]:
        return []
    chosen = f", chosen on validation by {vote['asked']['choose_by']}" if vote["chosen"] else ""
    return [f"{results['method']}: K_p = {vote['k_p']}, a vote weighs {rule.words()}{chosen}"]


def write_embeddings(path: Path, dataset: Dataset, parts: Iterable[Embedded]) -> None:
    """An .npz of embeddings [N, D], labels [N], names, splits and classes, in the set's order.

    And of groups [N], numbers, contents uint8 [N, 16] and `trained` bool [N], where the data set
    has some.
    """
    write_arrays(path, _arrays("embeddings", dataset, parts))


def write_features(path: Path, dataset: Dataset, part: Embedded, network: str) -> None:
    """`write_embeddings` of all of a data set under the key features, and its `data.view`.

    With views the features are [N, V, D]. `network` is by what the network beside the file is known
    (answers/source.py).
    """
    arrays = _arrays("features", dataset, [part]) | {"network": np.asarray(network)}
    if dataset.view is not None:
        arrays |= view.to_arrays(dataset.view, part.rows, path.parent)
    elif dataset.inputs.ndim == 4:
        arrays["thumbnails"] = view.thumbnails(dataset.inputs)[part.rows]
    write_arrays(path, arrays)


def _arrays(key: str, dataset: Dataset, parts: Iterable[Embedded]) -> dict[str, np.ndarray]:
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
    for name in ("groups", "contents", "trained"):
        if (of := getattr(dataset, name)) is not None:
            arrays[name] = of[rows]
    return arrays


def _joined(parts: Iterable[Embedded]) -> tuple[np.ndarray, np.ndarray]:
    """Rows [n] and embeddings [n, D] of all parts, one after the other."""
    rows, embeddings = zip(*((part.rows, part.embeddings) for part in parts), strict=True)
    return np.concatenate(rows), np.concatenate(embeddings)


def write_neighbors(path: Path, dataset: Dataset, queries: Embedded, evidence: Evidence) -> None:
    """neighbors.csv: a line per query, with its prediction and the neighbours that voted for it."""
    k, predicted = evidence.reported
    heads = [f"{what}_{i + 1}" for i in range(k) for what in ("neighbor", "label", "distance")]
    classes, labels, names = dataset.class_names, dataset.labels, dataset.names
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["name", "label", "prediction", *heads])
        for i, row in enumerate(queries.rows):
            line = [names[row], classes[labels[row]], classes[predicted[i]]]
            for neighbor, distance in zip(
                evidence.rows[i, :k], evidence.distances[i, :k], strict=True
            ):
                known = neighbor >= 0
                line += [names[neighbor], classes[labels[neighbor]]] if known else ["", ""]
                line.append(f"{distance:.6g}" if known else "")
            lines.writerow(line)


def write_copies(path: Path, dataset: Dataset) -> str:
    """A csv, a line for each pair of copies and near-copies; none without any. Its path, or "".

    Named are pairs in two parts, and training examples of two labels. `r` is the correlation, 1 for
    equal content; of near-copies, the nearest is named.
    """
    path.unlink(missing_ok=True)  # of another start
    assert dataset.contents is not None
    numbers = numbered(dataset.contents)
    found = [pairs_across(numbers, dataset.splits)]
    found += [conflicts(numbers, dataset.labels, dataset.splits)]
    pairs = chained(found if dataset.near is None else [*found, dataset.near])
    if not len(pairs.rows):
        return ""
    path.parent.mkdir(parents=True, exist_ok=True)
    heads = [f"{copy}{what}" for copy in ("", "copy_") for what in ("name", "split", "label")]
    classes, labels = dataset.class_names, dataset.labels
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow([*heads, "r", "conflicting"])
        for row, other, r in zip(*pairs, strict=True):
            sides = [(dataset.names[i], dataset.splits[i], classes[labels[i]])
                     for i in (row, other)]  # fmt: skip
            conflicting = "conflicting" if labels[row] != labels[other] else ""
            lines.writerow([*sides[0], *sides[1], f"{r:.4g}", conflicting])
    return str(path)


def write_trained(path: Path, dataset: Dataset, rows_n: np.ndarray) -> None:
    """A csv of those of the examples that `trained` what the run comes from; none without any."""
    path.unlink(missing_ok=True)  # of an earlier evaluation
    if dataset.trained is None or not dataset.trained[rows_n].any():
        return
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["name", "split", "label"])
        for row in rows_n[dataset.trained[rows_n]]:
            label = dataset.class_names[dataset.labels[row]]
            lines.writerow([dataset.names[row], dataset.splits[row], label])


def remove_pictures(workdir: Path) -> None:
    """Removes the run's pictures: what they show no longer holds."""
    for name in (*PICTURES, OPERATING_POINT, REPORT):
        (workdir / name).unlink(missing_ok=True)


@contextlib.contextmanager
def begun_map(wanted: bool) -> Iterator[MapOf]:
    """Starts a process for the t-SNE map; call what is given with the parts once embedded.

    That gives what to call for the map, or error; None where no map is wanted, or no process can
    be started: `draw` then computes the map itself.
    """
    with contextlib.ExitStack() as stack:
        send = None
        if wanted:
            with contextlib.suppress(OSError):
                send = stack.enter_context(tsne.begun())

        def of_parts(dataset: Dataset, parts: Iterable[Embedded]) -> tsne.Map | None:
            if send is None:
                return None
            with contextlib.suppress(MemoryError, RuntimeError):  # the run goes on without it
                rows, embeddings = _joined(parts)
                kept = tsne.spread_rows(dataset.splits[rows], dataset.labels[rows])
                return send(embeddings[kept])
            return None

        yield of_parts


def draw(
    workdir: Path,
    dataset: Dataset,
    parts: Iterable[Embedded],
    queries: Embedded,
    evidence: Evidence,
    usual_distances: np.ndarray | None = None,
    mapped: tsne.Map | None = None,
) -> dict[str, str]:
    """The run's pictures, as PNG files; a picture that fails is told, and the others are drawn.

    `usual_distances` [m], ascending, are those behind right answers on the validation part.
    `mapped` is what `begun_map` led to, if it was asked; the map is drawn last.

    Returns:
        {file: "drawn", or why it is not}.
    """
    k, predicted = evidence.reported
    truth = dataset.labels[queries.rows]
    rows, embeddings = _joined(parts)
    labels, splits = dataset.labels[rows], dataset.splits[rows]
    curves, confusion, points, beside = (workdir / name for name in PICTURES)
    records = workdir / "metrics.jsonl"
    drawings = {
        curves: lambda: pictures.training_curves(curves, read_records(records), k),
        confusion: lambda: _draw_confusion(confusion, dataset, truth, predicted, k),
    }
    if dataset.inputs.ndim == 4 or dataset.view is not None:
        drawings[beside] = lambda: _draw_neighbors(
            beside, dataset, queries, evidence, usual_distances
        )
    drawings[points] = lambda: pictures.tsne(
        points, embeddings, labels, dataset.class_names, splits, mapped and mapped()
    )
    drawn = {path.name: attempt(path, drawing) for path, drawing in drawings.items()}
    return {name: drawn[name] for name in PICTURES if name in drawn}


def attempt(path: Path, drawing: Callable[[], None]) -> str:
    """What became of a drawing: "drawn", or why it is not. Nothing that it raises ends the run."""
    try:
        drawing()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
        say(f"warning: {path} is not drawn ({reason}); all else is written")
        return reason
    return "drawn"


def _draw_confusion(
    path: Path, dataset: Dataset, truth: np.ndarray, predicted: np.ndarray, k: int
) -> None:
    """Of more than _CONFUSED classes the largest of the data set, and the rest as one."""
    names = dataset.class_names
    counts = np.bincount(dataset.labels, minlength=len(names))
    shown = shown_classes(counts, names, enough=_CONFUSED)
    places = np.where(predicted < 0, -1, shown.place[predicted])
    matrix = confusion_matrix(shown.place[truth], places, len(shown.names))
    note = f"test part, vote of the {k} nearest ($K_p$ = {k})"
    note += f"\n{shown.names[-1]}: right there is any of them" if shown.rest else ""
    pictures.confusion(path, matrix, shown.names, note)


def _draw_neighbors(
    path: Path,
    dataset: Dataset,
    queries: Embedded,
    evidence: Evidence,
    usual_distances: np.ndarray | None,
) -> None:
    """A few queries of different classes, the wrongly classified among them, with neighbours."""
    k, predicted = max(evidence.predictions.items())
    truth = dataset.labels[queries.rows]
    wrong = np.flatnonzero(predicted != truth)[: _SHOWN // 3]
    right = np.flatnonzero(predicted == truth)
    first_of_class = right[np.unique(truth[right], return_index=True)[1]]
    shown = np.concatenate([first_of_class[: _SHOWN - len(wrong)], wrong])
    if (evidence.rows[shown] < 0).any():
        raise ValueError("a test image has fewer neighbours than vote")
    k = min(evidence.reported[0], _BESIDE)
    rows = evidence.rows[shown, :k]
    neighbors.draw(
        path,
        _images(dataset, queries.rows[shown]),
        truth[shown],
        predicted[shown],
        _images(dataset, rows),
        dataset.labels[rows],
        evidence.distances[shown, :k],
        dataset.class_names,
        k=k,
        usual_distances=usual_distances,
    )


def _images(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """The images uint8 [..., H, W, C] of `rows` [...], of features those that they are of."""
    if are_features(dataset.inputs) and dataset.view is not None:
        found = dataset.view.images(rows.ravel())
    else:
        found = dataset.inputs[rows.ravel()]
    return found.reshape(*rows.shape, *found.shape[1:])
