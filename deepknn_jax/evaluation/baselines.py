"""What a user has without this program: logistic regression and an SVC, tuned on validation."""

import itertools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from deepknn_jax.errors import UserError
from deepknn_jax.evaluation.metrics import classification_metrics, score

# Principal components of the standardised inputs that both see.
_COMPONENTS = 256


class Part(NamedTuple):
    """Inputs float [n, F] and their labels int [n]."""

    inputs: np.ndarray
    labels: np.ndarray


class Tuned(NamedTuple):
    """Predicted labels int [n], the options that were chosen, and their figure on validation."""

    predictions: np.ndarray
    options: dict[str, Any]
    figure: float


def _logistic_regression(**options: Any) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=2000, **options)


def _svc(**options: Any) -> Any:
    from sklearn.svm import SVC

    return SVC(**options)


# name -> the classifier, and the values of C that are tried, each with class_weight both ways.
BASELINES: Mapping[str, tuple[Callable[..., Any], tuple[float, ...]]] = {
    "logistic_regression": (_logistic_regression, (0.001, 0.01, 0.1, 1.0)),
    "svc": (_svc, (1.0, 3.0, 10.0)),
}


def tuned_baseline(
    name: str, fitting: Part, tuning: Part, training: Part, queries_QxF: np.ndarray, *, by: str
) -> Tuned:
    """Scikit-learn's classifier `name` at its best options, asked for the queries' labels.

    All inputs are standardised and on at most 256 principal components; scaling and components are
    of the part that is fitted. Of equal figures the first of the grid is taken: the smallest C,
    unweighted.

    Args:
        name: a key of BASELINES; the SVC's kernel is scikit-learn's own, radial.
        fitting: what is fitted to tune,
        tuning: and what judges it.
        training: what is fitted then.
        queries_QxF: inputs to be classified.
        by: what options are chosen by, one of metrics.SCORES.

    Raises:
        UserError: the part to fit is of one class.
    """
    make, costs = BASELINES[name]
    grid = [{"C": c, "class_weight": w} for c, w in itertools.product(costs, (None, "balanced"))]
    names = [str(c) for c in range(int(max(fitting.labels.max(), tuning.labels.max())) + 1)]
    counts = np.bincount(fitting.labels, minlength=len(names))
    projected = _projected(fitting.inputs, tuning.inputs)
    figures = [
        score(
            classification_metrics(
                tuning.labels,
                _fitted_on(make(**options), fitting.labels, *projected),
                class_names=names,
                train_counts=counts,
            ),
            by,
        )
        for options in grid
    ]
    best = int(np.argmax(figures))
    predictions = _fitted_on(
        make(**grid[best]), training.labels, *_projected(training.inputs, queries_QxF)
    )
    return Tuned(predictions, grid[best], figures[best])


def _projected(fitted_NxF: np.ndarray, others_QxF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both on the principal components of the first, standardised."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(fitted_NxF)
    scaled, others = scaler.transform(fitted_NxF), scaler.transform(others_QxF)
    if not scaled.any():
        raise UserError("the training part's inputs are all equal: nothing to tell classes by")
    # A seed: of many inputs the components are found by chance.
    pca = PCA(min(_COMPONENTS, *scaled.shape), random_state=0).fit(scaled)
    return pca.transform(scaled), pca.transform(others)


def _fitted_on(
    model: Any, labels_N: np.ndarray, x_NxD: np.ndarray, q_QxD: np.ndarray
) -> np.ndarray:
    from sklearn.exceptions import ConvergenceWarning

    if len(np.unique(labels_N)) < 2:
        raise UserError("the training part is of one class: nothing to classify")
    with warnings.catch_warnings():
        # After 2,000 steps the classes are apart; how far does not matter.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x_NxD, labels_N)
    return np.asarray(model.predict(q_QxD))
