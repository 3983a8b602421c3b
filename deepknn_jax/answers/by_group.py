"""predictions_by_group.csv: one answer for all images of a patient, lesion or other group."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from deepknn_jax.answers.judge import Predictions
from deepknn_jax.evaluation.by_group import vote_by_group
from deepknn_jax.evaluation.intervals import fine_scores


class Voice(NamedTuple):
    """What one image says for its group: `scores` [C] (`intervals.fine_scores`), its true label."""

    group: str
    scores: np.ndarray
    label: str | None
    abstained: bool


def voices(
    found: Predictions, groups: Sequence[str | None], labels: Sequence[str | None]
) -> list[Voice]:
    """Of each image whose group is known."""
    scores = fine_scores(found.shares, found.nearest)
    return [
        Voice(group, scores[i], labels[i], bool(found.abstain[i]))
        for i, group in enumerate(groups)
        if group is not None
    ]


def header(classes: Sequence[str]) -> list[str]:
    """The names of the columns."""
    return [
        "group",
        "images",
        "abstaining",
        "prediction",
        "label",
        *(f"share_{c}" for c in classes),
    ]


def rows_of(given: Sequence[Voice], classes: Sequence[str]) -> Iterator[list[str]]:
    """The row of each group, by name; `label` is empty where its images do not agree in one."""
    names, numbers = np.unique(np.array([each.group for each in given]), return_inverse=True)
    vote = vote_by_group(np.stack([each.scores for each in given]), numbers)
    labels: list[set[str | None]] = [set() for _ in names]
    abstaining = np.bincount(numbers, [each.abstained for each in given]).astype(int)
    for number, each in zip(numbers.tolist(), given, strict=True):
        labels[number].add(each.label)
    for i, name in enumerate(names.tolist()):
        label = next(iter(labels[i])) if len(labels[i]) == 1 else None
        won = classes[vote.labels[i]] if vote.labels[i] >= 0 else ""
        shares = [f"{share:.4f}" for share in vote.scores[i]]  # nearness adds 1e-6 at most
        yield [name, str(vote.sizes[i]), str(abstaining[i]), won, label or "", *shares]
