"""Feature extractors trained for the kNN classifier: Deep kNN and its relatives in JAX."""

from deepknn_jax.classify import knn_classify
from deepknn_jax.distances import pairwise_distances
from deepknn_jax.linear_metrics import lmnn_loss, nca_loss
from deepknn_jax.local_margin import local_margin_loss, neighborhood_watch_loss
from deepknn_jax.losses import batch_hard_triplet_loss, deep_knn_loss
from deepknn_jax.neighborhoods import kth_positive_distances, local_triplets
from deepknn_jax.neighbors import nearest_neighbors

__all__ = [
    "batch_hard_triplet_loss",
    "deep_knn_loss",
    "knn_classify",
    "kth_positive_distances",
    "lmnn_loss",
    "local_margin_loss",
    "local_triplets",
    "nca_loss",
    "nearest_neighbors",
    "neighborhood_watch_loss",
    "pairwise_distances",
]
