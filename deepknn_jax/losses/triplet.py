"""The hinge over (anchor, positive, negative), the selectors that feed it, and two losses by it.

`hinge_sums` serves deep kNN, batch-hard triplets and LMNN. Neighborhood Watch's hinge stands in
local_margin.objective_sums: it is one of five weighted terms there, a sum or a mean, leaves out the
anchors that need no push, and for a margin of 1e6 leaves the margin out of its value.

Selection is under stop_gradient; the distances of the selected pairs carry the gradient.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

from deepknn_jax.knn.distances import batch_distances, pairwise_distances
from deepknn_jax.knn.intake import as_count, as_order, check_number
from deepknn_jax.knn.neighbors import (
    Examples,
    Neighbors,
    cross_class_mask,
    furthest_in,
    nearest_in,
    same_class_mask,
)
from deepknn_jax.losses.base import (
    Sums,
    as_examples,
    mean,
    present,
    weighted_sum,
    with_nan_shown,
)

# (distances [A, G], positives allowed [A, G], negatives allowed [A, G]) -> positives, negatives
Selector = Callable[[Array, Array, Array], tuple[Neighbors, Neighbors]]


def select_nearest(
    distances_AxG: Array, same_AxG: Array, cross_AxG: Array, *, k: int, m: int
) -> tuple[Neighbors, Neighbors]:
    """The K nearest positives and M nearest negatives (Deep kNN, section 2.1)."""
    return nearest_in(distances_AxG, same_AxG, k), nearest_in(distances_AxG, cross_AxG, m)


def select_batch_hard(
    distances_AxG: Array, same_AxG: Array, cross_AxG: Array
) -> tuple[Neighbors, Neighbors]:
    """The furthest positive and the nearest negative (Hermans et al. 2017, batch hard)."""
    return furthest_in(distances_AxG, same_AxG), nearest_in(distances_AxG, cross_AxG, 1)


def find_listed(gallery: Examples, ids_AxK: Array) -> Neighbors:
    """Where in the gallery the examples of these ids are; -1 and the absent are not valid."""
    match_AxKxG = (ids_AxK[:, :, None] == gallery.ids[None, None, :]) & gallery.where[None, None, :]
    return Neighbors(jnp.argmax(match_AxKxG, axis=2), jnp.any(match_AxKxG, axis=2))


def hinge_sums(
    positive_AxK: Array,
    negative_AxM: Array,
    positive_valid_AxK: Array,
    negative_valid_AxM: Array,
    margin: Array | float,
    weights_A: Array | None = None,
) -> Sums:
    """Sums of max(0, d_pos[a, k] - d_neg[a, m] + margin) over the valid (a, k, m).

    Args:
        positive_AxK: distances of each anchor to its positives.
        negative_AxM: distances of each anchor to its negatives.
        positive_valid_AxK: bool, False leaves the pair out.
        negative_valid_AxM: bool, likewise.
        margin: a scalar or one per anchor [A].
        weights_A: how much the triplets of each anchor count; None: alike.

    Returns:
        Sums with its anchor's weight for each valid triplet.
    """
    margin_Ax1x1 = jnp.reshape(jnp.asarray(margin, positive_AxK.dtype), (-1, 1, 1))
    valid_AxKxM = positive_valid_AxK[:, :, None] & negative_valid_AxM[:, None, :]
    gap_AxKxM = positive_AxK[:, :, None] - negative_AxM[:, None, :] + margin_Ax1x1
    hinge_AxKxM = jnp.where(valid_AxKxM, jnp.maximum(gap_AxKxM, 0.0), 0.0)
    count = jnp.sum(valid_AxKxM, dtype=positive_AxK.dtype)
    active = jnp.sum(hinge_AxKxM > 0, dtype=positive_AxK.dtype)
    weight = weighted_sum(valid_AxKxM.astype(positive_AxK.dtype), weights_A)
    return Sums(weighted_sum(hinge_AxKxM, weights_A), weight, active, count)


def triplet_sums(
    anchors: Examples, gallery: Examples, *, select: Selector, margin: Array | float, p: float
) -> Sums:
    """The hinge sums of the anchors, whose positives and negatives `select` finds in the gallery.

    A NaN or infinite embedding, unless `where` removes its row, makes the loss NaN.
    """
    positives, negatives = search(anchors, gallery, select, p=p)
    positive_AxK, negative_AxM = triplet_distances(anchors, gallery, positives, negatives, p=p)
    valid = positives.valid, negatives.valid
    sums = hinge_sums(positive_AxK, negative_AxM, *valid, margin, anchors.weights)
    return with_nan_shown(sums, anchors)


def search(
    anchors: Examples, gallery: Examples, select: Selector, *, p: float
) -> tuple[Neighbors, Neighbors]:
    """What `select` finds in the gallery by its distances, which carry no gradient."""
    x_AxD = lax.stop_gradient(present(anchors))
    one_device = anchors.embeddings is gallery.embeddings
    y_GxD = x_AxD if one_device else lax.stop_gradient(present(gallery))
    return select(
        pairwise_distances(x_AxD, y_GxD, p=p),
        same_class_mask(anchors, gallery),
        cross_class_mask(anchors, gallery),
    )


def triplet_distances(
    anchors: Examples, gallery: Examples, positives: Neighbors, negatives: Neighbors, *, p: float
) -> tuple[Array, Array]:
    """Distances of the anchors to their positives [A, K] and negatives [A, M], with gradient."""
    x_AxD = present(anchors)
    one_device = anchors.embeddings is gallery.embeddings
    y_GxD = x_AxD if one_device else present(gallery)
    indices_AxKM = jnp.concatenate([positives.indices, negatives.indices], axis=1)
    distances_AxKM = batch_distances(x_AxD, y_GxD, indices_AxKM, p=p)
    positive_AxK, negative_AxM = jnp.split(distances_AxKM, [positives.indices.shape[1]], axis=1)
    return positive_AxK, negative_AxM


def deep_knn_sums(
    anchors: Examples, gallery: Examples, *, k: int, m: int, margin: float, p: float = 2.0
) -> Sums:
    """Deep kNN, equations 1-3, as sums over the anchors; see `deep_knn_loss`."""
    select = functools.partial(select_nearest, k=k, m=m)
    return triplet_sums(anchors, gallery, select=select, margin=margin, p=p)


def listed_triplet_sums(
    anchors: Examples,
    gallery: Examples,
    *,
    positives: Array,
    negatives: Array,
    margin: float,
    p: float = 2.0,
) -> Sums:
    """The hinge sums over given neighbours: deep kNN with the search in the whole training set.

    Args:
        anchors: A examples.
        gallery: where their neighbours' embeddings are.
        positives: ids int [A, K], -1 for none (mining.whole_set.nearest_in_set).
        negatives: ids int [A, M], likewise.
        margin: alpha, in the units of the distance.
        p: order of the norm.
    """
    listed = find_listed(gallery, positives), find_listed(gallery, negatives)
    return triplet_sums(
        anchors, gallery, select=lambda distances, same, cross: listed, margin=margin, p=p
    )


def batch_hard_triplet_sums(
    anchors: Examples, gallery: Examples, *, margin: float, p: float = 2.0
) -> Sums:
    """Batch-hard triplets as sums over the anchors; see `batch_hard_triplet_loss`."""
    return triplet_sums(anchors, gallery, select=select_batch_hard, margin=margin, p=p)


def deep_knn_loss(
    embeddings_BxD: Array,
    labels_B: Array,
    *,
    k: int = 5,
    m: int = 5,
    margin: float,
    p: float = 2.0,
    ids: Array | None = None,
    where: Array | None = None,
) -> Array:
    """Deep kNN loss of a batch, neighbours searched in the batch (Deep kNN, equations 1-3).

    The mean over anchors i, their K nearest positives k and M nearest negatives m of
    max(0, d(i, k) + margin - d(i, m)). Where the batch has fewer than K positives or M negatives
    for an anchor, the mean is over the triplets that exist; with none at all the loss is 0.

    Args:
        embeddings_BxD: [B, D], any float dtype.
        labels_B: int [B].
        k, m: numbers of positives and negatives, static, >= 1.
        margin: alpha, in the units of the distance; may be traced.
        p: order of the norm, static, >= 1 or infinity.
        ids: int [B], by default the positions; examples of equal id are not each other's positives.
        where: bool [B], False removes an example as anchor and as neighbour, NaN and all.

    Returns:
        Scalar, float32 or wider. NaN where a present embedding is NaN or infinite.

    Raises:
        UserError: k or m below 1; p < 1; shapes or dtypes that do not fit.
    """
    k, m, p = as_count("k", k), as_count("m", m), as_order(p)
    check_number("margin", margin)
    batch = as_examples(embeddings_BxD, labels_B, ids, where)
    return mean(deep_knn_sums(batch, batch, k=k, m=m, margin=margin, p=p))


def batch_hard_triplet_loss(
    embeddings_BxD: Array,
    labels_B: Array,
    *,
    margin: float,
    p: float = 2.0,
    ids: Array | None = None,
    where: Array | None = None,
) -> Array:
    """Batch-hard triplet loss (Hermans et al. 2017; the Triplet rows of Deep kNN, table 2).

    The mean over anchors of max(0, d(furthest positive) - d(nearest negative) + margin); an anchor
    without a positive or without a negative in the batch is left out of the mean.

    Args:
        embeddings_BxD: [B, D], any float dtype.
        labels_B: int [B].
        margin: in the units of the distance; may be traced.
        p: order of the norm, static, >= 1 or infinity.
        ids: as in `deep_knn_loss`.
        where: as in `deep_knn_loss`.

    Returns:
        Scalar, float32 or wider. NaN where a present embedding is NaN or infinite.

    Raises:
        UserError: p < 1; shapes or dtypes that do not fit.
    """
    p = as_order(p)
    check_number("margin", margin)
    batch = as_examples(embeddings_BxD, labels_B, ids, where)
    return mean(batch_hard_triplet_sums(batch, batch, margin=margin, p=p))
