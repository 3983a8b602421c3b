"""`python -m deepknn_jax.bench [--only=loss,knn,...] [--out=FILE.json]`: what MEASUREMENTS names.

`--gpu --out=FILE.json [--sections=search,loss]` measures what docs/gpu.md tells of, and
`--render=FILE.json` prints that as markdown. `--scale --out=FILE.json` counts what docs/scale.md
tells of. `--instructions` counts those of the small tasks by valgrind, in place of time.
"""

import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from absl import app, flags

from deepknn_jax.bench import (
    backbones,
    estimators,
    files,
    instructions,
    knn,
    loss,
    mlp,
    peers,
    refresh,
    scale,
)
from deepknn_jax.bench.gpu import command, record, render
from deepknn_jax.bench.timing import Row, table
from deepknn_jax.engine import allocation
from deepknn_jax.errors import UserError
from deepknn_jax.files import write_text
from deepknn_jax.logs import say

_IMAGES = flags.DEFINE_string("images", "", "Class folders for `files`; default: made-up ones.")
MEASUREMENTS: dict[str, Callable[[], Iterator[Row]]] = {
    "loss": loss.measure,
    "knn": knn.measure,
    "mlp": mlp.measure,
    "backbones": backbones.measure,
    "refresh": refresh.measure,
    "estimators": estimators.measure,
    "files": lambda: files.measure(_IMAGES.value),
}

_ONLY = flags.DEFINE_list("only", list(MEASUREMENTS), "What to measure.")
_OUT = flags.DEFINE_string("out", None, "JSON file for the rows.")
_GPU = flags.DEFINE_bool("gpu", False, "Measure the sections of docs/gpu.md.")
_SECTIONS = flags.DEFINE_list("sections", list(command.SECTIONS), "With --gpu: which.")
_LIMIT = flags.DEFINE_float("limit", command.LIMIT, "With --gpu: seconds for all.")
_SCALE = flags.DEFINE_bool("scale", False, "Count what many devices take: docs/scale.md.")
_INSTRUCTIONS = flags.DEFINE_bool("instructions", False, "Count those of the small tasks.")
_RENDER = flags.DEFINE_string("render", None, "Print this JSON file of --gpu as markdown.")


def main(argv: Sequence[str]) -> None:
    """Measures, or renders, what the flags say."""
    del argv
    if _RENDER.value:
        say(render.markdown(record.read(Path(_RENDER.value))))
    elif _GPU.value:
        # So that a section's process ends with this one.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        command.run(_SECTIONS.value, Path(_OUT.value or "gpu.json"), _LIMIT.value)
    elif _SCALE.value:
        count_all()
    elif _INSTRUCTIONS.value:
        try:
            compare_all({"instructions": instructions.measure}, "million instructions")
        except UserError as error:
            sys.exit(f"error: {error}")
    else:
        compare_all({name: MEASUREMENTS[name] for name in _ONLY.value})


def compare_all(measurements: Mapping[str, Callable[[], Iterator[Row]]], unit: str = "ms") -> None:
    """Prints a line when a row is measured and the whole table at the end; writes the JSON file."""
    kept = allocation.keep_freed()  # as commands do, before anything is computed
    facts = peers.machine() | {"freed memory kept": kept}
    say(", ".join(f"{name} {value}" for name, value in facts.items()))
    rows = []
    for measure in measurements.values():
        for row in measure():
            say(str(row))
            rows.append(row)
    say(table(rows, unit))
    if _OUT.value:
        whole = {"machine": facts, "unit": unit, "rows": [row._asdict() for row in rows]}
        Path(_OUT.value).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


def count_all() -> None:
    """Prints what one program after another takes, and writes the JSON file anew after each."""
    rows = []
    for row in scale.measure():
        say(", ".join(f"{name} {value}" for name, value in row.items()))
        rows.append(row)
        if _OUT.value:
            write_text(Path(_OUT.value), json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    flags.register_validator(
        "only", lambda names: set(names) <= set(MEASUREMENTS), f"takes {', '.join(MEASUREMENTS)}"
    )
    flags.register_validator(
        "sections",
        lambda names: set(names) <= set(command.SECTIONS),
        f"takes {', '.join(command.SECTIONS)}",
    )
    app.run(main)
