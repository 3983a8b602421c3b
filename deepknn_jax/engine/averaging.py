"""An average of the weights over the steps, kept in the optimizer's state."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

_KEY = "average_of_weights"


class AveragingState(NamedTuple):
    """The average so far, after so many `updates`, int32."""

    updates: Array
    average_of_weights: Any


def averaging(decay: float) -> optax.GradientTransformation:
    """Last in a chain: leaves the updates as they are, and averages the weights that they make.

    average <- d average + (1 - d) weights, with d = min(decay, (1 + t) / (10 + t)) at update t, so
    that the start is soon forgotten.
    """

    def init(params: Any) -> AveragingState:
        # A copy: a call is given the state's memory, and takes each array once.
        copied = jax.tree.map(jnp.copy, params)
        return AveragingState(jnp.zeros((), jnp.int32), copied)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        weights = optax.apply_updates(params, updates)
        t = state.updates.astype(jnp.float32)
        share = 1.0 - jnp.minimum(decay, (1.0 + t) / (10.0 + t))
        average = optax.incremental_update(weights, state.average_of_weights, share)
        return updates, AveragingState(state.updates + 1, average)

    return optax.GradientTransformation(init, update)


def averaged(opt_state: Any, params: Any) -> Any:
    """The average of the weights that a state of the optimizer keeps; else the `params`.

    Also of a state as a checkpoint gives it, tuples as lists and named ones as dicts.
    """
    if isinstance(opt_state, list | tuple) and opt_state:
        last = opt_state[-1]
        if isinstance(last, AveragingState):
            return last.average_of_weights
        if isinstance(last, dict) and _KEY in last:
            return last[_KEY]
    return params
