"""Deep kNN's positives and negatives of the anchors, searched in the whole training set."""

import jax
import numpy as np

from deepknn_jax.knn.neighbors import MapSearch, class_search, ids_at
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
    map_search: MapSearch = jax.jit,
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
        map_search: maps a search over the devices.

    Returns:
        {"positives": [R, A, K], "negatives": [R, A, M]}, ids, the nearest first.
    """
    del step
    assert bank_NxD is not None
    anchors_Q = anchors_RxA.ravel()
    queries = bank_NxD[anchors_Q], anchors_Q, labels_N[anchors_Q]
    # On the device once, for both searches.
    gallery = jax.device_put((bank_NxD, np.arange(len(labels_N)), labels_N))
    found = {}
    for name, wanted, same_class in (("positives", k, True), ("negatives", m, False)):
        search = class_search(min(wanted, len(labels_N) - 1), p, same_class)
        _, places = map_search(search)(*queries, *gallery)
        found[name] = ids_at(places, rows_N).reshape(*anchors_RxA.shape, -1)
    return found
