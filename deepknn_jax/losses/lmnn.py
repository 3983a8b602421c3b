"""Large margin nearest neighbours (LMNN; Deep kNN, table 3), for any embedding."""

import jax.numpy as jnp
from jax import Array

from deepknn_jax.knn.intake import as_count, check_number
from deepknn_jax.knn.neighbors import (
    Examples,
    cross_class_mask,
    own_class_neighbors,
    same_class_mask,
)
from deepknn_jax.losses.base import (
    Sums,
    mean,
    squared_distances,
    weighted_sum,
    with_nan_shown,
    with_targets,
)
from deepknn_jax.losses.triplet import find_listed, hinge_sums


def lmnn_sums(
    anchors: Examples,
    gallery: Examples,
    targets_AxK: Array,
    *,
    mu: float = 0.5,
    margin: float = 1.0,
) -> Sums:
    """Large margin nearest neighbours as sums over the anchors; see `lmnn_loss`.

    LMNN is a sum, not a mean: `weight` is the anchors' share of the gallery, which adds up to 1
    over devices whose anchors together are the gallery. `terms` counts the triplets of anchor,
    target and impostor, `active` those whose hinge is above 0.

    In mini-batches an anchor learns only from those of its targets that are in the batch, so a
    batch should hold anchors together with their targets (and examples of other classes). The
    sum grows with the batch: the learning rate belongs to the batch size. Memory is O(A K G).

    Args:
        anchors: Examples [A, ...].
        gallery: Examples [G, ...].
        targets_AxK: ids of each anchor's targets, rows of `target_neighbors`; -1 is none. Of
            several copies in the gallery the first is the target; each copy is an impostor.
        mu: weight of the push, 1 - mu that of the pull.
        margin: in the units of a squared distance.
    """
    squared_AxG = squared_distances(anchors, gallery)
    same_AxG = same_class_mask(anchors, gallery)
    listed = find_listed(gallery, jnp.asarray(targets_AxK).astype(jnp.asarray(gallery.ids).dtype))
    present_AxK = listed.valid & jnp.take_along_axis(same_AxG, listed.indices, axis=1)
    target_AxK = jnp.take_along_axis(squared_AxG, listed.indices, axis=1)
    pull = weighted_sum(jnp.where(present_AxK, target_AxK, 0.0), anchors.weights)
    impostors_AxG = cross_class_mask(anchors, gallery)
    pairs = target_AxK, squared_AxG, present_AxK, impostors_AxG
    push = hinge_sums(*pairs, margin, anchors.weights)
    count_a, count_g = (
        jnp.sum(jnp.asarray(examples.where), dtype=pull.dtype) for examples in (anchors, gallery)
    )
    sums = push._replace(
        loss=(1.0 - mu) * pull + mu * push.loss, weight=count_a / jnp.maximum(count_g, 1.0)
    )
    return with_nan_shown(sums, anchors)


def lmnn_anchor_sums(
    anchors: Examples, gallery: Examples, *, targets: Array, mu: float, margin: float
) -> Sums:
    """LMNN for mini-batches: `lmnn_sums` over the number of anchors, whatever the gallery holds.

    The gallery is the anchors and their targets (mining.batches.with_partners), all impostors to an
    anchor of another class. The mean over the anchors makes the learning rate independent of their
    number.
    """
    sums = lmnn_sums(anchors, gallery, targets, mu=mu, margin=margin)
    present_A = anchors.where.astype(sums.loss.dtype)
    return sums._replace(weight=weighted_sum(present_A, anchors.weights))


def lmnn_loss(
    embeddings_BxD: Array,
    labels_B: Array,
    targets_BxK: Array,
    *,
    mu: float = 0.5,
    margin: float = 1.0,
    ids: Array | None = None,
    where: Array | None = None,
) -> Array:
    """Large margin nearest neighbours (Weinberger and Saul 2009; Deep kNN, reference 15).

    (1 - mu) * sum over anchors i and their targets j of d_ij
    + mu * sum over i, j and the examples l of another class of max(0, margin + d_ij - d_il),
    d being the squared Euclidean distance. Sums, not means. The targets are fixed: found once, in
    the input space, by `target_neighbors`. A target is left out where it is not in the batch or
    is not another example of the anchor's class.

    Args:
        embeddings_BxD: [B, D], any float dtype.
        labels_B: int [B].
        targets_BxK: int [B, K], ids of the targets; -1 is none.
        mu: weight of the push, in 0..1; may be traced.
        margin: in the units of a squared distance; may be traced.
        ids: int [B], by default the positions.
        where: bool [B], False removes an example as anchor and as neighbour, NaN and all.

    Returns:
        Scalar, float32 or wider. NaN where a present embedding is NaN or infinite.

    Raises:
        UserError: mu outside 0..1; shapes or dtypes that do not fit.
    """
    check_number("mu", mu, holds=lambda mu: 0 <= mu <= 1, words="be in 0..1")
    check_number("margin", margin)
    batch, targets_BxK = with_targets(embeddings_BxD, labels_B, targets_BxK, ids, where)
    return mean(lmnn_sums(batch, batch, targets_BxK, mu=mu, margin=margin))


def target_neighbors(inputs_NxF: Array, labels_N: Array, *, k: int) -> Array:
    """LMNN's target neighbours: the K nearest examples of the same class in the input space.

    Euclidean distances, exact tiled search (`knn.neighbors.nearest_neighbors`), ties to the lower
    index. An example is never its own target, whatever the size of its class.

    Args:
        inputs_NxF: [N, F].
        labels_N: int [N].
        k: targets of each example, static, >= 1.

    Returns:
        int32 [N, K]: rows of `inputs_NxF`, nearest first; -1 where the class has no more.

    Raises:
        UserError: k below 1; shapes or dtypes that do not fit; NaN or infinity, where seen.
    """
    k = as_count("k", k)
    _, targets_NxK = own_class_neighbors(inputs_NxF, labels_N, k=k)
    missing = k - targets_NxK.shape[1]
    return jnp.pad(targets_NxK, ((0, 0), (0, missing)), constant_values=-1)
