"""Survival from frozen embeddings by Cox's model, and from a network trained end to end."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import Array, lax
from jax.typing import ArrayLike

from deepknn_jax import models
from deepknn_jax.data.dataset import TEST, TRAIN, Listing
from deepknn_jax.data.survival import Survival, check_survival, of_names
from deepknn_jax.errors import UserError
from deepknn_jax.evaluation.pictures import kaplan_meier
from deepknn_jax.knn.intake import as_array, as_values, check_finite, check_shape
from deepknn_jax.losses.cox import cox_loss, time_ranks
from deepknn_jax.transfer.classifiers import reduce, standardize


def c_index(log_hazards_M: ArrayLike, times_M: ArrayLike, events_M: ArrayLike) -> float:
    """Harrell's concordance (lifelines).

    The share of the pairs of which it is known who died first in which that one has the higher
    hazard; equal hazards count half.

    Raises:
        UserError: what `check_survival` refuses; hazards that are not [M] or not finite; there is
            no such pair.
    """
    from lifelines.utils import concordance_index

    times, events = check_survival(times_M, events_M)
    hazards = np.asarray(as_values("log_hazards", log_hazards_M, len(times)), np.float64)
    check_finite("log_hazards", hazards)
    try:
        return float(concordance_index(times, -hazards, events))
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
        UserError: times or events that `check_survival` refuses; inputs that are not as many or
            not finite.
    """
    times, events = check_survival(times_N, events_N)
    inputs = as_array("inputs", inputs_NxF)
    check_shape("inputs", inputs, len(times), *"FGHI"[: inputs.ndim - 1])
    check_finite("inputs", inputs)
    network = models.build("feed_forward", embedding_size=1) if model is None else model
    apply: Callable[..., Any] = network.apply
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

    # Ranks, as float32 would make ties of large times.
    params, losses = train(jnp.asarray(inputs), time_ranks(times), events)
    embed = jax.jit(apply)
    return CoxNetwork(
        lambda inputs: np.asarray(embed(params, jnp.asarray(inputs)))[:, 0], np.asarray(losses)
    )


def cox_log_hazards(
    train_x: np.ndarray,
    train_time: np.ndarray,
    train_event: np.ndarray,
    test_x: np.ndarray,
    *,
    pca: int = 8,
) -> np.ndarray:
    """Log hazards [M] of the test part by Cox's model on the principal components (lifelines).

    Args:
        train_x, test_x: embeddings [N, D], [M, D].
        train_time, train_event: [N], [N]: as `check_survival` takes them.
        pca: as `reduce`.

    Raises:
        UserError: what `check_survival` or `reduce` refuses; another number of embeddings than of
            times; the fit does not converge.
    """
    import pandas
    from lifelines import CoxPHFitter
    from lifelines.exceptions import ConvergenceError, ConvergenceWarning

    times, events = check_survival(train_time, train_event, "training part")
    check_shape("train_x", as_array("train_x", train_x), len(times), "D")
    train, test = standardize(*reduce(train_x, test_x, pca))
    frame = pandas.DataFrame(train, columns=[f"pc{i}" for i in range(train.shape[1])])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            fitted = CoxPHFitter().fit(frame.assign(time=times, event=events), "time", "event")
    except (ConvergenceError, ConvergenceWarning) as error:
        raise UserError(
            f"Cox's model has no optimum on {train.shape[1]} components and {events.sum()} deaths:"
            " take fewer components"
        ) from error
    hazards = fitted.predict_log_partial_hazard(pandas.DataFrame(test, columns=frame.columns))
    return np.asarray(hazards)


def cox_c_index(
    train_x: np.ndarray,
    train_time: np.ndarray,
    train_event: np.ndarray,
    test_x: np.ndarray,
    test_time: np.ndarray,
    test_event: np.ndarray,
    *,
    pca: int = 8,
) -> float:
    """C-index on the test part of Cox's model on the embeddings (Neighborhood Watch, table 3)."""
    log_hazards = cox_log_hazards(train_x, train_time, train_event, test_x, pca=pca)
    return c_index(log_hazards, test_time, test_event)


def network_log_hazards(
    train_x: np.ndarray,
    train_time: np.ndarray,
    train_event: np.ndarray,
    test_x: np.ndarray,
    **options: Any,
) -> np.ndarray:
    """Log hazards [M] by the end-to-end baseline (table 3, last line), of standardised features.

    `options` go to `fit_cox_network`, whose errors these are.
    """
    train, test = (x.astype(np.float32) for x in standardize(train_x, test_x))
    return fit_cox_network(train, train_time, train_event, **options).log_hazards(test)


def survive(listing: Listing, survival: Survival, out: Path, *, pca: int) -> dict[str, Any]:
    """Cox's model on the embeddings, and km.png in `out`: {"c_index", "logrank_p", ...}."""
    assert listing.inputs is not None
    assert listing.splits is not None
    times, events = of_names(survival, listing.names)
    train, test = (np.flatnonzero(listing.splits == part) for part in (TRAIN, TEST))
    x = listing.inputs
    log_hazards = cox_log_hazards(x[train], times[train], events[train], x[test], pca=pca)
    return {
        "c_index": c_index(log_hazards, times[test], events[test]),
        "logrank_p": kaplan_meier(out / "km.png", log_hazards, times[test], events[test]),
        "train_deaths": int(events[train].sum()),
        "test_deaths": int(events[test].sum()),
        "cox_pca": pca,
    }
