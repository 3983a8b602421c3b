"""Neighborhood Watch: the margin from an anchor's own neighbourhood, and the objective around it.

D is the Euclidean distance, or any L_p; with `squared` its square. The paper prints a square in
equation 1, and theorem 1 needs the triangle inequality, so the default is not squared.

Theorem 1: where D(a, n) >= c_b d_{a,k} + eps for every anchor a and every negative n, eps > 0,
c_b >= 3 and every class has more than k members, the k nearest neighbours of a query within
d_{a,k} of its nearest anchor a are all of a's class. The loss asks for more: its hinge at 0 over
all positives p means D(a, n) >= D(a, p) + c_b d_{a,k} + eps, and as the furthest p is no nearer
than d_{a,k}, c_b = 2 suffices then. With squared distances the two bounds are 9 and 8.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from deepknn_jax.errors import check_choice
from deepknn_jax.knn.distances import at_least_float32
from deepknn_jax.knn.intake import as_array, as_mask, as_numbers, check_number
from deepknn_jax.knn.neighbors import Examples, Neighbors, nearest_in
from deepknn_jax.losses.base import Sums, mean, weighted_sum, with_nan_shown
from deepknn_jax.losses.triplet import (
    Selector,
    find_listed,
    search,
    select_batch_hard,
    triplet_distances,
)

Reduction = Literal["sum", "mean"]
REDUCTIONS = get_args(Reduction)
Total = Callable[[Array], Array]


class TermWeights(NamedTuple):
    """Weights of the objective's five terms (section 3).

    `lm`: the hinge; `ms`, `md`: the means of D_ap and D_an; `ss`, `sd`: their variances.
    """

    lm: float = 1000.0
    ms: float = 1.0
    md: float = 1.0
    ss: float = 0.0
    sd: float = 1.0


def safe_c_b(*, squared: bool) -> float:
    """The least c_b for which theorem 1 holds."""
    return 9.0 if squared else 3.0


def local_margin_loss(
    d_pos: Array,
    d_neg: Array,
    kth_positive_B: Array,
    *,
    c_b: float = 3.0,
    eps: float,
    where: Array | None = None,
    reduction: Reduction = "mean",
) -> Array:
    """The hinge max(0, D_ap - D_an + c_b d_{a,k+} + eps) over all pairs (equation 4).

    Args:
        d_pos: distances of each anchor to its positive [B], or to several [B, K].
        d_neg: likewise to its negatives, [B] or [B, M].
        kth_positive_B: d_{a,k+} [B], in the units of D
            (`mining.local_triplets.kth_positive_distances`).
        c_b: factor of the local margin; below 3 (D squared: 9) theorem 1 does not hold.
        eps: added to the margin, in the units of D; like c_b may be traced.
        where: bool [B], False leaves an anchor out.
        reduction: "sum" as the paper prints it, or "mean" over the triplets that count.

    Returns:
        Scalar, float32 or wider; 0 where nothing counts.

    Raises:
        UserError: shapes or dtypes that do not fit, another reduction.
    """
    check_number("c_b", c_b)
    check_number("eps", eps)
    kth_positive_B = as_numbers("kth_positive", kth_positive_B, _size_of(d_pos))
    margin_B = c_b * at_least_float32(kth_positive_B) + eps
    weights = TermWeights(1.0, 0.0, 0.0, 0.0, 0.0)
    return neighborhood_watch_loss(
        d_pos, d_neg, margin_B, weights=weights, where=where, reduction=reduction
    )


def neighborhood_watch_loss(
    d_pos: Array,
    d_neg: Array,
    margin: Array | float,
    *,
    weights: TermWeights = TermWeights(),  # noqa: B008
    where: Array | None = None,
    reduction: Reduction = "mean",
) -> Array:
    """The whole objective of Neighborhood Watch (section 3, "formulate our loss function as").

    w_lm hinge + w_ms mean(D_ap) - w_md mean(D_an) + w_ss var(D_ap) + w_sd var(D_an), the variances
    those of the pairs at hand (divided by their number). The paper's last term prints sigma_s
    twice; the second is sigma_d.

    Args:
        d_pos, d_neg: as in `local_margin_loss`.
        margin: c_b d_{a,k+} + eps [B], or one number for every anchor (equation 1).
        weights: of the five terms; may be traced.
        where: bool [B]; False leaves an anchor out of the hinge, not out of means and variances.
        reduction: of the hinge.

    Returns:
        Scalar, float32 or wider.

    Raises:
        UserError: shapes or dtypes that do not fit, another reduction.
    """
    check_choice("reduction", reduction, REDUCTIONS)
    size = _size_of(d_pos)
    positive_BxK = _columns("d_pos", d_pos, size)
    negative_BxM = _columns("d_neg", d_neg, size)
    where_B = jnp.asarray(as_mask("where", where, size))
    margin = as_numbers("margin", margin, *(() if np.ndim(margin) == 0 else (size,)))
    margin_B = jnp.broadcast_to(at_least_float32(margin), (size,))
    weights = TermWeights(*weights)
    return mean(
        objective_sums(
            positive_BxK,
            negative_BxM,
            (jnp.ones_like(positive_BxK, bool), jnp.ones_like(negative_BxM, bool)),
            where_B,
            margin_B,
            weights=weights,
            reduction=reduction,
        )
    )


def _size_of(d_pos: ArrayLike) -> int:
    """The number of anchors."""
    shape = as_array("d_pos", d_pos).shape
    return shape[0] if shape else 0


def _columns(name: str, distances: ArrayLike, size: int) -> Array:
    """Distances [size] or [size, K] as [size, K], at least float32."""
    several = np.ndim(as_array(name, distances)) == 2
    distances = as_numbers(name, distances, size, *(["K"] if several else []))
    return at_least_float32(distances).reshape(size, -1)


def objective_sums(
    positive_AxK: Array,
    negative_AxM: Array,
    valid: tuple[Array, Array],
    pushed_A: Array,
    margin_A: Array,
    *,
    weights: TermWeights,
    reduction: Reduction,
    anchor_weights_A: Array | None = None,
    without_margin: bool = False,
    total: Total = lambda x: x,
) -> Sums:
    """`neighborhood_watch_loss` as what one device contributes for its anchors.

    Args:
        positive_AxK, negative_AxM: distances of the anchors.
        valid: bool [A, K] and [A, M], False leaves a pair out of everything.
        pushed_A: bool, False leaves an anchor out of the hinge.
        margin_A: [A].
        weights, reduction: as in `neighborhood_watch_loss`.
        anchor_weights_A: how much the pairs of each anchor count in all terms; None: alike.
        without_margin: take the margin out of the hinge's value, max(D_ap - D_an, -margin): beside
            a margin of 1e6 float32 could not show the distances. The gradient is the same.
        total: the sum over devices.

    Returns:
        Sums whose weights are shares that add up to 1; `means` tells the mean D_ap and D_an.
    """
    valid_AxK, valid_AxM = valid
    valid_AxKxM = valid_AxK[:, :, None] & valid_AxM[:, None, :] & pushed_A[:, None, None]
    gap_AxKxM = positive_AxK[:, :, None] - negative_AxM[:, None, :]
    margin_Ax1x1 = margin_A[:, None, None].astype(gap_AxKxM.dtype)
    if without_margin:
        hinge_AxKxM = jnp.maximum(gap_AxKxM, -margin_Ax1x1)
    else:
        hinge_AxKxM = jnp.maximum(gap_AxKxM + margin_Ax1x1, 0.0)
    hinge = weighted_sum(jnp.where(valid_AxKxM, hinge_AxKxM, 0.0), anchor_weights_A)
    count = jnp.sum(valid_AxKxM, dtype=hinge.dtype)
    active = jnp.sum(valid_AxKxM & (gap_AxKxM > -margin_Ax1x1), dtype=hinge.dtype)
    if reduction == "mean":
        weight = weighted_sum(valid_AxKxM.astype(hinge.dtype), anchor_weights_A)
        hinge /= _or_1(total(weight))
    mean_s, variance_s = _moment_shares(positive_AxK, valid_AxK, anchor_weights_A, total)
    mean_d, variance_d = _moment_shares(negative_AxM, valid_AxM, anchor_weights_A, total)
    loss = weights.lm * hinge + weights.ms * mean_s - weights.md * mean_d
    loss += weights.ss * variance_s + weights.sd * variance_d
    own = jnp.asarray(len(margin_A), hinge.dtype)
    share = own / total(own)
    return Sums(loss, share, active, count, {"d_positive": mean_s, "d_negative": mean_d})


def _or_1(weight: Array) -> Array:
    """What a sum is divided by: 1 where nothing counts."""
    return jnp.where(weight == 0, 1.0, weight)


def _moment_shares(
    d_AxK: Array, valid_AxK: Array, weights_A: Array | None, total: Total
) -> tuple[Array, Array]:
    """Own shares of the mean and the variance of the distances on all devices.

    The variance is taken around a mean without gradient: its derivative by the mean is 0 there.
    """
    weight = _or_1(total(weighted_sum(valid_AxK.astype(d_AxK.dtype), weights_A)))
    own = weighted_sum(jnp.where(valid_AxK, d_AxK, 0.0), weights_A) / weight
    centre = total(lax.stop_gradient(own))
    squares_AxK = jnp.where(valid_AxK, jnp.square(d_AxK - centre), 0.0)
    return own, weighted_sum(squares_AxK, weights_A) / weight


def local_margin_sums(
    anchors: Examples,
    gallery: Examples,
    *,
    positives: Array,
    negatives: Array,
    outside: Array,
    pushed: Array,
    kth_positive: Array,
    c_b: float,
    eps: float,
    weights: TermWeights,
    reduction: Reduction,
    squared: bool,
    p: float = 2.0,
    total: Total = lambda x: x,
) -> Sums:
    """LM and LM-Mining for the trainer, from what mining.local_triplets.mine_triplets found.

    `positives` and `negatives` are ids [A, T]; `outside` and `pushed` bool [A], as
    `mining.local_triplets.Triplets` has them; `kth_positive` [A]. `means` also tells the shares of
    anchors that are not pushed and whose positive is not outside.
    """
    listed = find_listed(gallery, positives), find_listed(gallery, negatives)
    distances = _distances(anchors, gallery, listed, squared=squared, p=p)
    margin_A = c_b * kth_positive + eps
    sums = objective_sums(
        *distances,
        (listed[0].valid, listed[1].valid),
        pushed,
        margin_A,
        weights=weights,
        reduction=reduction,
        anchor_weights_A=anchors.weights,
        total=total,
    )
    told = {"kth_positive": kth_positive, "no_local_negative": ~pushed, "none_outside": ~outside}
    dtype = sums.loss.dtype
    means = {name: jnp.mean(x_A.astype(dtype)) * sums.weight for name, x_A in told.items()}
    return with_nan_shown(sums._replace(means=sums.means | means), anchors)


def max_margin_sums(
    anchors: Examples,
    gallery: Examples,
    *,
    positives: Array | None = None,
    negatives: Array | None = None,
    select: Selector = select_batch_hard,
    margin: float,
    weights: TermWeights,
    reduction: Reduction,
    squared: bool,
    p: float = 2.0,
    total: Total = lambda x: x,
) -> Sums:
    """MM for the trainer (equation 1): listed triplets, or those that `select` finds in the batch.

    The margin is one for all, and is taken out of the value (`objective_sums`).
    """
    if positives is not None and negatives is not None:
        found = find_listed(gallery, positives), find_listed(gallery, negatives)
    else:
        found = search(anchors, gallery, select, p=p)
    positive_AxK, negative_AxM = _distances(anchors, gallery, found, squared=squared, p=p)
    size = positive_AxK.shape[0]
    sums = objective_sums(
        positive_AxK,
        negative_AxM,
        (found[0].valid, found[1].valid),
        jnp.ones(size, bool),
        jnp.full(size, margin, positive_AxK.dtype),
        weights=weights,
        reduction=reduction,
        anchor_weights_A=anchors.weights,
        without_margin=True,
        total=total,
    )
    return with_nan_shown(sums, anchors)


def max_margin_hard_sums(
    anchors: Examples, gallery: Examples, *, hard_positives: bool, **options: Any
) -> Sums:
    """MM-HardMin: the nearest negative of the batch, and its furthest positive or, else, any.

    `options` are those of `max_margin_sums`.
    """
    select = select_batch_hard if hard_positives else select_next_and_hardest
    return max_margin_sums(anchors, gallery, select=select, **options)


def select_next_and_hardest(
    distances_AxG: Array, same_AxG: Array, cross_AxG: Array
) -> tuple[Neighbors, Neighbors]:
    """A positive without regard to distance, and the nearest negative.

    The positive is the next of the class in the gallery, whose order is random.
    """
    size = distances_AxG.shape[1]
    # An example is neither its own positive nor its negative.
    own_Ax1 = jnp.argmin(same_AxG | cross_AxG, axis=1)[:, None]
    steps_AxG = (jnp.arange(size)[None, :] - own_Ax1) % size
    nearest = nearest_in(distances_AxG, cross_AxG, 1)
    return nearest_in(steps_AxG.astype(distances_AxG.dtype), same_AxG, 1), nearest


def _distances(
    anchors: Examples,
    gallery: Examples,
    found: tuple[Neighbors, Neighbors],
    *,
    squared: bool,
    p: float,
) -> tuple[Array, Array]:
    positive_AxK, negative_AxM = triplet_distances(anchors, gallery, *found, p=p)
    if squared:
        return jnp.square(positive_AxK), jnp.square(negative_AxM)
    return positive_AxK, negative_AxM
