"""All public losses: the forms of their arguments, what is refused, traced numbers, no inf inside.

Their values on ordinary input are tested beside each loss.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest
import reference

from deepknn_jax import (
    UserError,
    batch_hard_triplet_loss,
    cox_loss,
    deep_knn_loss,
    kth_positive_distances,
    lmnn_loss,
    local_margin_loss,
    local_triplets,
    nca_loss,
    neighborhood_watch_loss,
    target_neighbors,
)

RNG = np.random.default_rng(0)
X = (RNG.normal(size=(12, 3)) * [1, 2, 0.5]).astype(np.float32)
LABELS = np.array([0, 0, 1, 1, 2, 2, 0, 1, 2, 0, 1, 3])
IDS = np.array([0, 1, 2, 3, 4, 5, 0, 7, 8, 9, 2, 11])
WHERE = np.arange(12) != 5
TARGETS = np.where(RNG.random((12, 2)) < 0.8, RNG.integers(0, 12, (12, 2)), -1)
TIMES, EVENTS = RNG.integers(1, 9, 12), LABELS % 2
NEAR, FAR = RNG.gamma(2, 1, (12, 2)), RNG.gamma(3, 1, (12, 2))


def lmnn(x, labels, ids=None, targets=TARGETS, **options):
    return lmnn_loss(x, labels, targets, ids=ids, **options)


# Of embeddings and labels; with the loop that gives the right value.
OF_EMBEDDINGS = {
    "deep_knn": (
        functools.partial(deep_knn_loss, margin=1.0, k=2, m=3),
        lambda x, y, ids: reference.triplet_loss(x, y, k=2, m=3, margin=1.0, ids=ids)[0],
    ),
    "batch_hard": (
        functools.partial(batch_hard_triplet_loss, margin=1.0),
        lambda x, y, ids: reference.triplet_loss(x, y, margin=1.0, ids=ids, hard=True)[0],
    ),
    "nca": (nca_loss, lambda x, y, ids: reference.nca_loop(x, y, ids=ids)[0]),
    "lmnn": (lmnn, lambda x, y, ids: reference.lmnn_loop(x, y, TARGETS, ids=ids)[0]),
}
# Of embeddings [B, D], whatever else a loss takes.
ALL = {name: functools.partial(loss, labels_B=LABELS, where=WHERE) for name, (loss, _) in
       OF_EMBEDDINGS.items() if name != "lmnn"} | {
    "lmnn": lambda x: lmnn(x, LABELS, where=WHERE),
    "nca_log": lambda x: nca_loss(x, LABELS, log=True, where=WHERE),
    "deep_knn_p1": lambda x: deep_knn_loss(x, LABELS, margin=1.0, p=1),
    "deep_knn_inf": lambda x: deep_knn_loss(x, LABELS, margin=1.0, p=np.inf),
    "cox": lambda x: cox_loss(x[:, 0], TIMES, EVENTS, WHERE),
    "local_margin": lambda x: local_margin_loss(x[:, :2], FAR, NEAR[:, 0], eps=0.1, where=WHERE),
    "watch": lambda x: neighborhood_watch_loss(NEAR, x, 1.0, where=WHERE),
}  # fmt: skip


@pytest.fixture(params=OF_EMBEDDINGS)
def loss_and_loop(request):
    return OF_EMBEDDINGS[request.param]


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "form", [np.ndarray.tolist, pandas.DataFrame, lambda x: list(jnp.asarray(x)), np.float16]
)
def test_every_form_of_an_array_is_taken(loss_and_loop, form):
    loss, loop = loss_and_loop
    exact = np.asarray(np.asarray(form(X), np.float32), np.float64)
    labels = pandas.Series(LABELS.astype(np.uint8))
    close(loss(form(X), labels), loop(exact, LABELS, None))


def test_an_offset_that_float32_cannot_hold(loss_and_loop):
    loss, loop = loss_and_loop
    wide = np.float64(X) + 1e9
    # A row that is left out is not in the middle of the others.
    where = np.arange(12) != 11
    spoilt = np.where(where[:, None], wide, 1e30)
    expected = loop(wide[:11], LABELS[:11], None) if loss is not lmnn else None
    close(loss(wide, LABELS), loop(wide, LABELS, None))
    if expected is not None:
        close(loss(spoilt, LABELS, where=where), expected)


@pytest.mark.parametrize("scale", [2**32, 10**12])
def test_ids_and_labels_of_64_bits_stay_apart(loss_and_loop, scale):
    loss, loop = loss_and_loop
    options = {}
    if loss is lmnn:
        options["targets"] = np.where(TARGETS < 0, -1, TARGETS * scale)
    close(loss(X, LABELS * scale, ids=IDS * scale, **options), loop(np.float64(X), LABELS, IDS))


@pytest.mark.parametrize(
    ("x", "labels", "message"),
    [
        (X[0], LABELS, r"embeddings \[B, D\], got shape \(3,\)"),
        (X, LABELS[:11], r"labels \[12\], got shape \(11,\)"),
        (X, LABELS[:, None], r"labels \[12\], got shape \(12, 1\); say labels.reshape\(-1\)"),
        (X, LABELS > 0, r"labels must be integers, got dtype bool: say labels.astype\(int\)"),
        (X, LABELS.astype(np.float16), "labels must be integers, got dtype float16"),
        (X, LABELS.astype(str), r"got text: say np.unique\(labels, return_inverse=True\)\[1\]"),
        (X[:0], LABELS[:0], "embeddings have no row"),
        (X[:, :0], LABELS, "embeddings must have a column"),
        (X.astype(str), LABELS, "embeddings must hold real numbers, got text"),
    ],
)
def test_wrong_embeddings_and_labels_are_refused(loss_and_loop, x, labels, message):
    targets = {"targets": TARGETS[: len(x)]} if loss_and_loop[0] is lmnn else {}
    with pytest.raises(UserError, match=message):
        loss_and_loop[0](x, labels, **targets)


def test_wrong_ids_and_masks_are_refused(loss_and_loop):
    loss, _ = loss_and_loop
    for options, message in (
        ({"ids": 7}, r"ids \[12\], got shape \(\)"),
        ({"ids": IDS / 2}, "ids must be integers"),
        ({"where": WHERE.astype(int)}, r"where must be booleans, got .*: say where.astype\(bool\)"),
        ({"where": WHERE[:3]}, r"where \[12\], got shape \(3,\)"),
    ):
        with pytest.raises(UserError, match=message):
            loss(X, LABELS, **options)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda **o: deep_knn_loss(X, LABELS, **{"margin": 1.0} | o), "margin must"),
        (lambda **o: batch_hard_triplet_loss(X, LABELS, **o), "margin must"),
        (lambda margin: nca_loss(X, LABELS, temperature=margin), "temperature must be"),
        (lambda margin: lmnn(X, LABELS, mu=margin), "mu must be"),
        (lambda margin: lmnn(X, LABELS, margin=margin), "margin must"),
        (lambda margin: local_margin_loss(NEAR, FAR, NEAR[:, 0], eps=margin), "eps must"),
        (lambda margin: local_margin_loss(NEAR, FAR, NEAR[:, 0], eps=1, c_b=margin), "c_b must"),
    ],
)
def test_numbers_are_checked_where_they_are_known_and_traced_elsewhere(loss, message):
    for wrong in (np.nan, "1", np.ones(3)):
        with pytest.raises(UserError, match=message):
            loss(margin=wrong)
    close(jax.jit(lambda margin: loss(margin=margin))(0.7), loss(margin=0.7))


@pytest.mark.parametrize("name", ["k", "m"])
@pytest.mark.parametrize("value", [1.0, True, "2", 0])
def test_numbers_of_neighbours_are_integers(name, value):
    with pytest.raises(UserError, match=f"{name} must be"):
        deep_knn_loss(X, LABELS, margin=1.0, **{name: value})
    if name == "k":
        for search in (target_neighbors, kth_positive_distances):
            with pytest.raises(UserError, match="k must be"):
                search(X, LABELS, k=value)


@pytest.mark.parametrize("name", ALL)
def test_no_inf_and_no_nan_inside(name):
    """A user who hunts for his own by JAX_DEBUG_INFS and JAX_DEBUG_NANS must not find ours."""
    run = jax.value_and_grad(ALL[name])
    plain = run(jnp.asarray(X))
    with jax.debug_infs(True), jax.debug_nans(True):
        eager = run(jnp.asarray(X))
        compiled = jax.jit(run)(jnp.asarray(X))
        for found in (eager, compiled):
            for a, b in zip(found, plain, strict=True):
                close(a, b)


def test_the_gradient_by_the_largest_difference_is_that_of_differences():
    loss = ALL["deep_knn_inf"]
    slope = jax.grad(loss)(jnp.asarray(X))
    with jax.enable_x64(True):
        for place in ((0, 1), (3, 0), (7, 2)):
            step = np.zeros(X.shape)
            step[place] = 1e-6
            moved = (loss(X + step) - loss(X - step)) / 2e-6
            np.testing.assert_allclose(slope[place], moved, atol=1e-5)


def test_large_times_keep_their_order():
    """Seconds since 1970: float32 ties what is less than two minutes apart."""
    h, times = X[:, 0], 1.7e9 + RNG.permutation(12)
    expected, _ = reference.cox_loop(np.float64(h), times, EVENTS)
    tied, _ = reference.cox_loop(np.float64(h), np.float32(times), EVENTS)
    assert abs(expected - tied) > 0.1
    close(cox_loss(h, times, EVENTS), expected)
    close(jax.jit(lambda h: cox_loss(h, times, EVENTS))(h), expected)
    close(jax.jit(cox_loss)(h, times.astype(np.int32), EVENTS), expected)
    close(cox_loss(h + 1e9 * np.ones(12), times, EVENTS), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"log_hazards_N": X[:, :1]}, r"log_hazards \[N\], got shape \(12, 1\); say .*reshape"),
        ({"times_N": TIMES[:, None]}, r"times \[12\], got shape \(12, 1\)"),
        ({"events_N": EVENTS[:, None]}, r"events \[12\], got shape \(12, 1\)"),
        ({"events_N": EVENTS + 1}, r"events has 2 in row \d+: events are 1 \(died\) and 0"),
        ({"times_N": np.where(TIMES > 7, np.nan, TIMES)}, r"times has nan in row \d+"),
        ({"times_N": -TIMES}, r"times has -\d in row 0: times are numbers from 0"),
        ({"where": WHERE[:4]}, r"where \[12\], got shape \(4,\)"),
    ],
)
def test_survival_that_is_none_is_refused(options, message):
    arguments = {"log_hazards_N": X[:, 0], "times_N": TIMES, "events_N": EVENTS} | options
    with pytest.raises(UserError, match=message):
        cox_loss(**arguments)
    if "_N" not in message and message.count("has"):
        # jit cannot look, but does not hide it. Of a row left out nothing is asked.
        assert np.isnan(jax.jit(cox_loss)(**arguments))
        sound = (arguments["times_N"] >= 0) & (arguments["events_N"] < 2)
        assert np.isfinite(cox_loss(**arguments, where=sound))


def test_wrong_arguments_of_a_draw_are_refused():
    key = jax.random.key(0)
    for arguments, message in (
        ((None, LABELS, np.arange(12)), r"mine needs the neighbors"),
        ((np.zeros((12, 2), int), LABELS, [12]), r"anchors must be 0\.\.11, got 12\.\.12"),
        ((np.zeros((11, 2), int), LABELS, [3]), r"neighbors \[12, k\], got shape \(11, 2\)"),
        ((np.full((12, 2), 12), LABELS, [3]), r"neighbors must be -1\.\.11, got 12\.\.12"),
        ((np.zeros((12, 2), int), LABELS[:, None], [3]), r"labels \[N\], got shape \(12, 1\)"),
    ):
        with pytest.raises(UserError, match=message):
            local_triplets(*arguments, key, mine=True)
