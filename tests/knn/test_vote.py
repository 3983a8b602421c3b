import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from support.memory import peak_memory

from deepknn_jax import knn_classify
from deepknn_jax.knn.vote import elect, vote

pytestmark = pytest.mark.usefixtures("strict_dtypes")


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.sampled_from([(1, 3), (5, 2), (6, 4), (7, 1)]))
def test_vote_matches_the_loop(seed, k_and_classes):
    k, classes = k_and_classes
    rng = np.random.default_rng(seed)
    distances = np.sort(rng.integers(0, 4, (6, k)) / 4, axis=1).astype(np.float32)
    labels = rng.integers(-1, classes, (6, k))
    predicted, shares = vote(jnp.asarray(distances), jnp.asarray(labels), num_classes=classes)
    for q in range(6):
        label, share = reference.vote(distances[q], labels[q], classes)
        assert predicted[q] == label
        np.testing.assert_allclose(shares[q], share, atol=1e-6)


def dense_vote(distances, labels, classes):
    """The vote by an array [Q, k, C]: what it is in little memory must be this to the bit."""
    voted = labels[:, :, None] == jnp.arange(classes)[None, None, :]
    votes = jnp.sum(voted, axis=1)
    sums = jnp.sum(jnp.where(voted, distances[:, :, None], 0.0), axis=1)
    leads = votes == jnp.max(votes, axis=1, keepdims=True)
    voters = jnp.sum(votes, axis=1, keepdims=True)
    nearest = jnp.min(sums, axis=1, keepdims=True, where=leads, initial=jnp.inf)
    winner = jnp.argmax(leads & ~(sums > nearest), axis=1)
    shares = (votes / jnp.maximum(voters, 1)).astype(distances.dtype)
    return jnp.where(voters[:, 0] > 0, winner, -1), shares


@pytest.mark.parametrize(("k", "classes"), [(1, 9), (5, 3), (5, 200), (40, 11)])
@pytest.mark.parametrize("ties", [True, False])
def test_vote_is_that_by_all_classes_to_the_bit(k, classes, ties):
    rng = np.random.default_rng(k * classes)
    distances = rng.integers(0, 4, (3000, k)) / 4 if ties else rng.normal(size=(3000, k)) ** 2
    distances = np.sort(distances, axis=1).astype(np.float32)
    distances[rng.random((3000, k)) < 0.05] = np.inf
    distances = jnp.asarray(distances)
    labels = jnp.asarray(rng.integers(-1, classes, (3000, k)).astype(np.int32))
    expected, expected_shares = dense_vote(distances, labels, classes)
    predicted, shares = vote(distances, labels, num_classes=classes)
    np.testing.assert_array_equal(predicted, expected)
    np.testing.assert_array_equal(elect(distances, labels, num_classes=classes), expected)
    assert np.asarray(shares).tobytes() == np.asarray(expected_shares).tobytes()


def test_ten_thousand_classes_elect_in_little_memory():
    """By all classes 20,000 x 5 x 10,000 comparisons are 9 GB."""
    start, end = peak_memory(
        before="import numpy as np; from deepknn_jax.knn.vote import elect\n"
        "labels = np.arange(100_000, dtype=np.int32).reshape(20_000, 5) % 10_000\n"
        "distances = np.ones((20_000, 5), np.float32)\n"
        "elect(distances[:9], labels[:9], num_classes=10_000)",
        work="found = elect(distances, labels, num_classes=10_000)\n"
        "assert (np.asarray(found) == labels.min(1)).all()",
    )
    assert end - start < 200


@pytest.mark.parametrize(
    ("distances", "labels", "winner"),
    [
        ([1, 2, 3, 4, 9], [0, 1, 1, 0, 2], 0),  # 2 : 2, sums 5 and 5: the smaller label
        ([1, 2, 3, 5, 9], [0, 1, 1, 0, 2], 1),  # 2 : 2, sums 6 and 5: the nearer
        ([0, 1, 1, 1, 1], [2, 1, 1, 0, 0], 0),
        ([0, 0, 9, 9, 9], [2, 2, 1, 1, 1], 1),  # majority beats nearness
        ([np.inf, np.inf, np.inf, np.inf, np.inf], [2, 1, 1, 1, 2], 1),
    ],
)
def test_ties(distances, labels, winner):
    predicted, _ = vote(jnp.asarray([distances], jnp.float32), jnp.asarray([labels]), num_classes=3)
    assert predicted[0] == winner


def test_agrees_with_scikit_learn_where_there_are_no_ties():
    from sklearn.neighbors import KNeighborsClassifier

    rng = np.random.default_rng(0)
    gallery, queries = (rng.normal(size=(n, 6)).astype(np.float32) for n in (200, 50))
    labels = rng.integers(0, 2, 200)
    judge = KNeighborsClassifier(5, algorithm="brute").fit(gallery, labels)
    found = knn_classify(queries, gallery, labels, k=5, num_classes=2)
    distances, indices = judge.kneighbors(queries)
    np.testing.assert_array_equal(found.labels, judge.predict(queries))
    np.testing.assert_allclose(found.shares, judge.predict_proba(queries), atol=1e-6)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-5)


def test_leave_one_out_by_ids_and_under_jit():
    rng = np.random.default_rng(1)
    x, labels, ids = rng.normal(size=(30, 4)), rng.integers(0, 3, 30), np.arange(30)

    def classify(x):
        return knn_classify(x, x, labels, k=3, num_classes=3, query_ids=ids, gallery_ids=ids)

    predicted, _, indices, _ = jax.jit(classify)(x)
    assert (np.asarray(indices) != ids[:, None]).all()
    expected, _ = reference.neighbors(x, x, 3, skip=lambda q, g: q == g)
    for q in range(30):
        assert predicted[q] == reference.vote(expected[q], labels[indices[q]], 3)[0]


def test_a_query_without_voters():
    x = np.zeros((1, 2))
    predicted, shares, indices, distances = knn_classify(
        x, x, np.array([0]), k=1, num_classes=2, query_ids=np.array([4]), gallery_ids=np.array([4])
    )
    assert predicted[0] == -1
    assert (shares == 0).all()
    assert indices[0, 0] == -1
    assert distances[0, 0] == np.inf


def test_a_query_that_is_not_finite_has_no_label_and_shares_that_say_so():
    rng = np.random.default_rng(2)
    x, labels = rng.normal(size=(9, 3)).astype(np.float32), np.arange(9) % 2
    spoilt = x.copy()
    spoilt[3, 1] = np.nan
    found = jax.jit(lambda q: knn_classify(q, x, labels, k=3, num_classes=2))(spoilt)
    assert found.labels[3] == -1
    assert np.isnan(found.shares[3]).all()
    assert np.isfinite(np.delete(found.shares, 3, axis=0)).all()
    assert (np.delete(found.labels, 3) >= 0).all()
