"""One small fit that most tests look at; scikit-learn's checks are in test_checks.py."""

import io
import pickle

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.optional import require

from deepknn_jax.errors import UserError
from deepknn_jax.estimators import DeepKNNClassifier, LocalMarginClassifier
from deepknn_jax.evaluation.doubt import Calibration, p_values, prediction_sets, ratio_scores
from deepknn_jax.trainer import in_memory

SMALL = {"hidden": (16,), "embedding_size": 4, "epochs": 3, "batch_size": 24, "random_state": 3}


@pytest.fixture(scope="module")
def data():
    """Features [300, 6] of three named classes, one of which is rare, and the classes."""
    rng = np.random.default_rng(9)
    y = rng.choice(["naevus", "melanoma", "wart"], 300, p=[0.6, 0.3, 0.1])
    centres = {"naevus": 0, "melanoma": 2, "wart": -2}
    shift = np.array([centres[name] for name in y])[:, None]
    return rng.normal(size=(300, 6)) * [1, 5, 1, 9, 1, 1] + shift * [1, 1, 1, 0, 0, 0] + 50, y


@pytest.fixture(scope="module")
def fitted(data):
    return DeepKNNClassifier(3, 4, 0.5, validation_fraction=0.3, **SMALL).fit(*data)


def test_a_fit_separates_and_its_loss_falls(data, fitted):
    X, y = data
    assert fitted.score(X, y) > 0.75  # the commonest class alone: 0.6
    assert fitted.loss_curve_.shape == (3,)
    assert fitted.loss_curve_[-1] < fitted.loss_curve_[0]
    assert list(fitted.classes_) == ["melanoma", "naevus", "wart"]


def test_the_evidence_is_rows_of_fit_that_were_not_held_out(data, fitted):
    X, y = data
    distances, rows = fitted.kneighbors(X[:7], n_neighbors=4)
    embeddings = fitted.transform(X)
    held = np.setdiff1d(np.arange(300), fitted.gallery_rows_)
    assert len(held) == sum(round(0.3 * n) for n in np.unique(y, return_counts=True)[1])
    apart = np.linalg.norm(embeddings[:7, None].astype("f8") - embeddings[None], axis=2)
    apart[:, held] = np.inf
    np.testing.assert_array_equal(rows, np.argsort(apart, axis=1, kind="stable")[:, :4])
    np.testing.assert_allclose(distances, np.sort(apart, axis=1)[:, :4], atol=1e-5)
    np.testing.assert_array_equal(fitted.kneighbors(X[:7], 4, return_distance=False), rows)
    names, counts = np.unique(y[rows[0]], return_counts=True)
    voted = DeepKNNClassifier.predict_proba(clone_with(fitted, k_p=4), X[:1])[0]
    np.testing.assert_allclose(voted[np.searchsorted(fitted.classes_, names)], counts / 4)


def clone_with(model, **parameters):
    """The fitted model with other parameters of the vote."""
    copy = pickle.loads(pickle.dumps(model))
    return copy.set_params(**parameters)


def test_sets_are_those_of_doubt_on_what_was_held_out(data, fitted):
    X, y = data
    labels = np.searchsorted(fitted.classes_, y)
    held = np.setdiff1d(np.arange(300), fitted.gallery_rows_)
    embeddings = fitted.transform(X)
    scores = ratio_scores(
        embeddings, embeddings[fitted.gallery_rows_], labels[fitted.gallery_rows_], num_classes=3
    )
    known = Calibration(scores[held, labels[held]], labels[held], 3)
    wanted = prediction_sets(p_values(scores, known), level=0.8)
    found = fitted.predict_set(X, level=0.8)
    assert (found == wanted).mean() > 0.995  # a score may tie but for its last place
    assert found[held, labels[held]].mean() >= 0.8
    assert 1 <= found.sum(axis=1).mean() < 3


def test_without_anything_held_out_there_is_no_set(data):
    X, y = data
    with pytest.raises(UserError, match=r"set validation_fraction, such as 0\.2"):
        DeepKNNClassifier(**SMALL).fit(X, y).predict_set(X)


def test_a_fit_of_other_numbers_compiles_nothing(data, fitted):
    X, y = data
    before = [f._cache_size() for f in (in_memory._train, in_memory._begin, in_memory._embed)]
    other = DeepKNNClassifier(
        3, 4, 0.75, validation_fraction=0.25, **SMALL | {"random_state": 4, "epochs": 2}
    ).set_params(learning_rate=0.02, halve_every_epochs=1)
    other.fit(X[:270], y[:270])
    after = [f._cache_size() for f in (in_memory._train, in_memory._begin, in_memory._embed)]
    assert before == after
    assert np.abs(other.transform(X) - fitted.transform(X)).max() > 0.1


def test_the_seed_decides_all(data, fitted):
    X, y = data
    again = clone(fitted).fit(X, y)
    np.testing.assert_array_equal(again.transform(X), fitted.transform(X))
    other = clone(fitted).set_params(random_state=11).fit(X, y)
    assert not np.array_equal(other.gallery_rows_, fitted.gallery_rows_)


def test_a_warm_start_goes_on_and_refuses_another_shape(data, fitted):
    X, y = data
    model = clone_with(fitted, warm_start=True).fit(X, y)
    assert model.loss_curve_[0] < fitted.loss_curve_[0] * 0.9
    with pytest.raises(UserError, match="warm_start goes on with the same features"):
        model.fit(X[:, :5], y)
    with pytest.raises(UserError, match="warm_start"):
        model.set_params(embedding_size=5).fit(X, y)


def test_files_hold_it(data, fitted, tmp_path):
    X, _ = data
    joblib.dump(fitted, tmp_path / "model.joblib")
    for copy in (joblib.load(tmp_path / "model.joblib"), pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(copy.predict_proba(X), fitted.predict_proba(X))
        np.testing.assert_array_equal(copy.predict_set(X), fitted.predict_set(X))


@pytest.mark.interop
def test_skops_trusts_all_but_the_class(data, fitted):
    skops = require("skops.io")
    data_of_it = skops.dumps(fitted)
    unknown = skops.get_untrusted_types(data=data_of_it)
    assert unknown == ["deepknn_jax.estimators.classifiers.DeepKNNClassifier"]
    copy = skops.load(io.BytesIO(data_of_it), trusted=unknown)
    np.testing.assert_array_equal(copy.predict_proba(data[0]), fitted.predict_proba(data[0]))


def test_it_is_at_home_in_a_grid_search_of_a_pipeline(data):
    X, y = data
    pipeline = make_pipeline(StandardScaler(), DeepKNNClassifier(3, 4, **SMALL))
    pipeline.set_output(transform="pandas")
    grid = {
        "deepknnclassifier__k": np.array([3]),
        "deepknnclassifier__m": [4],
        "deepknnclassifier__margin": np.array([0.25, 1.0]),
    }
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    assert search.best_score_ > 0.7
    frame = search.best_estimator_.transform(X)
    assert list(frame.columns) == [f"deepknnclassifier{i}" for i in range(4)]
    assert search.best_estimator_.score(X, y) > 0.7


@pytest.mark.scikit_learn
def test_local_margins_are_trained_for(data):
    X, y = data
    model = LocalMarginClassifier(**SMALL | {"batch_size": 60, "learning_rate": 1e-2}).fit(X, y)
    assert model.score(X, y) > 0.85
    assert model.loss_curve_[-1] < model.loss_curve_[0]


def test_what_does_not_fit_is_told(data):
    X, y = data
    for parameters, words in (
        (
            {"loss_options": {"temprature": 2.0}},
            "loss_options has 'temprature': deep_knn reads class_weight_power, k,",
        ),
        ({"k_p": 301}, r"k_p is 301, but 300 examples .*n_samples = 300"),
        ({"hidden": (8, 0)}, r"hidden is \(8, 0\)"),
        ({"loss": "deep"}, "'loss' parameter of DeepKNNClassifier must be"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"learning_rate": 1e30}, "choose a smaller learning_rate"),
    ):
        with pytest.raises(ValueError, match=words):
            DeepKNNClassifier(3, 4, **SMALL | parameters).fit(X, y)
