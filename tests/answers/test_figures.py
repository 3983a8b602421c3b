"""Figures of answers whose labels are known."""

import numpy as np
import pytest
from support.answering import CLASSES, model_of

from deepknn_jax.answers.figures import answers, results
from deepknn_jax.answers.judge import Predictions


def predictions(labels, sets, abstain):
    n = len(labels)
    none, shares = np.zeros((n, 1)), np.eye(3)[np.asarray(labels)]
    return Predictions(("",) * n, np.asarray(labels), shares, none, none[:, 0], sets, abstain,
                       none, none, 1 - shares)  # fmt: skip


def test_they_are_a_run_s_and_those_of_the_sets():
    sets = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1], [1, 1, 1]], bool)
    found = predictions([0, 0, 2, 2, 1], sets, ("", "far", "", "", ""))
    kept = answers(found, [0, 1, 2, None, 0])
    got = results(kept, model_of(), k=3, level=0.9)
    entry = got["test"]["3"]
    assert (entry["n"], entry["acc"]) == (4, 0.5)
    assert entry["per_class_recall"] == {CLASSES[0]: 0.5, CLASSES[1]: 0.0, CLASSES[2]: 1.0}
    assert entry["rs_class"] == "bcc"
    assert got["sets"]["coverage"] == 0.75
    assert got["sets"]["per_class_coverage"] == dict(zip(CLASSES, (1.0, 1.0, 0.0), strict=True))
    assert got["sets"]["mean_size"] == 1.5
    assert got["answered"] == {"share": 0.75, "acc": pytest.approx(2 / 3)}


def test_without_calibration_there_are_those_of_the_vote_alone():
    found = predictions([2], None, ("",))
    got = results(answers(found, [2]), model_of(validates=False), k=5, level=0.9)
    assert set(got) == {"test", "intervals"}
    assert got["test"]["5"]["acc"] == 1.0


def test_all_abstaining_leaves_no_accuracy():
    found = predictions([0], np.zeros((1, 3), bool), ("far",))
    assert results(answers(found, [0]), model_of(), k=1, level=0.9)["answered"]["acc"] is None


def test_groups_are_drawn_and_answered_where_all_of_them_are_known():
    found = predictions([0, 2, 2, 2], None, ("",) * 4)
    model = model_of(validates=False)
    got = results(answers(found, [0, 0, 2, 2], ["x", "x", "y", "z"]), model, k=3, level=0.9)
    assert got["intervals"]["3"]["units"] == 3
    assert got["intervals"]["3"]["unit"] == "groups"
    assert got["by_group"]["3"]["n"] == 3
    some = results(answers(found, [0, 0, 2, 2], ["x", None, "y", "z"]), model, k=3, level=0.9)
    assert some["intervals"]["3"]["unit"] == "images"
    assert "by_group" not in some
