"""Metrics of a classification: accuracy, mean class recall, recall of the smallest class."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deepknn_jax.errors import UserError
from deepknn_jax.knn.intake import as_array, as_classes, check_shape


def confusion_matrix(
    labels_n: np.ndarray, predictions_n: np.ndarray, num_classes: int
) -> np.ndarray:
    """Counts int64 [C, C]: rows are true classes, columns predicted ones; of -1, none, no column.

    Raises:
        UserError: shapes or dtypes that do not fit; a class that is none of the C.
    """
    labels_n, predictions_n = _classes(labels_n, predictions_n, num_classes)
    voted_n = predictions_n >= 0
    cells = labels_n[voted_n].astype(np.int64) * num_classes + predictions_n[voted_n]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def _classes(
    labels_n: np.ndarray, predictions_n: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    labels = as_classes("labels", labels_n, "n", num_classes=num_classes)
    predictions = as_classes(
        "predictions", predictions_n, len(labels), num_classes=num_classes, least=-1
    )
    return labels, predictions


SCORES = ("acc", "mcr", "mean")  # that may be chosen by; the mean is of the other two


def score(figures: Mapping[str, float], by: str) -> float:
    """What is chosen by, one of SCORES, of figures that have "acc" and "mcr"."""
    return (figures["acc"] + figures["mcr"]) / 2 if by == "mean" else figures[by]


def classification_metrics(
    labels_n: np.ndarray,
    predictions_n: np.ndarray,
    *,
    class_names: Sequence[str],
    train_counts: Sequence[int] | np.ndarray,
) -> dict[str, Any]:
    """Metrics of n predictions, shares between 0 and 1, ready for JSON.

    Args:
      labels_n: true classes, integers in 0..C-1.
      predictions_n: predicted classes, likewise; -1, nobody voted, is wrong.
      class_names: C names.
      train_counts: C numbers of training images.

    Returns:
      acc: share of right predictions. mcr: mean recall of the classes that occur in `labels_n`.
      per_class_recall: {class name: recall, None where the class does not occur}. rs: recall of
      the class with the fewest training images among those that occur (a class without test
      images has no recall to give); several as small: their mean. rs_class: its name, or their
      names joined with ", ". n: number of predictions.

    Raises:
      UserError: no predictions, or not as many as labels; a class that is none of the C; not C
        counts.
    """
    if len(labels_n) != len(predictions_n) or len(labels_n) == 0:
        raise UserError(f"{len(labels_n)} labels and {len(predictions_n)} predictions")
    labels_n, predictions_n = _classes(labels_n, predictions_n, len(class_names))
    counts_C = as_array("train_counts", train_counts)
    check_shape("train_counts", counts_C, len(class_names))
    right_n = labels_n == predictions_n
    images_C, right_C = (  # not by a confusion matrix: of 10,000 classes it is 800 MB
        np.bincount(labels, minlength=len(class_names)) for labels in (labels_n, labels_n[right_n])
    )
    occurring = np.flatnonzero(images_C)
    recall = right_C[occurring] / images_C[occurring]
    counts = counts_C[occurring]
    smallest = counts == counts.min()
    recalls = dict(zip(occurring.tolist(), recall.tolist(), strict=True))
    return {
        "acc": float(right_C.sum() / len(labels_n)),
        "mcr": float(recall.mean()),
        "rs": float(recall[smallest].mean()),
        "rs_class": ", ".join(class_names[c] for c in occurring[smallest]),
        "per_class_recall": {name: recalls.get(c) for c, name in enumerate(class_names)},
        "n": len(labels_n),
    }


def format_table(rows: Sequence[tuple[str, Mapping[str, Mapping[str, Any]]]]) -> str:
    """Plain-text table of (method, {K_p or "head": classification_metrics}), in per cent.

    All entries are of one test set, so that one closing line names the class that RS is of.
    """
    lines = [("method", "K_p", "Acc", "MCR", "RS")]
    for method, by_vote in rows:
        for i, (vote, metrics) in enumerate(by_vote.items()):
            acc, mcr, rs = (f"{100 * metrics[key]:.1f}" for key in ("acc", "mcr", "rs"))
            lines.append(("" if i else method, vote, acc, mcr, rs))
    method_width, vote_width = (max(len(line[i]) for line in lines) for i in (0, 1))
    table = [
        f"{method:<{method_width}}  {vote:>{vote_width}}  {acc:>5}  {mcr:>5}  {rs:>5}"
        for method, vote, acc, mcr, rs in lines
    ]
    table.insert(1, "-" * len(table[0]))
    named = {metrics["rs_class"] for _, by_vote in rows for metrics in by_vote.values()}
    smallest = textwrap.shorten("; ".join(sorted(named)), 60, placeholder=" ...")
    return "\n".join(
        [*table, f"RS: recall of the class with the fewest training images, {smallest}"]
    )
