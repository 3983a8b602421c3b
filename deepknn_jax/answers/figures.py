"""How good the answers are, where the images' labels are known."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from deepknn_jax.answers.judge import Predictions
from deepknn_jax.answers.model import Model
from deepknn_jax.evaluation.by_group import group_figures
from deepknn_jax.evaluation.intervals import Judged, class_figures, fine_scores
from deepknn_jax.evaluation.metrics import classification_metrics


class Answer(NamedTuple):
    """What is kept of one image: true and voted class, whether its set has the first and its size.

    `covered` is None where there are no sets. `scores` float64 [C] are `intervals.fine_scores`,
    `group` its patient or lesion, where that is known.
    """

    label: int
    predicted: int
    covered: bool | None
    size: int
    abstained: bool
    scores: np.ndarray
    group: str | None = None


def answers(
    found: Predictions, labels: Sequence[int | None], groups: Sequence[str | None] | None = None
) -> list[Answer]:
    """Of each image of `found` whose label, an index of the classes, is known, its answer."""
    kept, scores = [], fine_scores(found.shares, found.nearest)
    for i, label in enumerate(labels):
        if label is None:
            continue
        own = None if found.sets is None else found.sets[i]
        covered, size = (None, 0) if own is None else (bool(own[label]), int(own.sum()))
        group = groups[i] if groups else None
        kept.append(Answer(label, int(found.labels[i]), covered, size, bool(found.abstain[i]),
                           scores[i], group))  # fmt: skip
    return kept


def results(given: Sequence[Answer], model: Model, *, k: int, level: float) -> dict[str, Any]:
    """{"test": {K_p: metrics as a run's}}, "intervals", and what else there is.

    That is "by_group" where the group of every image is known, and "sets" and "answered" where the
    model is calibrated.

    Raises:
        UserError: there is no answer.
    """
    labels, predicted = np.asarray([each[:2] for each in given], np.int32).reshape(-1, 2).T
    entry = classification_metrics(
        labels, predicted, class_names=model.classes, train_counts=model.about["counts"]["train"]
    )
    found: dict[str, Any] = {"test": {str(k): entry}}
    names = [each.group for each in given]
    groups = None if None in names else np.unique(np.array(names), return_inverse=True)[1]
    judged = Judged(labels, predicted, np.stack([each.scores for each in given]), groups)
    found["intervals"] = {str(k): class_figures(judged, model.classes)}
    if groups is not None:
        counts = model.about["counts"]["train"]
        by_group = group_figures(judged, class_names=model.classes, train_counts=counts)
        found |= {"by_group": {str(k): by_group}} if by_group else {}
    if model.calibrated is None:
        return found
    covered = np.asarray([bool(each.covered) for each in given])
    answered = np.asarray([not each.abstained for each in given])
    right = (labels == predicted)[answered]
    found["sets"] = {
        "level": level,
        "coverage": float(covered.mean()),
        "per_class_coverage": {
            name: float(covered[labels == c].mean()) if (labels == c).any() else None
            for c, name in enumerate(model.classes)
        },
        "mean_size": float(np.mean([each.size for each in given])),
    }
    found["answered"] = {
        "share": float(answered.mean()),
        "acc": float(right.mean()) if len(right) else None,
    }
    return found
