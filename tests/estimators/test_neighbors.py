"""Beside scikit-learn's own class; its own tests run in test_scikit_learns_own.py."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn import neighbors

from deepknn_jax.estimators import KNeighborsClassifier, search
from deepknn_jax.estimators import neighbors as ours


@pytest.fixture(scope="module")
def data():
    """Training rows [90, 3] and their classes, names; queries [20, 3]."""
    rng = np.random.default_rng(0)
    y = rng.choice(["a", "b", "c"], 90, p=[0.5, 0.3, 0.2])
    shift = np.searchsorted(["a", "b", "c"], y)[:, None]
    return rng.normal(size=(90, 3)) + shift, y, rng.normal(size=(20, 3)) + 1


def both(data, dtype="f8", **options):
    X, y, queries = data
    fits = [
        cls(**options).fit(X.astype(dtype), y)
        for cls in (KNeighborsClassifier, neighbors.KNeighborsClassifier)
    ]
    return fits, queries.astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        ("f4", {"weights": "distance"}),
        ("f8", {"metric": "manhattan", "weights": lambda d: 1 / (1 + d)}),
    ],
)
def test_it_answers_as_scikit_learn(data, dtype, options):
    (one, other), queries = both(data, dtype, **options)
    for found, wanted in zip(one.kneighbors(queries), other.kneighbors(queries), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-6 if dtype == "f4" else 1e-12)
    for asked in (queries, None):
        np.testing.assert_array_equal(one.predict(asked), other.predict(asked))
        np.testing.assert_allclose(one.predict_proba(asked), other.predict_proba(asked), rtol=1e-5)
    assert one.score(queries, one.predict(queries)) == 1


def test_several_outputs(data):
    X, y, queries = data
    both_y = np.column_stack([y == "a", X[:, 0] > 0]).astype(int)
    one, other = (
        cls().fit(X, both_y) for cls in (KNeighborsClassifier, neighbors.KNeighborsClassifier)
    )
    np.testing.assert_array_equal(one.predict(queries), other.predict(queries))
    for found, wanted in zip(one.predict_proba(queries), other.predict_proba(queries), strict=True):
        np.testing.assert_allclose(found, wanted)


@pytest.mark.parametrize(
    "options",
    [
        {"metric": "cosine"},
        {"metric": "chebyshev"},
        {"algorithm": "kd_tree"},
        {"metric_params": {"w": [1.0, 2.0, 3.0]}},
        {"p": np.inf},
    ],
)
def test_the_rest_is_handed_on(data, options, monkeypatch):
    monkeypatch.setattr(ours, "nearest", None)  # whoever calls it fails
    (one, other), queries = both(data, **options)
    np.testing.assert_array_equal(one.predict(queries), other.predict(queries))
    np.testing.assert_array_equal(one.kneighbors(queries)[1], other.kneighbors(queries)[1])


def test_sparse_input_is_handed_on_also_as_queries(data, monkeypatch):
    X, y, queries = data
    monkeypatch.setattr(ours, "nearest", None)
    wanted = neighbors.KNeighborsClassifier().fit(X, y).predict(queries)
    for rows in (X, csr_matrix(X)):
        found = KNeighborsClassifier().fit(rows, y).predict(csr_matrix(queries))
        np.testing.assert_array_equal(found, wanted)


def test_ties_by_either_rule_and_the_shares_say_the_same():
    X, y = np.array([[0.0], [3.0], [10.0]]), np.array(["far", "near", "near"])
    for ties, wanted in (("label", "far"), ("nearer", "near")):
        model = KNeighborsClassifier(2, ties=ties).fit(X, y)
        assert model.predict([[2.0]]) == [wanted]
        proba = model.predict_proba([[2.0]])
        assert model.classes_[np.argmax(proba)] == wanted
        np.testing.assert_allclose(proba, 0.5)
    handed_on = KNeighborsClassifier(2, ties="nearer", algorithm="kd_tree").fit(X, y)
    assert handed_on.predict([[2.0]]) == ["near"]


def test_float64_is_searched_in_float64(data, monkeypatch):
    """Two rows that float32 cannot tell apart."""
    X = np.array([[1.0, 0.0], [1.0 + 1e-12, 0.0], [5.0, 5.0]])
    model = KNeighborsClassifier(1).fit(X, [0, 1, 2])
    assert model.predict([[1.0 + 2e-12, 0.0]]) == [1]
    assert search.nearest(X, X, k=2, p=2)[0][0, 1] == pytest.approx(1e-12, rel=1e-3)
