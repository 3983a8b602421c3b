"""What losses share: sums over anchors, their mean, and the public arguments as Examples.

A loss that the trainer takes is a function of (anchors, gallery) that returns `Sums`: what one
device contributes for its own anchors. The loss is their sum / weight over all devices; with one
device the anchors are the gallery.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from deepknn_jax.errors import UserError
from deepknn_jax.knn.distances import at_least_float32, centre_of, squared_euclidean
from deepknn_jax.knn.intake import (
    as_array,
    as_integers,
    as_mask,
    as_rows,
    check_shape,
    comparable,
)
from deepknn_jax.knn.neighbors import Examples


class Sums(NamedTuple):
    """A loss before its mean is taken, float32 or wider scalars.

    `loss` is the weighted sum of the terms and `weight` the sum of their weights, which for the
    triplets is their count; `active` counts the terms that still push (hinge above 0; for cross
    entropy: a wrong prediction) and `terms` all of them. `means` are shares of what else is worth
    logging, by name: added up over devices they are means over the whole batch.
    """

    loss: Array
    weight: Array
    active: Array
    terms: Array
    means: dict[str, Array] = {}  # noqa: RUF012


# (anchors, gallery, **mined): `mined` is by name what was mined for the anchors, if anything.
LossFn = Callable[..., Sums]


def class_weights(class_counts_C: Array, power: float) -> Array:
    """Weights [C] of the anchors of each class: n_c^-power over its mean over the examples.

    So an example weighs 1 on average. 0 for a class without examples. Power 0 is no weighting, at
    power 1 each class weighs the same in sum: N / (C n_c), Weighted-CE of Deep kNN, table 2.
    """
    counts_C = at_least_float32(class_counts_C)
    weights_C = jnp.where(counts_C > 0, jnp.maximum(counts_C, 1.0) ** -power, 0.0)
    return weights_C * (jnp.sum(counts_C) / jnp.sum(weights_C * counts_C))


def with_class_weights(loss: LossFn, class_weights_C: Array) -> LossFn:
    """`loss` with each anchor weighted by its class: a weighted mean in place of the mean."""

    def weighted(anchors: Examples, gallery: Examples, **rest: Any) -> Sums:
        weights_A = jnp.asarray(class_weights_C)[anchors.labels]
        return loss(anchors._replace(weights=weights_A), gallery, **rest)

    return weighted


def weighted_sum(x_AxT: Array, weights_A: Array | None) -> Array:
    """The sum of what is there for each anchor [A, ...], times its weight; None: all weigh 1."""
    if weights_A is None:
        return jnp.sum(x_AxT)
    own_A = jnp.sum(x_AxT.reshape(len(weights_A), -1), axis=1)
    return jnp.sum(own_A * weights_A.astype(own_A.dtype))


def with_nan_shown(sums: Sums, anchors: Examples) -> Sums:
    """NaN as the loss where a present embedding is not finite, which masks could hide."""
    sound_AxD = jnp.isfinite(anchors.embeddings) | ~anchors.where[:, None]
    return sums._replace(loss=jnp.where(jnp.all(sound_AxD), sums.loss, jnp.nan))


def present(examples: Examples) -> Array:
    """The embeddings, at least float32, with the removed rows at 0: NaN there harms nobody."""
    embeddings = at_least_float32(examples.embeddings)
    return jnp.where(examples.where[:, None], embeddings, 0.0)


def mean(sums: Sums) -> Array:
    """The loss; 0, with gradient 0, where nothing was counted. NaN stays NaN."""
    return sums.loss / jnp.where(sums.weight == 0, 1.0, sums.weight)


def as_examples(
    embeddings: Array, labels: Array, ids: Array | None, where: Array | None
) -> Examples:
    """The public arguments as Examples, checked (knn/intake.py).

    Raises:
        UserError: shapes or dtypes that do not fit; no example.
    """
    return with_targets(embeddings, labels, None, ids, where)[0]


def with_targets(
    embeddings: Array,
    labels: Array,
    targets: Array | None,
    ids: Array | None,
    where: Array | None,
) -> tuple[Examples, Array]:
    """As `as_examples`, and `targets` [B, K], whose ids are numbered as the examples' are."""
    embeddings = as_array("embeddings", embeddings)
    check_shape("embeddings", embeddings, "B", "D")
    size = len(embeddings)
    where = as_mask("where", where, size)
    (embeddings,) = as_rows(finite=False, where=where, embeddings=embeddings)
    if not size:
        raise UserError("embeddings have no row: there is nothing to take a mean of")
    (labels,) = comparable(labels=as_integers("labels", labels, size))
    ids = as_integers("ids", np.arange(size) if ids is None else ids, size)
    if targets is None:
        targets = jnp.zeros((size, 0), jnp.int32)
    targets = as_integers("targets", targets, size, "K")
    ids, targets = comparable(ids=ids, targets=targets)
    return Examples(embeddings, labels, ids, jnp.asarray(where)), targets


def squared_distances(anchors: Examples, gallery: Examples) -> Array:
    """Squared Euclidean distances [A, G]; rows removed by `where` stand at the centre.

    `knn.distances.squared_euclidean`: by a product, and from differences where they are small.

    The centre is that of the present rows: with the removed ones at 0 it would keep a part of an
    offset, and the product would lose digits.
    """
    x_AxD, y_GxD = at_least_float32(anchors.embeddings), at_least_float32(gallery.embeddings)
    centre_D = centre_of(y_GxD, gallery.where)
    return squared_euclidean(
        jnp.where(anchors.where[:, None], x_AxD, centre_D[None, :]),
        jnp.where(gallery.where[:, None], y_GxD, centre_D[None, :]),
        centre_D,
        anchors.embeddings is gallery.embeddings,
    )
