"""Figures of a classification, against scikit-learn's."""

import json
import warnings

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from support.memory import peak_memory

from deepknn_jax.errors import UserError
from deepknn_jax.evaluation.metrics import classification_metrics, confusion_matrix, format_table

NAMES = ("akiec", "bcc", "bkl", "df", "vasc")


def test_ten_thousand_classes_make_no_square_matrix():
    start, end = peak_memory(
        before="import numpy as np\n"
        "from deepknn_jax.evaluation.metrics import classification_metrics\n"
        "labels, names = np.arange(20_000) % 10_000, list(map(str, range(10_000)))",
        work="found = classification_metrics(\n"
        "    labels, labels // 2, class_names=names, train_counts=np.ones(10_000))\n"
        "assert len(found['per_class_recall']) == 10_000",
    )
    assert end - start < 50


@given(
    pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60),
    train_counts=st.lists(st.integers(1, 6), min_size=5, max_size=5),
)
def test_figures_equal_those_of_scikit_learn(pairs, train_counts):
    labels, predictions = np.array(pairs, np.int32).T
    m = classification_metrics(labels, predictions, class_names=NAMES, train_counts=train_counts)
    with warnings.catch_warnings():  # of classes that are predicted and do not occur
        warnings.simplefilter("ignore")
        mcr = sklearn.metrics.balanced_accuracy_score(labels, predictions)
    recalls = sklearn.metrics.recall_score(
        labels, predictions, labels=range(5), average=None, zero_division=np.nan
    )
    assert m["acc"] == pytest.approx(sklearn.metrics.accuracy_score(labels, predictions))
    assert m["mcr"] == pytest.approx(mcr)
    assert m["n"] == len(labels)
    assert list(m["per_class_recall"]) == list(NAMES)
    for name, recall in zip(NAMES, recalls, strict=True):
        mine = m["per_class_recall"][name]
        assert (mine is None) == np.isnan(recall)
        assert mine is None or mine == pytest.approx(recall)

    fewest = min(n for c, n in enumerate(train_counts) if c in labels)
    smallest = [c for c in range(5) if c in labels and train_counts[c] == fewest]
    assert m["rs_class"] == ", ".join(NAMES[c] for c in smallest)
    assert m["rs"] == pytest.approx(np.mean(recalls[smallest]))

    np.testing.assert_array_equal(
        confusion_matrix(labels, predictions, 5),
        sklearn.metrics.confusion_matrix(labels, predictions, labels=range(5)),
    )
    assert json.loads(json.dumps(m, allow_nan=False)) == m


def test_figures_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1, 4])
    predictions = np.array([0, 0, 0, 4, 1, 0, 4])
    m = classification_metrics(
        labels, predictions, class_names=NAMES, train_counts=[40, 3, 9, 2, 3]
    )
    assert m == {
        "acc": 5 / 7,
        "mcr": 0.75,
        "rs": 0.75,  # df, the smallest, has no test image; bcc and vasc come next
        "rs_class": "bcc, vasc",
        "per_class_recall": {"akiec": 0.75, "bcc": 0.5, "bkl": None, "df": None, "vasc": 1.0},
        "n": 7,
    }


def test_no_predictions_or_too_few_are_an_error():
    for labels, predictions in (([], []), ([0, 1], [0])):
        with pytest.raises(ValueError, match=f"{len(labels)} labels"):
            classification_metrics(
                np.array(labels), np.array(predictions), class_names=NAMES, train_counts=[1] * 5
            )


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([1, 5], [0, 0], r"labels must be 0\.\.4, got 1\.\.5"),
        ([-1, 2], [0, 0], r"labels must be 0\.\.4, got -1\.\.2"),
        ([1, 2], [0, 7], r"predictions must be -1\.\.4, got 0\.\.7"),
        ([1, 2], [[0], [1]], r"predictions \[2\], got shape \(2, 1\)"),
        ([1.0, np.nan], [0, 1], "labels must be integers, got dtype float64"),
        (["bcc", "df"], [0, 1], "labels must be integers, got text"),
    ],
)
def test_classes_that_are_none_are_refused(labels, predictions, message):
    with pytest.raises(UserError, match=message):
        classification_metrics(labels, predictions, class_names=NAMES, train_counts=[1] * 5)
    with pytest.raises(UserError, match=message):
        confusion_matrix(labels, predictions, 5)


def test_nobody_s_vote_is_wrong_and_in_no_column():
    found = classification_metrics(
        [0, 1, 1], [0, -1, 1], class_names=["a", "b"], train_counts=[5, 4]
    )
    assert (found["acc"], found["mcr"]) == (2 / 3, 0.75)
    np.testing.assert_array_equal(confusion_matrix([0, 1, 1], [0, -1, 1], 2), np.eye(2))
    with pytest.raises(UserError, match=r"train_counts \[2\], got shape \(3,\)"):
        classification_metrics([0], [0], class_names=["a", "b"], train_counts=[5, 4, 1])


def test_the_table_reads_well():
    def metrics(acc, mcr, rs):
        return {"acc": acc, "mcr": mcr, "rs": rs, "rs_class": "df"}

    one, five, head = metrics(0.7123, 0.5, 0.0), metrics(1.0, 1.0, 1.0), metrics(0.5, 0.25, 0.09)
    table = format_table(
        [("kNN on raw pixels", {"1": one, "5": five}), ("deep kNN", {"1": one, "head": head})]
    )
    assert table.splitlines() == [
        "method              K_p    Acc    MCR     RS",
        "--------------------------------------------",
        "kNN on raw pixels     1   71.2   50.0    0.0",
        "                      5  100.0  100.0  100.0",
        "deep kNN              1   71.2   50.0    0.0",
        "                   head   50.0   25.0    9.0",
        "RS: recall of the class with the fewest training images, df",
    ]


def test_the_table_shortens_a_long_list_of_smallest_classes():
    names = ", ".join(f"class {i}" for i in range(198))
    entry = {"acc": 0.5, "mcr": 0.5, "rs": 0.5, "rs_class": names}
    last = format_table([("deep kNN", {"1": entry})]).splitlines()[-1]
    assert "class 0, class 1," in last
    assert last.endswith(" ...")
    assert len(last) < 120
