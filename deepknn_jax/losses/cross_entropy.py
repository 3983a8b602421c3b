"""Cross entropy of a classifier's head, also with its logits adjusted by the classes' sizes."""

import jax.numpy as jnp
import optax
from jax import Array

from deepknn_jax.knn.distances import at_least_float32
from deepknn_jax.knn.neighbors import Examples
from deepknn_jax.losses.base import Sums, weighted_sum


def cross_entropy_sums(anchors: Examples, gallery: Examples) -> Sums:
    """Cross entropy of the head's logits.

    Args:
        anchors: needs `logits` [B, C].
        gallery: not used; every loss has the same two arguments.

    Returns:
        Sums; with weights of the anchors loss / weight is PyTorch's weighted mean: sum of w l /
        sum of w.
    """
    del gallery
    assert anchors.logits is not None, "cross entropy needs a classifier head"
    logits_BxC = jnp.where(anchors.where[:, None], at_least_float32(anchors.logits), 0.0)
    loss_B = optax.softmax_cross_entropy_with_integer_labels(logits_BxC, anchors.labels)
    present_B = anchors.where.astype(loss_B.dtype)
    wrong_B = anchors.where & (jnp.argmax(logits_BxC, axis=1) != anchors.labels)
    return Sums(
        loss=weighted_sum(present_B * loss_B, anchors.weights),
        weight=weighted_sum(present_B, anchors.weights),
        active=jnp.sum(wrong_B, dtype=loss_B.dtype),
        terms=jnp.sum(present_B),
    )


def logit_adjusted_cross_entropy_sums(
    anchors: Examples, gallery: Examples, *, class_counts: Array, tau: float
) -> Sums:
    """Cross entropy of logits + tau log(n_c / N) (Menon et al. 2021, equation 10).

    The head learns the logits of a classifier for classes of equal size, and is judged without what
    was added: at tau = 1 the largest logit is the choice of the least balanced error.

    Args:
        anchors: needs `logits` [B, C].
        gallery: not used.
        class_counts: training examples of each class [C]; one without any counts as one.
        tau: how much is added; 0 is plain cross entropy.
    """
    assert anchors.logits is not None, "cross entropy needs a classifier head"
    logits_BxC = at_least_float32(anchors.logits)
    counts_C = jnp.maximum(jnp.asarray(class_counts, logits_BxC.dtype), 1.0)
    prior_C = jnp.log(counts_C / jnp.sum(counts_C))
    return cross_entropy_sums(anchors._replace(logits=logits_BxC + tau * prior_C[None, :]), gallery)
