"""Feature extractors trained for the kNN classifier: Deep kNN and its relatives in JAX."""

from deepknn_jax.classify import knn_classify
from deepknn_jax.distances import pairwise_distances
from deepknn_jax.losses import batch_hard_triplet_loss, deep_knn_loss
from deepknn_jax.neighbors import nearest_neighbors

__all__ = [
    "batch_hard_triplet_loss",
    "deep_knn_loss",
    "knn_classify",
    "nearest_neighbors",
    "pairwise_distances",
]
