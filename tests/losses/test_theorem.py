"""Theorem 1 and corollary 1 of Neighborhood Watch, on data that meet their conditions.

Random data almost never do: here classes are moved apart until they just do. The condition is the
proof's: D_an >= c_b d_{a,k} + eps for all anchors a and negatives n, eps > 0, every class with more
than k members, D not squared, and the query within d_{a,k} of its nearest example a. It is checked
in numpy, the conclusion with the project's own search.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from deepknn_jax.knn.neighbors import nearest_neighbors
from deepknn_jax.knn.vote import knn_classify
from deepknn_jax.losses.local_margin import local_margin_loss, neighborhood_watch_loss, safe_c_b
from deepknn_jax.mining.local_triplets import kth_positive_distances

LABELS = np.repeat([0, 1, 2], [7, 8, 12])
KS = (1, 3, 6)  # 6: the first class has just one member more
CASES = 90  # of each property
neighbors_of = jax.jit(nearest_neighbors, static_argnames="k")
kth_of = jax.jit(kth_positive_distances, static_argnames="k")
vote_of = jax.jit(knn_classify, static_argnames=("k", "num_classes"))


def all_distances(x_NxD, squared=False):
    d = np.linalg.norm(x_NxD[:, None] - x_NxD[None], axis=2)
    return d**2 if squared else d


def kth_of_class(d_NxN, labels_N, k):
    """d_{a,k+} by sorting; the first of each row is itself."""
    rows = [np.sort(d[labels_N == labels_N[a]])[k] for a, d in enumerate(d_NxN)]
    return np.array(rows)


def is_pure(d_NxN, labels_N, margin_N):
    """D_an >= margin of a, for all a and n."""
    negative = labels_N[:, None] != labels_N[None]
    return bool(np.all((d_NxN >= margin_N[:, None]) | ~negative))


def has_no_hinge(d_NxN, labels_N, margin_N):
    """max(0, D_ap - D_an + margin of a) = 0 for all a, p and n, which are three examples."""
    same = (labels_N[:, None] == labels_N[None]) & ~np.eye(len(labels_N), dtype=bool)
    furthest = np.max(np.where(same, d_NxN, 0), axis=1)
    return is_pure(d_NxN, labels_N, furthest + margin_N)


def apart(rng, width, meets):
    """Three classes of unequal spread, moved apart just until they meet the condition."""
    own = rng.normal(size=(27, width)) * rng.uniform(0.1, 2, 3)[LABELS][:, None]
    own *= rng.uniform(0.3, 1, width)
    way = rng.normal(size=(3, width))
    if width == 1:
        way = np.array([[-1.0], [0.2], [1.3]])
    near, far = 0.0, 1.0
    while not meets(own + far * way[LABELS]):
        far *= 2
        if far > 1e6:
            return None  # two ways too alike; the count tells
    for _ in range(20):
        middle = (near + far) / 2
        near, far = (near, middle) if meets(own + middle * way[LABELS]) else (middle, far)
    return own + far * way[LABELS]


def query_near(rng, x, d_k):
    """A query within d_{a,k} of its nearest example a, towards another class; and a."""
    a = rng.integers(27)
    others = np.flatnonzero(LABELS[a] != LABELS)
    way = x[rng.choice(others)] - x[a]
    way = way / np.linalg.norm(way) + 0.2 * rng.normal(size=x.shape[1])
    reach = d_k[a] / np.linalg.norm(way)
    for _ in range(40):
        query = x[a] + reach * way
        d = np.linalg.norm(x - query, axis=1)
        if d.min() <= d_k[np.argmin(d)]:
            return query, int(np.argmin(d))
        reach *= 0.9
    return None


def voters(query, x, k):
    return np.asarray(neighbors_of(query[None], x, k=k)[1][0])


def holds_for_queries(condition, *, squared=False):
    """Runs the cases: as `condition(d, kth, eps)` says, all k neighbours are of a's class.

    The share of cases that meet the condition is counted.
    """
    met = []

    @settings(max_examples=CASES)
    @given(st.integers(0, 2**31), st.sampled_from(KS), st.sampled_from([1, 2, 5]))
    def case(seed, k, width):
        rng = np.random.default_rng(seed)
        eps = 10.0 ** rng.uniform(-6, -1)

        def meets(x):
            d = all_distances(x, squared)
            return condition(d, kth_of_class(d, LABELS, k), eps)

        x = apart(rng, width, meets)
        met.append(False)
        if x is None:
            return
        # d_{a,k}: the k-th nearest of all, which with the condition is that of the class.
        d = all_distances(x)
        d_k = np.sort(d, axis=1)[:, k]
        found = query_near(rng, x, d_k)
        met[-1] = found is not None and meets(x)
        np.testing.assert_allclose(d_k, kth_of_class(d, LABELS, k))
        if met[-1]:
            query, a = found
            assert (LABELS[voters(query, x, k)] == LABELS[a]).all()

    with jax.enable_x64(True):
        case()
    assert len(met) >= 60
    assert np.mean(met) >= 0.8


@pytest.mark.parametrize("squared", [False, True])
def test_theorem_1(squared):
    """c_b = 3, and 9 with squared distances."""
    c_b = safe_c_b(squared=squared)
    holds_for_queries(lambda d, kth, eps: is_pure(d, LABELS, c_b * kth + eps), squared=squared)


@pytest.mark.parametrize(("squared", "c_b"), [(False, 2), (True, 8)])
def test_no_hinge_left_over_all_positives_is_enough_at_2(squared, c_b):
    """The furthest of more than k members is no nearer than d_{a,k}: one d_{a,k} is given."""
    holds_for_queries(lambda d, kth, eps: has_no_hinge(d, LABELS, c_b * kth + eps), squared=squared)


def test_corollary_1():
    """A margin that is the same for all, above 3 d_{a,k} of each."""
    holds_for_queries(lambda d, kth, eps: is_pure(d, LABELS, np.full(27, 3 * kth.max() + eps)))


def test_random_data_meet_no_condition():
    """What the properties above would say without the moving apart: nothing."""
    met = 0
    for seed in range(50):
        d = all_distances(np.random.default_rng(seed).normal(size=(27, 2)) + LABELS[:, None])
        met += is_pure(d, LABELS, 3 * kth_of_class(d, LABELS, 3))
    assert met == 0


# Counterexamples just below: k points at -1, the anchor at 0, the query at 1, and negatives before
# 3, all at one place.
K, FAR, EPS = 3, 5, 1e-6


def line(negatives_at):
    """Examples, labels, and the query."""
    x = np.array([-1.0] * K + [0.0] + [negatives_at] * FAR)[:, None]
    return x, np.array([0] * (K + 1) + [1] * FAR), np.array([1.0])


def verdict(x, labels, query):
    """What the project says: d_{a,k+}, the voters' labels, the vote."""
    with jax.enable_x64(True):
        kth = np.asarray(kth_of(x, labels, k=K))
        label, _, near, _ = vote_of(query[None], x, labels, k=K, num_classes=2)
        return kth, labels[near[0]], int(label[0])


def whole_hinge(x, labels, margin, squared=False):
    """The public loss over all positives and all negatives, its margin's place taken by eps."""
    total = 0.0
    d = all_distances(x, squared)
    with jax.enable_x64(True):
        for a in range(len(x)):
            same = np.flatnonzero((labels == labels[a]) & (np.arange(len(x)) != a))
            other = np.flatnonzero(labels != labels[a])
            near, far = jnp.asarray(d[a, same][None]), jnp.asarray(d[a, other][None])
            total += float(
                local_margin_loss(near, far, margin[a : a + 1], c_b=1.0, eps=0.0, reduction="sum")
            )
    return total


@pytest.mark.parametrize(
    ("squared", "c_b", "holds"), [(False, 2.9, False), (False, 3.0, True), (True, 8.9, False),
                                  (True, 9.0, True)]
)  # fmt: skip
def test_the_condition_just_below_its_bound(squared, c_b, holds):
    reach = np.sqrt(c_b + EPS) if squared else c_b + EPS
    x, labels, query = line(reach)
    d, (kth, voted, label) = all_distances(x, squared), verdict(x, labels, query)
    np.testing.assert_allclose(kth, [1] * (K + 1) + [0] * FAR)
    kth = kth**2 if squared else kth
    assert is_pure(d, labels, c_b * kth + EPS * (1 - 1e-6))
    assert not is_pure(d, labels, c_b * kth + 2 * EPS)  # no more than just
    to_query = np.abs(x - query).ravel()
    assert np.argmin(to_query) == K  # the anchor at 0, and as far as it may be
    assert to_query.min() == kth[K] == 1
    assert (label == 0) == holds
    assert (voted == 0).all() == holds


@pytest.mark.parametrize(
    ("squared", "c_b", "holds"), [(False, 1.9, False), (False, 2.0, True), (True, 7.9, False),
                                  (True, 8.0, True)]
)  # fmt: skip
def test_the_hinge_just_below_its_bound(squared, c_b, holds):
    reach = np.sqrt(1 + c_b + EPS) if squared else 1 + c_b + EPS
    x, labels, query = line(reach)
    kth, voted, label = verdict(x, labels, query)
    kth = kth**2 if squared else kth
    assert whole_hinge(x, labels, c_b * kth + EPS / 2, squared) == 0
    assert whole_hinge(x, labels, c_b * kth + 2 * EPS, squared) > 0
    assert has_no_hinge(all_distances(x, squared), labels, c_b * kth + EPS / 2)
    assert (label == 0) == holds
    assert (voted == 0).all() == holds


def test_a_fixed_margin_just_below_its_bound():
    for margin, holds in ((2.9, False), (3.0 + EPS, True)):
        x, labels, query = line(margin)
        assert is_pure(all_distances(x), labels, np.full(len(x), margin))
        _, voted, _ = verdict(x, labels, query)
        assert (voted == 0).all() == holds


def test_the_query_must_be_within_d_ak():
    """An outlier, the paper's word: beyond, the theorem says nothing."""
    x, labels, query = line(3 + EPS)
    assert (verdict(x, labels, query)[1] == 0).all()
    _, voted, _ = verdict(x, labels, query + 0.1)
    assert (voted == 1).any()


def test_a_class_below_k_members_cannot_fill_the_vote():
    x, labels, query = line(3 + EPS)
    for left_out, holds in ((0, True), (2, False)):  # K + 1 members, K - 1
        _, voted, _ = verdict(x[left_out:], labels[left_out:], query)
        kth = reference.kth_positive_loop(x[left_out:], labels[left_out:], K)
        d = all_distances(x[left_out:])
        assert is_pure(d, labels[left_out:], 3 * kth + EPS / 2)
        assert (voted == 0).all() == holds


def test_the_losses_agree_on_no_hinge():
    """The whole objective's hinge term is the same one."""
    x, _, _ = line(3 + EPS)
    d = all_distances(x)
    near, far = d[: K + 1, : K + 1], d[: K + 1, K + 1 :]
    near = near[~np.eye(K + 1, dtype=bool)].reshape(K + 1, K)
    for margin in (2.0, 2.5):
        plain = local_margin_loss(near, far, np.ones(K + 1), c_b=margin, eps=0.0)
        whole = neighborhood_watch_loss(near, far, np.full(K + 1, margin))
        rest = near.mean() - far.mean() + far.var()
        np.testing.assert_allclose(whole - rest, 1000 * plain, rtol=1e-4, atol=1e-4)
        assert (plain > 0) == (margin > 2)
