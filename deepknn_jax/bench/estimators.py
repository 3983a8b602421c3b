"""Estimators beside scikit-learn's own: the search of kNN, and the fit of NCA."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from deepknn_jax.bench import peers
from deepknn_jax.bench.timing import Row, Side, compare

# Queries, gallery, width, k.
SEARCHES = tuple(
    (*sizes, k) for sizes in ((1000, 100_000, 128), (2005, 8010, 2048)) for k in (5, 50)
)
# Examples, features, components, classes, iterations.
FITS = ((1797, 64, 32, 10, 20),)


def measure(
    searches: Sequence[tuple[int, int, int, int]] = SEARCHES,
    fits: Sequence[tuple[int, int, int, int, int]] = FITS,
    *,
    repeats: int = 10,
) -> Iterator[Row]:
    """A row for each search, by brute force on float32, and for each fit; the sides agree."""
    for queries, gallery, width, k in searches:
        rng = np.random.default_rng(0)
        queries_QxD = rng.normal(size=(queries, width)).astype(np.float32)
        gallery_GxD = rng.normal(size=(gallery, width)).astype(np.float32)
        labels_G = rng.integers(0, 7, gallery)
        sides = {
            name: _search_side(cls(k, algorithm="brute").fit(gallery_GxD, labels_G), queries_QxD)
            for name, cls in _classes("KNeighborsClassifier").items()
        }
        task = f"kneighbors, k {k}, {queries} x {gallery} x {width}"
        yield compare(task, sides, repeats=repeats)
    for examples, features, components, classes, iterations in fits:
        rng = np.random.default_rng(0)
        y = rng.integers(0, classes, examples)
        X = rng.normal(size=(examples, features)) + rng.normal(size=(classes, features))[y]
        options = {"n_components": components, "init": "identity", "max_iter": iterations, "tol": 0}
        sides = {
            name: _fit_side(cls(**options), X, y)
            for name, cls in _classes("NeighborhoodComponentsAnalysis").items()
        }
        task = f"NCA fit, {examples} x {features} to {components}, {iterations} iterations"
        yield compare(task, sides, repeats=max(1, repeats // 3))


def _classes(name: str) -> dict[str, Any]:
    """The class of that name, ours and scikit-learn's where that is installed: ours needs it."""
    if peers.load("sklearn") is None:
        return {}
    from sklearn import neighbors

    from deepknn_jax import estimators

    return {"xla": getattr(estimators, name), "sklearn": getattr(neighbors, name)}


def _search_side(model: Any, queries_QxD: np.ndarray) -> Side:
    return Side(lambda: model.kneighbors(queries_QxD), lambda found: np.asarray(found[0]))


def _fit_side(model: Any, X: np.ndarray, y: np.ndarray) -> Side:
    """Compared is the objective at what was learnt: the way there magnifies rounding."""

    def run() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it was told to end before it converges
            return model.fit(X, y)

    def objective(fitted: Any) -> np.ndarray:
        z = fitted.transform(X)
        squares = np.square(z).sum(axis=1)
        distances = squares[:, None] + squares[None, :] - 2 * z @ z.T
        np.fill_diagonal(distances, np.inf)
        p = np.exp(distances.min(axis=1, keepdims=True) - distances)
        same = y[:, None] == y[None, :]
        return np.asarray((p * same).sum(axis=1) / p.sum(axis=1)).mean()[None]

    return Side(run, objective)
