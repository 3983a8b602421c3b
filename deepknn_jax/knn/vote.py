"""The vote of the nearest neighbours, and the classifier that it makes."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from deepknn_jax.errors import UserError
from deepknn_jax.knn.intake import (
    as_array,
    as_classes,
    as_count,
    as_numbers,
    check_no_nan,
    check_shape,
)
from deepknn_jax.knn.neighbors import nearest_neighbors

_PAIRS = 2**22  # of voters, compared at a time


class KNNPredictions(NamedTuple):
    """What the neighbours of Q queries say, and who they are.

    `labels` int32 [Q] (-1 where nobody voted); `shares` [Q, C] of the votes; `indices` int32 [Q, k]
    of the voters in the gallery, the nearest first (-1: none left); `distances` [Q, k] to them. A
    query that is not finite has label and indices -1, shares and distances NaN.
    """

    labels: Array
    shares: Array
    indices: Array
    distances: Array


def vote(distances_Qxk: Array, labels_Qxk: Array, *, num_classes: int) -> tuple[Array, Array]:
    """Majority vote of each query's neighbours.

    A tie goes to the tied class whose voters are nearer in sum; equal again, to the smaller label.

    Args:
        distances_Qxk: [Q, k], k >= 1; inf is a distance.
        labels_Qxk: int [Q, k] in 0..num_classes-1; -1 casts no vote (nor does, under jit, another
            value, which is refused where it is seen).
        num_classes: static.

    Returns:
        Labels int32 [Q] (-1 where nobody voted) and vote shares [Q, C], in the distances' dtype,
        which sum to 1 over the classes (0 where nobody voted).

    Raises:
        UserError: shapes or dtypes that do not fit; a label outside -1..num_classes-1; NaN.
    """
    num_classes = as_count("num_classes", num_classes)
    distances_Qxk = as_numbers("distances", distances_Qxk, "Q", "k")
    if not jnp.issubdtype(distances_Qxk.dtype, jnp.floating):
        distances_Qxk = distances_Qxk.astype(jnp.float32)
    check_no_nan("distances", distances_Qxk)
    if not distances_Qxk.shape[1]:
        raise UserError("distances have no column: nobody votes")
    shape = distances_Qxk.shape
    labels_Qxk = jnp.asarray(
        as_classes("labels", labels_Qxk, *shape, num_classes=num_classes, least=-1)
    )
    if not len(distances_Qxk):
        return jnp.zeros(0, jnp.int32), jnp.zeros((0, num_classes), distances_Qxk.dtype)
    votes_QxC = _counts(labels_Qxk, num_classes)
    voters_Qx1 = jnp.sum(votes_QxC, axis=1, keepdims=True)
    shares_QxC = (votes_QxC / jnp.maximum(voters_Qx1, 1)).astype(distances_Qxk.dtype)
    return elect(distances_Qxk, labels_Qxk, num_classes=num_classes), shares_QxC


@functools.partial(jax.jit, static_argnames="num_classes")
def elect(distances_Qxk: Array, labels_Qxk: Array, *, num_classes: int) -> Array:
    """The labels of `vote` alone, int32 [Q], in memory that does not grow with the classes."""
    queries_a_time = max(1, _PAIRS // distances_Qxk.shape[1] ** 2)
    winner = functools.partial(_winner, num_classes=num_classes)
    ballots = distances_Qxk, labels_Qxk
    return lax.map(lambda ballot: winner(*ballot), ballots, batch_size=queries_a_time)


def _winner(distances_k: Array, labels_k: Array, *, num_classes: int) -> Array:
    """The label int32 that one query's k neighbours elect."""
    # Only a voter's class can win, so each voter counts its like among the k.
    votes_k = (labels_k >= 0) & (labels_k < num_classes)
    like_kxk = (labels_k[:, None] == labels_k[None, :]) & votes_k[:, None]
    count_k = jnp.sum(like_kxk, axis=0)
    distance_k = jnp.sum(jnp.where(like_kxk, distances_k[:, None], 0.0), axis=0)
    leads_k = votes_k & (count_k == jnp.max(count_k))
    nearest = jnp.min(distance_k, where=leads_k, initial=jnp.inf)
    wins_k = leads_k & ~(distance_k > nearest)
    winner = jnp.min(labels_k, where=wins_k, initial=num_classes)
    return jnp.where(winner < num_classes, winner, -1).astype(jnp.int32)


def _counts(labels_Qxk: Array, num_classes: int) -> Array:
    """Votes int32 [Q, C] of the k labels [Q, k] of each row, without an array [Q, k, C]."""
    queries_Qx1 = jnp.arange(labels_Qxk.shape[0])[:, None]
    valid_Qxk = (labels_Qxk >= 0) & (labels_Qxk < num_classes)
    places_Qxk = jnp.where(valid_Qxk, labels_Qxk, num_classes)  # outside: dropped
    empty_QxC = jnp.zeros((labels_Qxk.shape[0], num_classes), jnp.int32)
    return empty_QxC.at[queries_Qx1, places_Qxk].add(1, mode="drop")


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
        p: order of the norm, static, >= 1 or infinity.
        query_ids, gallery_ids: int [Q], [G]; pairs of equal ids are skipped (leave-one-out).

    Returns:
        The predictions with their evidence; `vote` says how ties are broken.

    Raises:
        UserError: as `nearest_neighbors`; labels that are not int [G] in 0..num_classes-1.
    """
    num_classes = as_count("num_classes", num_classes)
    gallery = as_array("gallery", gallery)
    check_shape("gallery", gallery, "G", "D")
    gallery_labels = jnp.asarray(
        as_classes("gallery_labels", gallery_labels, len(gallery), num_classes=num_classes)
    )
    distances_Qxk, indices_Qxk = nearest_neighbors(
        queries, gallery, k=k, p=p, query_ids=query_ids, gallery_ids=gallery_ids
    )
    voters_Qxk = jnp.where(indices_Qxk < 0, -1, gallery_labels[indices_Qxk])
    labels_Q, shares_QxC = vote(distances_Qxk, voters_Qxk, num_classes=num_classes)
    shares_QxC = jnp.where(jnp.isnan(distances_Qxk[:, :1]), jnp.nan, shares_QxC)
    return KNNPredictions(labels_Q, shares_QxC, indices_Qxk, distances_Qxk)
