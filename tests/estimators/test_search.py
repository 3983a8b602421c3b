import numpy as np
import pytest
import reference

from deepknn_jax.estimators.search import nearest, shares
from deepknn_jax.knn.vote import vote


@pytest.mark.parametrize("dtype", ["f4", "f8", "i8"])
def test_nearest_is_exact_whatever_is_filled_up(dtype):
    rng = np.random.default_rng(1)
    queries, gallery = rng.normal(size=(5, 3)) * 9, rng.normal(size=(150, 3)) * 9 + 1e3
    queries, gallery = (queries + 1e3).astype(dtype), gallery.astype(dtype)
    distances, indices = nearest(queries, gallery, k=4, p=2)
    wanted, rows = reference.neighbors(queries.astype("f8"), gallery.astype("f8"), 4)
    np.testing.assert_array_equal(indices, rows)
    np.testing.assert_allclose(distances, wanted, rtol=1e-5 if dtype == "f4" else 1e-13)
    assert (distances.dtype, indices.dtype) == (np.float64, np.int64)


def test_leave_out_leaves_out_each_row_and_no_copy_of_it():
    rows = np.random.default_rng(2).normal(size=(140, 3))
    rows[7] = rows[3]
    distances, indices = nearest(rows, rows, k=139, p=1.0, leave_out=True)
    assert (np.sort(indices, axis=1) != np.arange(140)[:, None]).any(axis=1).all()
    assert all(row not in found for row, found in enumerate(indices))
    assert (indices[3, 0], indices[7, 0], distances[3, 0]) == (7, 3, 0.0)


def ballots(seed, k=5, classes=4):
    rng = np.random.default_rng(seed)
    distances = np.sort(rng.integers(0, 6, (40, k)) / 8, axis=1)
    return distances, rng.integers(0, classes, (40, k)), rng.integers(1, 4, (40, k)) / 4


def test_shares_by_a_loop():
    distances, labels, weights = ballots(3)
    for given in (None, weights):
        found = shares(distances, labels, num_classes=4, weights_Qxk=given, ties="label")
        counted = np.zeros((40, 4))
        for q, c in np.ndindex(40, 5):
            counted[q, labels[q, c]] += 1 if given is None else given[q, c]
        np.testing.assert_allclose(found, counted / counted.sum(axis=1, keepdims=True))


def test_nearer_is_the_rule_of_vote_and_changes_a_share_by_its_last_place_alone():
    distances, labels, _ = ballots(4)
    found = shares(distances, labels, num_classes=4, ties="nearer")
    predicted, voted = vote(distances.astype("f4"), labels, num_classes=4)
    np.testing.assert_array_equal(np.argmax(found, axis=1), predicted)
    np.testing.assert_allclose(found, voted, rtol=1e-6)
    by_label = shares(distances, labels, num_classes=4, ties="label")
    assert (np.argmax(by_label, axis=1) != predicted).any()
    np.testing.assert_allclose(found, by_label, rtol=3e-16)
