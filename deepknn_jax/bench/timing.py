"""Sides of a comparison, timed in turn after their values were found equal."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BUSY = 0.1  # cores; a figure taken beside more of other work is marked
_PAUSE, _SHORT = 0.05, 0.1  # seconds
_STAT = Path("/proc/stat")


class Side(NamedTuple):
    """One library's way to do a task.

    `run()` does it and returns when the device is done; `values(result)` is what must agree with
    the other sides', as an array; `units` is how often one `run()` does the task (the steps that it
    makes); `mebibytes` is what it takes beside its arguments and results, where that is known;
    `seconds()` is the processor time that processes of its own have had.
    """

    run: Callable[[], Any]
    values: Callable[[Any], np.ndarray]
    units: int = 1
    mebibytes: float | None = None
    seconds: Callable[[], float] = float


class Row(NamedTuple):
    """A task and the median milliseconds that each side takes for it; "xla" is one of them.

    `load` is the machine's load average of the last minute before, and `others` how many cores
    other programs had while the sides ran, None where the system does not tell: above BUSY the
    times cannot be trusted. `mebibytes` of each side, where they are known; `quartiles` of the
    milliseconds; `off`, how far each side's values are off XLA's, as a share of the largest of
    these.
    """

    task: str
    milliseconds: dict[str, float]
    load: float
    mebibytes: dict[str, float | None] | None = None
    quartiles: dict[str, list[float]] | None = None
    off: dict[str, float] | None = None
    others: float | None = None


def compare(
    task: str, sides: Mapping[str, Side], *, repeats: int = 10, tolerance: float = 1e-3
) -> Row:
    """Times the sides in turn, `repeats` rounds after two to warm up, and takes the medians.

    Other work on the machine is measured, not kept away: see `Row`.

    Raises:
        ValueError: a side's first result differs from XLA's by more than `tolerance` of its
            largest value: then their times do not compare.
    """
    load = os.getloadavg()[0]
    first = {name: side.values(side.run()) for name, side in sides.items()}
    off = {}
    for name, values in first.items():
        error, scale = np.max(np.abs(values - first["xla"])), np.max(np.abs(first["xla"]))
        if not error <= tolerance * scale:
            raise ValueError(f"{task}: {name} is {error:.2g} off xla (largest: {scale:.2g})")
        off[name] = float(error / scale) if scale else 0.0
    for side in sides.values():
        side.run()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    began, before = time.monotonic(), _others_seconds(sides)
    for _ in range(repeats):
        for name, side in sides.items():
            seconds[name].append(_timed(side) / side.units)
    after = _others_seconds(sides)
    others = None
    if before is not None and after is not None:
        others = max(0.0, after - before) / (time.monotonic() - began)
    milliseconds = {name: 1e3 * statistics.median(times) for name, times in seconds.items()}
    quartiles = {
        name: [1e3 * float(x) for x in np.quantile(times, (0.25, 0.75))]
        for name, times in seconds.items()
    }
    return Row(task, milliseconds, load, quartiles=quartiles, off=off, others=others)


def _others_seconds(sides: Mapping[str, Side]) -> float | None:
    """Processor time that all programs but these have had, of all cores; None off Linux."""
    if not _STAT.exists():
        return None
    user, nice, system, *_ = map(int, _STAT.read_text().split("\n", 1)[0].split()[1:])
    own = time.process_time() + sum(side.seconds() for side in sides.values())
    return (user + nice + system) / os.sysconf("SC_CLK_TCK") - own


def _timed(side: Side) -> float:
    """Seconds of one call, after a pause and, where it is short, a call that does not count.

    Threads of another library spin for a while when their work is done, and take a core from this
    one: without the pause a loss of 0.3 ms took 1.1.
    """
    time.sleep(_PAUSE)
    start = time.perf_counter()
    side.run()
    taken = time.perf_counter() - start
    if taken > _SHORT:
        return taken
    start = time.perf_counter()
    side.run()
    return time.perf_counter() - start


def table(rows: Sequence[Row], unit: str = "ms") -> str:
    """Markdown: what each side takes, in `unit`, and in brackets how many times XLA's that is.

    The last column: the cores that other programs had meanwhile.
    """
    names = list(dict.fromkeys(name for row in rows for name in row.milliseconds))
    weighed = any(row.mebibytes for row in rows)
    heads = [*names, *([f"MiB {name}" for name in names] if weighed else []), "others"]
    lines = [f"| {unit} (times XLA's) | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for row in rows:
        cells = []
        for name in names:
            taken = row.milliseconds.get(name)
            ratio = "" if taken is None else f" ({taken / row.milliseconds['xla']:.2f})"
            cells.append("" if taken is None else f"{taken:.3g}" + ("" if name == "xla" else ratio))
        for name in names if weighed else []:
            size = (row.mebibytes or {}).get(name)
            cells.append("" if size is None else f"{size:,.0f}")
        lines.append(f"| {row.task} | " + " | ".join([*cells, _told(row.others)]) + " |")
    return "\n".join(lines)


def _told(others: float | None) -> str:
    if others is None:
        return "?"
    return f"{others:.2f}" + (" **not quiet**" if others > BUSY else "")
