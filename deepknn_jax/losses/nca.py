"""Neighbourhood components analysis (NCA; Deep kNN, table 3), for any embedding."""

import jax
import jax.numpy as jnp
from jax import Array, lax

from deepknn_jax.knn.intake import check_number
from deepknn_jax.knn.neighbors import Examples, cross_class_mask, same_class_mask
from deepknn_jax.losses.base import (
    Sums,
    as_examples,
    mean,
    squared_distances,
    weighted_sum,
    with_nan_shown,
)


def nca_sums(
    anchors: Examples, gallery: Examples, *, temperature: float = 1.0, log: bool = False
) -> Sums:
    """Neighbourhood components analysis as sums over the anchors; see `nca_loss`.

    `terms` counts the anchors that the mean is over, `active` those of them with p_i < 1/2.
    """
    score_AxG = -squared_distances(anchors, gallery) / temperature
    same_AxG = same_class_mask(anchors, gallery)
    others_AxG = same_AxG | cross_class_mask(anchors, gallery)
    lonely_A = ~jnp.any(same_AxG, axis=1)
    if log:
        log_p_A = _log_share(score_AxG, same_AxG, others_AxG, lonely_A)
        term_A, likely_A = -log_p_A, log_p_A >= -jnp.log(2.0).astype(log_p_A.dtype)
        counted_A = ~lonely_A
    else:
        p_A = _share(score_AxG, same_AxG, others_AxG)
        term_A, likely_A, counted_A = -p_A, p_A >= 0.5, anchors.where
    term_A = jnp.where(lonely_A, 0.0, term_A)
    unlikely_A = counted_A & (lonely_A | ~likely_A)
    count = jnp.sum(counted_A, dtype=term_A.dtype)
    active = jnp.sum(unlikely_A, dtype=term_A.dtype)
    weight = weighted_sum(counted_A.astype(term_A.dtype), anchors.weights)
    loss = weighted_sum(term_A, anchors.weights)
    return with_nan_shown(Sums(loss, weight, active, count), anchors)


def _share(score_AxG: Array, same_AxG: Array, others_AxG: Array) -> Array:
    """p_i [A]: the part of exp(score) over the others that is of the same class; 0 without any."""
    # Finite, so that a row without others is no 0 / 0.
    score_AxG = jnp.where(others_AxG, score_AxG, -float(jnp.finfo(score_AxG.dtype).max))
    top_Ax1 = lax.stop_gradient(jnp.max(score_AxG, axis=1, keepdims=True))
    exp_AxG = jnp.exp(score_AxG - top_Ax1)
    own_A = jnp.sum(jnp.where(same_AxG, exp_AxG, 0.0), axis=1)
    return own_A / jnp.sum(exp_AxG, axis=1)


def _log_share(score_AxG: Array, same_AxG: Array, others_AxG: Array, lonely_A: Array) -> Array:
    """The logarithm of p_i [A], also where p_i underflows."""
    # A lonely row sums over everything twice: 0, which is finite and carries no gradient.
    lonely_Ax1 = lonely_A[:, None]
    own_A = jax.nn.logsumexp(score_AxG, axis=1, where=same_AxG | lonely_Ax1)
    return own_A - jax.nn.logsumexp(score_AxG, axis=1, where=others_AxG | lonely_Ax1)


def nca_loss(
    embeddings_BxD: Array,
    labels_B: Array,
    *,
    temperature: float = 1.0,
    log: bool = False,
    ids: Array | None = None,
    where: Array | None = None,
) -> Array:
    """Neighbourhood components analysis (Goldberger et al. 2004; Deep kNN, reference 14).

    With p_ij the softmax over j != i of -|x_i - x_j|^2 / temperature and p_i the sum of p_ij over
    the j of i's class, the mean over i of -p_i: minus the expected share of examples that a
    neighbour drawn by p_ij classifies rightly. An example alone in its class counts with p_i = 0.
    With `log` the mean of -log p_i, without the examples that are alone in their class; its
    gradient does not vanish where p_i underflows.

    Full batch on a linear map this is NCA itself (scikit-learn maximises the sum of p_i); in
    mini-batches the softmax is over the batch.

    Args:
        embeddings_BxD: [B, D], any float dtype.
        labels_B: int [B].
        temperature: in the units of a squared distance, > 0; may be traced.
        log: static.
        ids: int [B], by default the positions; examples of equal id are not each other's
            neighbours.
        where: bool [B], False removes an example as anchor and as neighbour, NaN and all.

    Returns:
        Scalar, float32 or wider. NaN where a present embedding is NaN or infinite.

    Raises:
        UserError: temperature not above 0; shapes or dtypes that do not fit.
    """
    check_number("temperature", temperature, holds=lambda t: t > 0, words="be above 0")
    batch = as_examples(embeddings_BxD, labels_B, ids, where)
    return mean(nca_sums(batch, batch, temperature=temperature, log=log))
