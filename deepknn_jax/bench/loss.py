"""The deep kNN loss with its gradient, in XLA and in PyTorch."""

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deepknn_jax.bench import peers
from deepknn_jax.bench.timing import Row, Side, compare
from deepknn_jax.losses.triplet import deep_knn_loss

SIZES = tuple((batch, width) for batch in (96, 1024, 4096) for width in (128, 2048))


def measure(sizes: Sequence[tuple[int, int]] = SIZES, *, repeats: int = 10) -> Iterator[Row]:
    """A row for each (batch, width): K = M = 5, seven classes, margin 1, float32."""
    for batch, width in sizes:
        found = sides(batch, width)
        yield compare(f"loss + gradient, B {batch}, D {width}", found, repeats=repeats)


def sides(batch: int, width: int, names: Sequence[str] = ("xla", "torch")) -> dict[str, Side]:
    """Those of the libraries `names` that are installed."""
    rng = np.random.default_rng(0)
    labels = rng.integers(7, size=batch)
    # Without class structure, so that the hinge is active.
    embeddings = rng.normal(size=(batch, width)).astype(np.float32)
    found = {"xla": xla_side(embeddings, labels)} if "xla" in names else {}
    if "torch" in names and (torch := peers.load("torch")) is not None:
        found["torch"] = torch_side(torch, embeddings, labels)
    return found


def xla_side(embeddings_BxD: np.ndarray, labels_B: np.ndarray) -> Side:
    """This project's loss and gradient."""
    function = jax.jit(jax.value_and_grad(lambda x, labels: deep_knn_loss(x, labels, margin=1.0)))
    x_BxD, labels = jnp.asarray(embeddings_BxD), jnp.asarray(labels_B)
    return Side(lambda: jax.block_until_ready(function(x_BxD, labels)), _flat)


def torch_side(
    torch: ModuleType, embeddings_BxD: np.ndarray, labels_B: np.ndarray, *, compiled: bool = False
) -> Side:
    """Torch's loss and gradient, eager or by torch.compile."""
    device = peers.torch_device(torch)
    x_BxD = torch.from_numpy(embeddings_BxD).to(device).requires_grad_()
    labels = torch.from_numpy(labels_B).to(device)

    def objective(x_BxD: Any) -> Any:
        return torch_deep_knn_loss(torch, x_BxD, labels, k=5, m=5, margin=1.0)

    function = torch.compile(objective) if compiled else objective

    def run() -> tuple[Any, Any]:
        loss = function(x_BxD)
        (gradient,) = torch.autograd.grad(loss, x_BxD)
        peers.finish(torch)
        return loss.detach(), gradient

    return Side(run, _flat)


def _flat(result: tuple[Any, Any]) -> np.ndarray:
    """Loss and gradient in one array, the gradient scaled by its size to count as much."""
    loss, gradient = (peers.on_host(part) for part in result)
    return np.append(gradient.ravel() * gradient.shape[0], loss)


def torch_deep_knn_loss(
    torch: ModuleType, x_BxD: Any, labels_B: Any, *, k: int, m: int, margin: float
) -> Any:
    """The same loss on torch tensors: all distances, masks, topk, hinge, mean over valid ones."""
    distances_BxB = torch.cdist(x_BxD, x_BxD)
    same_BxB = labels_B[:, None] == labels_B[None, :]
    itself_BxB = torch.eye(len(x_BxD), dtype=torch.bool, device=x_BxD.device)
    inf = float("inf")
    k, m = min(k, len(x_BxD)), min(m, len(x_BxD))
    near_BxK = distances_BxB.masked_fill(~same_BxB | itself_BxB, inf).topk(k, largest=False).values
    far_BxM = distances_BxB.masked_fill(same_BxB, inf).topk(m, largest=False).values
    valid_BxKxM = near_BxK.isfinite()[:, :, None] & far_BxM.isfinite()[:, None, :]
    gap_BxKxM = near_BxK[:, :, None] - far_BxM[:, None, :] + margin
    hinge_BxKxM = torch.where(valid_BxKxM, gap_BxKxM.relu(), 0.0)
    return hinge_BxKxM.sum() / valid_BxKxM.sum().clamp(min=1)
