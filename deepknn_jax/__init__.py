"""Feature extractors trained for the kNN classifier: Deep kNN and its relatives in JAX."""

from deepknn_jax.knn.distances import pairwise_distances
from deepknn_jax.knn.neighbors import nearest_neighbors
from deepknn_jax.knn.vote import knn_classify
from deepknn_jax.losses.lmnn import lmnn_loss
from deepknn_jax.losses.local_margin import local_margin_loss, neighborhood_watch_loss
from deepknn_jax.losses.nca import nca_loss
from deepknn_jax.losses.triplet import batch_hard_triplet_loss, deep_knn_loss
from deepknn_jax.mining.local_triplets import kth_positive_distances, local_triplets

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
