"""Other people's code for comparison: import it through here, where it needs help to import."""

import importlib
from types import ModuleType

from support.optional import require

from deepknn_jax.bench.peers import declare_torchvision_operators


def import_vision(name: str) -> ModuleType:
    """Import torchvision or timm (or a submodule) beside a CPU torch; skip where absent."""
    require("torch")
    declare_torchvision_operators()
    require(name.split(".")[0])
    return importlib.import_module(name)
