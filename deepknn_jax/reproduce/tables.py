"""A table as Markdown: mean and standard deviation over its runs, beside the paper's figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepknn_jax.reproduce import store
from deepknn_jax.reproduce.cells import Cell, Row, Section, Table

# Key of a figure -> its heading; the recall of a class to stand beside is put in by its name.
_FIGURES = {"acc": "Acc", "mcr": "MCR", "rs": "RS"}


class Spread(NamedTuple):
    """Mean and standard deviation (n - 1; None for one run) of a figure, in per cent."""

    mean: float
    deviation: float | None


def spread(shares: Sequence[float]) -> Spread:
    """Of shares between 0 and 1."""
    values = 100 * np.asarray(shares, np.float64)
    return Spread(float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None)


def leader(rows: Sequence[Spread | None]) -> int | None:
    """The row that leads every other by more than the larger of the two deviations, if any.

    A figure of one run has no spread, and nothing is marked for or against it.
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


def figures(row: Row, out: Path) -> list[dict[str, Any]]:
    """What each finished cell of the row has at its vote, with the cell's seconds."""
    records = [store.read(out, cell) for cell in row.cells]
    return [
        record["results"]["test"][row.vote] | {"seconds": record["seconds"]}
        for record in records
        if record is not None
    ]


def markdown(
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
    found = [figures(row, out) for row in section.rows]
    keys = list(_FIGURES) + ([section.beside] if section.beside else [])
    columns: dict[str, list[Spread | None]] = {
        key: [spread([_figure(run, key) for run in runs]) if runs else None for runs in found]
        for key in keys
    }
    printed = {key for row in section.rows for key in row.paper}
    head, body = ["method"], [[row.label] for row in section.rows]
    for key in keys:
        best = leader(columns[key])
        head.append(_heading(key, found))
        for i, value in enumerate(columns[key]):
            body[i].append(shown(value, bold=i == best))
        # The paper's RS stands behind both classes that it may be of.
        if key in printed and not (key == "rs" and section.beside):
            _add_paper(head, body, section.rows, key)
        elif key == section.beside and "rs" in printed:
            _add_paper(head, body, section.rows, "rs")
    head += ["runs", "s a run"]
    for line, runs, row in zip(body, found, section.rows, strict=True):
        line.append(str(len(runs)) if len(runs) == len(row.cells) else
                    f"{len(runs)} of {len(row.cells)}")  # fmt: skip
        line.append(f"{np.mean([run['seconds'] for run in runs]):.0f}" if runs else "")
    return [line_of(head), line_of(["---"] * len(head)), *map(line_of, body)]


def _add_paper(head: list[str], body: list[list[str]], rows: Sequence[Row], key: str) -> None:
    head.append("paper")
    for line, row in zip(body, rows, strict=True):
        line.append(f"{row.paper[key]:g}" if key in row.paper else "")


def _heading(key: str, found: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """RS with the class that it is of, where that is one class and has a short name."""
    if key not in _FIGURES:
        return f"RS ({key})"
    classes = {run["rs_class"] for runs in found for run in runs}
    name = classes.pop() if len(classes) == 1 else ""
    return f"RS ({name})" if key == "rs" and 0 < len(name) <= 20 else _FIGURES[key]


def _figure(run: Mapping[str, Any], key: str) -> float:
    return float(run[key] if key in _FIGURES else run["per_class_recall"][key])


def shown(value: Spread | None, *, bold: bool = False) -> str:
    """Such as "78.6 ± 0.4"; a dash for what was not run."""
    if value is None:
        return "–"
    text = f"{value.mean:.1f}"
    text += "" if value.deviation is None else f" ± {value.deviation:.1f}"
    return f"**{text}**" if bold else text


def costs(cells: Sequence[Cell]) -> list[str]:
    """A line for each group of cells that differ by seed or fold: what they would take."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.name.split("-")[0], []).append(cell)
    return [
        f"{name}, {len(group)} of about {hours(group[0].minutes)} each (--all runs them)"
        for name, group in groups.items()
    ]


def hours(minutes: float) -> str:
    """Such as "12 min" or "3.5 h"."""
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def line_of(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"
