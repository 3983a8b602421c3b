"""Settings and precision of both sides; the search, with its exactness; the loss."""

import functools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deepknn_jax.bench import knn, loss, peers
from deepknn_jax.bench.gpu.record import Entry, attempt, entry_of, figures
from deepknn_jax.bench.timing import Side, compare

# Queries, gallery, width.
_GALLERIES = ((2005, 8010, 2048), (1000, 100_000, 128), (10_000, 1_000_000, 128))
_SMALL_GALLERIES = ((60, 500, 16),)
_KS, _SMALL_KS = (5, 50, 200), (3, 7)
_SAMPLE = 100  # queries that are searched in float64 too
_ROUNDOFF = 2.0**-24


def device(small: bool) -> Iterator[Entry]:
    """The machine, both sides' settings, and how far a product of each precision is off."""
    yield figures("machine", peers.machine() | {"small sizes, as JAX shows no GPU": small})
    yield from attempt("nvidia-smi", _nvidia)
    yield figures("JAX's settings", _jax_settings())
    yield from attempt("torch's settings", _torch_settings)
    yield from attempt("precision", functools.partial(_precision, 64 if small else 1024))


def _nvidia() -> Iterator[Entry]:
    if shutil.which("nvidia-smi") is None:
        yield figures("nvidia-smi", {"nvidia-smi": "absent"})
        return
    names = (
        "name,driver_version,memory.total,memory.used,power.limit,power.draw,clocks.sm,"
        "clocks.max.sm,clocks.mem,temperature.gpu"
    )
    command = ["nvidia-smi", f"--query-gpu={names}", "--format=csv,noheader"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    yield figures("nvidia-smi", dict(zip(names.split(","), told.strip().split(", "), strict=True)))


def _jax_settings() -> dict[str, Any]:
    kept = ("XLA_", "JAX_", "NVIDIA_TF32")
    settings = {key: value for key, value in sorted(os.environ.items()) if key.startswith(kept)}
    version = getattr(jax.devices()[0].client, "platform_version", "")
    return settings | {
        "jax_default_matmul_precision": str(
            jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
        ),
        "platform": " ".join(version.split()),
    }


def _torch_settings() -> Iterator[Entry]:
    if (torch := peers.load("torch")) is None:
        return
    yield figures(
        "torch's settings, before this program sets any",
        {
            "CUDA": str(torch.version.cuda),
            "cuDNN": str(torch.backends.cudnn.version()),
            "TF32 in products": torch.backends.cuda.matmul.allow_tf32,
            "TF32 in convolutions": torch.backends.cudnn.allow_tf32,
        },
    )


def set_tf32(torch: ModuleType, allowed: bool) -> None:
    """Allows torch TF32 in products and convolutions, or asks for IEEE's float32 in both."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def _precision(size: int) -> Iterator[Entry]:
    """The largest error of a float32 product [S, 2 S] x [2 S, S], of its largest value."""
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=shape).astype(np.float32) for shape in ((size, 2 * size),) * 2)
    exact = x.astype(np.float64) @ y.T.astype(np.float64)

    def error(product: Any) -> float:
        return float(np.max(np.abs(peers.on_host(product) - exact)) / np.max(np.abs(exact)))

    found = {
        f"xla, {name}": error(jnp.matmul(jnp.asarray(x), jnp.asarray(y).T, precision=value))
        for name, value in (("default", None), ("highest", lax.Precision.HIGHEST))
    }
    if (torch := peers.load("torch")) is not None:
        here = [torch.from_numpy(part).to(peers.torch_device(torch)) for part in (x, y)]
        for name, allowed in (("TF32 allowed", True), ("IEEE", False)):
            set_tf32(torch, allowed)
            found[f"torch, {name}"] = error(here[0] @ here[1].T)
    yield figures(f"error of a float32 product, {size} x {2 * size} x {size}", found)


def losses(small: bool) -> Iterator[Entry]:
    """Loss and gradient: ours ask for full float32 in products, torch's has TF32 off."""
    if (torch := peers.load("torch")) is not None:
        set_tf32(torch, False)
    for size in ((16, 4), (24, 8)) if small else loss.SIZES:
        task = f"loss + gradient, B {size[0]}, D {size[1]}"
        yield from attempt(task, functools.partial(_one_loss, size, 3 if small else 20))


def _one_loss(size: tuple[int, int], repeats: int) -> Iterator[Entry]:
    for row in loss.measure((size,), repeats=repeats):
        yield entry_of(row)


def search(small: bool) -> Iterator[Entry]:
    """The search beside torch's, both in full float32, and which neighbours each precision finds.

    A query counts as `wrong` where a neighbour found is further than the true one by more than
    rounding in float32 explains (knn.neighbors tells the bound), and as `other` where it is
    further at all.
    """
    for sizes in _SMALL_GALLERIES if small else _GALLERIES:
        name = " x ".join(f"{size:,}" for size in sizes)
        ks = _SMALL_KS if small else _KS
        yield from attempt(name, functools.partial(_searched, sizes, ks, name))


def _searched(sizes: tuple[int, int, int], ks: tuple[int, ...], name: str) -> Iterator[Entry]:
    queries, gallery, width = sizes
    rng = np.random.default_rng(0)
    queries_QxD = rng.normal(size=(queries, width)).astype(np.float32)
    gallery_GxD = rng.normal(size=(gallery, width)).astype(np.float32)
    truth = _truth(queries_QxD[:_SAMPLE], gallery_GxD, max(ks))
    torch = peers.load("torch")
    for k in ks:
        yield from attempt(
            f"{k}-NN, {name}",
            functools.partial(_one_search, torch, queries_QxD, gallery_GxD, k, truth, name),
        )
    yield from attempt(
        f"{ks[0]}-NN at lower precision, {name}",
        functools.partial(_imprecise, torch, queries_QxD, gallery_GxD, ks[0], truth, name),
    )


def _one_search(
    torch: ModuleType | None,
    queries_QxD: np.ndarray,
    gallery_GxD: np.ndarray,
    k: int,
    truth_SxK: np.ndarray,
    name: str,
) -> Iterator[Entry]:
    sides = {"xla": knn.xla_side(queries_QxD, gallery_GxD, k)}
    if torch is not None:
        set_tf32(torch, False)
        sides["torch"] = knn.torch_side(torch, queries_QxD, gallery_GxD, k)
    began = time.monotonic()
    sample = (queries_QxD, gallery_GxD, truth_SxK)
    faults = {name: faults_of(*sample, side.run()[1]) for name, side in sides.items()}
    compiled = time.monotonic() - began
    row = compare(f"{k}-NN, {name}", sides, repeats=3 if compiled > 10 else 7)
    yield entry_of(row, faults=faults, sample=len(truth_SxK))


def _imprecise(
    torch: ModuleType | None,
    queries_QxD: np.ndarray,
    gallery_GxD: np.ndarray,
    k: int,
    truth_SxK: np.ndarray,
    name: str,
) -> Iterator[Entry]:
    """What the device's default precision finds: plain |y|^2 - 2xy and top_k, on the sample."""

    def plain(queries: Any, gallery: Any) -> Any:
        scores = jnp.sum(gallery * gallery, axis=1)[None, :] - 2.0 * (queries @ gallery.T)
        return lax.top_k(-scores, k)

    sample = (queries_QxD, gallery_GxD, truth_SxK)
    found = {
        "xla, plain product at its default precision": faults_of(
            *sample, jax.jit(plain)(queries_QxD[: len(truth_SxK)], gallery_GxD)[1]
        )
    }
    if torch is not None:
        set_tf32(torch, True)
        side: Side = knn.torch_side(torch, queries_QxD[: len(truth_SxK)], gallery_GxD, k)
        found["torch, TF32 allowed"] = faults_of(*sample, side.run()[1])
        set_tf32(torch, False)
    values = {
        f"{which}: {kind} of {len(truth_SxK)}": number
        for which, faults in found.items()
        for kind, number in faults.items()
    }
    yield figures(f"{k}-NN at lower precision, {name}", values)


def _truth(queries_SxD: np.ndarray, gallery_GxD: np.ndarray, k: int) -> np.ndarray:
    """Squared distances [S, k], ascending, in float64."""
    queries_SxD = queries_SxD.astype(np.float64)
    squared = []
    for start in range(0, len(gallery_GxD), 2**16):
        rows = gallery_GxD[start : start + 2**16].astype(np.float64)
        squared.append(np.sum(rows**2, axis=1) - 2.0 * queries_SxD @ rows.T)
    squared_SxG = np.concatenate(squared, axis=1) + np.sum(queries_SxD**2, axis=1)[:, None]
    return np.sort(np.partition(squared_SxG, k - 1, axis=1)[:, :k], axis=1)


def faults_of(
    queries_QxD: np.ndarray, gallery_GxD: np.ndarray, truth_SxK: np.ndarray, indices: Any
) -> dict[str, int]:
    """Of the first S queries how many have other neighbours than the nearest, and wrong ones.

    `truth_SxK` are the squares of the true distances, of at least as many as `indices` has.
    """
    count = len(truth_SxK)
    indices_SxK = peers.on_host(indices)[:count].astype(np.int64)
    centre_D = np.mean(gallery_GxD, axis=0, dtype=np.float64)
    queries = queries_QxD[:count].astype(np.float64) - centre_D
    rows_SxKxD = gallery_GxD[indices_SxK].astype(np.float64) - centre_D
    squared_SxK = np.sum((queries[:, None, :] - rows_SxKxD) ** 2, axis=2)
    excess_SxK = np.sort(squared_SxK, axis=1) - truth_SxK[:, : indices_SxK.shape[1]]
    sizes_SxK = np.sum(queries**2, axis=1)[:, None] + np.sum(rows_SxKxD**2, axis=2)
    bound_S = 4.0 * _ROUNDOFF * np.max(sizes_SxK, axis=1)
    most_S = np.max(excess_SxK, axis=1)
    twice = sum(len(set(row)) < len(row) for row in indices_SxK.tolist())
    return {
        "other": int(np.sum(most_S > 1e-10 * np.max(sizes_SxK))),
        "wrong": int(np.sum(most_S > bound_S)) + twice,
    }
