"""p-values and sets against slow loops, against crepes, and by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.optional import require

from deepknn_jax.evaluation.doubt import (
    Calibration,
    abstain_threshold,
    credibility,
    error_coverage,
    marginal_p_values,
    nearest_of_classes,
    p_values,
    prediction_sets,
    ratio_scores,
    to_nearest,
    too_few,
)


def loop_scores(queries, gallery, labels, classes, k, groups=(None, None)):
    """The ratio score, query by query and class by class."""
    scores = np.empty((len(queries), classes))
    for q, query in enumerate(queries.astype(np.float64)):
        may = [g for g in range(len(gallery)) if groups[0] is None or groups[0][q] != groups[1][g]]
        distance = {g: float(np.sqrt(np.sum((query - gallery[g]) ** 2))) for g in may}
        for c in range(classes):
            own = sorted(distance[g] for g in may if labels[g] == c)[:k]
            others = sorted(distance[g] for g in may if labels[g] != c)[:k]
            scores[q, c] = np.mean(own) / np.mean(others) if own else np.inf
    return scores


def data(seed, count, classes=4, D=3):
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, count, p=np.arange(1, classes + 1) / sum(range(1, classes + 1)))
    return (rng.normal(size=(count, D)) + labels[:, None]).astype(np.float32), labels


@pytest.mark.parametrize("k", [1, 5])
def test_scores_are_those_of_a_loop(k):
    (queries, _), (gallery, labels) = data(0, 17), data(1, 40)
    labels[labels == 2] = 1  # a class that is not there
    np.testing.assert_allclose(
        ratio_scores(queries, gallery, labels, num_classes=4, k=k),
        loop_scores(queries, gallery, labels, 4, k),
        rtol=1e-5,
    )


def test_scores_leave_whole_groups_out():
    (gallery, labels), groups = data(2, 40), np.arange(40) // 3
    found = ratio_scores(
        gallery, gallery, labels, num_classes=4, query_groups_Q=groups, gallery_groups_G=groups
    )
    expected = loop_scores(gallery, gallery, labels, 4, 5, (groups, groups))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_copies_on_both_sides_are_as_strange_in_each_class():
    gallery, labels = np.zeros((4, 2), np.float32), np.array([0, 0, 1, 1])
    assert (ratio_scores(gallery[:1], gallery, labels, num_classes=2, k=2) == 1).all()


def test_scores_refuse_half_of_the_groups_and_no_neighbours():
    (gallery, labels) = data(2, 9)
    with pytest.raises(ValueError, match="both, or neither"):
        ratio_scores(gallery, gallery, labels, num_classes=4, query_groups_Q=labels)
    with pytest.raises(ValueError, match="k = 0"):
        ratio_scores(gallery, gallery, labels, num_classes=4, k=0)


def test_p_values_are_those_of_a_loop():
    rng = np.random.default_rng(3)
    scores, labels = rng.integers(0, 6, 30).astype(float), rng.integers(0, 3, 30)  # with ties
    queries = rng.integers(0, 7, (8, 4)).astype(float)
    calibration = Calibration(scores, labels, 4)
    found, marginal = p_values(queries, calibration), marginal_p_values(queries, calibration)
    for q in range(8):
        for c in range(3):
            own = [s for s, label in zip(scores, labels, strict=True) if label == c]
            expected = (sum(s >= queries[q, c] for s in own) + 1) / (len(own) + 1)
            assert found[q, c] == pytest.approx(expected)
            assert marginal[q, c] == pytest.approx((sum(scores >= queries[q, c]) + 1) / 31)
    assert np.isnan(found[:, 3]).all()  # no calibration example of it
    np.testing.assert_array_equal(credibility(found), found[:, :3].max(axis=1))
    assert prediction_sets(found, level=0.9)[:, 3].all()


@pytest.mark.interop
def test_p_values_are_those_of_crepes():
    ConformalClassifier = require("crepes").ConformalClassifier
    rng = np.random.default_rng(4)
    scores, labels = rng.gamma(2.0, size=200), rng.integers(0, 3, 200)
    queries = rng.gamma(2.0, size=(50, 3))
    judge = ConformalClassifier()
    judge.fit(scores, bins=labels)
    expected = np.stack(
        [judge.predict_p(queries, bins=np.full(50, c), smoothing=False)[:, c] for c in range(3)], 1
    )
    np.testing.assert_allclose(p_values(queries, Calibration(scores, labels, 3)), expected)


def test_sets_hold_the_class_as_often_as_they_promise():
    rng = np.random.default_rng(5)
    held = np.zeros((200, 2))
    for trial in range(200):
        # The second class is rare and strange: a marginal calibration would not cover it.
        labels = (rng.random(300) < 0.1).astype(int)
        scores = rng.gamma(1 + 3 * labels)
        p = p_values(np.stack([scores[:150]] * 2, 1), Calibration(scores[150:], labels[150:], 2))
        sets = prediction_sets(p, level=0.8)
        held[trial] = [sets[labels[:150] == c, c].mean() for c in (0, 1)]
    assert (held.mean(axis=0) > 0.79).all()
    assert held[:, 0].mean() < 0.83  # and no more than they must


def test_a_class_with_few_calibration_images_is_in_every_set():
    labels = np.repeat([0, 1], [8, 9])
    calibration = Calibration(np.zeros(17), labels, 3)
    np.testing.assert_array_equal(too_few(calibration, level=0.9), [True, False, True])
    sets = prediction_sets(p_values(np.full((1, 3), 9.0), calibration), level=0.9)
    np.testing.assert_array_equal(sets[0], [True, False, True])


def test_a_level_outside_its_range_is_refused():
    with pytest.raises(ValueError, match=r"level = 90"):
        prediction_sets(np.ones((1, 2)), level=90)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=30))
def test_the_curve_tells_what_each_threshold_gives(answers):
    credible, wrong = (np.array(x) for x in zip(*answers, strict=True))
    curve = error_coverage(credible / 4, wrong)
    for threshold, coverage, error in zip(*curve, strict=True):
        answered = credible / 4 >= threshold
        assert coverage == pytest.approx(answered.mean())
        assert error == pytest.approx(wrong[answered].mean())
    assert (np.diff(curve.thresholds) > 0).all()
    chosen = abstain_threshold(curve, error=0.3)
    lower = [t for t, error in zip(curve.thresholds, curve.error, strict=True) if error <= 0.3]
    assert chosen == (min(lower) if lower else np.inf)


def test_the_nearest_of_each_class_is_that_of_a_loop():
    (queries, _), (gallery, labels) = data(4, 7), data(5, 130)  # filled up to 256
    labels[labels == 2] = 1
    near = nearest_of_classes(queries, gallery, labels, num_classes=4, k=3)
    assert np.bincount(near.owners, minlength=4).tolist() == [3, 3, 0, 3]
    for q, query in enumerate(queries.astype(np.float64)):
        for c in (0, 1, 3):
            wanted = sorted(np.linalg.norm(gallery[labels == c] - query, axis=1))[:3]
            found = np.sort(near.distances[q, near.owners == c])
            np.testing.assert_allclose(found, wanted, rtol=1e-5)
            np.testing.assert_allclose(to_nearest(near)[q, c], wanted[0], rtol=1e-5)
    assert np.isinf(to_nearest(near)[:, 2]).all()
