import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from support.memory import peak_memory

from deepknn_jax import UserError, knn_classify
from deepknn_jax.knn.vote import MAJORITY, VoteRule, Weights, elect, vote, weights_of

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


COUNTS = np.array([9, 1, 250, 40, 0])


def ballots(seed, Q=40, k=6, C=5, *, ties):
    """Distances, sorted, some infinite, and labels, some -1, of rows that are often tied or not."""
    rng = np.random.default_rng(seed)
    distances = rng.integers(0, 4, (Q, k)) / 4 if ties else rng.gamma(2, size=(Q, k))
    distances = np.sort(distances, axis=1).astype(np.float32)
    distances[rng.random((Q, k)) < 0.05] = np.inf
    distances[-1] = np.inf
    labels = rng.integers(-1, C, (Q, k)).astype(np.int32)
    labels[-2] = -1
    return distances, labels


@pytest.mark.parametrize(
    "rule",
    [VoteRule(0.5), VoteRule(1.0), VoteRule(0, 0.7), VoteRule(0.3, 2.0), VoteRule(1.0, 1e-3)],
)
@pytest.mark.parametrize("ties", [True, False])
def test_a_weighted_vote_matches_the_loop(rule, ties):
    distances, labels = ballots(3, ties=ties)
    found, shares = vote(
        jnp.asarray(distances), jnp.asarray(labels), num_classes=5, class_counts=COUNTS, rule=rule
    )
    for q in range(len(labels)):
        label, share = reference.weighted_vote(distances[q], labels[q], COUNTS, *rule)
        assert found[q] == label
        np.testing.assert_allclose(shares[q], share, atol=2e-6)
    np.testing.assert_allclose(np.sum(shares, axis=1), found >= 0, atol=1e-6)


def test_a_rule_without_weights_is_the_majority_to_the_bit():
    """Also where it goes the other's way, as for a curve's tau = 0; and the rule changes some."""
    distances, labels = map(jnp.asarray, ballots(4, Q=3000, ties=True))
    plain = elect(distances, labels, num_classes=5)
    assert weights_of(MAJORITY, COUNTS) is None
    ones = Weights(jnp.ones(5, jnp.float32), None)
    np.testing.assert_array_equal(elect(distances, labels, num_classes=5, weights=ones), plain)
    by_size = elect(distances, labels, num_classes=5, weights=weights_of(VoteRule(0.5), COUNTS))
    assert 0.1 < np.mean(np.asarray(by_size) != plain) < 0.9


def test_shares_of_the_class_that_are_equal_tie():
    """At tau = 1 three of nine are one of three, whatever float32 makes of a ninth."""
    labels = jnp.asarray([[0, 1, 1, 1]])
    for near, winner in (([3.0, 1.0, 1.0, 0.5], 1), ([2.0, 1.0, 1.0, 0.5], 0)):
        found, shares = vote(
            jnp.asarray([near]), labels, num_classes=2, class_counts=[3, 9], rule=VoteRule(1.0)
        )
        assert found[0] == winner
        np.testing.assert_allclose(shares, [[0.5, 0.5]], rtol=1e-6)


def test_a_weighted_classifier_counts_the_gallery_also_under_jit():
    rng = np.random.default_rng(5)
    gallery, queries = (rng.normal(size=(n, 3)).astype(np.float32) for n in (120, 30))
    labels = rng.choice(3, 120, p=[0.7, 0.2, 0.1])
    rule = VoteRule(0.6, 1.5)

    def classify(queries, labels):
        return knn_classify(queries, gallery, labels, k=7, num_classes=3, rule=rule)

    counts = np.bincount(labels)
    for found in (classify(queries, labels), jax.jit(classify)(queries, labels)):
        for q in range(30):
            voters = labels[np.asarray(found.indices[q])]
            label, share = reference.weighted_vote(found.distances[q], voters, counts, *rule)
            assert found.labels[q] == label
            np.testing.assert_allclose(found.shares[q], share, atol=1e-5)


@pytest.mark.parametrize(
    ("rule", "counts", "words"),
    [
        (VoteRule(1.5), COUNTS, "`class_size_power` is 1.5"),
        (VoteRule(float("nan")), COUNTS, "`class_size_power` is nan"),
        (VoteRule(0, -1.0), COUNTS, "`temperature` is -1.0"),
        (VoteRule(0, float("inf")), COUNTS, "`temperature` is inf"),
        (VoteRule(0.5), None, "asks for the gallery's `class_counts`"),
        (VoteRule(0.5), COUNTS[:3], "class_counts"),
    ],
)
def test_rules_out_of_range_are_named(rule, counts, words):
    distances, labels = map(jnp.asarray, ballots(6, ties=True))
    with pytest.raises(UserError, match=words):
        vote(distances, labels, num_classes=5, class_counts=counts, rule=rule)
