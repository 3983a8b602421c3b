"""The Cox partial likelihood as a loss; transfer/cox.py trains a network with it."""

import jax.numpy as jnp
from jax import Array, lax

from deepknn_jax.knn.distances import at_least_float32


def cox_loss(
    log_hazards_N: Array, times_N: Array, events_N: Array, where: Array | None = None
) -> Array:
    """Negative log Cox partial likelihood, divided by the number of events; ties by Breslow.

    The mean over those who died of log(sum of exp(h_j) over j with t_j >= t_i) - h_i (Cox 1972;
    Breslow 1974). Who is censored at t_i is still at risk then. The log-sum-exp neither overflows
    nor loses small hazards. Without an event loss and gradient are 0. A NaN or infinite log hazard
    or a NaN time, unless `where` removes its row, makes the loss NaN.

    Args:
        log_hazards_N: h [N], up to a constant.
        times_N: of death or censoring [N]; compared in the dtype of the loss.
        events_N: [N], 1 or True died, 0 or False censored.
        where: bool [N], False leaves the row out.

    Returns:
        Scalar, float32 or wider as `log_hazards_N`.
    """
    present_N = jnp.ones(len(log_hazards_N), bool) if where is None else jnp.asarray(where)
    hazards_N = jnp.where(present_N, at_least_float32(log_hazards_N), 0.0)
    # Rows left out come last in the order of descending time, so nobody's risk set has them.
    times_N = jnp.where(present_N, jnp.asarray(times_N).astype(hazards_N.dtype), -jnp.inf)
    order_N = jnp.argsort(-times_N)
    hazards_N, later_N = hazards_N[order_N], -times_N[order_N]
    died_N = (present_N & jnp.asarray(events_N).astype(bool))[order_N]
    last_tied_N = jnp.searchsorted(later_N, later_N, side="right") - 1
    at_risk_N = lax.cumlogsumexp(hazards_N)[last_tied_N]
    count = jnp.sum(died_N, dtype=hazards_N.dtype)
    loss = jnp.sum(jnp.where(died_N, at_risk_N - hazards_N, 0.0)) / jnp.maximum(count, 1.0)
    sound = jnp.all(jnp.isfinite(hazards_N)) & ~jnp.any(jnp.isnan(later_N))
    return jnp.where(sound, loss, jnp.nan)
