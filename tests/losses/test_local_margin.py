"""Neighborhood Watch's losses: against loops, in parts, on devices, beside a margin of 1e6."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from support.batches import ALL

from deepknn_jax.errors import UserError
from deepknn_jax.losses import local_margin
from deepknn_jax.losses.local_margin import (
    TermWeights,
    local_margin_loss,
    neighborhood_watch_loss,
    objective_sums,
)

HUGE = 1e6


def distances(size=9, k=3, m=4, seed=0):
    """Distances to positives and negatives, and d_{a,k+}: of unequal scales, overlapping."""
    rng = np.random.default_rng(seed)
    near, far = rng.gamma(2, 1, (size, k)), 1 + rng.gamma(2, 1.5, (size, m))
    return near, far, rng.uniform(0.1, 1.5, size)


def columns(d, listed):
    """[B, K], or [B]: one a row."""
    return d if listed else d[:, 0]


def check_distances(function, near, far, loop, dtype):
    """Value and derivatives by both distances against the loop; float64 also compiled."""
    value, *by_distances = loop
    is_double = dtype == np.float64
    rtol = 1e-12 if is_double else 1e-5
    with jax.enable_x64(is_double):
        run = jax.value_and_grad(function, argnums=(0, 1))
        run = jax.jit(run) if is_double else run
        found, slopes = run(jnp.asarray(near, dtype), jnp.asarray(far, dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, value, rtol=rtol)
    for slope, expected in zip(slopes, by_distances, strict=True):
        expected = expected.reshape(slope.shape)
        np.testing.assert_allclose(slope, expected, rtol=rtol, atol=rtol * abs(expected).max())


# (an anchor in three left out, how the hinge is reduced, a margin for each or one for all)
SETTINGS = ((False, "sum", 2.5), (True, "mean", None), (False, "mean", None), (True, "sum", None))


@pytest.mark.usefixtures("strict_dtypes")
@pytest.mark.parametrize("listed", [(False, False), (True, True), (True, False)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
class TestPublicLosses:
    """[B] and [B, K] against [B, M], in both precisions."""

    def test_the_hinge(self, listed, dtype):
        near, far, kth = distances(k=3 if listed[0] else 1, m=4 if listed[1] else 1)
        for masked, reduction, _ in SETTINGS:
            where = np.arange(9) % 3 != 0 if masked else None
            loop = reference.watch_loop(
                near, far, 1.7 * kth + 0.2, (1, 0, 0, 0, 0), pushed=where, reduction=reduction
            )
            assert 0 < np.mean(loop[1] != 0) < 1  # some terms are active, some are not
            check_distances(
                lambda p, n, where=where, reduction=reduction: local_margin_loss(
                    p, n, kth.astype(dtype), c_b=1.7, eps=0.2, where=where, reduction=reduction
                ),
                columns(near, listed[0]),
                columns(far, listed[1]),
                loop,
                dtype,
            )

    def test_the_whole_objective(self, listed, dtype):
        """All weights at work; `where` leaves an anchor out of the hinge alone."""
        near, far, kth = distances(k=3 if listed[0] else 1, m=4 if listed[1] else 1, seed=1)
        for masked, reduction, margin in SETTINGS:
            where = np.arange(9) % 3 != 0 if masked else None
            each = 3 * kth.astype(dtype) if margin is None else margin
            loop = reference.watch_loop(
                near, far, np.broadcast_to(each, 9), ALL, pushed=where, reduction=reduction
            )
            check_distances(
                lambda p, n, each=each, where=where, reduction=reduction: neighborhood_watch_loss(
                    p, n, each, weights=ALL, where=where, reduction=reduction
                ),
                columns(near, listed[0]),
                columns(far, listed[1]),
                loop,
                dtype,
            )


@pytest.mark.parametrize("term", range(5))
def test_each_weight_is_of_its_own_term(term):
    near, far, kth = distances(seed=2)
    weights = np.eye(5)[term]
    expected, _, _ = reference.watch_loop(near, far, kth, weights)
    found = neighborhood_watch_loss(near, far, kth, weights=TermWeights(*weights))
    assert abs(expected) > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_defaults_are_those_of_the_paper_s_mnist():
    assert TermWeights() == (1000, 1, 1, 0, 1)
    near, far, kth = distances(seed=3)
    expected, _, _ = reference.watch_loop(near, far, 3 * kth + 0.1, (1, 0, 0, 0, 0))
    np.testing.assert_allclose(local_margin_loss(near, far, kth, eps=0.1), expected, rtol=1e-5)


def test_nothing_that_counts_is_0_with_gradient_0():
    near, far, kth = distances()
    nobody = np.zeros(9, bool)
    for reduction in ("sum", "mean"):
        value, slopes = jax.value_and_grad(
            lambda p, n, reduction=reduction: local_margin_loss(
                p, n, kth, eps=0.1, where=nobody, reduction=reduction
            ),
            argnums=(0, 1),
        )(near, far)
        assert value == 0
        assert all((slope == 0).all() for slope in slopes)


def test_an_anchor_without_push_still_counts_in_mean_and_variance():
    """Else the push would vanish as training succeeds."""
    near, far, kth = distances()
    nobody = np.zeros(9, bool)
    slopes = jax.grad(
        lambda n: neighborhood_watch_loss(near, n, kth, weights=ALL, where=nobody), argnums=0
    )(jnp.asarray(far, jnp.float32))
    expected = -ALL.md / far.size + 2 * ALL.sd * (far - far.mean()) / far.size
    np.testing.assert_allclose(slopes, expected, rtol=1e-4, atol=1e-6)


def test_half_precision_distances_give_a_float32_loss():
    near, far, kth = (jnp.asarray(d, jnp.bfloat16) for d in distances())
    found = local_margin_loss(near, far, kth, eps=0.1)
    exact = (np.asarray(d, np.float64) for d in (near, far, 3 * np.asarray(kth, np.float64) + 0.1))
    assert found.dtype == jnp.float32
    expected = reference.watch_loop(*exact, (1, 0, 0, 0, 0))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_nan_is_never_hidden():
    for place in range(3):
        arrays = [d.astype(np.float32) for d in distances()]
        arrays[place][4] = np.nan
        assert np.isnan(local_margin_loss(*arrays, eps=0.1))
        assert np.isnan(neighborhood_watch_loss(*arrays, weights=ALL))


def test_wrong_arguments_are_refused():
    near, far, kth = distances()
    with pytest.raises(ValueError, match="reduction is 'max': choose from sum, mean"):
        local_margin_loss(near, far, kth, eps=0.1, reduction="max")
    with pytest.raises(UserError, match=r"expected d_neg \[9, K\], got shape \(8, 4\)"):
        local_margin_loss(near, far[:8], kth, eps=0.1)
    with pytest.raises(UserError, match=r"expected where \[9\], got shape \(8,\)"):
        local_margin_loss(near, far, kth, eps=0.1, where=np.ones(8, bool))
    for wrong in (kth[:8], kth[:, None]):
        with pytest.raises(UserError, match=r"expected kth_positive \[9\], got shape"):
            local_margin_loss(near, far, wrong, eps=0.1)
    with pytest.raises(UserError, match=r"expected d_pos \[9\], got shape"):
        local_margin_loss(near[:, :, None], far, kth, eps=0.1)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_variance_of_pairs_in_parts_is_the_variance_of_all(reduction):
    """Two devices stood in for by vmap's axis: of 20 pairs one has 3, the other 17."""
    rng = np.random.default_rng(0)
    near, far, margins = rng.gamma(2, 1, (10, 2)), rng.gamma(3, 1, (10, 2)), rng.uniform(0, 2, 10)
    valid = [np.ones((10, 2), bool) for _ in range(2)]
    valid[0][:4] = valid[1][1:5] = False
    pushed = np.arange(10) != 7
    with jax.enable_x64(True):

        def own(near, far, *others):
            sums = objective_sums(
                near, far, others[:2], others[2], others[3], weights=ALL, reduction=reduction,
                total=functools.partial(jax.lax.psum, axis_name="devices"),
            )  # fmt: skip
            return sums.loss, sums

        arrays = [a.reshape(2, 5, *a.shape[1:]) for a in (near, far, *valid, pushed, margins)]
        both = jax.value_and_grad(own, argnums=(0, 1), has_aux=True)
        (losses, sums), slopes = jax.device_get(jax.vmap(both, axis_name="devices")(*arrays))
    expected, *expected_slopes = reference.watch_loop(
        near, far, margins, ALL, valid=tuple(valid), pushed=pushed, reduction=reduction
    )
    np.testing.assert_allclose(losses.sum(), expected, rtol=1e-12)
    np.testing.assert_allclose(sums.weight.sum(), 1.0, rtol=1e-12)
    assert float(sums.terms[0]) * 3 < float(sums.terms[1])
    for found, wanted in zip(slopes, expected_slopes, strict=True):
        np.testing.assert_allclose(found.reshape(10, 2), wanted, rtol=1e-10, atol=1e-13)
    told = {"d_positive": near[valid[0]].mean(), "d_negative": far[valid[1]].mean()}
    assert {name: float(x.sum()) for name, x in sums.means.items()} == pytest.approx(told)


def test_the_least_safe_factor():
    assert (local_margin.safe_c_b(squared=False), local_margin.safe_c_b(squared=True)) == (3, 9)
