"""Who imports whom, what importing brings, how long things are, and who knows the options' keys."""

import ast
import re
import subprocess
import sys

from support.runs import ROOT

HEAVY = (
    "torch", "tensorflow", "sklearn", "tensorflow_datasets", "matplotlib", "lifelines", "grain",
    "orbax", "tensorboardX", "PIL", "deepknn_jax.data", "deepknn_jax.bench", "ml_collections",
)  # fmt: skip
PACKAGE = ROOT / "deepknn_jax"
BELOW_TRAINER = ("knn", "losses", "mining", "models", "data", "engine", "evaluation")
LONG = {"config.py: default"}  # a table: each option with its default and its words


def parsed(folder):
    """(path below the package, its text, its tree) of every module in the folder."""
    paths = sorted(folder.rglob("*.py"))
    assert paths
    for path in paths:
        text = path.read_text(encoding="utf-8")
        yield str(path.relative_to(PACKAGE)), text, ast.parse(text)


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


def test_no_file_is_above_400_lines():
    assert [name for name, text, _ in parsed(PACKAGE) if text.count("\n") > 400] == []


def test_no_function_is_above_60_lines():
    found = {
        f"{name}: {node.name}"
        for name, _, tree in parsed(PACKAGE)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno >= 60
    }
    assert found == LONG


def strings(tree):
    """(line, text) of every string but the docstrings; of an f-string its fixed parts."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings:
            yield node.lineno, node.value


def test_no_room_below_trainer_names_an_option():
    """Its messages name arguments: that an option stands behind one is trainer's knowledge."""
    found = [
        f"{name}:{line}: {text}"
        for room in BELOW_TRAINER
        for name, _, tree in parsed(PACKAGE / room)
        for line, text in strings(tree)
        if re.search(r"\bconfig\.(\w|$)", text)
    ]
    assert found == []
