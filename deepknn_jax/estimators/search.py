"""The search and the vote as scikit-learn's estimators give them: numpy's, float64 and int64."""

import jax
import numpy as np

from deepknn_jax.knn.sharded import nearest_on_one_device
from deepknn_jax.knn.sizes import filled_up

TIES = ("label", "nearer")


def nearest(
    queries_QxD: np.ndarray,
    gallery_GxD: np.ndarray,
    *,
    k: int,
    p: float,
    leave_out: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest rows of the gallery, by `knn.neighbors.nearest_neighbors`.

    Both sides are filled up to few sizes, so that few programs are compiled. Where a side is no
    float32 (or shorter), the search is in float64.

    Args:
        queries_QxD: finite, Q >= 1.
        gallery_GxD: finite.
        k: 1 <= k <= G; k <= G - 1 with `leave_out`.
        p: order of the norm, >= 1.
        leave_out: the queries are the gallery, and none finds itself.

    Returns:
        Distances float64 [Q, k], ascending, and indices int64 [Q, k]; ties to the lower index.
    """
    sides = [_floating(side) for side in (queries_QxD, gallery_GxD)]
    dtype = np.result_type(*sides)
    queries, gallery = (side.astype(dtype, copy=False) for side in sides)
    # Under jit nothing is refused: a row of NaN is nobody's neighbour.
    arrays = filled_up(queries), filled_up(gallery, np.nan)
    ids: dict[str, np.ndarray] = {}
    if leave_out:
        names = ("query_ids", "gallery_ids")
        ids = {
            name: np.arange(len(array), dtype=np.int32)
            for name, array in zip(names, arrays, strict=True)
        }
    with jax.enable_x64(dtype == np.float64):
        distances, indices = nearest_on_one_device(*arrays, k=k, p=float(p), **ids)
        found = np.asarray(distances)[: len(queries)], np.asarray(indices)[: len(queries)]
    return found[0].astype(np.float64), found[1].astype(np.int64)


def _floating(rows: np.ndarray) -> np.ndarray:
    """float32 and float64 as they are; float16 as float32; all else as float64."""
    if rows.dtype == np.float32 or rows.dtype == np.float16:
        return np.asarray(rows, np.float32)
    return np.asarray(rows, np.float64)


def shares(
    distances_Qxk: np.ndarray,
    labels_Qxk: np.ndarray,
    *,
    num_classes: int,
    weights_Qxk: np.ndarray | None = None,
    ties: str,
) -> np.ndarray:
    """Shares of the votes float64 [Q, C], whose largest says what is predicted.

    `ties`: of equal shares the smallest label's counts ("label", scikit-learn's rule, that of
    argmax), or that of the class whose voters are nearer in sum ("nearer", that of
    `knn.vote.vote`): it is made larger by one unit in its last place.

    Args:
        distances_Qxk: [Q, k].
        labels_Qxk: int [Q, k] in 0..num_classes-1.
        num_classes: C.
        weights_Qxk: what each vote counts, >= 0 and not all 0 in a row; None: 1.
        ties: one of TIES.
    """
    weights = np.ones(labels_Qxk.shape) if weights_Qxk is None else weights_Qxk
    votes_QxC = _sums(weights, labels_Qxk, num_classes)
    shares_QxC = votes_QxC / votes_QxC.sum(axis=1, keepdims=True)
    if ties == "label":
        return shares_QxC
    near_QxC = _sums(distances_Qxk, labels_Qxk, num_classes)
    leads_QxC = votes_QxC == votes_QxC.max(axis=1, keepdims=True)
    winners_Q = np.argmin(np.where(leads_QxC, near_QxC, np.inf), axis=1)
    tied_Q = np.flatnonzero(leads_QxC.sum(axis=1) > 1)
    places = tied_Q, winners_Q[tied_Q]
    shares_QxC[places] = np.nextafter(shares_QxC[places], 2.0)
    return shares_QxC


def _sums(values_Qxk: np.ndarray, labels_Qxk: np.ndarray, num_classes: int) -> np.ndarray:
    """Sums float64 [Q, C] of the values of each label."""
    sums_QxC = np.zeros((len(labels_Qxk), num_classes))
    rows_Q = np.arange(len(labels_Qxk))
    for labels_Q, values_Q in zip(labels_Qxk.T, values_Qxk.T, strict=True):
        sums_QxC[rows_Q, labels_Q] += values_Q
    return sums_QxC
