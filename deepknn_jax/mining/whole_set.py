"""Deep kNN's positives and negatives of the anchors, searched in the whole training set."""

import numpy as np

from deepknn_jax.knn.neighbors import ids_at
from deepknn_jax.knn.sharded import Nearest, nearest_on_one_device
from deepknn_jax.mining.batches import Mined


def nearest_in_set(
    bank_NxD: np.ndarray | None,
    anchors_RxA: np.ndarray,
    step: int,
    *,
    rows_N: np.ndarray,
    labels_N: np.ndarray,
    k: int,
    m: int,
    p: float,
    nearest: Nearest = nearest_on_one_device,
) -> Mined:
    """The K nearest positives and M nearest negatives in the whole set (Deep kNN, section 2.2).

    Args:
        bank_NxD: embeddings of the training part, in evaluation mode.
        anchors_RxA: positions in it.
        step: not used: nothing is drawn.
        rows_N: ids of its examples.
        labels_N: their labels.
        k, m: neighbours wanted, cut to N - 1.
        p: order of the norm.
        nearest: the search, over all devices.

    Returns:
        {"positives": [R, A, K], "negatives": [R, A, M]}, ids, the nearest first.
    """
    del step
    assert bank_NxD is not None
    anchors_Q = anchors_RxA.ravel()
    found = {}
    for name, wanted, same_class in (("positives", k, True), ("negatives", m, False)):
        _, places = nearest(
            bank_NxD[anchors_Q],
            bank_NxD,
            k=min(wanted, len(labels_N) - 1),
            p=p,
            query_ids=anchors_Q,
            gallery_ids=np.arange(len(labels_N), dtype=np.int32),
            query_labels=labels_N[anchors_Q],
            gallery_labels=labels_N,
            same_class=same_class,
        )
        found[name] = ids_at(places, rows_N).reshape(*anchors_RxA.shape, -1)
    return found
