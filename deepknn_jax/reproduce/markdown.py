"""A table as Markdown: mean and standard deviation over its runs, beside the paper's figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepknn_jax.reproduce import store
from deepknn_jax.reproduce.cells import Cell, Row, Section, Table

# Key of a figure -> its heading; the recall of a class to stand beside is put in by its name.
_HEADINGS = {"acc": "Acc", "mcr": "MCR", "rs": "RS"}


class Mean(NamedTuple):
    """Mean and standard deviation (n - 1; None for one run)."""

    mean: float
    deviation: float | None


def mean_of(values: Sequence[float]) -> Mean:
    """Of at least one value."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Mean(float(np.mean(values)), deviation)


def leader(rows: Sequence[Mean | None]) -> int | None:
    """The row that leads every other by more than the larger of the two deviations, if any.

    A figure of one run has no deviation, and nothing is marked for or against it.
    """
    known = {i: row for i, row in enumerate(rows) if row is not None}
    if len(known) < 2 or any(row.deviation is None for row in known.values()):
        return None
    best = max(known, key=lambda i: known[i].mean)
    first = known.pop(best)
    leads = all(
        first.mean - row.mean > max(first.deviation or 0.0, row.deviation or 0.0)
        for row in known.values()
    )
    return best if leads else None


def shown(value: Mean | None, *, digits: int = 1, bold: bool = False) -> str:
    """Such as "78.6 ± 0.4"; a dash for what was not run."""
    if value is None:
        return "–"
    text = f"{value.mean:.{digits}f}"
    text += "" if value.deviation is None else f" ± {value.deviation:.{digits}f}"
    return f"**{text}**" if bold else text


def grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body)]


def document(
    table: Table, out: Path, left_out: Sequence[Cell], command: str, extra: Sequence[str] = ()
) -> str:
    """The whole table; `left_out` are cells too costly to run, `extra` lines to go before it."""
    lines = [f"# {table.title}", "", f"    {command}", "", *extra]
    for section in table.sections:
        lines += [f"## {section.title}", "", *section_lines(section, out), ""]
    lines += [
        "Per cent, mean ± standard deviation over the runs (folds and seeds). Bold: leads every "
        "other row by more than the larger of the two deviations. RS: recall of the class with "
        "the fewest training images.",
        "",
    ]
    lines += [f"- absent: {words}" for words in table.absent]
    lines += [f"- not run: {words}" for words in costs(left_out)]
    return "\n".join(lines).rstrip() + "\n"


def section_lines(section: Section, out: Path) -> list[str]:
    """The section as a Markdown table."""
    rows = section.rows
    found = [_entries(row, out) for row in rows]
    columns = [["method", *(row.label for row in rows)]]
    printed = {key for row in rows for key in row.paper}
    for key in (*_HEADINGS, *([section.beside] if section.beside else [])):
        means = [
            mean_of([100 * _share(entry, key) for entry in entries]) if entries else None
            for entries in found
        ]
        best = leader(means)
        cells = [shown(mean, bold=i == best) for i, mean in enumerate(means)]
        columns.append([_heading(key, found), *cells])
        # The paper's RS stands behind both classes that it may be of.
        last = "rs" if key == section.beside else key
        if last in printed and not (key == "rs" and section.beside):
            papers = (f"{row.paper[last]:g}" if last in row.paper else "" for row in rows)
            columns.append(["paper", *papers])
    counts = [(len(entries), len(row.cells)) for entries, row in zip(found, rows, strict=True)]
    columns.append(["runs", *(str(n) if n == full else f"{n} of {full}" for n, full in counts)])
    seconds = [[entry["seconds"] for entry in entries] for entries in found]
    columns.append(["s a run", *(f"{np.mean(each):.0f}" if each else "" for each in seconds)])
    head, *body = zip(*columns, strict=True)
    return grid(head, body)


def _entries(row: Row, out: Path) -> list[dict[str, Any]]:
    """What each finished cell of the row has at its vote, with the cell's seconds."""
    records = [store.read(out, cell) for cell in row.cells]
    return [
        store.figures_at(record, row.vote) | {"seconds": record["seconds"]}
        for record in records
        if record is not None
    ]


def _share(entry: Mapping[str, Any], key: str) -> float:
    return float(entry[key] if key in _HEADINGS else entry["per_class_recall"][key])


def _heading(key: str, found: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """RS with the class that it is of, where that is one class and has a short name."""
    if key not in _HEADINGS:
        return f"RS ({key})"
    classes = {entry["rs_class"] for entries in found for entry in entries}
    name = classes.pop() if len(classes) == 1 else ""
    return f"RS ({name})" if key == "rs" and 0 < len(name) <= 20 else _HEADINGS[key]


def costs(cells: Sequence[Cell]) -> list[str]:
    """A line for the cells of each set and method: what they would take."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.set, cell.method), []).append(cell)
    return [
        f"{set_name}/{method}, {len(group)} of about {hours(group[0].seconds)} each "
        "(--all runs them)"
        for (set_name, method), group in groups.items()
    ]


def hours(seconds: float) -> str:
    """Such as "12 min" or "3.5 h"."""
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
