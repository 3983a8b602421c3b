"""Other people's code for comparison: import it through here, where it needs help to import."""

import importlib
from types import ModuleType

from conftest import require

_kept: list[object] = []  # a torch Library's definitions live as long as the object


def import_vision(name: str) -> ModuleType:
    """torchvision or timm (or a submodule) beside a CPU build of torch; skips where absent.

    The CPU wheel lacks two operators that torchvision registers shapes for: they are declared first.
    """
    torch = require("torch")
    if not _kept:
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, operator):
                library.define(f"{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor")
        _kept.append(library)
    require(name.split(".")[0])
    return importlib.import_module(name)
