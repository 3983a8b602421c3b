"""scikit-learn's KNeighborsClassifier with this project's search."""

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import issparse
from sklearn import neighbors
from sklearn.neighbors._base import _get_weights
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from deepknn_jax.estimators.search import TIES, nearest, shares

_ORDERS = {"euclidean": 2.0, "l2": 2.0, "manhattan": 1.0, "l1": 1.0, "cityblock": 1.0}


class KNeighborsClassifier(neighbors.KNeighborsClassifier):
    """The vote of the k nearest, found by `knn.neighbors.nearest_neighbors`.

    Dense input, `algorithm` "auto" or "brute", and a `metric` that is an L_p with finite p >= 1
    (minkowski, euclidean, manhattan and their other names, without weights) are searched here,
    exactly, in float64 where the input is. All else is scikit-learn's own, and so are the
    parameters; `n_jobs` is for those: XLA uses all cores.

    Args:
        n_neighbors, weights, algorithm, leaf_size, p, metric, metric_params, n_jobs: as of
            `sklearn.neighbors.KNeighborsClassifier`.
        ties: "label": of tied classes the smallest label, scikit-learn's rule; "nearer": the class
            whose voters are nearer in sum, that of `deepknn_jax.vote`.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **neighbors.KNeighborsClassifier._parameter_constraints,
        "ties": [StrOptions(set(TIES))],
    }

    algorithm: str

    def __init__(
        self,
        n_neighbors: int = 5,
        *,
        weights: Any = "uniform",
        algorithm: str = "auto",
        leaf_size: int = 30,
        p: float = 2,
        metric: Any = "minkowski",
        metric_params: dict[str, Any] | None = None,
        n_jobs: int | None = None,
        ties: str = "label",
    ) -> None:
        super().__init__(
            n_neighbors=n_neighbors,
            weights=weights,
            algorithm=algorithm,
            leaf_size=leaf_size,
            p=p,
            metric=metric,
            metric_params=metric_params,
            n_jobs=n_jobs,
        )
        self.ties = ties

    def _fit(self, X: Any, y: Any = None) -> Any:
        algorithm = self.algorithm
        if algorithm == "auto" and self._order() is not None:
            self.algorithm = "brute"  # no tree is built that nobody would ask
        try:
            return super()._fit(X, y)
        finally:
            self.algorithm = algorithm

    def _order(self) -> float | None:
        """The order of the norm, where the metric is an L_p with finite p >= 1."""
        if not isinstance(self.metric, str) or set(self.metric_params or {}) - {"p"}:
            return None
        if self.metric in _ORDERS and not self.metric_params:
            return _ORDERS[self.metric]
        p: Any = (self.metric_params or {}).get("p", self.p)
        known = self.metric == "minkowski" and isinstance(p, Real)
        return float(p) if known and 1 <= p < np.inf else None

    def _searches(self, X: Any) -> bool:
        """Whether the neighbours of X are found here."""
        return (
            self._fit_method == "brute"
            and self._order() is not None
            and not issparse(self._fit_X)
            and not issparse(X)
        )

    def kneighbors(
        self, X: Any = None, n_neighbors: int | None = None, return_distance: bool = True
    ) -> Any:
        """As scikit-learn's: distances float64 [Q, k] and indices int64 [Q, k], the nearest first.

        `X` None: the training rows, each without itself.
        """
        check_is_fitted(self)
        k = self.n_neighbors if n_neighbors is None else n_neighbors
        rows = self.n_samples_fit_ - (X is None)
        sound = isinstance(k, Integral) and 1 <= int(k) <= rows
        if not sound or not self._searches(X):  # what is wrong, scikit-learn tells
            return super().kneighbors(X, n_neighbors, return_distance)
        queries = self._fit_X
        if X is not None:
            queries = validate_data(self, X, reset=False, order="C")
        p = self._order()
        assert p is not None
        found = nearest(queries, self._fit_X, k=int(k), p=p, leave_out=X is None)
        return found if return_distance else found[1]

    def predict(self, X: Any) -> np.ndarray:
        """The classes [Q] (or [Q, outputs]) with the largest shares; `X` None: leave-one-out."""
        check_is_fitted(self)
        if self.ties == "label" and not self._searches(X):
            return super().predict(X)
        found = self.predict_proba(X)
        if not self.outputs_2d_:
            return self.classes_[np.argmax(found, axis=1)]
        chosen = [
            classes[np.argmax(each, axis=1)]
            for classes, each in zip(self.classes_, found, strict=True)
        ]
        return np.stack(chosen, axis=1).astype(self.classes_[0].dtype)

    def predict_proba(self, X: Any) -> Any:
        """Shares of the votes float64 [Q, C], a list of these where there are several outputs."""
        check_is_fitted(self)
        if self.ties == "label" and not self._searches(X):
            return super().predict_proba(X)
        distances, indices = self.kneighbors(X)
        weights = _get_weights(distances, self.weights)
        if weights is not None and not np.all(np.any(weights, axis=1)):
            raise ValueError(
                "All neighbors of some sample is getting zero weights. Please modify 'weights' to "
                "avoid this case if you are using a user-defined function."
            )
        labels = self._y.reshape(len(self._y), -1)
        classes = self.classes_ if self.outputs_2d_ else [self.classes_]
        found = [
            shares(
                distances,
                labels[indices, output],
                num_classes=len(each),
                weights_Qxk=weights,
                ties=self.ties,
            )
            for output, each in enumerate(classes)
        ]
        return found if self.outputs_2d_ else found[0]
