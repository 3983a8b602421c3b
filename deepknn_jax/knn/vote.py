"""The vote of the nearest neighbours, and the classifier that it makes."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from deepknn_jax.knn.neighbors import nearest_neighbors


class KNNPredictions(NamedTuple):
    """What the neighbours of Q queries say, and who they are.

    `labels` int32 [Q] (-1 where nobody voted); `shares` [Q, C] of the votes; `indices` int32 [Q, k]
    of the voters in the gallery, the nearest first (-1: none left); `distances` [Q, k] to them.
    """

    labels: Array
    shares: Array
    indices: Array
    distances: Array


def vote(distances_Qxk: Array, labels_Qxk: Array, *, num_classes: int) -> tuple[Array, Array]:
    """Majority vote of each query's neighbours.

    A tie goes to the tied class whose voters are nearer in sum; equal again, to the smaller label.

    Args:
        distances_Qxk: [Q, k].
        labels_Qxk: int [Q, k] in 0..num_classes-1; any other value (-1) casts no vote.
        num_classes: static.

    Returns:
        Labels int32 [Q] (-1 where nobody voted) and vote shares [Q, C], in the distances' dtype,
        which sum to 1 over the classes (0 where nobody voted).
    """
    voted_QxkxC = labels_Qxk[:, :, None] == jnp.arange(num_classes)[None, None, :]
    votes_QxC = jnp.sum(voted_QxkxC, axis=1)
    distance_QxC = jnp.sum(jnp.where(voted_QxkxC, distances_Qxk[:, :, None], 0.0), axis=1)
    leads_QxC = votes_QxC == jnp.max(votes_QxC, axis=1, keepdims=True)
    voters_Qx1 = jnp.sum(votes_QxC, axis=1, keepdims=True)
    nearest_Qx1 = jnp.min(distance_QxC, axis=1, keepdims=True, where=leads_QxC, initial=jnp.inf)
    winner_Q = jnp.argmax(leads_QxC & ~(distance_QxC > nearest_Qx1), axis=1)
    labels_Q = jnp.where(voters_Qx1[:, 0] > 0, winner_Q, -1).astype(jnp.int32)
    shares_QxC = votes_QxC / jnp.maximum(voters_Qx1, 1)
    return labels_Q, shares_QxC.astype(distances_Qxk.dtype)


def knn_classify(
    queries: Array,
    gallery: Array,
    gallery_labels: Array,
    *,
    k: int,
    num_classes: int,
    p: float = 2.0,
    query_ids: Array | None = None,
    gallery_ids: Array | None = None,
) -> KNNPredictions:
    """Classifies each query by the majority of its k nearest gallery rows (Deep kNN, section 3).

    Args:
        queries: [Q, D].
        gallery: [G, D].
        gallery_labels: int [G] in 0..num_classes-1.
        k: K_p of the paper, static, 1 <= k <= G.
        num_classes: C, static.
        p: order of the norm, static, >= 1.
        query_ids, gallery_ids: int [Q], [G]; pairs of equal ids are skipped (leave-one-out).

    Returns:
        The predictions with their evidence; `vote` says how ties are broken.

    Raises:
        ValueError: as `nearest_neighbors`.
    """
    distances_Qxk, indices_Qxk = nearest_neighbors(
        queries, gallery, k=k, p=p, query_ids=query_ids, gallery_ids=gallery_ids
    )
    voters_Qxk = jnp.where(indices_Qxk < 0, -1, jnp.asarray(gallery_labels)[indices_Qxk])
    labels_Q, shares_QxC = vote(distances_Qxk, voters_Qxk, num_classes=num_classes)
    return KNNPredictions(labels_Q, shares_QxC, indices_Qxk, distances_Qxk)
