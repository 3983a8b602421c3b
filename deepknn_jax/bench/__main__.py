"""`python -m deepknn_jax.bench [--only=loss,knn,mlp,backbones,refresh] [--out=FILE.json]`."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import app, flags

from deepknn_jax.bench import backbones, knn, loss, mlp, peers, refresh
from deepknn_jax.bench.timing import Row, table
from deepknn_jax.logs import say

MEASUREMENTS: dict[str, Callable[[], Iterator[Row]]] = {
    "loss": loss.measure,
    "knn": knn.measure,
    "mlp": mlp.measure,
    "backbones": backbones.measure,
    "refresh": refresh.measure,
}

_ONLY = flags.DEFINE_list("only", list(MEASUREMENTS), "What to measure.")
_OUT = flags.DEFINE_string("out", None, "JSON file for the rows.")


def main(argv: Sequence[str]) -> None:
    """Prints a line when a row is measured and the whole table at the end; writes the JSON file."""
    del argv
    facts = peers.machine()
    say(", ".join(f"{name} {value}" for name, value in facts.items()))
    rows = []
    for name in _ONLY.value:
        for row in MEASUREMENTS[name]():
            say(str(row))
            rows.append(row)
    say(table(rows))
    if _OUT.value:
        record = {"machine": facts, "rows": [row._asdict() for row in rows]}
        Path(_OUT.value).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    flags.register_validator(
        "only", lambda names: set(names) <= set(MEASUREMENTS), f"takes {', '.join(MEASUREMENTS)}"
    )
    app.run(main)
