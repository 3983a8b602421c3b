"""Neighborhood Watch's losses of embeddings, as the trainer has them: and its step on devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from support.batches import ALL, assert_close, make_recipe

from deepknn_jax.engine.parallel import collectives, get_devices, map_train_steps, replicate
from deepknn_jax.engine.step import Call, init_state
from deepknn_jax.knn.neighbors import Examples
from deepknn_jax.losses.base import mean
from deepknn_jax.losses.local_margin import (
    TermWeights,
    local_margin_sums,
    max_margin_sums,
    select_next_and_hardest,
)
from deepknn_jax.losses.triplet import select_batch_hard
from deepknn_jax.mining.batches import with_partners
from deepknn_jax.mining.local_triplets import mine_triplets

HUGE = 1e6


def embeddings(size=16, width=5, seed=0, classes=3):
    """Asymmetric rows of unequal classes, and ids that are not positions."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.geometric(0.5, size) - 1, classes - 1).astype(np.int32)
    x = rng.normal(size=(size, width)) * rng.uniform(0.2, 2, width) + 0.5 * labels[:, None]
    return x.astype(np.float32), labels, (100 + 3 * rng.permutation(size)).astype(np.int32)


def listed_triplets(labels, draws, seed=0):
    """Rows of random positives and negatives [A, T] of every row; some -1."""
    rng = np.random.default_rng(seed)
    found = []
    for same in (True, False):
        listed = np.full((len(labels), draws), -1)
        for a in range(len(labels)):
            others = np.flatnonzero((labels == labels[a]) == same)
            others = others[others != a]
            if len(others):
                listed[a] = rng.choice(others, draws)
        found.append(listed)
    found[0][3, 0] = found[1][5, 0] = -1
    return found


def as_ids(places, ids):
    return np.where(places < 0, -1, ids[places]).astype(np.int32)


def check_embeddings(run, x, expected, *, rtol=1e-5):
    value, gradient = expected
    (found, more), slope = jax.jit(jax.value_and_grad(run, has_aux=True))(jnp.asarray(x))
    np.testing.assert_allclose(found, value, rtol=rtol)
    atol = rtol * np.abs(gradient).max()
    np.testing.assert_allclose(slope, gradient, rtol=10 * rtol, atol=atol)
    return more


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize(("squared", "p"), [(False, 2.0), (True, 2.0), (False, 1.5)])
def test_local_margin_sums_are_the_paper_s(squared, p, reduction):
    draws = 3 if squared else 1
    x, labels, ids = embeddings()
    positives, negatives = listed_triplets(labels, draws)
    rng = np.random.default_rng(4)
    pushed, outside, kth = rng.random(16) < 0.6, rng.random(16) < 0.8, rng.uniform(0.1, 0.6, 16)
    kth = kth.astype(np.float32)

    def run(x):
        batch = Examples(x, labels, ids, np.ones(16, bool))
        sums = local_margin_sums(
            batch, batch, positives=as_ids(positives, ids), negatives=as_ids(negatives, ids),
            outside=outside, pushed=pushed, kth_positive=kth, c_b=2.5, eps=0.1, weights=ALL,
            reduction=reduction, squared=squared, p=p,
        )  # fmt: skip
        return mean(sums), sums

    expected = reference.watch_triplets_loop(
        x, range(16), positives, negatives, 2.5 * kth + 0.1, ALL, squared=squared, p=p,
        pushed=pushed, reduction=reduction,
    )  # fmt: skip
    sums = check_embeddings(run, x, expected)
    counted = (positives >= 0).sum(1) * (negatives >= 0).sum(1) * pushed
    assert float(sums.terms) == counted.sum()
    told = {"kth_positive": kth.mean(), "no_local_negative": 1 - pushed.mean(),
            "none_outside": 1 - outside.mean()}  # fmt: skip
    for name, value in told.items():
        np.testing.assert_allclose(sums.means[name], value, rtol=1e-5)
    d = [
        reference.distance(x[a].astype(float), x[i].astype(float), p) ** (1 + squared)
        for a in range(16)
        for i in positives[a]
        if i >= 0
    ]
    np.testing.assert_allclose(sums.means["d_positive"], np.mean(d), rtol=1e-5)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("margin", [0.5, HUGE])
def test_max_margin_is_the_hinge_without_its_margin(margin, squared, reduction):
    """max(d_pos - d_neg + m, 0) - m in float64, and the hinge's gradient."""
    x, labels, ids = embeddings(seed=1)
    positives, negatives = listed_triplets(labels, 2)
    batch = functools.partial(Examples, labels=labels, ids=ids, where=np.ones(16, bool))

    def run(x):
        sums = max_margin_sums(
            batch(x), batch(x), positives=as_ids(positives, ids), negatives=as_ids(negatives, ids),
            margin=margin, weights=ALL, reduction=reduction, squared=squared,
        )  # fmt: skip
        return mean(sums), sums

    value, gradient = reference.watch_triplets_loop(
        x, range(16), positives, negatives, np.full(16, margin), ALL, squared=squared,
        reduction=reduction,
    )  # fmt: skip
    triplets = np.sum((positives >= 0).sum(1) * (negatives >= 0).sum(1))
    value -= ALL.lm * margin * (triplets if reduction == "sum" else 1)
    check_embeddings(run, x, (value, gradient), rtol=2e-5)


def test_beside_a_margin_of_1e6_changes_of_1e_3_show():
    """Float32's spacing there is 0.06, and 64 where the weight 1000 stands before it."""
    weights = TermWeights(1000, 0, 0, 0, 0)

    def value(gap):
        x = np.array([[0], [1], [5 + gap], [5 + gap]], np.float32)
        batch = Examples(x, np.array([0, 0, 1, 1]), np.arange(4), np.ones(4, bool))
        return float(
            mean(
                max_margin_sums(
                    batch._replace(embeddings=jnp.asarray(x)), batch, margin=HUGE, weights=weights,
                    reduction="mean", squared=False,
                )
            )
        )  # fmt: skip

    # D_ap 1, 1, 0, 0; D_an 5, 4, 4, 4, each growing by the gap.
    assert value(0) == pytest.approx(1000 * (0.5 - 17 / 4), rel=1e-6)
    assert value(1e-3) - value(0) == pytest.approx(-1.0, abs=0.01)


@pytest.mark.parametrize("select", [select_batch_hard, select_next_and_hardest])
def test_max_margin_s_hardest_of_the_batch(select):
    x, labels, ids = embeddings(24, seed=2)
    labels[7] = 9  # alone
    batch = functools.partial(Examples, labels=labels, ids=ids, where=np.ones(24, bool))
    positives, negatives = np.full((24, 1), -1), np.full((24, 1), -1)
    for a in range(24):
        same = [i for i in range(24) if labels[i] == labels[a] and i != a]
        other = [i for i in range(24) if labels[i] != labels[a]]
        negatives[a] = reference.nearest(x.astype(float), a, other, 1)
        if same and select is select_batch_hard:
            positives[a] = reference.nearest(x.astype(float), a, same, 1, furthest=True)
        elif same:
            positives[a] = min(same, key=lambda i, a=a: (i - a) % 24)

    def run(x):
        sums = max_margin_sums(
            batch(x), batch(x), select=select, margin=HUGE, weights=ALL, reduction="mean",
            squared=False,
        )  # fmt: skip
        return mean(sums), sums

    value, gradient = reference.watch_triplets_loop(
        x, range(24), positives, negatives, np.full(24, HUGE), ALL
    )
    check_embeddings(run, x, (value - ALL.lm * HUGE, gradient), rtol=3e-5)


@settings(max_examples=30)
@given(st.integers(0, 2**31))
def test_next_is_of_the_class_never_itself_and_hardest_is_the_nearest(seed):
    rng = np.random.default_rng(seed)
    x, labels = rng.normal(size=(12, 2)), rng.integers(0, 4, 12)
    d = np.linalg.norm(x[:, None] - x[None], axis=2)
    same = (labels[:, None] == labels[None]) & ~np.eye(12, dtype=bool)
    cross = labels[:, None] != labels[None]
    # Anchors of one device: rows 3 to 8 of the gallery.
    rows = np.arange(3, 9)
    next_one, nearest = select_next_and_hardest(
        jnp.asarray(d[rows], jnp.float32), jnp.asarray(same[rows]), jnp.asarray(cross[rows])
    )
    for a, row in enumerate(rows):
        assert bool(next_one.valid[a, 0]) == same[row].any()
        if same[row].any():
            after = [i % 12 for i in range(row + 1, row + 12) if same[row, i % 12]]
            assert int(next_one.indices[a, 0]) == after[0]
        assert bool(nearest.valid[a, 0]) == cross[row].any()
        if cross[row].any():
            assert int(nearest.indices[a, 0]) == np.argmin(np.where(cross[row], d[row], np.inf))


@pytest.mark.parametrize("name", ["local_margin", "max_margin"])
def test_a_nan_embedding_shows_though_no_triplet_has_it(name):
    x, labels, ids = embeddings()
    x[2, 0] = np.nan
    batch = Examples(jnp.asarray(x), labels, ids, np.ones(16, bool))
    listed = np.full((16, 1), -1, np.int32)
    shared = {
        "positives": listed, "negatives": listed, "weights": ALL, "reduction": "mean",
        "squared": False,
    }  # fmt: skip
    loss = functools.partial(max_margin_sums, margin=1.0, **shared)
    if name == "local_margin":
        flags, kth = np.ones(16, bool), np.ones(16, np.float32)
        loss = functools.partial(
            local_margin_sums, outside=flags, pushed=flags, kth_positive=kth, c_b=3.0, eps=0.1,
            **shared,
        )  # fmt: skip
    assert np.isnan(mean(loss(batch, batch)))
    clean = batch._replace(embeddings=jnp.nan_to_num(batch.embeddings))
    assert mean(loss(clean, clean)) == 0


# The trainer's step on four devices


def uneven_set():
    """60 examples. 16 anchors, of which the first four are pushed by nobody.

    Rows 0..2 are alone in their classes and rows 3..14 far off; classes 0 and 1 overlap.
    """
    rng = np.random.default_rng(3)
    labels = np.concatenate([[3, 4, 5], [2] * 12, rng.choice(2, 45, p=[0.7, 0.3])]).astype(np.int32)
    features = rng.normal(size=(60, 6)) * rng.uniform(0.5, 2, 6)
    features[:3] += 50
    features[3:15] -= 50
    anchors = np.concatenate([[0, 1, 2, 3], 15 + rng.permutation(45)[:12]])
    return features, labels, anchors[None].astype(np.int32)


def trainer_loss(name, axis):
    shared = {
        "weights": ALL, "reduction": "mean", "squared": False, "total": collectives(axis).total
    }  # fmt: skip
    if name == "local_margin":
        return functools.partial(local_margin_sums, c_b=3.0, eps=0.01, **shared)
    return functools.partial(max_margin_sums, margin=2.0, **shared)


@functools.cache
def first_state():
    """In float64 arrays of numpy, and made without an axis: outside the mapping there is none."""
    features, _, _ = uneven_set()
    state = init_state(make_recipe("deep_knn", None, np.float64), jnp.asarray(features[:1]))
    floating = lambda x: jnp.issubdtype(x.dtype, jnp.floating)  # noqa: E731
    return jax.tree.map(lambda x: np.asarray(x, np.float64 if floating(x) else x.dtype), state)


@functools.cache
def trainer_step(count, mode, name):
    """One step of the trainer on `count` devices, in float64: the state, the log, the mined."""
    features, labels, anchors = uneven_set()
    rows = np.arange(60, dtype=np.int32)
    mined, ids, devices = {}, anchors, get_devices(count, mode)
    if name != "max_margin_hard":
        bank = features if name == "local_margin" else None
        mined = mine_triplets(
            bank, anchors, 0, rows_N=rows, labels_N=labels, k=5, mine=bank is not None, draws=2,
            squared=False, p=2.0, seed=0,
        )  # fmt: skip
        ids = with_partners(anchors, mined, rows, devices=devices.size)
    recipe = make_recipe("deep_knn", devices.axis, np.float64)._replace(
        loss=trainer_loss(name, devices.axis)
    )
    train = map_train_steps(devices, recipe, pool_is_cut=False)
    state, pool = replicate(devices, first_state()), replicate(devices, features)
    state, log = train(state, Call(pool, labels, ids, ids, mined, 1))
    return *jax.device_get((state, log)), mined


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("shard_map", "local_margin"),
        ("shard_map", "max_margin"),
        ("shard_map", "max_margin_hard"),
        ("pmap", "local_margin"),
        ("pmap", "max_margin_hard"),
    ],
)
def test_four_devices_give_the_one_device_step_in_float64(mode, name):
    with jax.enable_x64(True):
        expected, expected_log, mined = trainer_step(1, "shard_map", name)
        found, log, _ = trainer_step(4, mode, name)
        assert log.loss.dtype == np.float64
        # sgd with momentum: the trace after one step is the gradient itself.
        assert_close(found.opt_state, expected.opt_state, 1e-9)
        assert_close(found._asdict(), expected._asdict(), 1e-9)
        assert_close(log._asdict(), expected_log._asdict(), 1e-9)
    assert log.gradient_norm[0] > 0.1
    assert log.active[0] > 0
    if name == "local_margin":  # the first device's four anchors against the others' twelve
        assert not mined["pushed"][0, 3]
        assert (mined["positives"][0, :3] == -1).all()
        assert mined["pushed"][0, 4:].mean() > 0.8
