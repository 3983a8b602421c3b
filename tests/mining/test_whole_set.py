"""Neighbours in the whole training set."""

import numpy as np

from deepknn_jax.engine.parallel import get_devices
from deepknn_jax.knn.sharded import searcher
from deepknn_jax.mining.whole_set import nearest_in_set


def by_hand(bank, labels, rows, anchor, count, same):
    """Ids of the `count` nearest of the anchor's class, or of others; -1 where there are fewer."""
    distance = np.linalg.norm(bank.astype(np.float64) - bank[anchor], axis=1)
    order = [
        i
        for i in np.argsort(distance, kind="stable")
        if i != anchor and (labels[i] == labels[anchor]) == same
    ][:count]
    return [rows[i] for i in order] + [-1] * (count - len(order))


def test_the_nearest_in_the_set_are_found_for_each_anchor():
    rng = np.random.default_rng(0)
    labels = np.array([0] * 20 + [1] * 9 + [2] * 2)
    bank = rng.normal(size=(31, 4)).astype(np.float32) * [1, 2, 3, 4] + 10 * labels[:, None]
    rows = (100 + 3 * np.arange(31)).astype(np.int32)
    anchors = np.stack([rng.permutation(31)[:8] for _ in range(3)])
    anchors[0, :2] = 29, 30  # of the class of two: one positive each
    found = nearest_in_set(
        bank.astype(np.float32), anchors, 0, rows_N=rows, labels_N=labels, k=3, m=4, p=2.0
    )
    assert found["positives"].shape == (3, 8, 3)
    assert found["negatives"].shape == (3, 8, 4)
    for place in np.ndindex(3, 8):
        for name, count, same in (("positives", 3, True), ("negatives", 4, False)):
            expected = by_hand(bank, labels, rows, anchors[place], count, same)
            np.testing.assert_array_equal(found[name][place], expected)
    assert (found["positives"][0, 0] == [rows[30], -1, -1]).all()


def test_four_devices_search_as_one():
    """14 anchors are no multiple of 4."""
    rng = np.random.default_rng(3)
    bank, labels = rng.normal(size=(31, 4)).astype(np.float32), np.arange(31) % 3
    anchors = np.stack([rng.permutation(31)[:7] for _ in range(2)])
    options = {"rows_N": 5 * np.arange(31), "labels_N": labels, "k": 3, "m": 12, "p": 2.0}
    nearest = searcher(get_devices(4, "shard_map").mesh)
    one = nearest_in_set(bank, anchors, 0, **options)
    four = nearest_in_set(bank, anchors, 0, **options, nearest=nearest)
    assert one.keys() == four.keys() == {"positives", "negatives"}
    for name in one:
        np.testing.assert_array_equal(four[name], one[name])


def test_more_than_there_are_is_cut():
    bank = np.arange(6, dtype=np.float32)[:, None]
    labels, rows = np.array([0, 0, 0, 1, 1, 1]), np.arange(6, dtype=np.int32)
    found = nearest_in_set(
        bank, np.array([[2]]), 0, rows_N=rows, labels_N=labels, k=50, m=50, p=2.0
    )
    assert found["positives"].tolist() == [[[1, 0, -1, -1, -1]]]
    assert found["negatives"].tolist() == [[[3, 4, 5, -1, -1]]]
