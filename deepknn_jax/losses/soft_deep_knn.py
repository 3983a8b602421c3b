"""Deep kNN's soft form: one loss from the hinge on the nearest to NCA, by a temperature.

For an anchor with squared distances s to its K nearest positives and M nearest negatives, T the
temperature and softmin(s) = -T log sum exp(-s / T):

    l = T log(1 + exp((softmin(s+) - softmin(s-) + margin) / T))
    l = mean over k of T log(1 + exp((s+_k - softmin(s-) + margin) / T))    with `each_positive`

docs/losses.md has the limits.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from deepknn_jax.knn.intake import as_count, check_number
from deepknn_jax.knn.neighbors import (
    Examples,
    Neighbors,
    cross_class_mask,
    nearest_in,
    same_class_mask,
)
from deepknn_jax.losses.base import (
    Sums,
    as_examples,
    mean,
    squared_distances,
    weighted_sum,
    with_nan_shown,
)
from deepknn_jax.losses.triplet import find_listed

Pairs = tuple[Array, Array]  # squared distances [A, K], and which of them count, bool [A, K]

# float32 cannot divide by much less; the loss is its limit to the last digit long before.
_LEAST_TEMPERATURE = 1e-30


def soft_deep_knn_sums(
    anchors: Examples, gallery: Examples, *, k: int, m: int, **options: Any
) -> Sums:
    """Deep kNN's soft form as sums over the anchors; see `soft_deep_knn_loss`.

    `terms` counts the anchors that have a positive, `active` those of them whose hinge is above 0.
    `options` are those of `soft_sums`.
    """
    squared_AxG = squared_distances(anchors, gallery)
    near = _nearest(squared_AxG, same_class_mask(anchors, gallery), k)
    far = _nearest(squared_AxG, cross_class_mask(anchors, gallery), m)
    return with_nan_shown(soft_sums(near, far, anchors.weights, **options), anchors)


def listed_soft_deep_knn_sums(
    anchors: Examples, gallery: Examples, *, positives: Array, negatives: Array, **options: Any
) -> Sums:
    """The same over given neighbours: ids int [A, K] and [A, M], -1 for none."""
    squared_AxG = squared_distances(anchors, gallery)
    near, far = (_taken(squared_AxG, find_listed(gallery, ids)) for ids in (positives, negatives))
    return with_nan_shown(soft_sums(near, far, anchors.weights, **options), anchors)


def _nearest(squared_AxG: Array, mask_AxG: Array, count: int) -> Pairs:
    """The `count` nearest that the mask allows; 0: all."""
    if not count:
        return squared_AxG, mask_AxG
    return _taken(squared_AxG, nearest_in(lax.stop_gradient(squared_AxG), mask_AxG, count))


def _taken(squared_AxG: Array, found: Neighbors) -> Pairs:
    return jnp.take_along_axis(squared_AxG, found.indices, axis=1), found.valid


def soft_sums(
    near: Pairs,
    far: Pairs,
    weights_A: Array | None,
    *,
    temperature: float,
    margin: float,
    each_positive: bool = False,
) -> Sums:
    """The soft hinge of each anchor's positives `near` against its negatives `far`, summed.

    An anchor without a positive is left out; without a negative its term is 0.

    Args:
        near, far: squared distances, and which of them count.
        weights_A: how much each anchor counts; None: alike.
        temperature, margin: in the units of a squared distance.
        each_positive: the mean over the positives in place of their soft minimum.
    """
    dtype = near[0].dtype
    t = jnp.maximum(jnp.asarray(temperature, dtype), _LEAST_TEMPERATURE)
    counted_A, opposed_A = jnp.any(near[1], axis=1), jnp.any(far[1], axis=1)
    push_Ax1 = margin - soft_minimum(*far, t)[:, None]
    if not each_positive:
        near = soft_minimum(*near, t)[:, None], counted_A[:, None]
    valid_AxK = near[1] & opposed_A[:, None]
    gap_AxK = jnp.where(valid_AxK, near[0] + push_Ax1, 0.0)
    hinge_AxK = jnp.maximum(gap_AxK, 0.0)
    soft_AxK = hinge_AxK + t * jnp.log1p(jnp.exp(-jnp.abs(gap_AxK) / t))
    several_A = jnp.maximum(jnp.sum(valid_AxK, axis=1, dtype=dtype), 1.0)
    term_A = jnp.sum(jnp.where(valid_AxK, soft_AxK, 0.0), axis=1) / several_A
    counts_A = counted_A.astype(dtype)
    return Sums(
        loss=weighted_sum(term_A, weights_A),
        weight=weighted_sum(counts_A, weights_A),
        active=jnp.sum(jnp.any(hinge_AxK > 0, axis=1), dtype=dtype),
        terms=jnp.sum(counts_A),
    )


def soft_minimum(values_AxK: Array, valid_AxK: Array, temperature: Array | float) -> Array:
    """-T log sum exp(-values / T) [A] over what is valid, exact at any T > 0; 0 where nothing is.

    The least is taken out before the division, so that a small temperature overflows nowhere.
    """
    any_Ax1 = jnp.any(valid_AxK, axis=1, keepdims=True)
    most_Ax1 = jnp.max(lax.stop_gradient(values_AxK), axis=1, keepdims=True)
    least_Ax1 = jnp.min(
        jnp.where(valid_AxK, lax.stop_gradient(values_AxK), most_Ax1), axis=1, keepdims=True
    )
    beyond_AxK = jnp.where(valid_AxK, values_AxK - least_Ax1, 0.0)
    exp_AxK = jnp.where(valid_AxK, jnp.exp(-beyond_AxK / temperature), 0.0)
    total_Ax1 = jnp.where(any_Ax1, jnp.sum(exp_AxK, axis=1, keepdims=True), 1.0)
    soft_Ax1 = least_Ax1 - temperature * jnp.log(total_Ax1)
    return jnp.where(any_Ax1, soft_Ax1, 0.0)[:, 0]


def soft_deep_knn_loss(
    embeddings_BxD: Array,
    labels_B: Array,
    *,
    k: int = 5,
    m: int = 0,
    temperature: float = 1.0,
    margin: float = 0.0,
    each_positive: bool = False,
    ids: Array | None = None,
    where: Array | None = None,
) -> Array:
    """Deep kNN with its hinge and its choice of neighbours made soft by a temperature T.

    The mean over anchors of T log(1 + exp((softmin(s+) - softmin(s-) + margin) / T)), s+ and s-
    the squared distances to the K nearest positives and M nearest negatives in the batch, softmin
    -T log sum exp(-s / T). An anchor without a positive is left out; without a negative its term is
    0. With K = M = all and margin 0 it is T times NCA's -log p_i (`nca_loss` with `log`); at T -> 0
    the hinge max(0, s+ - s- + margin) of the nearest positive and the nearest negative. With
    `each_positive` it is the mean over the K positives, each in the place of softmin(s+): at
    T -> 0 deep kNN with M = 1 on squared distances.

    Args:
        embeddings_BxD: [B, D], any float dtype.
        labels_B: int [B].
        k, m: numbers of positives and negatives, static; 0: all there are.
        temperature: T, in the units of a squared distance, > 0; may be traced.
        margin: in the units of a squared distance; may be traced.
        each_positive: static.
        ids: as in `deep_knn_loss`.
        where: as in `deep_knn_loss`.

    Returns:
        Scalar, float32 or wider. NaN where a present embedding is NaN or infinite.

    Raises:
        UserError: k or m below 0; temperature not above 0; shapes or dtypes that do not fit.
    """
    k, m = as_count("k", k, least=0), as_count("m", m, least=0)
    check_number("temperature", temperature, holds=lambda t: t > 0, words="be above 0")
    check_number("margin", margin)
    batch = as_examples(embeddings_BxD, labels_B, ids, where)
    options = {"temperature": temperature, "margin": margin, "each_positive": each_positive}
    return mean(soft_deep_knn_sums(batch, batch, k=k, m=m, **options))
