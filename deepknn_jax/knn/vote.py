"""The vote of the nearest neighbours, and the classifier that it makes.

By the papers each neighbour has one vote. A `VoteRule` may weigh them by class and by distance.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from deepknn_jax.errors import UserError
from deepknn_jax.knn.intake import (
    as_array,
    as_classes,
    as_count,
    as_numbers,
    check_no_nan,
    check_shape,
    is_known,
)
from deepknn_jax.knn.neighbors import nearest_neighbors

_PAIRS = 2**22  # of voters, compared at a time
_TIED = 1e-6  # weighted votes that differ by such a share of the most are as many: rounding


class VoteRule(NamedTuple):
    """What a vote weighs: n_c^-class_size_power exp(-d^2 / temperature).

    n_c is the number of gallery examples of the voter's class; power 0 is without, 1 compares the
    shares of each class that voted. d is the voter's distance; a temperature of 0 is without, all
    distances weigh alike (that of NCA, in units of the squared distance; Goldberger et al. 2004).
    """

    class_size_power: float = 0.0
    temperature: float = 0.0

    def words(self) -> str:
        """What a vote weighs, as a formula: "1" by majority."""
        power = f"n_c^-{self.class_size_power:g}" if self.class_size_power else ""
        near = f"exp(-d^2 / {self.temperature:g})" if self.temperature else ""
        return " ".join(filter(None, (power, near))) or "1"


MAJORITY = VoteRule()  # the papers' (Deep kNN, section 3)


class Weights(NamedTuple):
    """A rule in numbers, as `elect` takes it: `of_classes` [C], and `temperature`, None without."""

    of_classes: Array
    temperature: Array | None


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


def weights_of(rule: VoteRule, class_counts: Any) -> Weights | None:
    """The numbers of a rule over a gallery with so many examples of each class; None for MAJORITY.

    A class of which none is there has no voter; its weight is 1.

    Args:
        class_counts: int [C], as NumPy, or an array under jit.

    Raises:
        UserError: a power outside 0..1, or a temperature that is negative or not finite.
    """
    power, temperature = rule
    if not 0 <= power <= 1:
        raise UserError(f"`class_size_power` is {power}: choose 0 to 1")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise UserError(f"`temperature` is {temperature}: choose above 0, or 0 for none")
    if rule == MAJORITY:
        return None
    if is_known(class_counts):  # then in 64 bits
        of_classes = jnp.asarray(np.maximum(np.asarray(class_counts), 1.0) ** -power, jnp.float32)
    else:
        of_classes = jnp.maximum(class_counts, 1).astype(jnp.float32) ** -power
    return Weights(of_classes, jnp.float32(temperature) if temperature else None)


def vote(
    distances_Qxk: Array,
    labels_Qxk: Array,
    *,
    num_classes: int,
    class_counts: Array | None = None,
    rule: VoteRule = MAJORITY,
) -> tuple[Array, Array]:
    """The vote of each query's neighbours: by majority, or weighted by a `rule`.

    A tie goes to the tied class whose voters are nearer in sum; equal again, to the smaller label.
    Weighted votes within 1e-6 of the most tie with it.

    Args:
        distances_Qxk: [Q, k], k >= 1; inf is a distance.
        labels_Qxk: int [Q, k] in 0..num_classes-1; -1 casts no vote (nor does, under jit, another
            value, which is refused where it is seen).
        num_classes: static.
        class_counts: int [C], the gallery's examples of each class; for a rule that asks for them.
        rule: static.

    Returns:
        Labels int32 [Q] (-1 where nobody voted) and shares [Q, C] of the (weighted) votes, in the
        distances' dtype, which sum to 1 over the classes (0 where nobody voted).

    Raises:
        UserError: shapes or dtypes that do not fit; a label outside -1..num_classes-1; NaN; a rule
            out of range, or without the counts that it wants.
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
    weights = weights_of(rule, _checked_counts(class_counts, num_classes, rule))
    if not len(distances_Qxk):
        return jnp.zeros(0, jnp.int32), jnp.zeros((0, num_classes), distances_Qxk.dtype)
    labels_Q = elect(distances_Qxk, labels_Qxk, num_classes=num_classes, weights=weights)
    return labels_Q, _shares(distances_Qxk, labels_Qxk, num_classes, weights)


def _checked_counts(class_counts: Array | None, num_classes: int, rule: VoteRule) -> Any:
    if class_counts is None:
        if rule.class_size_power:
            raise UserError("`class_size_power` asks for the gallery's `class_counts`")
        return np.ones(num_classes)
    counts_C = as_array("class_counts", class_counts)
    check_shape("class_counts", counts_C, num_classes)
    return counts_C


@functools.partial(jax.jit, static_argnames="num_classes")
def elect(
    distances_Qxk: Array, labels_Qxk: Array, *, num_classes: int, weights: Weights | None = None
) -> Array:
    """The labels of `vote` alone, int32 [Q], in memory that does not grow with the classes."""
    queries_a_time = max(1, _PAIRS // distances_Qxk.shape[1] ** 2)
    winner = functools.partial(_winner, num_classes=num_classes, weights=weights)
    ballots = distances_Qxk, labels_Qxk
    return lax.map(lambda ballot: winner(*ballot), ballots, batch_size=queries_a_time)


def _winner(
    distances_k: Array, labels_k: Array, *, num_classes: int, weights: Weights | None
) -> Array:
    """The label int32 that one query's k neighbours elect."""
    # Only a voter's class can win, so each voter counts its like among the k.
    votes_k = (labels_k >= 0) & (labels_k < num_classes)
    like_kxk = (labels_k[:, None] == labels_k[None, :]) & votes_k[:, None]
    if weights is None:
        count_k = jnp.sum(like_kxk, axis=0)
        most = jnp.max(count_k)
    else:
        near_k = _nearness(distances_k, votes_k, weights.temperature)
        # The class's weight comes last: equal voters of equal classes tie to the bit.
        sums_k = jnp.sum(jnp.where(like_kxk, near_k[:, None], 0.0), axis=0)
        of_k = weights.of_classes[jnp.where(votes_k, labels_k, 0)]
        count_k = sums_k * of_k.astype(sums_k.dtype)
        most = jnp.max(count_k, where=votes_k, initial=0.0) * (1 - _TIED)
    distance_k = jnp.sum(jnp.where(like_kxk, distances_k[:, None], 0.0), axis=0)
    leads_k = votes_k & (count_k >= most)
    nearest = jnp.min(distance_k, where=leads_k, initial=jnp.inf)
    wins_k = leads_k & ~(distance_k > nearest)
    winner = jnp.min(labels_k, where=wins_k, initial=num_classes)
    return jnp.where(winner < num_classes, winner, -1).astype(jnp.int32)


def _nearness(distances: Array, votes: Array, temperature: Array | None) -> Array:
    """exp(-d^2 / temperature) [..., k], beside the nearest that votes, whose weight is then 1.

    So it does not underflow for all at once. 0 for those that do not vote.
    """
    if temperature is None:
        return votes.astype(jnp.float32)
    least = jnp.min(distances, axis=-1, where=votes, initial=jnp.inf, keepdims=True)
    behind = votes & (distances > least)  # so that inf - inf is never taken
    far, near = jnp.where(behind, distances, 0.0), jnp.where(behind, least, 0.0)
    unit = temperature.astype(distances.dtype)
    return jnp.where(votes, jnp.exp(-(far - near) * (far / unit + near / unit)), 0.0)


@functools.partial(jax.jit, static_argnames="num_classes")
def _shares(
    distances_Qxk: Array, labels_Qxk: Array, num_classes: int, weights: Weights | None
) -> Array:
    """Shares [Q, C] of the votes, in the distances' dtype."""
    if weights is None:
        votes_QxC = _counts(labels_Qxk, num_classes)
        voters_Qx1 = jnp.sum(votes_QxC, axis=1, keepdims=True)
        return (votes_QxC / jnp.maximum(voters_Qx1, 1)).astype(distances_Qxk.dtype)
    valid_Qxk = (labels_Qxk >= 0) & (labels_Qxk < num_classes)
    near_Qxk = _nearness(distances_Qxk, valid_Qxk, weights.temperature)
    queries_Qx1 = jnp.arange(labels_Qxk.shape[0])[:, None]
    places_Qxk = jnp.where(valid_Qxk, labels_Qxk, num_classes)
    empty_QxC = jnp.zeros((labels_Qxk.shape[0], num_classes), near_Qxk.dtype)
    sums_QxC = empty_QxC.at[queries_Qx1, places_Qxk].add(near_Qxk, mode="drop")
    weighted_QxC = sums_QxC * weights.of_classes[None, :].astype(sums_QxC.dtype)
    total_Qx1 = jnp.sum(weighted_QxC, axis=1, keepdims=True)
    shares_QxC = weighted_QxC / jnp.where(total_Qx1 > 0, total_Qx1, 1.0)
    return shares_QxC.astype(distances_Qxk.dtype)


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
    rule: VoteRule = MAJORITY,
) -> KNNPredictions:
    """Classifies each query by the vote of its k nearest gallery rows (Deep kNN, section 3).

    Args:
        queries: [Q, D].
        gallery: [G, D].
        gallery_labels: int [G] in 0..num_classes-1.
        k: K_p of the paper, static, 1 <= k <= G.
        num_classes: C, static.
        p: order of the norm, static, >= 1 or infinity.
        query_ids, gallery_ids: int [Q], [G]; pairs of equal ids are skipped (leave-one-out).
        rule: of the vote, static; n_c is counted in the whole gallery.

    Returns:
        The predictions with their evidence; `vote` says how ties are broken.

    Raises:
        UserError: as `nearest_neighbors`; labels that are not int [G] in 0..num_classes-1; a rule
            out of range.
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
    counts_C = None
    if rule != MAJORITY:
        counts_C = jnp.zeros(num_classes, jnp.int32).at[gallery_labels].add(1)
    labels_Q, shares_QxC = vote(
        distances_Qxk, voters_Qxk, num_classes=num_classes, class_counts=counts_C, rule=rule
    )
    shares_QxC = jnp.where(jnp.isnan(distances_Qxk[:, :1]), jnp.nan, shares_QxC)
    return KNNPredictions(labels_Q, shares_QxC, indices_Qxk, distances_Qxk)
