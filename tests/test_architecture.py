"""Who imports whom: the contracts in pyproject.toml, and what importing the package brings."""

import subprocess
import sys

from support.runs import ROOT

HEAVY = (
    "torch", "tensorflow", "sklearn", "tensorflow_datasets", "matplotlib", "lifelines", "grain",
    "orbax", "tensorboardX", "PIL", "deepknn_jax.data", "deepknn_jax.bench", "ml_collections",
)  # fmt: skip


def python(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_the_layers_hold():
    """In a process of its own: import-linter keeps the terminal that it first sees."""
    ran = python("from importlinter.cli import lint_imports as l; print(l(no_cache=True))")
    assert ran.stdout.splitlines()[-1] == "0", ran.stdout + ran.stderr
    assert " kept, 0 broken" in ran.stdout


def test_importing_the_package_brings_nothing_heavy():
    """And the whole command brings no more than a run needs before it has read its data."""
    code = (
        "import sys, deepknn_jax; before = set(sys.modules); import deepknn_jax.trainer.loop;"
        "print(*before, '|', *sys.modules)"
    )
    package, command = (set(part.split()) for part in python(code).stdout.split("|"))
    assert "deepknn_jax.losses.triplet" in package
    assert package.isdisjoint(HEAVY)
    assert "deepknn_jax.evaluation.report" in command
    assert command.isdisjoint(HEAVY[:6])
