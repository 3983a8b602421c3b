"""ResNet-50's training step (deep kNN loss, SGD with momentum) beside torchvision's model."""

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import jax
import numpy as np

from deepknn_jax import models
from deepknn_jax.bench import peers
from deepknn_jax.bench.timing import Row, compare
from deepknn_jax.bench.training import torch_side, xla_side


def measure(*, batch: int = 8, size: int = 224, repeats: int = 10) -> Iterator[Row]:
    """One row, one step in a call; classes of four images, so that positives exist."""
    rng = np.random.default_rng(0)
    labels = np.arange(batch) // 4
    images = rng.normal(size=(batch, size, size, 3)).astype(np.float32)
    rows_1xB = np.arange(batch)[None, :]
    side, initial = xla_side(models.build("resnet50"), images, labels, rows_1xB)
    sides = {"xla": side}
    torch, torchvision = peers.load("torch"), peers.load("torchvision")
    if torch is not None and torchvision is not None:
        model = _torch_resnet50(torch, torchvision, initial)
        # A view in channels_last order, as torch reads NHWC memory.
        inputs = np.ascontiguousarray(images).transpose(0, 3, 1, 2)
        sides["torch"] = torch_side(torch, model, inputs, labels, rows_1xB)
    task = f"ResNet-50 train step, B {batch}, {size} px"
    yield compare(task, sides, repeats=repeats, tolerance=1e-2)


def _torch_resnet50(torch: ModuleType, torchvision: ModuleType, params: Mapping[str, Any]) -> Any:
    """Torchvision's ResNet-50 without fc, with the given parameters."""
    model = torchvision.models.resnet50(weights=None)
    model.fc = torch.nn.Identity()
    tensors = dict(model.named_parameters())
    with torch.no_grad():
        for path, array in jax.tree_util.tree_leaves_with_path(params):
            *layers, leaf = (key.key for key in path)
            name = ".".join(layers).replace("_", ".") + (".bias" if leaf == "bias" else ".weight")
            array = array.transpose(3, 2, 0, 1).copy() if array.ndim == 4 else array
            tensors[name].copy_(torch.from_numpy(array))
    return model
