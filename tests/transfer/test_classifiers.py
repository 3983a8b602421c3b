"""Simple classifiers on principal components: beside scikit-learn's pipelines."""

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from deepknn_jax.errors import UserError
from deepknn_jax.transfer.classifiers import classify_all, reduce


def wine():
    """178 wines of 3 classes, 13 features of very different scales: 118 train, 60 test."""
    x, y = load_wine(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:118], order[118:]
    return x[train].astype(np.float32), y[train], x[test].astype(np.float32), y[test]


@pytest.mark.parametrize(("pca", "k"), [(2, 0), (5, 7), (32, 1)])
def test_the_classifiers_are_scikit_learns_pipelines(pca, k):
    train_x, train_y, test_x, test_y = wine()
    found = classify_all(train_x, train_y, test_x, test_y, pca=pca, k=k, seed=3)
    models = {
        "kNN": KNeighborsClassifier(k or 11),  # 11^2 >= 118
        "SVM": SVC(kernel="linear"),
        "DT": DecisionTreeClassifier(random_state=3),
        "MLP": MLPClassifier((24,), max_iter=1000, random_state=3),
    }
    assert list(found) == list(models)
    for name, model in models.items():
        # In float64, as scaling and PCA run here.
        steps = make_pipeline(StandardScaler(), PCA(min(pca, 13), svd_solver="full"), model)
        predicted = steps.fit(np.float64(train_x), train_y).predict(np.float64(test_x))
        assert found[name]["acc"] == pytest.approx(accuracy_score(test_y, predicted))
        assert found[name]["mcr"] == pytest.approx(balanced_accuracy_score(test_y, predicted))
        assert found[name]["acc"] > 0.8


def test_scaling_and_components_are_the_training_parts():
    train_x, _, test_x, _ = wine()
    train, test = reduce(train_x, test_x, 4)
    other_train, other = reduce(train_x, test_x[:10] * 3 + 100, 4)
    np.testing.assert_array_equal(train, other_train)
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(train.T @ train, np.diag(np.diag(train.T @ train)), atol=1e-6)
    assert np.all(np.diff(train.std(0)) < 0)
    np.testing.assert_allclose(reduce(train_x, test_x[:3], 4)[1], test[:3], atol=1e-9)
    assert np.abs(other).max() > np.abs(test).max()


def test_components_that_are_rounding_are_left_out():
    """Embeddings of rank 2, as a collapsing network gives."""
    rng = np.random.default_rng(1)
    wide = (rng.normal(size=(80, 2)) @ rng.normal(size=(2, 30)) * 7 + 5).astype(np.float32)
    train, test = reduce(wide[:50], wide[50:], 8)
    assert (train.shape, test.shape) == ((50, 2), (30, 2))
    same = np.full((50, 30), 0.1, np.float32)
    with pytest.raises(UserError, match="embeddings are all equal"):
        reduce(same, same, 8)


def test_what_cannot_be_classified_is_told():
    train_x, train_y, test_x, test_y = wine()
    with pytest.raises(UserError, match="`k` is 119, but there are 118 training examples"):
        classify_all(train_x, train_y, test_x, test_y, k=119)
    with pytest.raises(UserError, match="one class"):
        classify_all(train_x, np.zeros_like(train_y), test_x, test_y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_x": np.ones(118)}, r"train_x \[N, D\], got shape \(118,\)"),
        ({"test_x": np.ones((60, 12))}, "train_x and test_x must have one width D"),
        ({"test_x": np.full((60, 13), np.nan)}, "test_x has NaN or infinity in row 0"),
        ({"train_y": np.zeros(117, int)}, r"train_y \[118\], got shape \(117,\)"),
        ({"train_y": np.zeros((118, 1), int)}, r"train_y \[118\], got shape \(118, 1\)"),
        ({"test_y": np.full(60, "a")}, "test_y must be integers, got text"),
        ({"train_y": np.arange(118) - 1}, r"train_y must be 0\.\., got -1\.\.116"),
        ({"k": 2.0}, "k must be an integer, got 2.0"),
        ({"pca": 0}, "pca must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    names = ("train_x", "train_y", "test_x", "test_y")
    arguments = dict(zip(names, wine(), strict=True)) | options
    with pytest.raises(UserError, match=message):
        classify_all(**arguments)


def test_an_offset_that_float32_cannot_hold():
    train_x, _, test_x, _ = wine()
    wide = [np.float64(x) + 1e10 for x in (train_x, test_x)]
    for found, expected in zip(reduce(*wide, 4), reduce(train_x, test_x, 4), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-3)
