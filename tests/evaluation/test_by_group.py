"""One answer a patient: the mean of its images' shares."""

import numpy as np
import pytest

from deepknn_jax.evaluation.by_group import group_figures, vote_by_group
from deepknn_jax.evaluation.intervals import Judged, fine_scores

SHARES = np.array([[0.8, 0.2], [0.4, 0.6], [0.0, 1.0], [0.6, 0.4], [0.4, 0.6], [0.0, 0.0]])
NEAREST = np.array([[1.0, 2.0], [1.0, 1.0], [2.0, 1.0], [3.0, 1.0], [3.0, 1.0], [1.0, 1.0]])
GROUPS = np.array([2, 2, 0, 1, 1, 3])


def test_the_mean_of_the_shares_wins_and_ties_go_to_the_nearer_class():
    vote = vote_by_group(fine_scores(SHARES, NEAREST), GROUPS)
    assert vote.sizes.tolist() == [1, 2, 2, 1]
    assert vote.labels.tolist() == [1, 1, 0, -1]  # of group 3 nobody voted
    np.testing.assert_allclose(vote.scores[:3], [[0, 1], [0.5, 0.5], [0.6, 0.4]], atol=2e-6)


def test_figures_count_groups_and_leave_out_those_of_several_labels():
    labels = np.array([0, 0, 1, 0, 1, 1])
    given = Judged(labels, np.zeros(6, int), fine_scores(SHARES, NEAREST), GROUPS)
    found = group_figures(given, class_names=("a", "b"), train_counts=(5, 3))
    assert (found["n"], found["groups"], found["mixed"]) == (3, 4, 1)
    assert found["acc"] == pytest.approx(2 / 3)
    assert found["per_class_recall"] == {"a": 1.0, "b": 0.5}
    assert (found["intervals"]["unit"], found["intervals"]["units"]) == ("groups", 3)
    mixed = given._replace(groups=np.zeros(6, int))
    assert group_figures(mixed, class_names=("a", "b"), train_counts=(5, 3)) is None
