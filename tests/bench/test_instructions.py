"""Counting instructions: the difference of two runs, whatever valgrind has to say otherwise."""

import sys

import numpy as np
import pytest

from deepknn_jax.bench import instructions, timing
from deepknn_jax.errors import UserError

# Stands for valgrind: a start of 1,000 instructions, and 70 million of each call.
FAKE = """#!{python}
import sys
calls, side = int(sys.argv[-1]), sys.argv[-2]
if side == "torch":
    sys.exit("no such path")
print("==1== Collected :", 1000 + 70_000_000 * calls, file=sys.stderr)
"""


@pytest.fixture
def valgrind(tmp_path, monkeypatch):
    file = tmp_path / "valgrind"
    file.write_text(FAKE.format(python=sys.executable))
    file.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def side(run):
    return timing.Side(run, np.asarray)


def test_a_calls_instructions_are_the_difference_of_few_and_many(valgrind, monkeypatch):
    tasks = {"a task": lambda names: {"xla": side(float), "faiss": side(float)}}
    monkeypatch.setattr(instructions, "TASKS", tasks)
    (row,) = instructions.measure()
    assert (row.task, row.milliseconds) == ("a task", {"xla": 70.0, "faiss": 70.0})


def test_a_side_that_fails_is_told_with_its_words(valgrind, monkeypatch):
    monkeypatch.setattr(instructions, "TASKS", {"a task": lambda names: {"torch": side(float)}})
    with pytest.raises(UserError, match=r"a task, torch: valgrind ended with 1: no such path"):
        list(instructions.measure())


def test_without_valgrind_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="wants valgrind"):
        next(instructions.measure())


def test_the_program_makes_as_many_calls_as_it_is_told(monkeypatch):
    calls = []
    monkeypatch.setattr(instructions.os, "sched_setaffinity", lambda *args: calls.append("core"))
    sides = {"xla": side(lambda: calls.append("xla")), "torch": side(lambda: calls.append("torch"))}
    monkeypatch.setattr(instructions, "TASKS", {"task": lambda names: {n: sides[n] for n in names}})
    instructions.main(["program", "task", "torch", "3"])
    assert calls == ["core"] + ["torch"] * 3


@pytest.mark.parametrize("task", instructions.TASKS)
def test_each_task_runs_without_other_libraries(task):
    side = instructions.TASKS[task](["xla"])["xla"]
    assert np.isfinite(side.values(side.run())).all()
