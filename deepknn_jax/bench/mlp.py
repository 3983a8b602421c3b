"""The MLP's training step (1280-512-256-128, BatchNorm, deep kNN loss, SGD with momentum)."""

from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from deepknn_jax import models
from deepknn_jax.bench import peers
from deepknn_jax.bench.timing import Row, Side, compare
from deepknn_jax.bench.training import torch_side, xla_side


def measure(
    *, features: int = 1280, batch: int = 96, steps: int = 80, repeats: int = 10
) -> Iterator[Row]:
    """One row, time per step; XLA makes `steps` steps in one call, as the trainer does."""
    task = f"MLP train step, {features}-512-256-128, B {batch}, {steps} steps a call"
    yield compare(task, sides(features, batch, steps), repeats=repeats, tolerance=1e-2)


def sides(
    features: int, batch: int, steps: int, names: Sequence[str] = ("xla", "torch")
) -> dict[str, Side]:
    """XLA's, whose start the other takes, and those of the libraries `names` that are installed."""
    rng = np.random.default_rng(0)
    # Labels by chance, so that the hinge stays active while the steps go on.
    labels = rng.integers(7, size=80 * batch)
    inputs = rng.normal(size=(80 * batch, features)).astype(np.float32)
    rows_TxB = np.stack([rng.choice(len(labels), batch, replace=False) for _ in range(steps)])
    side, initial = xla_side(models.build("mlp"), inputs, labels, rows_TxB)
    found = {"xla": side}
    if "torch" in names and (torch := peers.load("torch")) is not None:
        found["torch"] = torch_side(torch, _torch_mlp(torch, initial), inputs, labels, rows_TxB)
    return found


def _torch_mlp(torch: ModuleType, params: Mapping[str, Any]) -> Any:
    """Torch's twin with the given parameters; BatchNorm starts at scale 1, bias 0 on both sides."""
    layers = []
    for number in range(3):
        dense = params[f"Dense_{number}"]
        rows, columns = dense["kernel"].shape
        linear = torch.nn.Linear(rows, columns, bias="bias" in dense)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(dense["kernel"].T.copy()))
            if "bias" in dense:
                linear.bias.copy_(torch.from_numpy(dense["bias"]))
        layers.append(linear)
        if number < 2:
            layers += [torch.nn.BatchNorm1d(columns), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers)
