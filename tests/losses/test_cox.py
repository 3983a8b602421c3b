"""The Cox loss against a slow loop and lifelines."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from support.patients import patients

from deepknn_jax.losses.cox import cox_loss

loss_of = jax.jit(cox_loss)
value_and_grad = jax.jit(jax.value_and_grad(cox_loss))


@settings(max_examples=60)
@given(
    st.integers(0, 10**6),
    st.sampled_from([1, 2, 7]),
    st.sampled_from([0.0, 1.0, 300.0]),
)
def test_value_and_gradient_are_the_loops(seed, distinct_times, scale):
    """With ties, censoring, NaN in rows left out, and hazards whose exponentials overflow."""
    rng = np.random.default_rng(seed)
    n = 12
    h, times = rng.normal(size=n) * scale, rng.integers(1, distinct_times + 1, n).astype(float)
    events, where = rng.random(n) < 0.6, rng.random(n) < 0.8
    expected, slope = reference.cox_loop(h, times, events, where)
    h[~where], times[~where] = np.nan, np.nan
    with jax.enable_x64(True):
        loss, gradient = value_and_grad(jnp.asarray(h), times, events, where)
    assert loss.dtype == jnp.float64
    np.testing.assert_allclose(loss, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(gradient, slope, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("strict_dtypes")
def test_float32_and_bfloat16_are_computed_in_float32():
    _, times, events = patients(200, ties=True)
    h = np.random.default_rng(1).normal(size=200).astype(np.float32) * 5
    expected, slope = reference.cox_loop(h, times, events)
    loss, gradient = value_and_grad(jnp.asarray(h), jnp.asarray(times), jnp.asarray(events))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, slope, atol=1e-6)
    half = jnp.asarray(h, jnp.bfloat16)
    loss = loss_of(half, jnp.asarray(times), jnp.asarray(events))
    assert loss.dtype == jnp.float32
    expected, _ = reference.cox_loop(np.asarray(half, np.float64), times, events)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_no_event_gives_0_and_nan_is_not_hidden():
    times = jnp.arange(1.0, 5.0)
    loss, gradient = value_and_grad(jnp.ones(4), times, jnp.zeros(4))
    assert loss == 0
    np.testing.assert_array_equal(gradient, np.zeros(4))
    events = jnp.array([0, 1, 1, 0])
    # The first is censored before anybody died: no risk set has it.
    for bad in (jnp.nan, jnp.inf):
        assert np.isnan(loss_of(jnp.ones(4).at[0].set(bad), times, events))
    assert np.isnan(loss_of(jnp.ones(4), times.at[0].set(jnp.nan), events))
    assert np.isfinite(loss_of(jnp.ones(4).at[0].set(jnp.nan), times, events, jnp.arange(4) > 0))


@jax.jit
def linear_loss(beta, x, times, events):
    return cox_loss(x @ beta, times, events)


@pytest.mark.parametrize("penalizer", [0.0, 0.3])
def test_a_linear_model_has_lifelines_value_and_gradient(penalizer):
    """Without ties. At lifelines' optimum with a penalty p / 2 |b|^2, loss' gradient is -p b."""
    x, times, events = patients(150)
    x = (x - x.mean(0)) / x.std(0, ddof=1)  # lifelines does so inside, and penalises then
    frame = pandas.DataFrame(x, columns=list("abc")).assign(time=times, event=events)
    fitted = CoxPHFitter(penalizer=penalizer).fit(
        frame, "time", "event", fit_options={"precision": 1e-10}
    )
    beta = fitted.params_.to_numpy()
    with jax.enable_x64(True):
        found = jax.jit(jax.value_and_grad(linear_loss))(jnp.asarray(beta), x, times, events)
    loss, gradient = map(np.asarray, found)
    assert np.abs(beta).max() > 0.3
    deaths, n = events.sum(), len(x)
    # lifelines maximises log-likelihood / n - penalty.
    np.testing.assert_allclose(gradient * deaths / n, -penalizer * beta, atol=1e-7)
    if not penalizer:
        np.testing.assert_allclose(-loss * deaths, fitted.log_likelihood_, rtol=1e-10)
        for other in (beta + 0.1, beta * 0.5):
            assert linear_loss(jnp.asarray(other), x, times, events) > loss


def test_ties_are_breslows_and_not_efrons():
    x, times, events = patients(150, ties=True)
    frame = pandas.DataFrame(x, columns=list("abc")).assign(time=times, event=events)
    beta = CoxPHFitter().fit(frame, "time", "event").params_.to_numpy()
    expected, _ = reference.cox_loop(x @ beta, times, events)
    np.testing.assert_allclose(linear_loss(jnp.asarray(beta), x, times, events), expected, 1e-5)
    efron = -CoxPHFitter().fit(frame, "time", "event").log_likelihood_ / events.sum()
    assert expected > efron + 0.01
