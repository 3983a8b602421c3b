"""The curve over tau against the loop, what is chosen of it, and its picture."""

import numpy as np
import pytest
import reference
from support.png import pixels_of

from deepknn_jax.evaluation.evaluate import Evidence
from deepknn_jax.evaluation.operating_point import Point, choose, curves, draw, predictions

COUNTS = np.array([60, 25, 5])
NAMES = ("common", "some", "rare")


@pytest.fixture(scope="module")
def evidence():
    """(labels of 90 gallery rows and 40 queries after them, the queries' neighbours)."""
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.repeat([0, 1, 2], COUNTS), rng.integers(0, 3, 40)])
    rows = np.stack([rng.permutation(90)[:5] for _ in range(40)])
    rows[3, 2:] = -1
    distances = np.sort(rng.gamma(2, size=(40, 5)), axis=1).astype(np.float32)
    return labels, Evidence(distances, rows, dict.fromkeys((1, 3, 5), np.zeros(0)))


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_curve_is_that_of_the_loop(evidence, temperature):
    labels, found = evidence
    powers = (0.0, 0.35, 1.0)
    predicted = predictions(
        found, labels, class_counts=COUNTS, powers=powers, temperature=temperature
    )
    points = curves(predicted, labels[90:], class_names=NAMES, train_counts=COUNTS, powers=powers)
    assert list(points) == [1, 3, 5]
    for k, by_power in points.items():
        for t, (power, point) in enumerate(zip(powers, by_power, strict=True)):
            voted = []
            for distances, rows in zip(found.distances, found.rows, strict=True):
                voters = np.where(rows < 0, -1, labels[rows])[:k]
                voted.append(
                    reference.weighted_vote(distances[:k], voters, COUNTS, power, temperature)[0]
                )
            np.testing.assert_array_equal(predicted[k][t], voted)
            right = labels[90:] == voted
            recalls = [right[labels[90:] == c].mean() for c in range(3)]
            np.testing.assert_allclose(
                point, (power, right.mean(), np.mean(recalls), recalls[2]), atol=1e-12
            )
    assert points[5][0] != points[5][2]


def test_the_best_is_chosen_and_equals_go_to_the_papers_vote():
    found = {
        1: [Point(0.0, 0.8, 0.5, 0), Point(0.5, 0.8, 0.5, 0)],
        5: [Point(0.0, 0.8, 0.4, 0), Point(0.5, 0.7, 0.6, 0), Point(1.0, 0.7, 0.6, 0)],
    }
    assert choose(found, by="mcr") == (5, found[5][1])
    assert choose(found, by="acc") == (5, found[5][0])
    assert choose(found, by="mean") == (5, found[5][1])
    assert choose({1: found[1]}, by="mean") == (1, found[1][0])


def test_the_picture_has_both_curves_and_the_ring(tmp_path):
    points = [Point(t / 10, 0.8 - 0.01 * t, 0.5 + 0.02 * t, 0.1 * t) for t in range(11)]
    one = tmp_path / "one.png"
    draw(one, {"test": points}, k_p=5, power=0.0, how="the papers'")
    alone = pixels_of(one)
    draw(one, {"test": points, "validation": points[::-1]}, k_p=5, power=0.4, how="as given")
    blue = np.array([1, 115, 178])
    assert (np.abs(alone.astype(int) - blue).max(-1) < 30).sum() == 0
    assert (np.abs(pixels_of(one).astype(int) - blue).max(-1) < 30).sum() > 500
