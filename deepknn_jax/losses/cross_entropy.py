"""Cross entropy of a classifier's head, and the class weights of Weighted-CE."""

import jax.numpy as jnp
import optax
from jax import Array

from deepknn_jax.knn.distances import at_least_float32
from deepknn_jax.knn.neighbors import Examples
from deepknn_jax.losses.base import Sums


def cross_entropy_sums(
    anchors: Examples, gallery: Examples, *, class_weights: Array | None = None
) -> Sums:
    """Cross entropy of the head's logits, each term weighted by its class's weight.

    Args:
        anchors: needs `logits` [B, C].
        gallery: not used; every loss has the same two arguments.
        class_weights: [C], or None for weight 1.

    Returns:
        Sums; loss / weight is PyTorch's weighted mean: sum of w l / sum of w.
    """
    del gallery
    assert anchors.logits is not None, "cross entropy needs a classifier head"
    logits_BxC = jnp.where(anchors.where[:, None], at_least_float32(anchors.logits), 0.0)
    loss_B = optax.softmax_cross_entropy_with_integer_labels(logits_BxC, anchors.labels)
    present_B = anchors.where.astype(loss_B.dtype)
    weight_B = present_B
    if class_weights is not None:
        weight_B = present_B * jnp.asarray(class_weights, loss_B.dtype)[anchors.labels]
    wrong_B = anchors.where & (jnp.argmax(logits_BxC, axis=1) != anchors.labels)
    return Sums(
        loss=jnp.sum(weight_B * loss_B),
        weight=jnp.sum(weight_B),
        active=jnp.sum(wrong_B, dtype=loss_B.dtype),
        terms=jnp.sum(present_B),
    )


def balanced_class_weights(class_counts_C: Array) -> Array:
    """w_c = N / (C n_c) [C] (Weighted-CE of Deep kNN, table 2); 0 for a class without images."""
    counts_C = at_least_float32(class_counts_C)
    weights_C = jnp.sum(counts_C) / (counts_C.shape[0] * jnp.maximum(counts_C, 1.0))
    return jnp.where(counts_C > 0, weights_C, 0.0)
