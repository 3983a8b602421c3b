import numpy as np
import pytest
import reference
from sklearn import neighbors
from sklearn.metrics import accuracy_score

from deepknn_jax.estimators import LargeMarginNearestNeighbor, NeighborhoodComponentsAnalysis


@pytest.fixture(scope="module")
def data():
    """[24, 3] of three uneven classes in two of the columns, the third is noise."""
    rng = np.random.default_rng(6)
    y = rng.choice(3, 24, p=[0.5, 0.3, 0.2])
    X = rng.normal(size=(24, 3)) * [1, 1, 8] + 3 * np.eye(3)[:, :3][y] * [1, 1, 0]
    return X, y


def at(model, matrix, X, y):
    """The objective and its gradient at a matrix [d, F]."""
    model.n_iter_ = 1
    return model._loss_grad_lbfgs(matrix.ravel(), X, y[:, None] == y[None, :], -1.0)


def test_nca_has_scikit_learns_objective_and_gradient(data):
    X, y = data
    matrix = np.random.default_rng(7).normal(size=(2, 3)) / 3
    found = at(NeighborhoodComponentsAnalysis(), matrix, X, y)
    wanted = at(neighbors.NeighborhoodComponentsAnalysis(), matrix, X, y)
    assert found[0] == pytest.approx(wanted[0], rel=1e-12)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-9)


def test_nca_comes_to_scikit_learns_transformation(data):
    X, y = data
    one, other = (
        cls(2, init="pca", max_iter=12, random_state=0).fit(X, y)
        for cls in (NeighborhoodComponentsAnalysis, neighbors.NeighborhoodComponentsAnalysis)
    )
    np.testing.assert_allclose(one.components_, other.components_, rtol=1e-4, atol=1e-6)


def test_lmnn_has_the_loss_of_the_loop_and_its_gradient(data):
    X, y = data
    model = LargeMarginNearestNeighbor(n_neighbors=2, mu=0.3, margin=1.5)
    skip = lambda q, g: q == g or y[q] != y[g]  # noqa: E731
    targets = reference.neighbors(X, X, 2, skip=skip)[1]
    model._initialize(X, y, "identity")
    np.testing.assert_array_equal(model._targets, targets)
    matrix = np.random.default_rng(8).normal(size=(2, 3)) / 3
    loss, slope = reference.lmnn_loop(X @ matrix.T, y, targets, mu=0.3, margin=1.5)
    found = at(model, matrix, X, y)
    assert found[0] == pytest.approx(loss, rel=1e-10)
    np.testing.assert_allclose(found[1], (slope.T @ X).ravel(), rtol=1e-8)


def test_lmnn_learns_to_leave_out_the_noise(data):
    X, y = data
    model = LargeMarginNearestNeighbor(2, n_neighbors=2, init="pca", random_state=0).fit(X, y)
    plain, learnt = (
        accuracy_score(y, neighbors.KNeighborsClassifier(3).fit(x, y).predict(None))
        for x in (X, model.transform(X))
    )
    assert learnt > plain + 0.1
    assert "_targets" not in vars(model)
    assert list(model.get_feature_names_out()) == [
        "largemarginnearestneighbor0",
        "largemarginnearestneighbor1",
    ]
