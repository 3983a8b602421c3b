"""Figures with bootstrap intervals, against slow loops and scikit-learn."""

import time

import numpy as np
import pytest
import reference
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score

from deepknn_jax.evaluation import intervals
from deepknn_jax.evaluation.intervals import Judged, class_figures, draw_weights, fine_scores

NAMES = ("akiec", "bcc", "bkl", "df")


def judged(n=40, groups=9, seed=0):
    """Of three classes and one that does not occur, with ties and answers that are none."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=(0.6, 0.3, 0.1))
    scores = rng.integers(0, 4, (n, 4)) / 4 + 0.3 * (labels[:, None] == np.arange(4))
    predicted = np.where(rng.random(n) < 0.1, -1, scores.argmax(axis=1))
    return Judged(labels, predicted, scores, 7 * rng.integers(groups, size=n))


@pytest.mark.parametrize("grouped", [True, False])
def test_they_are_quantiles_of_slow_figures_over_the_same_draws(grouped, monkeypatch):
    monkeypatch.setattr(intervals, "_ENTRIES", 300)  # several blocks
    given = judged()
    if not grouped:
        given = given._replace(groups=None)
    units = np.arange(40)
    if grouped:  # as they first appear
        order = list(dict.fromkeys(given.groups.tolist()))
        units = np.array([order.index(group) for group in given.groups])
    found = class_figures(given, NAMES, draws=25, seed=3)
    weights = np.float64(np.concatenate(list(draw_weights(units.max() + 1, 25, 3))))
    assert (weights.sum(axis=1) == units.max() + 1).all()
    slow = [reference.figures_of_draw(*given[:3], units, row, 4) for row in weights]
    whole = reference.figures_of_draw(*given[:3], units, np.ones(units.max() + 1), 4)

    def check(figure, value, drawn):
        low, high = np.nanquantile(drawn, (0.025, 0.975))
        assert figure == pytest.approx({"value": value, "low": low, "high": high}, rel=1e-9)

    check(found["acc"], whole[0], [each[0] for each in slow])
    check(found["mcr"], whole[1], [each[1] for each in slow])
    for c, name in enumerate(NAMES[:3]):
        for i, key in enumerate(("sensitivity", "specificity", "auc")):
            drawn = [each[2][c][i] for each in slow]
            check(found["per_class"][name][key], whole[2][c][i], drawn)
    assert found["per_class"]["df"]["sensitivity"]["value"] is None
    assert found["per_class"]["df"]["auc"]["value"] is None
    assert (found["unit"], found["units"]) == (("groups", 9) if grouped else ("images", 40))
    assert found["few"] is grouped


def test_the_values_are_scikit_learns():
    given = judged(200, seed=1)
    found = class_figures(given, NAMES, draws=2)
    with pytest.warns(UserWarning, match="y_pred contains classes"):
        mcr = balanced_accuracy_score(given.labels, given.predicted)
    assert found["mcr"]["value"] == pytest.approx(mcr)
    for c, name in enumerate(NAMES[:3]):
        own, positive = found["per_class"][name], given.labels == c
        assert own["auc"]["value"] == pytest.approx(roc_auc_score(positive, given.scores[:, c]))
        called = given.predicted == c
        assert own["sensitivity"]["value"] == pytest.approx(recall_score(positive, called))
        specificity = recall_score(~positive, ~called)
        assert own["specificity"]["value"] == pytest.approx(specificity)


def test_a_class_with_one_image_or_one_patient_has_no_interval():
    labels = np.array([0, 0, 0, 0, 0, 1, 2, 2])
    groups = np.array([0, 0, 1, 2, 3, 4, 5, 5])
    predicted = np.array([0, 0, 1, 0, 2, 1, 2, 0])
    found = class_figures(Judged(labels, predicted, None, groups), NAMES)["per_class"]
    assert found["bcc"]["sensitivity"] == {"value": 1.0, "low": None, "high": None}
    assert found["bkl"]["sensitivity"] == {"value": 0.5, "low": None, "high": None}
    assert found["akiec"]["sensitivity"]["low"] is not None
    assert found["akiec"]["auc"]["value"] is None  # no scores
    assert (found["bkl"]["n"], found["bkl"]["units"], found["bkl"]["few"]) == (2, 1, True)


def test_all_right_or_all_wrong_is_bounded_by_the_binomial():
    labels = np.repeat((0, 1), (10, 6))
    found = class_figures(Judged(labels, np.zeros(16, int)), NAMES[:2])["per_class"]
    right, wrong = found["akiec"]["sensitivity"], found["bcc"]["sensitivity"]
    assert right == pytest.approx({"value": 1.0, "low": 0.025 ** (1 / 10), "high": 1.0})
    assert wrong == pytest.approx({"value": 0.0, "low": 0.0, "high": 1 - 0.025 ** (1 / 6)})


def test_images_of_one_patient_make_the_interval_wider():
    rng = np.random.default_rng(2)
    right = np.repeat(rng.random(40) < 0.7, 10)  # all images of a patient alike
    given = Judged(np.zeros(400, int), np.where(right, 0, 1), None, np.repeat(np.arange(40), 10))
    wide = class_figures(given, NAMES)["acc"]
    narrow = class_figures(given._replace(groups=None), NAMES)["acc"]
    assert wide["high"] - wide["low"] > 2.5 * (narrow["high"] - narrow["low"])


def test_two_thousand_images_take_seconds_at_most():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(10, size=2000), rng.random((2000, 10))
    began = time.process_time()
    class_figures(Judged(labels, scores.argmax(axis=1), scores), list(map(str, range(10))))
    assert time.process_time() - began < 5


def test_equal_shares_are_ordered_by_nearness_and_no_others():
    shares = np.array([[0.6, 0.4, 0.0], [0.4, 0.6, 0.0], [0.6, 0.4, 0.0], [1.0, 0.0, 0.0]])
    nearest = np.array([[1.0, 2.0, 9.0], [1.0, 0.5, np.inf], [3.0, 2.0, 4.0], [0.0, 0.0, 1.0]])
    found = fine_scores(shares, nearest)
    assert found[0, 0] > found[2, 0]  # 2 / 3 beside 2 / 5
    np.testing.assert_allclose((found - shares)[0], 1e-6 * np.array([2 / 3, 1 / 3, 1 / 10]))
    np.testing.assert_allclose((found - shares)[3, :2], 0.5e-6)
    assert found[1, 2] == 0.0
    assert np.abs(found - shares).max() <= 1.01e-6
    np.testing.assert_array_equal(fine_scores(np.ones((2, 1)), np.ones((2, 1))), 1.0)
