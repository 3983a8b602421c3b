"""The Cox partial likelihood as a loss; transfer/cox.py trains a network with it."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from deepknn_jax.errors import UserError
from deepknn_jax.knn.distances import at_least_float32
from deepknn_jax.knn.intake import as_mask, as_rows, as_values, is_known


def time_ranks(times_N: ArrayLike) -> np.ndarray:
    """The times' order, int32 [N], equal times equal: all that a partial likelihood asks of them.

    Float32 cannot tell all of them apart: of seconds since 1970 (1.7e9) only every 128th is one.
    """
    return np.unique(np.asarray(times_N), return_inverse=True)[1].astype(np.int32)


def cox_loss(
    log_hazards_N: Array, times_N: Array, events_N: Array, where: Array | None = None
) -> Array:
    """Negative log Cox partial likelihood, divided by the number of events; ties by Breslow.

    The mean over those who died of log(sum of exp(h_j) over j with t_j >= t_i) - h_i (Cox 1972;
    Breslow 1974). Who is censored at t_i is still at risk then. The log-sum-exp neither overflows
    nor loses small hazards. Without an event loss and gradient are 0. A NaN or infinite log hazard,
    unless `where` removes its row, makes the loss NaN, and so does under jit, which cannot look, a
    time or an event that is refused elsewhere.

    Args:
        log_hazards_N: h [N], up to a constant.
        times_N: of death or censoring [N], from 0. Compared as they are given; under jit JAX has
            made float32 of float64: give `time_ranks` of them, or whole numbers.
        events_N: [N], 1 or True died, 0 or False censored.
        where: bool [N], False leaves the row out.

    Returns:
        Scalar, float32 or wider as `log_hazards_N`.

    Raises:
        UserError: shapes or dtypes that do not fit; of a row that is present, a time that is NaN or
            below 0, an event that is neither 0 nor 1.
    """
    hazards_N = as_values("log_hazards", log_hazards_N, "N")
    size = len(hazards_N)
    present_N = as_mask("where", where, size)
    times_N = as_values("times", times_N, size)
    events_N = as_values("events", events_N, size)
    died_N = events_N.astype(bool)
    timed_N, coded_N = times_N >= 0, events_N.astype(float) == died_N.astype(float)
    _check("times", times_N, present_N, timed_N, "times are numbers from 0")
    _check("events", events_N, present_N, coded_N, "events are 1 (died) and 0 (censored)")
    # Where float32 would lose digits, the constant that a likelihood does not know is taken off.
    (hazards_Nx1,) = as_rows(finite=False, where=present_N, log_hazards=hazards_N[:, None])
    hazards_N = jnp.where(present_N, at_least_float32(hazards_Nx1[:, 0]), 0.0)
    later_N = _descending(times_N, present_N)
    order_N = jnp.argsort(later_N)
    sound = jnp.all(jnp.isfinite(hazards_N) & (timed_N & coded_N | ~present_N))
    hazards_N, later_N = hazards_N[order_N], later_N[order_N]
    died_N = jnp.asarray(present_N & died_N)[order_N]
    last_tied_N = jnp.searchsorted(later_N, later_N, side="right") - 1
    at_risk_N = lax.cumlogsumexp(hazards_N)[last_tied_N]
    count = jnp.sum(died_N, dtype=hazards_N.dtype)
    loss = jnp.sum(jnp.where(died_N, at_risk_N - hazards_N, 0.0)) / jnp.maximum(count, 1.0)
    return jnp.where(sound, loss, jnp.nan)


def _descending(times_N: Any, present_N: Any) -> Array:
    """Numbers [N] that ascend where the times descend; the largest for rows left out.

    So these come last, and nobody's risk set has them.
    """
    if is_known(times_N):
        times_N = jnp.asarray(time_ranks(times_N))
    if jnp.issubdtype(times_N.dtype, jnp.integer):
        return jnp.where(present_N, ~times_N, jnp.iinfo(times_N.dtype).max)
    return jnp.where(present_N, -times_N, jnp.finfo(times_N.dtype).max)


def _check(name: str, values_N: Any, present_N: Any, sound_N: Any, words: str) -> None:
    """Raises UserError at the first present row that is not sound, where all this is known."""
    if is_known(values_N, present_N) and (rows := np.flatnonzero(present_N & ~sound_N)).size:
        raise UserError(f"{name} has {values_N[rows[0]]} in row {rows[0]}: {words}")
