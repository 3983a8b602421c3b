"""The running record of a training: metrics.jsonl, TensorBoard events, lines in the terminal."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deepknn_jax.files import write_text

Record = dict[str, Any]


def say(line: str) -> None:
    """One line to the terminal, at once."""
    print(line, flush=True)  # noqa: T201


def read_records(path: Path) -> list[Record]:
    """The records of metrics.jsonl; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


@contextlib.contextmanager
def record_log(workdir: Path, step: int) -> Iterator[Callable[[Record], None]]:
    """A function that appends a record, which holds "step", to metrics.jsonl and TensorBoard.

    Both are cut back to `step` first: what a killed run recorded past its last checkpoint will be
    recorded again.
    """
    from tensorboardX import SummaryWriter

    path = workdir / "metrics.jsonl"
    kept = [record for record in read_records(path) if record["step"] <= step]
    write_text(path, "".join(json.dumps(record) + "\n" for record in kept))
    board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)
    with path.open("a", encoding="utf-8") as lines, contextlib.closing(board):

        def record(values: Record) -> None:
            lines.write(json.dumps(values) + "\n")
            lines.flush()
            for name, value in values.items():
                if isinstance(value, float) and name != "epoch":
                    board.add_scalar(name, value, values["step"])

        yield record


def duration(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
