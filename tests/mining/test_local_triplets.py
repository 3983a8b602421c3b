"""d_{a,k+}, and triplets drawn inside and outside of neighbourhoods."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from deepknn_jax.engine.parallel import get_devices
from deepknn_jax.knn.sharded import searcher
from deepknn_jax.mining.local_triplets import (
    kth_positive_by_class,
    kth_positive_distances,
    local_triplets,
    mine_triplets,
)

whole = jax.jit(kth_positive_distances, static_argnames=("k", "p", "squared"))


def classes_of_1_2_and_many(seed=0, offset=0.0):
    """23 rows: classes of 1, 2, 7 and 13, shuffled, with two rows equal; asymmetric."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([5, 2, 9, 0], [1, 2, 7, 13])).astype(np.int32)
    x = offset + rng.normal(size=(23, 4)) * [0.2, 1, 2, 0.5]
    one, other = np.flatnonzero(labels == 9)[:2]
    x[one] = x[other]
    return x.astype(np.float32), labels


@pytest.mark.parametrize(
    ("k", "p", "squared"),
    [(1, 2.0, False), (3, 2.0, False), (6, 2.0, True), (50, 2.0, False), (3, 1.0, False)],
)
def test_the_kth_positive_is_the_loops(k, p, squared):
    """Of the whole set at once and class by class, without and with a large offset."""
    for seed, offset in ((0, 0.0), (1, 1e3)):
        x, labels = classes_of_1_2_and_many(seed, offset)
        expected = reference.kth_positive_loop(x, labels, k, p, squared)
        assert (expected == 0).sum() == (3 if k == 1 else 1)  # alone; k = 1: the two equal rows
        found = whole(x, labels, k=k, p=p, squared=squared)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=0)
        apart = kth_positive_by_class(x, labels, k=k, p=p, squared=squared)
        np.testing.assert_allclose(apart, expected, rtol=1e-5, atol=0)
        assert found.dtype == apart.dtype == np.float32


def test_float64_stays_float64():
    x, _ = classes_of_1_2_and_many()
    x, labels = x.astype(np.float64) * np.pi, np.arange(23) % 3
    expected = reference.kth_positive_loop(x, labels, 3)
    with jax.enable_x64(True):
        np.testing.assert_allclose(whole(x, labels, k=3), expected, rtol=1e-14)
        apart = kth_positive_by_class(x, labels, k=3, p=2.0, squared=False)
        np.testing.assert_allclose(apart, expected, rtol=1e-14)


def test_a_class_that_fills_its_places_exactly():
    """Searches within a class are filled up to 512 rows: classes of 511, 512 and 513."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1, 2], [511, 512, 513])).astype(np.int32)
    x = rng.normal(size=(1536, 4)).astype(np.float32)
    apart = kth_positive_by_class(x, labels, k=3, p=2.0, squared=False)
    for label in range(3):
        d = np.linalg.norm(x[labels == label][:, None] - x[labels == label][None], axis=2)
        expected = np.sort(d.astype(np.float64), axis=1)[:, 3]  # the first is itself
        np.testing.assert_allclose(apart[labels == label], expected, rtol=1e-5)


def test_four_devices_search_and_draw_as_one():
    """23 queries are no multiple of 4."""
    x, _ = classes_of_1_2_and_many()
    options = {
        "rows_N": np.arange(23), "labels_N": np.arange(23) % 3, "k": 3, "mine": True, "draws": 1,
        "squared": False, "p": 2.0, "seed": 1,
    }  # fmt: skip
    anchors = np.arange(23)[None]
    nearest = searcher(get_devices(4, "shard_map").mesh)
    one = mine_triplets(x, anchors, 0, **options)
    four = mine_triplets(x, anchors, 0, **options, nearest=nearest)
    for name in ("positives", "negatives", "outside", "pushed"):
        np.testing.assert_array_equal(four[name], one[name])
    np.testing.assert_allclose(four["kth_positive"], one["kth_positive"], rtol=1e-6)


@pytest.mark.parametrize("k", [1, 3])
def test_nan_is_not_hidden(k):
    """All of its class: their k-th positive is not known. And no other class."""
    x, labels = classes_of_1_2_and_many()
    row = np.flatnonzero(labels == 9)[2]
    x[row, 1] = np.nan
    concerned = labels == 9
    for found in (
        whole(x, labels, k=k),
        kth_positive_by_class(x, labels, k=k, p=2.0, squared=False),
    ):
        np.testing.assert_array_equal(np.isnan(found), concerned)


def test_no_gradient_and_wrong_arguments():
    x, labels = classes_of_1_2_and_many()
    slope = jax.grad(lambda x: whole(x, labels, k=2).sum())(jnp.asarray(x))
    assert (slope == 0).all()
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        kth_positive_distances(x, labels, k=0)
    with pytest.raises(ValueError, match=r"expected labels \[23\], got shape \(22,\)"):
        kth_positive_distances(x, labels[:-1], k=1)
    with pytest.raises(ValueError, match="p must be"):
        kth_positive_distances(x, labels, k=1, p=0.5)


# Triplets. Row 0..5 of class 0, 6..8 of class 1, 9..10 of class 2, 11 alone in class 3.
LABELS = np.array([0] * 6 + [1] * 3 + [2] * 2 + [3], np.int32)[
    ORDER := np.random.default_rng(5).permutation(12)
]
DRAWS = 3000


def neighborhoods(seed=0, k=4):
    """Random neighbours of 12 rows, not themselves, some -1; and rows of each kind of fallback."""
    rng = np.random.default_rng(seed)
    near = np.stack([rng.permutation(np.delete(np.arange(12), a))[:k] for a in range(12)])
    near[rng.random(near.shape) < 0.15] = -1
    own = [np.flatnonzero(label == LABELS) for label in range(4)]
    near[own[0][0]] = own[0][1:5]  # none local; one positive outside
    near[own[1][0]] = [*own[1][1:], *own[0][:2]]  # no positive outside
    near[own[2][0]] = [own[2][1], -1, -1, -1]  # neither
    near[own[2][1]] = -1  # nobody near
    near[own[3][0]] = own[0][:4]  # alone in its class, with negatives inside
    return near.astype(np.int32)


@functools.partial(jax.jit, static_argnames="mine")
def drawn(near, labels, anchors, keys, *, mine):
    return jax.vmap(lambda key: local_triplets(near, labels, anchors, key, mine=mine))(keys)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


@pytest.mark.parametrize("mine", [False, True])
def test_every_admissible_choice_is_drawn_alike_and_no_other_ever(mine):
    """Positive and negative together: uniform over all pairs, so also independent."""
    near = neighborhoods()
    found = jax.device_get(drawn(near, LABELS, np.arange(12), keys(DRAWS), mine=mine))
    seen = set()
    for a in range(12):
        positives, negatives, outside, pushed = reference.watch_choices(near, LABELS, a, mine=mine)
        seen.add((outside, pushed))
        assert (found.outside[:, a] == outside).all()
        assert (found.pushed[:, a] == pushed).all()
        pairs = [(p, n) for p in positives or {-1} for n in negatives or {-1}]
        counts = dict.fromkeys(pairs, 0)
        for pair in zip(
            found.positives[:, a].tolist(), found.negatives[:, a].tolist(), strict=True
        ):
            counts[pair] += 1  # a KeyError: not admissible
        if len(pairs) > 1:
            assert chisquare(list(counts.values())).pvalue > 1e-3, a
    wanted = {(True, True), (False, True)}
    assert seen == wanted | ({(True, False), (False, False)} if mine else set())


@pytest.mark.parametrize("mine", [False, True])
def test_anchors_draw_apart(mine):
    """Two anchors of one choice: their draws are independent, neither equal nor opposite."""
    near = np.tile(np.array([2, 3, 8, 9], np.int32), (12, 1))
    labels = (np.arange(12) >= 6).astype(np.int32)
    found = jax.device_get(drawn(near, labels, np.arange(12), keys(DRAWS), mine=mine)).negatives
    for one, other in ((0, 1), (1, 4), (0, 5)):
        choices = np.unique(found[:, one])
        assert len(choices) == (2 if mine else 6)
        counts = [
            np.sum((found[:, one] == i) & (found[:, other] == j)) for i in choices for j in choices
        ]
        assert chisquare(counts).pvalue > 1e-3


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 5), st.booleans())
def test_a_draw_is_always_as_asked_or_the_rule_s_fallback(seed, classes, mine):
    """Any labels, any neighbours; the same in another order and beside fewer anchors."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([0, 7, 3, 40, 5])[:classes], 10).astype(np.int32)
    near = np.stack([rng.permutation(np.delete(np.arange(10), a))[:4] for a in range(10)])
    near[rng.random(near.shape) < rng.random()] = -1
    anchors, key = np.arange(10), keys(1, seed)
    found = jax.device_get(drawn(near, labels, anchors, key, mine=mine))
    for a in range(10):
        positives, negatives, outside, pushed = reference.watch_choices(near, labels, a, mine=mine)
        assert int(found.positives[0, a]) in (positives or {-1})
        assert int(found.negatives[0, a]) in (negatives or {-1})
        assert (bool(found.outside[0, a]), bool(found.pushed[0, a])) == (outside, pushed)
    order = rng.permutation(10)
    shuffled = jax.device_get(drawn(near, labels, order, key, mine=mine))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:, order]), shuffled, found)
    some = jax.device_get(drawn(near, labels, order[:3], key, mine=mine))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:, order[:3]]), some, found)


def test_without_jit_and_without_neighbours():
    near, some = neighborhoods(), keys(DRAWS)
    plain = local_triplets(near, LABELS, np.arange(12), some[1], mine=True)
    compiled = drawn(near, LABELS, np.arange(12), some, mine=True)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[1]), plain, compiled)
    assert plain.positives.dtype == plain.negatives.dtype == np.int32
    assert plain.outside.dtype == plain.pushed.dtype == bool
    without = drawn(None, LABELS, np.arange(12), some, mine=False)
    same = drawn(near, LABELS, np.arange(12), some, mine=False)
    jax.tree.map(np.testing.assert_array_equal, without, same)


def test_one_class_alone_has_no_negatives():
    labels = np.zeros(12, np.int32)
    for mine in (False, True):
        found = drawn(neighborhoods(), labels, np.arange(12), keys(DRAWS), mine=mine)
        assert (found.negatives == -1).all()
        assert not found.pushed.any()
        assert (found.positives >= 0).all()
        assert (np.asarray(found.positives) != np.arange(12)).all()


# An epoch's triplets


def epoch(**changes):
    x, labels = classes_of_1_2_and_many()
    rows = (100 + 3 * np.arange(23)).astype(np.int32)
    options = {
        "rows_N": rows, "labels_N": labels, "k": 3, "mine": True, "draws": 3, "squared": False,
        "p": 2.0, "seed": 0, "step": 0,
    } | changes  # fmt: skip
    anchors = np.random.default_rng(1).permutation(23)[:20].reshape(4, 5)
    bank = options.pop("bank", x)
    found = mine_triplets(bank, anchors, options.pop("step"), **options)
    return x, labels, rows, anchors, found


@pytest.mark.parametrize(
    ("mine", "k", "p"), [(True, 3, 2.0), (True, 3, 1.0), (False, 3, 2.0), (True, 99, 2.0)]
)
def test_an_epoch_s_triplets_are_inside_and_outside_the_bank_s_neighbourhoods(mine, k, p):
    x, labels, rows, anchors, found = epoch(mine=mine, k=k, p=p)
    near = reference.neighbors(x, x, min(k, 22), p, lambda q, g: q == g)[1]
    kth = reference.kth_positive_loop(x, labels, k, p)
    assert found["positives"].shape == found["negatives"].shape == (4, 5, 3)
    assert found["positives"].dtype == found["negatives"].dtype == np.int32
    fallbacks = 0
    for place in np.ndindex(4, 5):
        a = anchors[place]
        positives, negatives, outside, pushed = reference.watch_choices(near, labels, a, mine=mine)
        assert set(found["positives"][place]) <= {rows[i] for i in positives} or not positives
        assert set(found["negatives"][place]) <= {rows[i] for i in negatives}
        if not positives:
            assert (found["positives"][place] == -1).all()
        assert (found["outside"][place], found["pushed"][place]) == (outside, pushed)
        np.testing.assert_allclose(found["kth_positive"][place], kth[a], rtol=1e-5)
        fallbacks += not outside
    # All are near: no positive is outside. Else only anchors of small classes lack one.
    assert fallbacks == 20 if k == 99 else 0 < fallbacks < 20
    assert found["kth_positive"].dtype == np.float32


def test_draws_differ_between_epochs_seeds_and_among_themselves():
    _, labels, _, anchors, first = epoch(mine=False)
    same = epoch(mine=False)[-1]
    for name, values in first.items():
        np.testing.assert_array_equal(same[name], values)
    large = labels[anchors] == 0  # 12 positives each
    others = [epoch(mine=False, **changes)[-1] for changes in ({"step": 7}, {"seed": 1})]
    for other in others:
        shared = np.mean(other["positives"][large] == first["positives"][large])
        assert shared < 0.4
    apart = first["positives"][large]
    assert np.mean(apart[:, 0] == apart[:, 1]) < 0.4


def test_squared_squares_d_alone():
    plain, squared = (epoch(squared=flag)[-1] for flag in (False, True))
    np.testing.assert_allclose(squared["kth_positive"], plain["kth_positive"] ** 2, rtol=1e-6)
    for name in ("positives", "negatives", "outside", "pushed"):
        np.testing.assert_array_equal(squared[name], plain[name])


def test_without_a_bank_only_triplets_are_told():
    labels, rows, anchors, found = epoch(bank=None, mine=False)[1:]
    assert set(found) == {"positives", "negatives"}
    for place in np.ndindex(4, 5):
        a = anchors[place]
        positives, negatives, _, _ = reference.watch_choices(None, labels, a, mine=False)
        assert set(found["positives"][place]) <= {rows[i] for i in positives} | {-1}
        assert set(found["negatives"][place]) <= {rows[i] for i in negatives}
    with_bank = epoch(mine=False)[-1]
    np.testing.assert_array_equal(found["negatives"], with_bank["negatives"])
