"""Linear transformations learnt by L-BFGS on all data at once: NCA and LMNN."""

import sys
import time
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn import neighbors
from sklearn.utils._param_validation import Interval

from deepknn_jax.knn.neighbors import Examples
from deepknn_jax.losses.lmnn import lmnn_sums, target_neighbors
from deepknn_jax.losses.nca import nca_sums


class NeighborhoodComponentsAnalysis(neighbors.NeighborhoodComponentsAnalysis):
    """scikit-learn's NCA with the objective and its gradient by `losses.nca`, in float64.

    Initialisation, L-BFGS and parameters are scikit-learn's.
    """

    def _loss_grad_lbfgs(
        self,
        transformation: np.ndarray,
        X: np.ndarray,
        same_class_mask: np.ndarray,
        sign: float = 1.0,
    ) -> tuple[float, np.ndarray]:
        """The objective at `transformation`, and its gradient, both times `sign`."""
        if self.n_iter_ == 0:
            self.n_iter_ += 1
            self._tell_header()
        began = time.time()
        # The first example of a class numbers it.
        labels_N = np.argmax(same_class_mask, axis=1).astype(np.int32)
        with jax.enable_x64(True):
            matrix = np.asarray(transformation, np.float64).reshape(-1, X.shape[1])
            value, gradient = self._objective(matrix, np.asarray(X, np.float64), labels_N)
            loss, slope = float(value), np.asarray(gradient).ravel()
        if self.verbose:
            taken = time.time() - began
            print(  # noqa: T201
                f"[{type(self).__name__}] {self.n_iter_:>10} {loss:>20.6e} {taken:>10.2f}"
            )
            sys.stdout.flush()
        return sign * loss, sign * slope

    def _objective(self, matrix_dxF: np.ndarray, X: np.ndarray, labels_N: np.ndarray) -> Any:
        """What is to grow, and its gradient [d, F]."""
        return _nca(matrix_dxF, X, labels_N)

    def _tell_header(self) -> None:
        if self.verbose:
            name = f"[{type(self).__name__}]"
            header = f"{'Iteration':>10} {'Objective Value':>20} {'Time(s)':>10}"
            print(f"{name}\n{name} {header}\n{name} {'-' * len(header)}")  # noqa: T201


class LargeMarginNearestNeighbor(NeighborhoodComponentsAnalysis):
    """The linear transformation of large margin nearest neighbours (`losses.lmnn`), by L-BFGS.

    Each example is to have its target neighbours, the nearest of its class in the input space,
    nearer than any example of another class, by a margin. Memory grows with
    n_samples^2 * n_neighbors. Verbose output shows minus the loss, which is to grow.

    Args:
        n_components, init, warm_start, max_iter, tol, callback, verbose, random_state: as of
            `sklearn.neighbors.NeighborhoodComponentsAnalysis`.
        n_neighbors: target neighbours of an example.
        mu: weight of the push, 1 - mu that of the pull.
        margin: in units of the squared distance after the transformation.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **neighbors.NeighborhoodComponentsAnalysis._parameter_constraints,
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "mu": [Interval(Real, 0, 1, closed="both")],
        "margin": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        n_components: int | None = None,
        *,
        n_neighbors: int = 3,
        mu: float = 0.5,
        margin: float = 1.0,
        init: Any = "auto",
        warm_start: bool = False,
        max_iter: int = 50,
        tol: float = 1e-5,
        callback: Callable[..., Any] | None = None,
        verbose: int = 0,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            n_components,
            init=init,
            warm_start=warm_start,
            max_iter=max_iter,
            tol=tol,
            callback=callback,
            verbose=verbose,
            random_state=random_state,
        )
        self.n_neighbors = n_neighbors
        self.mu = mu
        self.margin = margin

    def fit(self, X: Any, y: Any) -> Any:
        """Learns the transformation `components_` [d, F] from X [N, F] and the classes y [N]."""
        try:
            return super().fit(X, y)
        finally:
            self.__dict__.pop("_targets", None)

    def _initialize(self, X: np.ndarray, y: np.ndarray, init: Any) -> np.ndarray:
        with jax.enable_x64(True):
            wide, labels = jnp.asarray(X, jnp.float64), jnp.asarray(y)
            self._targets = np.asarray(target_neighbors(wide, labels, k=self.n_neighbors))
        start: np.ndarray = super()._initialize(X, y, init)
        return start

    def _objective(self, matrix_dxF: np.ndarray, X: np.ndarray, labels_N: np.ndarray) -> Any:
        return _lmnn(matrix_dxF, X, labels_N, self._targets, float(self.mu), float(self.margin))


def _examples(matrix_dxF: Array, X_NxF: Array, labels_N: Array) -> Examples:
    """The transformed rows, each an example of its own."""
    rows_N = jnp.arange(len(X_NxF), dtype=jnp.int32)
    return Examples(X_NxF @ matrix_dxF.T, labels_N, rows_N, jnp.ones(len(X_NxF), bool))


@jax.jit
@jax.value_and_grad
def _nca(matrix_dxF: Array, X_NxF: Array, labels_N: Array) -> Array:
    """The sum over the examples of p_i."""
    batch = _examples(matrix_dxF, X_NxF, labels_N)
    return -nca_sums(batch, batch).loss


@jax.jit
@jax.value_and_grad
def _lmnn(
    matrix_dxF: Array,
    X_NxF: Array,
    labels_N: Array,
    targets_NxK: Array,
    mu: float,
    margin: float,
) -> Array:
    """Minus the loss of LMNN."""
    batch = _examples(matrix_dxF, X_NxF, labels_N)
    return -lmnn_sums(batch, batch, targets_NxK, mu=mu, margin=margin).loss
