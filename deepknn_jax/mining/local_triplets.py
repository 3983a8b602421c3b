"""Neighborhood Watch's neighbourhoods: d_{a,k+}, and triplets drawn inside and outside of them."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from deepknn_jax.errors import UserError
from deepknn_jax.knn.intake import as_classes, as_integers, as_rows, comparable
from deepknn_jax.knn.neighbors import ids_at, own_class_neighbors
from deepknn_jax.knn.sharded import Nearest, nearest_on_one_device

# Classes are filled up to a multiple of this for the search: few programs are compiled.
_CLASS_ROWS = 512
# Stands for "no rank": far beyond all ranks in a class, also after as many were skipped.
_NO_RANK = 2**30


def neighborhood_size(k: int, count: int) -> int:
    """`k`, or for 0 the square root of the number of training examples, rounded up (section 4)."""
    return k or math.isqrt(count - 1) + 1


class Triplets(NamedTuple):
    """Drawn triplets, an array [A] each: `positives` and `negatives` are indices, -1 for none.

    `outside`: the positive is outside the anchor's neighbourhood, or the draw does not ask for
    that. `pushed`: the negative is inside it, or likewise; where False the hinge leaves it out.
    """

    positives: Array
    negatives: Array
    outside: Array
    pushed: Array


def kth_positive_distances(
    embeddings_NxD: Array, labels_N: Array, *, k: int, p: float = 2.0, squared: bool = False
) -> Array:
    """Distance d_{a,k+} of each example to its k-th nearest other example of its class (eq. 4).

    Exact, in memory bounded by tiles (`knn.neighbors.nearest_neighbors`).

    Args:
        embeddings_NxD: [N, D], any float dtype.
        labels_N: int [N].
        k: static, >= 1; above the number of others in the class the furthest of them counts.
        p: order of the norm, static, >= 1 or infinity.
        squared: static; the distance's square in its place.

    Returns:
        [N], float32 or wider, without gradient; 0 for an example alone in its class, NaN for all
        of a class that has a row which is not finite: nobody's neighbour, it must not be hidden.

    Raises:
        UserError: k below 1; p < 1; shapes or dtypes that do not fit; NaN or infinity, where seen.
    """
    (embeddings_NxD,) = as_rows(finite=True, embeddings=embeddings_NxD)
    embeddings_NxD = lax.stop_gradient(embeddings_NxD)
    distances_NxK, places_NxK = own_class_neighbors(embeddings_NxD, labels_N, k=k, p=p)
    kth_N = jnp.max(jnp.where(places_NxK < 0, 0.0, distances_NxK), axis=1)
    class_N = jnp.searchsorted(jnp.sort(labels_N), labels_N)
    spoilt_N = ~jnp.all(jnp.isfinite(embeddings_NxD), axis=1)
    kth_N = jnp.where(jnp.zeros_like(spoilt_N).at[class_N].max(spoilt_N)[class_N], jnp.nan, kth_N)
    return jnp.square(kth_N) if squared else kth_N


def local_triplets(
    neighbors_Nxk: Array | None, labels_N: Array, anchors_A: Array, key: Array, *, mine: bool
) -> Triplets:
    """One random triplet for each anchor (Neighborhood Watch, algorithm 1).

    Without `mine` the positive is any other example of the anchor's class and the negative any of
    another. With it the positive is drawn outside the anchor's neighbourhood N_{a,k} and the
    negative inside. Where all positives are inside, any is drawn. Where no negative is inside, the
    anchor needs no push: its hinge is left out, but a random negative is drawn all the same for the
    mean and variance of D_an; else the push would vanish as training succeeds, and all embeddings
    fall together.

    Every draw is uniform, and depends on the key and the anchor alone. Made for jit; memory O(A k).

    Args:
        neighbors_Nxk: int [N, k], the k nearest neighbours of each example, itself left out; -1 for
            none. Not looked at (None will do) without `mine`.
        labels_N: int [N].
        anchors_A: int [A], positions in the N.
        key: PRNG key.
        mine: static.

    Raises:
        UserError: shapes or dtypes that do not fit; a position that is not below N, where known;
            no neighbours where they are needed.
    """
    neighbors_Nxk, labels_N, anchors_A = _drawn_from(neighbors_Nxk, labels_N, anchors_A, mine)
    size = labels_N.shape[0]
    order_N = jnp.argsort(labels_N, stable=True)
    rank_N = jnp.argsort(order_N)
    start_A = jnp.searchsorted(labels_N[order_N], labels_N[anchors_A], side="left")
    end_A = jnp.searchsorted(labels_N[order_N], labels_N[anchors_A], side="right")
    count_A = end_A - start_A
    keys_Ax2 = jax.vmap(lambda anchor: jax.random.split(jax.random.fold_in(key, anchor)))(anchors_A)

    def draw(part: int, count_A: Array) -> Array:
        below = jnp.maximum(count_A, 1)
        return jax.vmap(lambda keys, n: jax.random.randint(keys[part], (), 0, n))(keys_Ax2, below)

    near_Axk, alike_Axk, local_Axk = _inside(neighbors_Nxk, labels_N, anchors_A)
    near_rank_Axk = jnp.where(alike_Axk, rank_N[near_Axk] - start_A[:, None], _NO_RANK)
    own_Ax1 = (rank_N[anchors_A] - start_A)[:, None]
    outside_A = count_A - 1 - jnp.sum(near_rank_Axk < _NO_RANK, axis=1)
    taken_Axk = jnp.where(outside_A[:, None] > 0, near_rank_Axk, _NO_RANK)
    taken_AxK = jnp.sort(jnp.concatenate([own_Ax1, taken_Axk], axis=1), axis=1)
    free_A = jnp.where(outside_A > 0, outside_A, count_A - 1)
    place_A = start_A + _skipping(taken_AxK, draw(0, free_A))
    positives_A = jnp.where(count_A > 1, order_N[jnp.minimum(place_A, size - 1)], -1)

    others_A, locals_A = size - count_A, jnp.sum(local_Axk, axis=1)
    drawn_A = draw(1, jnp.where(locals_A > 0, locals_A, others_A))
    place_A = jnp.minimum(jnp.where(drawn_A < start_A, drawn_A, drawn_A + count_A), size - 1)
    negatives_A = jnp.where(others_A > 0, order_N[place_A], -1)
    if mine:
        nth_A = jnp.argmax(jnp.cumsum(local_Axk, axis=1) == drawn_A[:, None] + 1, axis=1)
        local_A = jnp.take_along_axis(near_Axk, nth_A[:, None], axis=1)[:, 0]
        negatives_A = jnp.where(locals_A > 0, local_A, negatives_A)
    pushed_A = (locals_A > 0) if mine else (others_A > 0)
    return Triplets(positives_A, negatives_A, (outside_A > 0) & (count_A > 1), pushed_A)


def _drawn_from(
    neighbors_Nxk: Array | None, labels_N: Array, anchors_A: Array, mine: bool
) -> tuple[Array | None, Array, Array]:
    """The arguments of `local_triplets`, checked; neighbours only to `mine`."""
    (labels_N,) = comparable(labels=as_integers("labels", labels_N, "N"))
    size = len(labels_N)
    anchors_A = jnp.asarray(as_classes("anchors", anchors_A, "A", num_classes=size))
    if not mine:
        return None, labels_N, anchors_A
    if neighbors_Nxk is None:
        raise UserError("mine needs the neighbors [N, k]")
    near = as_classes("neighbors", neighbors_Nxk, size, "k", num_classes=size, least=-1)
    return jnp.asarray(near), labels_N, anchors_A


def _inside(
    neighbors_Nxk: Array | None, labels_N: Array, anchors_A: Array
) -> tuple[Array, Array, Array]:
    """The anchors' neighbours [A, k], and which of them are of their class, which of another.

    Without neighbours, as where nothing is mined, k is 0.
    """
    if neighbors_Nxk is None:
        none = jnp.zeros((len(anchors_A), 0), bool)
        return none.astype(jnp.int32), none, none
    near_Axk = jnp.asarray(neighbors_Nxk)[anchors_A]
    same_Axk = labels_N[near_Axk] == labels_N[anchors_A][:, None]
    return near_Axk, (near_Axk >= 0) & same_Axk, (near_Axk >= 0) & ~same_Axk


def _skipping(taken_AxK: Array, number_A: Array) -> Array:
    """The number-th (from 0) whole number of each row that is not among its `taken`, ascending."""
    before_AxK = taken_AxK - jnp.arange(taken_AxK.shape[1])[None, :]
    return number_A + jnp.sum(before_AxK <= number_A[:, None], axis=1)


def mine_triplets(
    bank_NxD: np.ndarray | None,
    anchors_RxA: np.ndarray,
    step: int,
    *,
    rows_N: np.ndarray,
    labels_N: np.ndarray,
    draws: int,
    seed: int,
    k: int = 1,
    mine: bool = False,
    squared: bool = False,
    p: float = 2.0,
    nearest: Nearest = nearest_on_one_device,
) -> dict[str, np.ndarray]:
    """The triplets of the anchors of an epoch and their d_{a,k+} (algorithm 1, lines 3 to 12).

    Args:
        bank_NxD: embeddings of the training part, in evaluation mode; None: no d_{a,k+} is wanted,
            as with a constant margin, and nothing is mined.
        anchors_RxA: positions in it.
        step: the first of the epoch; draws depend on it and the seed.
        rows_N: ids of its examples.
        labels_N: their labels.
        k: size of a neighbourhood.
        mine: draw positives outside and negatives inside of it.
        draws: positives, and negatives, of an anchor, T.
        squared, p: of the distance.
        seed: of the draws.
        nearest: the search, over all devices.

    Returns:
        {"positives", "negatives": ids int32 [R, A, T], -1 for none} and, with a bank, "outside",
        "pushed": bool [R, A] (of the first draw), "kth_positive": float32 [R, A].
    """
    anchors_A = anchors_RxA.ravel()
    neighbors_NxK = None
    if mine:
        assert bank_NxD is not None
        neighbors_NxK = _neighborhoods(bank_NxD, k, p, nearest)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), step), draws)
    labels, anchors = jnp.asarray(labels_N), jnp.asarray(anchors_A)
    drawn = _draw(neighbors_NxK, labels, anchors, keys, mine=mine)
    found: dict[str, np.ndarray] = {}
    for name, places_TxA in (("positives", drawn.positives), ("negatives", drawn.negatives)):
        found[name] = ids_at(places_TxA.T, rows_N).reshape(*anchors_RxA.shape, draws)
    if bank_NxD is not None:
        kth_N = kth_positive_by_class(
            bank_NxD, labels_N, k=k, p=p, squared=squared, nearest=nearest
        )
        found["kth_positive"] = kth_N[anchors_RxA]
        for name, flags_TxA in (("outside", drawn.outside), ("pushed", drawn.pushed)):
            found[name] = np.asarray(flags_TxA[0]).reshape(anchors_RxA.shape)
    return found


@functools.partial(jax.jit, static_argnames="mine")
def _draw(
    neighbors: Array | None, labels_N: Array, anchors_A: Array, keys_T: Array, *, mine: bool
) -> Triplets:
    """A draw for each of T keys: Triplets of [T, A]."""
    return jax.vmap(lambda key: local_triplets(neighbors, labels_N, anchors_A, key, mine=mine))(
        keys_T
    )


def _neighborhoods(bank_NxD: np.ndarray, k: int, p: float, nearest: Nearest) -> Array:
    """The k nearest of each example, itself left out [N, k]."""
    present_N = np.zeros(len(bank_NxD), np.int32)
    return _nearest(bank_NxD, present_N, min(k, len(bank_NxD) - 1), p, nearest)[1]


def kth_positive_by_class(
    bank_NxD: np.ndarray,
    labels_N: np.ndarray,
    *,
    k: int,
    p: float,
    squared: bool,
    nearest: Nearest = nearest_on_one_device,
) -> np.ndarray:
    """`kth_positive_distances` [N] by a search within each class: of C even classes 1/C the work.

    `nearest` is the search, over all devices.
    """
    kth_N = np.zeros(len(labels_N), bank_NxD.dtype)
    for label in np.unique(labels_N):
        members = np.flatnonzero(labels_N == label)
        if (others := len(members) - 1) == 0:
            continue
        if not np.isfinite(bank_NxD[members]).all():
            kth_N[members] = np.nan
            continue
        filled = np.pad(members, (0, -len(members) % _CLASS_ROWS), mode="edge")
        absent = (np.arange(len(filled)) > others).astype(np.int32)
        # k, part of the program, is that of the class only where the class is smaller.
        distances, _ = _nearest(bank_NxD[filled], absent, min(k, others), p, nearest)
        kth_N[members] = np.asarray(distances[: len(members), -1])
    return np.square(kth_N) if squared else kth_N


def _nearest(
    rows_NxD: np.ndarray, absent_N: np.ndarray, k: int, p: float, nearest: Nearest
) -> tuple[Array, Array]:
    """Of each row its k nearest others that are not absent: distances, indices [N, k]."""
    ids_N = np.arange(len(rows_NxD), dtype=np.int32)
    present_N = np.zeros_like(absent_N)
    return nearest(
        rows_NxD,
        rows_NxD,
        k=k,
        p=p,
        query_ids=ids_N,
        gallery_ids=ids_N,
        query_labels=present_N,
        gallery_labels=absent_N,
        same_class=True,
    )
