"""Classifiers that train a network on features: deep kNN and other methods, local margins."""

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval, StrOptions

from deepknn_jax.estimators.embedder import Embedder
from deepknn_jax.trainer.methods import METHODS


class DeepKNNClassifier(Embedder):
    """An MLP trained so that a kNN on its embeddings is right: deep kNN, or another method.

    The training is that of `python -m deepknn_jax.main` on features; parameters not told of here
    are its options. `transform` gives the embeddings, `kneighbors` the evidence, `predict_set` the
    classes that cannot be ruled out.

    Args:
        k, m: nearest positives of an anchor in its batch, and nearest negatives.
        margin: by which the positives are to be nearer, in units of the distance.
        p: order of the norm, of loss and vote.
        loss: a name of `trainer.methods.METHODS`; of `k`, `m`, `margin` and `p` it takes what it
            reads.
        loss_options: further options of config.loss that the method reads, such as
            {"temperature": 2.0} of nca.
        hidden: widths of the hidden layers; () for a linear map.
        embedding_size: of the embeddings.
        normalize: embeddings of length 1.
        k_p: neighbours that vote.
        ties: "label" or "nearer", as of `KNeighborsClassifier`.
        epochs: times that the examples are gone through.
        batch_size: examples a step; all of them where there are fewer.
        optimizer: "sgd" (momentum 0.9) or "adam".
        learning_rate: halved every `halve_every_epochs` epochs (0: never).
        weight_decay: added to the gradient (sgd), decoupled (adam).
        validation_fraction: share of each class that is held out for `predict_set`.
        warm_start: go on from the last fit's network.
        random_state: of the start, the batches and what is held out.

    Attributes:
        classes_: [C].
        variables_: {"params", "batch_stats"} of the network, numpy's.
        mean_, scale_: float64 [F], by which features are standardised.
        gallery_: float32 [G, embedding_size], who votes; `gallery_labels_` int [G];
            `gallery_rows_` int [G] in the X of `fit`.
        loss_curve_: float64 [epochs].
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **Embedder._parameter_constraints,
        "k": [Interval(Integral, 0, None, closed="left")],
        "m": [Interval(Integral, 0, None, closed="left")],
        "margin": [Interval(Real, 0, None, closed="left")],
        "loss": [StrOptions(set(METHODS))],
    }

    def __init__(
        self,
        k: int = 5,
        m: int = 5,
        margin: float = 1.0,
        *,
        p: float = 2.0,
        loss: str = "deep_knn",
        loss_options: Mapping[str, Any] | None = None,
        hidden: Sequence[int] = (512, 256),
        embedding_size: int = 128,
        normalize: bool = False,
        k_p: int = 5,
        ties: str = "label",
        epochs: int = 30,
        batch_size: int = 96,
        optimizer: str = "sgd",
        learning_rate: float = 0.01,
        halve_every_epochs: int = 10,
        weight_decay: float = 0.0,
        validation_fraction: float = 0.0,
        warm_start: bool = False,
        random_state: Any = None,
    ) -> None:
        self.k = k
        self.m = m
        self.margin = margin
        self.p = p
        self.loss = loss
        self.loss_options = loss_options
        self.hidden = hidden
        self.embedding_size = embedding_size
        self.normalize = normalize
        self.k_p = k_p
        self.ties = ties
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.halve_every_epochs = halve_every_epochs
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.warm_start = warm_start
        self.random_state = random_state

    def _method(self) -> str:
        return self.loss

    def _loss_options(self) -> dict[str, Any]:
        return {"k": self.k, "m": self.m, "margin": self.margin}


class LocalMarginClassifier(Embedder):
    """Neighborhood Watch: triplets drawn at each anchor's neighbourhood, margins of its size.

    Neighbourhoods, triplets and margins are taken anew at each epoch's start, as in the paper's
    algorithm 1. What is not told of here is as of `DeepKNNClassifier`.

    Args:
        neighborhood: k of d_{a,k+} and of the neighbourhood; 0: the root of the number of examples.
        c_b, eps: the margin is c_b d_{a,k+} + eps.
        mine: draw negatives inside the neighbourhood and positives outside.
        draws: positives, and negatives, of an anchor and epoch.
        loss_options: further options of config.loss, such as {"w_sd": 0.0}.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **Embedder._parameter_constraints,
        "neighborhood": [Interval(Integral, 0, None, closed="left")],
        "c_b": [Interval(Real, 0, None, closed="left")],
        "eps": [Interval(Real, 0, None, closed="left")],
        "mine": ["boolean"],
        "draws": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        neighborhood: int = 0,
        c_b: float = 3.0,
        eps: float = 0.001,
        *,
        mine: bool = True,
        draws: int = 1,
        p: float = 2.0,
        loss_options: Mapping[str, Any] | None = None,
        hidden: Sequence[int] = (512, 256),
        embedding_size: int = 128,
        normalize: bool = False,
        k_p: int = 5,
        ties: str = "label",
        epochs: int = 30,
        batch_size: int = 128,
        optimizer: str = "adam",
        learning_rate: float = 1e-4,
        halve_every_epochs: int = 0,
        weight_decay: float = 0.0,
        validation_fraction: float = 0.0,
        warm_start: bool = False,
        random_state: Any = None,
    ) -> None:
        self.neighborhood = neighborhood
        self.c_b = c_b
        self.eps = eps
        self.mine = mine
        self.draws = draws
        self.p = p
        self.loss_options = loss_options
        self.hidden = hidden
        self.embedding_size = embedding_size
        self.normalize = normalize
        self.k_p = k_p
        self.ties = ties
        self.epochs = epochs
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.halve_every_epochs = halve_every_epochs
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.warm_start = warm_start
        self.random_state = random_state

    def _method(self) -> str:
        return "local_margin"

    def _loss_options(self) -> dict[str, Any]:
        names = ("neighborhood", "c_b", "eps", "mine", "draws")
        return {name: getattr(self, name) for name in names}
