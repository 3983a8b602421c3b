"""A network's training step by deep kNN, as the trainer runs it and as PyTorch users write it."""

import copy
import functools
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from deepknn_jax.bench import peers
from deepknn_jax.bench.loss import torch_deep_knn_loss
from deepknn_jax.bench.timing import Side
from deepknn_jax.engine.parallel import get_devices, map_embed, map_train_steps, replicate
from deepknn_jax.engine.step import Call, Recipe, TrainState, init_state
from deepknn_jax.losses.triplet import deep_knn_sums
from deepknn_jax.models.network import Network

_LOSS: dict[str, Any] = {"k": 5, "m": 5, "margin": 1.0}
_RATE, _MOMENTUM = 0.01, 0.9


def sgd_recipe(backbone: nn.Module) -> Recipe:
    """A training by deep kNN of images as they are stored."""
    return Recipe(
        network=Network(backbone),
        optimizer=optax.sgd(_RATE, momentum=_MOMENTUM),
        loss=functools.partial(deep_knn_sums, **_LOSS),
        augment=lambda inputs_b, ids_b, key: inputs_b,
        prepare=lambda inputs_b: inputs_b,
        seed=0,
    )


def _state(recipe: Recipe, inputs: np.ndarray, variables: Mapping[str, Any] | None) -> TrainState:
    state = jax.jit(functools.partial(init_state, recipe))(inputs[:2])
    if variables is not None:
        placed = {key: {"backbone": jax.tree.map(jnp.asarray, variables[key])} for key in variables}
        batch_stats = placed.get("batch_stats", {})
        state = state._replace(params=placed["params"], batch_stats=batch_stats)
    return replicate(get_devices(1, "shard_map"), state)


def _temporary_mebibytes(mapped: Any, *arguments: Any) -> float | None:
    """What XLA plans to hold beside arguments and results."""
    plan = mapped.lower(*arguments).compile().memory_analysis()
    return plan and plan.temp_size_in_bytes / 2**20


def xla_side(
    backbone: nn.Module,
    inputs: np.ndarray,
    labels: np.ndarray,
    rows_TxB: np.ndarray,
    variables: Mapping[str, Any] | None = None,
) -> tuple[Side, Mapping[str, Any]]:
    """T steps in one call over a resident data set, and the parameters before the first.

    They start from the backbone's `variables`, or at random. The values of a call are the losses of
    its steps.
    """
    recipe = sgd_recipe(backbone)
    steps = map_train_steps(get_devices(1, "shard_map"), recipe, pool_is_cut=False)
    state = _state(recipe, inputs, variables)
    initial = jax.tree.map(np.array, state.params["backbone"])
    pool, classes, rows = (jnp.asarray(x) for x in (inputs, labels, rows_TxB))
    call = Call(pool, classes, rows, rows, {}, len(rows))
    memory = _temporary_mebibytes(steps, state, call)

    def run() -> jax.Array:
        nonlocal state
        state, logs = steps(state, call)
        return jax.block_until_ready(logs.loss)

    return Side(run, np.asarray, units=len(rows), mebibytes=memory), initial


def xla_evaluation(
    backbone: nn.Module, inputs: np.ndarray, variables: Mapping[str, Any] | None
) -> Side:
    """One batch through the backbone in evaluation mode; the values are its embeddings."""
    recipe = sgd_recipe(backbone)
    state = _state(recipe, inputs, variables)
    evaluate = map_embed(get_devices(1, "shard_map"), recipe, pool_is_cut=False)
    arguments = state.params, state.batch_stats, jnp.asarray(inputs), jnp.arange(len(inputs))
    memory = _temporary_mebibytes(evaluate, *arguments)
    return Side(
        lambda: jax.block_until_ready(evaluate(*arguments)[0]), np.asarray, mebibytes=memory
    )


def torch_evaluation(torch: ModuleType, model: Any, inputs: np.ndarray) -> Side:
    """The same by torch, without gradients."""
    device = peers.torch_device(torch)
    # A copy: the model itself goes on to be trained.
    model = copy.deepcopy(model).to(device).eval()
    batch = torch.from_numpy(inputs).to(device)

    def run() -> Any:
        with torch.inference_mode():
            return model(batch).cpu()

    return Side(run, np.asarray)


def torch_side(
    torch: ModuleType,
    model: Any,
    inputs: np.ndarray,
    labels: np.ndarray,
    rows_TxB: np.ndarray,
    *,
    bfloat16: bool = False,
    compiled: bool = False,
) -> Side:
    """The same steps, one after the other, of a torch module that holds the same parameters.

    In channels_last order; `bfloat16`: by autocast; `compiled`: by torch.compile.
    """
    device = peers.torch_device(torch)
    model = model.to(device, memory_format=torch.channels_last).train()
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), lr=_RATE, momentum=_MOMENTUM)
    pool, classes, rows = (torch.from_numpy(x).to(device) for x in (inputs, labels, rows_TxB))

    def run() -> Any:
        losses = []
        for rows_B in rows:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
                embeddings = forward(pool[rows_B]).float()
            loss = torch_deep_knn_loss(torch, embeddings, classes[rows_B], **_LOSS)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).cpu()

    return Side(run, np.asarray, units=len(rows_TxB))
