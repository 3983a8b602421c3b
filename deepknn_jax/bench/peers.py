"""The other libraries of a comparison, each only where it is installed."""

import functools
import importlib
import importlib.metadata
import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

NAMES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "faiss": "faiss-cpu",
    "sklearn": "scikit-learn",
}


def load(name: str) -> ModuleType | None:
    """The module `name`, or None where its package is absent."""
    if importlib.util.find_spec(name) is None:
        return None
    if name in ("torchvision", "timm"):
        declare_torchvision_operators()
    return importlib.import_module(name)


@functools.cache
def _torchvision_has_operators() -> bool:
    """Whether torchvision's own can be loaded: declared besides, they end the process."""
    if (found := importlib.util.find_spec("torchvision")) is None or found.origin is None:
        return True
    torch = importlib.import_module("torch")
    try:
        torch.ops.load_library(str(Path(found.origin).parent / "_C.so"))
    except OSError:
        return False
    return hasattr(torch.ops.torchvision, "nms")


@functools.cache
def declare_torchvision_operators() -> Any:
    """Declares two operators that torchvision's import needs, where its own cannot be loaded.

    Returns:
        The torch Library that holds them; kept, as they live as long as it does. None where
        torchvision brings its own.
    """
    if _torchvision_has_operators():
        return None
    torch = importlib.import_module("torch")
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library.define(f"{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor")
    return library


def torch_device(torch: ModuleType) -> str:
    """Where torch runs: on the GPU where XLA does."""
    return "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"


def finish(torch: ModuleType) -> None:
    """Waits until the GPU has done what torch queued; a CPU has when the call returns."""
    if torch_device(torch) == "cuda":
        torch.cuda.synchronize()


def on_host(result: Any) -> np.ndarray:
    """An array of either library in float64, here."""
    return np.asarray(result.cpu() if hasattr(result, "cpu") else result, np.float64)


def restart_peak(torch: ModuleType) -> None:
    """Lets `peak_mebibytes` count from what is held now."""
    if torch_device(torch) == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak


def peak_mebibytes(torch: ModuleType) -> float:
    """The most that this process held since `restart_peak`: on the GPU, or resident (Linux)."""
    if torch_device(torch) == "cuda":
        return float(torch.cuda.max_memory_allocated() / 2**20)
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 2**10


def machine() -> dict[str, Any]:
    """Versions, threads and devices of both sides; "absent" for a package that is not there."""
    facts: dict[str, Any] = {
        "jax": jax.__version__,
        "jax device": jax.devices()[0].device_kind,
        "jax threads": len(os.sched_getaffinity(0)),  # XLA takes a thread for each
    }
    for module, package in NAMES.items():
        found = importlib.util.find_spec(module) is not None
        facts[module] = importlib.metadata.version(package) if found else "absent"
    if (torch := load("torch")) is not None:
        facts["torch device"] = torch_device(torch)
        facts["torch threads"] = torch.get_num_threads()
    if (faiss := load("faiss")) is not None:
        facts["faiss threads"] = faiss.omp_get_max_threads()
    return facts
