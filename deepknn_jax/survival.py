"""The Cox partial likelihood as a loss, and a network trained end to end with it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import Array, lax
from jax.typing import ArrayLike

from deepknn_jax import models
from deepknn_jax.data.survival_csv import check_survival
from deepknn_jax.distances import at_least_float32
from deepknn_jax.errors import UserError


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


def c_index(log_hazards_M: ArrayLike, times_M: ArrayLike, events_M: ArrayLike) -> float:
    """Harrell's concordance (lifelines).

    The share of the pairs of which it is known who died first in which that one has the higher
    hazard; equal hazards count half.

    Raises:
        UserError: what `check_survival` refuses; there is no such pair.
    """
    from lifelines.utils import concordance_index

    times, events = check_survival(times_M, events_M)
    try:
        return float(concordance_index(times, -np.asarray(log_hazards_M), events))
    except ZeroDivisionError as error:
        raise UserError("survival: nobody outlived a death, so no pair can be compared") from error


class CoxNetwork(NamedTuple):
    """A trained network: `log_hazards` maps inputs [M, ...] to [M]; `losses` [T] of its steps."""

    log_hazards: Callable[[ArrayLike], np.ndarray]
    losses: np.ndarray


def fit_cox_network(
    inputs_NxF: ArrayLike,
    times_N: ArrayLike,
    events_N: ArrayLike,
    *,
    model: nn.Module | None = None,
    steps: int = 540,
    learning_rate: float = 1e-4,
    seed: int = 0,
) -> CoxNetwork:
    """A network trained end to end with `cox_loss` by Adam, all examples in each step.

    The baseline of Neighborhood Watch, table 3 (after Zhu, Yao, Huang 2016): the same extractor
    with one output, the log hazard. 540 steps are the paper's 60 epochs of its 180 scans in batches
    of 20, the rate is its 1e-4; here each step sees every risk set whole.

    Args:
        inputs_NxF: standardised features [N, F], or what else `model` takes.
        times_N: positive [N].
        events_N: 1 died, 0 censored [N].
        model: inputs -> [N, 1], without BatchNorm; None: the paper's 1024-128 and a projection.
        steps: of Adam, static.
        learning_rate: of Adam.
        seed: of the initialisation, all that is random.

    Raises:
        UserError: times or events that `check_survival` refuses.
    """
    times_N, events_N = map(jnp.asarray, check_survival(times_N, events_N))
    network = models.build("feed_forward", embedding_size=1) if model is None else model
    apply: Callable[..., Any] = network.apply
    inputs_NxF = jnp.asarray(inputs_NxF)
    optimizer = optax.adam(learning_rate)

    @jax.jit
    def train(inputs: Array, times: Array, events: Array) -> tuple[Any, Array]:
        def loss_of(params: Any) -> Array:
            return cox_loss(apply(params, inputs)[:, 0], times, events)

        def step(state: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], Array]:
            params, moments = state
            loss, gradient = jax.value_and_grad(loss_of)(params)
            updates, moments = optimizer.update(gradient, moments, params)
            return (optax.apply_updates(params, updates), moments), loss

        params = network.init(jax.random.key(seed), inputs[:1])
        (params, _), losses = lax.scan(step, (params, optimizer.init(params)), length=steps)
        return params, losses

    params, losses = train(inputs_NxF, times_N, events_N)
    embed = jax.jit(apply)
    return CoxNetwork(
        lambda inputs: np.asarray(embed(params, jnp.asarray(inputs)))[:, 0], np.asarray(losses)
    )
