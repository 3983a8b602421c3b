"""Feature extractors trained for the kNN classifier: Deep kNN and its relatives in JAX."""

import sys
from typing import TYPE_CHECKING

from deepknn_jax.errors import UserError, end_at_interrupt

if sys.argv[:1] == ["-m"]:  # Python is about to run a command: what follows takes seconds
    end_at_interrupt()

from deepknn_jax.knn.distances import pairwise_distances
from deepknn_jax.knn.neighbors import nearest_neighbors
from deepknn_jax.knn.sharded import sharded_nearest_neighbors
from deepknn_jax.knn.vote import KNNPredictions, VoteRule, knn_classify, vote
from deepknn_jax.losses.cox import cox_loss
from deepknn_jax.losses.lmnn import lmnn_loss, target_neighbors
from deepknn_jax.losses.local_margin import TermWeights, local_margin_loss, neighborhood_watch_loss
from deepknn_jax.losses.nca import nca_loss
from deepknn_jax.losses.soft_deep_knn import soft_deep_knn_loss
from deepknn_jax.losses.triplet import batch_hard_triplet_loss, deep_knn_loss
from deepknn_jax.mining.local_triplets import Triplets, kth_positive_distances, local_triplets

if TYPE_CHECKING:
    from pathlib import Path

    from deepknn_jax.answers.run import Run

__version__ = "0.1.0"

__all__ = [
    "KNNPredictions",
    "TermWeights",
    "Triplets",
    "UserError",
    "VoteRule",
    "__version__",
    "batch_hard_triplet_loss",
    "cox_loss",
    "deep_knn_loss",
    "knn_classify",
    "kth_positive_distances",
    "lmnn_loss",
    "local_margin_loss",
    "local_triplets",
    "nca_loss",
    "nearest_neighbors",
    "neighborhood_watch_loss",
    "open_run",
    "pairwise_distances",
    "sharded_nearest_neighbors",
    "soft_deep_knn_loss",
    "target_neighbors",
    "vote",
]


def open_run(path: "str | Path", at: int | None = None) -> "Run":
    """A trained run, to embed and classify new images: `answers.run.open_run`.

    `path` is a run's workdir, or its model folder wherever it lies. `at`: with the gallery as it
    was after so many lines of its journal (docs/gallery.md); 0, as it was trained.

    Raises:
        UserError: there is none, or it is damaged; the journal has no such line.
    """
    from deepknn_jax.answers.run import open_run as opened  # only now: it brings Pillow

    return opened(path, at)
