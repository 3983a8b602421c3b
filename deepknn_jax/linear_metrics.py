"""NCA and LMNN: the losses of the linear metrics (Deep kNN, table 3), for any embedding.

Both are of squared Euclidean distances between all pairs, which come from one matrix product of
centred rows: an offset costs nothing, and their absolute error is about that of
`distances.squared_euclidean`, a few roundings of the largest |x|^2.
"""

import jax
import jax.numpy as jnp
from jax import Array

from deepknn_jax.distances import at_least_float32, centre_of, squared_euclidean
from deepknn_jax.losses import (
    Sums,
    as_examples,
    find_listed,
    hinge_sums,
    mean,
    with_nan_shown,
)
from deepknn_jax.neighbors import (
    Examples,
    cross_class_mask,
    own_class_neighbors,
    same_class_mask,
)


def nca_sums(
    anchors: Examples, gallery: Examples, *, temperature: float = 1.0, log: bool = False
) -> Sums:
    """Neighbourhood components analysis as sums over the anchors; see `nca_loss`.

    `terms` counts the anchors that the mean is over, `active` those of them with p_i < 1/2.
    """
    score_AxG = -_squared_distances(anchors, gallery) / temperature
    same_AxG = same_class_mask(anchors, gallery)
    others_AxG = same_AxG | cross_class_mask(anchors, gallery)
    lonely_Ax1 = ~jnp.any(same_AxG, axis=1, keepdims=True)
    # A lonely row sums over everything twice: 0, which is finite and carries no gradient.
    log_p_A = jax.nn.logsumexp(score_AxG, axis=1, where=same_AxG | lonely_Ax1)
    log_p_A -= jax.nn.logsumexp(score_AxG, axis=1, where=others_AxG | lonely_Ax1)
    lonely_A = lonely_Ax1[:, 0]
    term_A = jnp.where(lonely_A, 0.0, -log_p_A if log else -jnp.exp(log_p_A))
    counted_A = ~lonely_A if log else anchors.where
    unlikely_A = counted_A & (lonely_A | (log_p_A < -jnp.log(2.0).astype(log_p_A.dtype)))
    count = jnp.sum(counted_A, dtype=term_A.dtype)
    active = jnp.sum(unlikely_A, dtype=term_A.dtype)
    return with_nan_shown(Sums(jnp.sum(term_A), count, active, count), anchors)


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
    squared_AxG = _squared_distances(anchors, gallery)
    same_AxG = same_class_mask(anchors, gallery)
    listed = find_listed(gallery, jnp.asarray(targets_AxK).astype(jnp.asarray(gallery.ids).dtype))
    present_AxK = listed.valid & jnp.take_along_axis(same_AxG, listed.indices, axis=1)
    target_AxK = jnp.take_along_axis(squared_AxG, listed.indices, axis=1)
    pull = jnp.sum(jnp.where(present_AxK, target_AxK, 0.0))
    impostors_AxG = cross_class_mask(anchors, gallery)
    push = hinge_sums(target_AxK, squared_AxG, present_AxK, impostors_AxG, margin)
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

    The gallery is the anchors and their targets (mining.with_partners), all impostors to an anchor
    of another class. The mean over the anchors makes the learning rate independent of their number.
    """
    sums = lmnn_sums(anchors, gallery, targets, mu=mu, margin=margin)
    return sums._replace(weight=jnp.sum(anchors.where, dtype=sums.loss.dtype))


def _squared_distances(anchors: Examples, gallery: Examples) -> Array:
    """Squared Euclidean distances [A, G]; rows removed by `where` stand at the centre.

    The centre is that of the present rows: with the removed ones at 0 it would keep a part of an
    offset, and the product would lose digits.
    """
    x_AxD, y_GxD = at_least_float32(anchors.embeddings), at_least_float32(gallery.embeddings)
    centre_1xD = centre_of(jnp.where(gallery.where[:, None], y_GxD, jnp.inf))[None, :]
    return squared_euclidean(
        jnp.where(anchors.where[:, None], x_AxD - centre_1xD, 0.0),
        jnp.where(gallery.where[:, None], y_GxD - centre_1xD, 0.0),
    )


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
        temperature: in the units of a squared distance, > 0.
        log: static.
        ids: int [B], by default the positions; examples of equal id are not each other's
            neighbours.
        where: bool [B], False removes an example as anchor and as neighbour, NaN and all.

    Returns:
        Scalar, float32 or wider. NaN where a present embedding is NaN or infinite.

    Raises:
        ValueError: temperature not above 0; shapes that do not fit.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    batch = as_examples(embeddings_BxD, labels_B, ids, where, 2.0)
    return mean(nca_sums(batch, batch, temperature=temperature, log=log))


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
        mu: weight of the push, in 0..1.
        margin: in the units of a squared distance.
        ids: int [B], by default the positions.
        where: as in `nca_loss`.

    Returns:
        Scalar, float32 or wider. NaN where a present embedding is NaN or infinite.

    Raises:
        ValueError: mu outside 0..1; shapes that do not fit.
    """
    if not 0 <= mu <= 1:
        raise ValueError(f"mu must be in 0..1, got {mu}")
    batch = as_examples(embeddings_BxD, labels_B, ids, where, 2.0)
    targets_BxK = jnp.asarray(targets_BxK)
    if targets_BxK.ndim != 2 or targets_BxK.shape[0] != batch.labels.shape[0]:
        raise ValueError(f"expected targets [{batch.labels.shape[0]}, K], got {targets_BxK.shape}")
    return mean(lmnn_sums(batch, batch, targets_BxK, mu=mu, margin=margin))


def target_neighbors(inputs_NxF: Array, labels_N: Array, *, k: int) -> Array:
    """LMNN's target neighbours: the K nearest examples of the same class in the input space.

    Euclidean distances, exact tiled search (`neighbors.nearest_neighbors`), ties to the lower
    index. An example is never its own target, whatever the size of its class.

    Args:
        inputs_NxF: [N, F].
        labels_N: int [N].
        k: targets of each example, static, >= 1.

    Returns:
        int32 [N, K]: rows of `inputs_NxF`, nearest first; -1 where the class has no more.

    Raises:
        ValueError: k below 1; shapes that do not fit.
    """
    _, targets_NxK = own_class_neighbors(inputs_NxF, labels_N, k=k)
    missing = k - targets_NxK.shape[1]
    return jnp.pad(targets_NxK, ((0, 0), (0, missing)), constant_values=-1)
