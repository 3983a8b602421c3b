"""What the estimators that train a network share: fitting, embedding, voting, sets of classes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, check_random_state, validate_data

from deepknn_jax.answers.judge import SCORE_K
from deepknn_jax.engine.inputs import Scale
from deepknn_jax.errors import UserError
from deepknn_jax.estimators.search import TIES, nearest, shares
from deepknn_jax.evaluation import doubt
from deepknn_jax.trainer.in_memory import (
    Trained,
    Variables,
    Widths,
    embed_features,
    fit,
    options_of,
)

_DTYPES = (np.float64, np.float32)
_WHOLE = Interval(Integral, 1, None, closed="left")
_SHARE = Interval(Real, 0, None, closed="left")


class Embedder(
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    ClassifierMixin,
    BaseEstimator,
    ABC,
):
    """A network trained on features, whose embeddings' nearest neighbours vote.

    A subclass has the parameters as arguments of its __init__, and says in `_method` and
    `_loss_options` what is trained for.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "p": [Interval(Real, 1, None, closed="left")],
        "loss_options": [dict, None],
        "hidden": ["array-like"],
        "embedding_size": [_WHOLE],
        "normalize": ["boolean"],
        "k_p": [_WHOLE],
        "ties": [StrOptions(set(TIES))],
        "epochs": [_WHOLE],
        "batch_size": [_WHOLE],
        "optimizer": [StrOptions({"sgd", "adam"})],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "halve_every_epochs": [Interval(Integral, 0, None, closed="left")],
        "weight_decay": [_SHARE],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
    }
    # Declared for the type checker; a subclass's __init__ sets them.
    p: float
    loss_options: Mapping[str, Any] | None
    hidden: Sequence[int]
    embedding_size: int
    normalize: bool
    k_p: int
    ties: str
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    halve_every_epochs: int
    weight_decay: float
    validation_fraction: float
    warm_start: bool
    random_state: Any

    @abstractmethod
    def _method(self) -> str:
        """The name of the method, one of METHODS."""

    @abstractmethod
    def _loss_options(self) -> dict[str, Any]:
        """The parameters that are options of config.loss, by their names there."""

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any) -> Any:
        """Trains on the features X [N, F] and their classes y [N].

        Each feature is put to mean 0 and deviation 1 first. A share `validation_fraction` of each
        class neither trains nor votes: it calibrates `predict_set`.

        Raises:
            ValueError: as scikit-learn's; a parameter that does not fit; the training came to
                numbers that are not finite.
        """
        X, y = validate_data(self, X, y, dtype=_DTYPES, ensure_min_samples=2)
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        start = self._start(classes, X.shape[1])
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        held = _held_out(labels, self.validation_fraction, seed)
        rows = np.flatnonzero(~held)
        if len(rows) < self.k_p:
            raise UserError(f"k_p is {self.k_p}, but {len(rows)} examples train and vote"
                            f" (n_samples = {len(X)}): choose a smaller k_p")  # fmt: skip
        trained = fit(
            X[rows],
            labels[rows],
            num_classes=len(classes),
            widths=self._widths(),
            options=self._options(seed),
            start=start,
        )
        self._take(trained, classes)
        self.gallery_rows_, self.gallery_labels_ = rows, labels[rows]
        self.gallery_ = self._embed(X[rows])
        self._calibrate(X[held], labels[held])
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Embeddings float32 [n, embedding_size] of the features X [n, F]."""
        return self._embeddings(X)

    def kneighbors(
        self, X: Any, n_neighbors: int | None = None, return_distance: bool = True
    ) -> tuple[np.ndarray, np.ndarray] | np.ndarray:
        """The evidence: of each row of X the nearest training examples between embeddings.

        Returns:
            Distances float64 [n, k] and rows int64 [n, k] of the X of `fit`, the nearest first;
            the rows alone where `return_distance` is False. k is `n_neighbors`, or `k_p`.
        """
        distances, places = self._nearest(self._embeddings(X), n_neighbors or self.k_p)
        rows = self.gallery_rows_[places]
        return (distances, rows) if return_distance else rows

    def predict_proba(self, X: Any) -> np.ndarray:
        """Shares float64 [n, C] of the votes of the `k_p` nearest, by the order of `classes_`."""
        distances, places = self._nearest(self._embeddings(X), self.k_p)
        return shares(
            distances, self.gallery_labels_[places], num_classes=len(self.classes_), ties=self.ties
        )

    def predict(self, X: Any) -> np.ndarray:
        """The classes [n] with the largest shares."""
        check_is_fitted(self)
        chosen: np.ndarray = self.classes_[np.argmax(self.predict_proba(X), axis=1)]
        return chosen

    def predict_set(self, X: Any, level: float = 0.9) -> np.ndarray:
        """Bool [n, C]: the classes that cannot be ruled out, by the order of `classes_`.

        Of each class's new examples a share `level` or more has its class in the set, where they
        are like those that were held out (`evaluation.doubt`). A class with fewer held-out
        examples than level / (1 - level), 9 at 0.9, is in every set.

        Raises:
            ValueError: nothing was held out: `validation_fraction` was 0; level outside 0..1.
        """
        embeddings = self._embeddings(X)
        if not len(self.calibration_labels_):
            raise UserError("predict_set wants examples that did not train: set"
                            " validation_fraction, such as 0.2, and fit again")  # fmt: skip
        classes = len(self.classes_)
        known = doubt.Calibration(self.calibration_scores_, self.calibration_labels_, classes)
        return doubt.prediction_sets(doubt.p_values(self._scores(embeddings), known), level=level)

    def _options(self, seed: int) -> dict[str, Any]:
        """The options of a run that the parameters stand for, by their dotted keys."""
        loss = {"name": self._method(), "p": self.p, **self._loss_options()}
        reads = options_of(self._method())
        for name, value in (self.loss_options or {}).items():
            if name not in reads:
                raise UserError(f"loss_options has {name!r}: {self._method()} reads"
                                f" {', '.join(sorted(reads)) or 'none'}")  # fmt: skip
            loss[name] = value
        options = {f"loss.{name}": value for name, value in loss.items()} | {
            "seed": seed,
            "epochs": self.epochs,
            "batch.size": self.batch_size,
            "optimizer.name": self.optimizer,
            "optimizer.learning_rate": self.learning_rate,
            "optimizer.halve_every_epochs": self.halve_every_epochs,
            "optimizer.weight_decay": self.weight_decay,
        }
        return {key: _plain(value) for key, value in options.items()}

    def _widths(self) -> Widths:
        hidden = tuple(int(width) for width in self.hidden)
        if any(width < 1 for width in hidden):
            raise UserError(f"hidden is {self.hidden}: the widths of layers, each at least 1")
        return Widths(hidden, int(self.embedding_size), bool(self.normalize))

    def _start(self, classes: np.ndarray, features: int) -> Variables | None:
        """What a warm start goes on from."""
        if not self.warm_start or not hasattr(self, "variables_"):
            return None
        same = features == len(self.mean_) and np.array_equal(classes, self.classes_)
        if not same or self._widths() != Widths(*self.widths_):
            raise UserError("warm_start goes on with the same features, classes and widths:"
                            " set it to False, or clone the estimator")  # fmt: skip
        return self.variables_["params"], self.variables_["batch_stats"]

    def _take(self, trained: Trained, classes: np.ndarray) -> None:
        """The fitted attributes, of numpy's arrays and Python's own types alone."""
        widths = self._widths()
        self.classes_ = classes
        self.widths_ = (widths.hidden, widths.embedding_size, widths.normalize)
        params, batch_stats = trained.variables
        self.variables_ = {"params": params, "batch_stats": batch_stats}
        self.mean_, self.scale_ = trained.scale
        self.loss_curve_ = trained.losses

    def _calibrate(self, X: np.ndarray, labels: np.ndarray) -> None:
        self.calibration_scores_ = np.zeros(0)
        if len(labels):
            scores = self._scores(self._embed(X))
            self.calibration_scores_ = scores[np.arange(len(labels)), labels]
        self.calibration_labels_ = labels

    def _scores(self, embeddings: np.ndarray) -> np.ndarray:
        classes = len(self.classes_)
        return doubt.ratio_scores(
            embeddings, self.gallery_, self.gallery_labels_,
            num_classes=classes, k=SCORE_K, p=float(self.p),
        )  # fmt: skip

    def _embeddings(self, X: Any) -> np.ndarray:
        """As `transform`, whatever set_output has made of that."""
        check_is_fitted(self)
        return self._embed(validate_data(self, X, reset=False, dtype=_DTYPES))

    def _embed(self, X: np.ndarray) -> np.ndarray:
        variables = self.variables_["params"], self.variables_["batch_stats"]
        scale = Scale(self.mean_, self.scale_)
        return embed_features(variables, X, scale, Widths(*self.widths_))

    def _nearest(self, embeddings: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if not 1 <= k <= len(self.gallery_):
            raise UserError(f"n_neighbors is {k}: choose 1 to {len(self.gallery_)}, the examples"
                            " that vote")  # fmt: skip
        return nearest(embeddings, self.gallery_, k=k, p=float(self.p))

    @property
    def _n_features_out(self) -> int:
        return int(self.widths_[1])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def _held_out(labels_N: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Bool [N]: a random share of each class, of which one example at least stays."""
    held = np.zeros(len(labels_N), bool)
    rng = np.random.default_rng(seed)
    for c in np.unique(labels_N):
        rows = rng.permutation(np.flatnonzero(labels_N == c))
        held[rows[: min(round(fraction * len(rows)), len(rows) - 1)]] = True
    return held


def _plain(value: Any) -> Any:
    """A number of numpy's, as a grid brings them, as Python's."""
    return value.item() if isinstance(value, np.generic) else value
