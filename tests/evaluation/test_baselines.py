"""Scikit-learn's classifiers, tuned on validation: against scikit-learn's own grid search."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from deepknn_jax.errors import UserError
from deepknn_jax.evaluation.baselines import BASELINES, Part, tuned_baseline


def part(size, seed):
    """Three classes of 6 : 3 : 1 that overlap; a constant column, and one of large scale."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size, p=[0.6, 0.3, 0.1])
    labels[:3] = 0, 1, 2
    x = rng.normal(size=(size, 6)) + 0.9 * labels[:, None] * np.array([1, 0, -1, 0, 1, 0])
    return Part(np.column_stack([x, np.full(size, 3.0), 1e4 * rng.normal(size=size)]), labels)


def mean_of_both(model, x, labels):
    predicted = model.predict(x)
    both = accuracy_score(labels, predicted), balanced_accuracy_score(labels, predicted)
    return sum(both) / 2


@pytest.mark.parametrize("by", ["acc", "mcr", "mean"])
@pytest.mark.parametrize(
    ("name", "theirs"), [("logistic_regression", LogisticRegression), ("svc", SVC)]
)
def test_it_chooses_and_predicts_as_a_grid_search(name, theirs, by):
    fitting, tuning, queries = part(90, 0), part(60, 1), part(40, 2).inputs
    whole = Part(*(np.concatenate(pair) for pair in zip(fitting, tuning, strict=True)))
    found = tuned_baseline(name, fitting, tuning, whole, queries, by=by)
    step = theirs.__name__.lower()
    model = theirs(max_iter=2000) if name == "logistic_regression" else theirs()
    judge = GridSearchCV(
        make_pipeline(StandardScaler(), PCA(8), model),
        {f"{step}__C": BASELINES[name][1], f"{step}__class_weight": [None, "balanced"]},
        scoring={"acc": "accuracy", "mcr": "balanced_accuracy", "mean": mean_of_both}[by],
        cv=PredefinedSplit(np.repeat([-1, 0], [90, 60])),
    ).fit(*whole)
    assert found.options == {key.split("__")[1]: value for key, value in judge.best_params_.items()}
    assert found.figure == pytest.approx(judge.best_score_)
    np.testing.assert_array_equal(found.predictions, judge.predict(queries))


def test_what_cannot_be_fitted_is_refused():
    one = Part(part(9, 0).inputs, np.zeros(9, int))
    with pytest.raises(UserError, match="of one class"):
        tuned_baseline("svc", one, one, one, one.inputs, by="acc")
    equal = Part(np.ones((9, 2)), np.arange(9) % 2)
    with pytest.raises(UserError, match="inputs are all equal"):
        tuned_baseline("svc", equal, equal, equal, equal.inputs, by="acc")
