"""Packages and data that a test may lack; in CI only data may be absent."""

import importlib
import os
from types import ModuleType

import pytest

# .ci/run sets this: there every package is installed, and only absent data may skip.
STRICT = bool(os.environ.get("DEEPKNN_NO_SKIPS"))
ABSENT = "data absent: "


def require(name: str) -> ModuleType:
    """The optional package `name`, or a skip; in CI its absence is a failure."""
    return importlib.import_module(name) if STRICT else pytest.importorskip(name)
