"""Figures by class and by group of a test part, from what a run has in memory."""

import numpy as np
import pytest
import reference
from support.runs import small_config

from deepknn_jax.data.dataset import TEST, TRAIN, Dataset
from deepknn_jax.evaluation import intervals
from deepknn_jax.evaluation.evaluate import Embedded, classify
from deepknn_jax.knn.vote import MAJORITY
from deepknn_jax.trainer import by_class

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def given(compiled_once):
    """(dataset of 40 training and 24 test examples, their embeddings, the vote of 5)."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=64).astype(np.int32)
    labels[40:] = np.repeat(labels[40:48], 3)
    labels[[41, 50]] = (labels[[41, 50]] + 1) % 3  # two patients have images of two classes
    x = (rng.normal(size=(64, 4)) + 0.8 * labels[:, None]).astype(np.float32)
    splits = np.repeat(("train", "test"), (40, 24))
    groups = np.concatenate([np.arange(40), 100 + np.arange(24) // 3]).astype(np.int32)
    names = tuple(map(str, range(64)))
    dataset = Dataset(x, labels, names, NAMES, splits, groups=groups)
    train, test = (Embedded(rows, x[rows], None) for rows in (np.arange(40), np.arange(40, 64)))
    evidence = classify(test, train, labels, k_ps=(1, 5), num_classes=3, p=2.0)
    return dataset, {TEST: test, TRAIN: train}, evidence, MAJORITY


def test_scores_are_shares_and_nearness_and_units_are_patients(given):
    dataset, parts, evidence, _ = given
    found = by_class.figures(small_config(), dataset, parts, evidence, MAJORITY)
    x, labels = dataset.inputs.astype(np.float64), dataset.labels
    scores = np.zeros((24, 3))
    for i in range(24):
        near = [reference.nearest(x, 40 + i, [j for j in range(40) if labels[j] == c], 1)[0]
                for c in range(3)]  # fmt: skip
        own = [reference.distance(x[40 + i], x[j]) for j in near]
        for c in range(3):
            other = min(own[:c] + own[c + 1 :])
            share = np.mean([labels[row] == c for row in evidence.rows[i]])
            scores[i, c] = share + 1e-6 * other / (own[c] + other)
    for c, name in enumerate(NAMES):
        area = reference.area_under_roc(scores[:, c], labels[40:] == c, np.ones(24))
        assert found["intervals"]["5"]["per_class"][name]["auc"]["value"] == pytest.approx(area)
    assert (found["intervals"]["5"]["unit"], found["intervals"]["5"]["units"]) == ("groups", 8)
    pure = [g for g in range(8) if len(set(labels[40 + 3 * g : 43 + 3 * g])) == 1]
    by_group = found["by_group"]["5"]
    assert (by_group["n"], by_group["mixed"]) == (len(pure), 8 - len(pure)) == (6, 2)
    right = [scores[3 * g : 3 * g + 3].mean(axis=0).argmax() == labels[40 + 3 * g] for g in pure]
    assert by_group["acc"] == pytest.approx(np.mean(right))


def test_what_trained_the_weights_before_is_left_out(given):
    dataset, parts, evidence, _ = given
    trained = np.arange(64) >= 52
    own = by_class.figures(
        small_config(), dataset._replace(trained=trained), parts, evidence, MAJORITY
    )
    assert sum(each["n"] for each in own["intervals"]["5"]["per_class"].values()) == 12
    right = evidence.predictions[5][:12] == dataset.labels[40:52]
    assert own["intervals"]["5"]["acc"]["value"] == pytest.approx(right.mean())
    every = dataset._replace(trained=np.arange(64) >= 40)
    assert by_class.figures(small_config(), every, parts, evidence, MAJORITY) == {}


def test_of_too_many_classes_there_is_no_auc(given, monkeypatch):
    monkeypatch.setattr(by_class, "MOST_SCORED", 71)
    found = by_class.figures(small_config(), *given)
    assert "by_group" not in found
    assert found["intervals"]["5"]["per_class"]["a"]["auc"]["value"] is None
    monkeypatch.undo()
    monkeypatch.setattr(intervals, "_MOST_DRAWN", 71)
    auc = by_class.figures(small_config(), *given)["intervals"]["5"]["per_class"]["a"]["auc"]
    assert auc["value"] is not None
    assert auc["low"] is None
