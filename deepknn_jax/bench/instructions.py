"""How many instructions the small tasks take: what other work on the machine does not change.

Each side runs on one thread in a process of its own below valgrind's callgrind, once with a call
and once with several more; the difference is theirs. Valgrind knows no AVX-512: the libraries take
the paths of a processor without it, so these counts are beside each other, not beside times.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from deepknn_jax.bench import knn, loss, mlp
from deepknn_jax.bench.timing import Row, Side
from deepknn_jax.errors import UserError

_MORE = 10  # calls
# Task -> (names of sides) -> those that are installed; small, as valgrind is 50 times slower.
TASKS: Mapping[str, Callable[[Sequence[str]], dict[str, Side]]] = {
    "loss + gradient, B 96, D 128": lambda names: loss.sides(96, 128, names),
    "loss + gradient, B 96, D 2048": lambda names: loss.sides(96, 2048, names),
    "5-NN, 100 x 2000 x 128": lambda names: knn.sides(100, 2000, 128, 5, names),
    "MLP train step, 1280-512-256-128, B 96": lambda names: mlp.sides(1280, 96, 1, names),
}
_SIDES = ("xla", "torch", "faiss", "sklearn")


def measure() -> Iterator[Row]:
    """A row a task, of millions of instructions in the place of milliseconds.

    Raises:
        UserError: there is no valgrind.
    """
    if shutil.which("valgrind") is None:
        raise UserError("counting instructions wants valgrind (Debian: apt install valgrind)")
    for task, sides in TASKS.items():
        millions = {name: _of_a_call(task, name) / 1e6 for name in sides(_SIDES)}
        yield Row(task, millions, os.getloadavg()[0])


def _of_a_call(task: str, name: str) -> float:
    few, many = (_counted(task, name, calls) for calls in (1, 1 + _MORE))
    return (many - few) / _MORE


def _counted(task: str, name: str, calls: int) -> int:
    """The instructions of a whole process that makes so many calls."""
    program = [sys.executable, "-m", __name__, task, name, str(calls)]
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *program]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    ran = subprocess.run(
        command,
        env={**os.environ, **threads, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Collected : (\d+)", ran.stderr)
    if ran.returncode or found is None:
        raise UserError(
            f"{task}, {name}: valgrind ended with {ran.returncode}: {ran.stderr[-500:]}"
        )
    return int(found[1])


def main(argv: Sequence[str]) -> None:
    """What valgrind runs: TASK SIDE CALLS."""
    task, name, calls = argv[1:]
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before XLA counts its threads
    side = TASKS[task]([name])[name]
    for _ in range(int(calls)):
        side.run()


if __name__ == "__main__":
    main(sys.argv)
