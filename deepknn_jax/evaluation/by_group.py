"""One answer for all images of a patient or lesion: the mean of their shares of votes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from deepknn_jax.evaluation.intervals import Judged, class_figures
from deepknn_jax.evaluation.metrics import classification_metrics


class GroupVote(NamedTuple):
    """`sizes` int [G], images of each group; the `scores` float64 [G, C]; `labels` int [G]."""

    sizes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def vote_by_group(scores_nxC: np.ndarray, groups_n: np.ndarray) -> GroupVote:
    """The class of the largest mean score over each group's images; -1 where nobody voted.

    Args:
        scores_nxC: `intervals.fine_scores`: shares of votes, so that the mean is that of the
            shares, and groups whose shares tie go to the nearer class.
        groups_n: integers in 0..G-1, each of which occurs.
    """
    sizes = np.bincount(groups_n)
    total = np.zeros((len(sizes), scores_nxC.shape[1]))
    np.add.at(total, groups_n, scores_nxC)
    labels = np.argmax(total, axis=1)
    voted = total.max(axis=1, initial=0.0) > 1e-5 * sizes  # above what nearness alone can give
    return GroupVote(sizes, total / sizes[:, None], np.where(voted, labels, -1))


def group_figures(
    judged: Judged, *, class_names: Sequence[str], train_counts: Sequence[int] | np.ndarray
) -> dict[str, Any] | None:
    """`classification_metrics` of groups, "groups", "mixed" and "intervals"; None without any.

    `mixed` counts groups whose images have several labels: these have no one truth and are left
    out.
    """
    assert judged.groups is not None
    assert judged.scores is not None
    vote = vote_by_group(judged.scores, judged.groups)
    least, most = np.full(len(vote.sizes), len(class_names)), np.full(len(vote.sizes), -1)
    np.minimum.at(least, judged.groups, judged.labels)
    np.maximum.at(most, judged.groups, judged.labels)
    pure = least == most
    if not pure.any():
        return None
    own = Judged(least[pure], vote.labels[pure], vote.scores[pure])
    entry = classification_metrics(
        own.labels, own.predicted, class_names=class_names, train_counts=train_counts
    )
    intervals = class_figures(own, class_names) | {"unit": "groups"}
    return entry | {"groups": len(pure), "mixed": int((~pure).sum()), "intervals": intervals}
