"""Exact kNN search in a gallery: XLA, PyTorch, FAISS flat, scikit-learn brute force."""

import functools
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deepknn_jax.bench import peers
from deepknn_jax.bench.timing import Row, Side, compare
from deepknn_jax.knn.neighbors import nearest_neighbors

# Queries, gallery, width, k.
_SCORES = 2**29  # of torch's product at a time: 2 GiB
SIZES = (
    *((2005, 8010, 2048, k) for k in (5, 50)),
    *((1000, 100_000, 128, k) for k in (5, 50, 200, 1000)),
)


def measure(
    sizes: Sequence[tuple[int, int, int, int]] = SIZES, *, repeats: int = 10
) -> Iterator[Row]:
    """A row for each size; the gallery is where the library wants it before the clock starts."""
    for size in sizes:
        queries, gallery, width, k = size
        yield compare(f"{k}-NN, {queries} x {gallery} x {width}", sides(*size), repeats=repeats)


def sides(
    queries: int, gallery: int, width: int, k: int,
    names: Sequence[str] = ("xla", "torch", "faiss", "sklearn"),
) -> dict[str, Side]:  # fmt: skip
    """Those of the libraries `names` that are installed."""
    rng = np.random.default_rng(0)
    queries_QxD = rng.normal(size=(queries, width)).astype(np.float32)
    gallery_GxD = rng.normal(size=(gallery, width)).astype(np.float32)
    found = {"xla": xla_side(queries_QxD, gallery_GxD, k)} if "xla" in names else {}
    for name, side in (("torch", torch_side), ("faiss", _faiss), ("sklearn", _sklearn)):
        if name in names and (module := peers.load(name)) is not None:
            found[name] = side(module, queries_QxD, gallery_GxD, k)
    return found


def _distances(result: tuple[Any, Any]) -> np.ndarray:
    return peers.on_host(result[0])


def xla_side(queries_QxD: np.ndarray, gallery_GxD: np.ndarray, k: int) -> Side:
    """This project's search; a run gives distances and indices [Q, k]."""
    search = jax.jit(functools.partial(nearest_neighbors, k=k))
    queries, gallery = jnp.asarray(queries_QxD), jnp.asarray(gallery_GxD)
    return Side(lambda: jax.block_until_ready(search(queries, gallery)), _distances)


def torch_side(torch: ModuleType, queries_QxD: np.ndarray, gallery_GxD: np.ndarray, k: int) -> Side:
    """Torch's product and topk, as many queries at a time as memory has room for."""
    device = peers.torch_device(torch)
    queries, gallery = (torch.from_numpy(x).to(device) for x in (queries_QxD, gallery_GxD))
    blocks = queries.split(max(_SCORES // len(gallery), 1))

    def run() -> tuple[Any, Any]:
        gallery_G = gallery.square().sum(1)
        found = [_torch_block(torch, block, gallery, gallery_G, k) for block in blocks]
        distances_QxK, indices_QxK = (torch.cat(parts) for parts in zip(*found, strict=True))
        peers.finish(torch)
        return distances_QxK, indices_QxK

    return Side(run, _distances)


def _torch_block(
    torch: ModuleType, queries_BxD: Any, gallery_GxD: Any, gallery_G: Any, k: int
) -> tuple[Any, Any]:
    # |q|^2 is the same along a row: it is added after topk.
    partial_BxG = torch.addmm(gallery_G, queries_BxD, gallery_GxD.T, alpha=-2)
    values_BxK, indices_BxK = partial_BxG.topk(k, largest=False)
    squared_BxK = values_BxK + queries_BxD.square().sum(1, keepdim=True)
    return squared_BxK.clamp_(min=0).sqrt_(), indices_BxK


def _faiss(faiss: ModuleType, queries_QxD: np.ndarray, gallery_GxD: np.ndarray, k: int) -> Side:
    index = faiss.IndexFlatL2(gallery_GxD.shape[1])
    index.add(gallery_GxD)
    return Side(lambda: index.search(queries_QxD, k), lambda result: np.sqrt(_distances(result)))


def _sklearn(sklearn: ModuleType, queries_QxD: np.ndarray, gallery_GxD: np.ndarray, k: int) -> Side:
    del sklearn
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(gallery_GxD)
    return Side(lambda: index.kneighbors(queries_QxD), _distances)
