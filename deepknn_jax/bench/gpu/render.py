"""The JSON file of the sections as markdown."""

from collections.abc import Iterator, Sequence
from typing import Any

from deepknn_jax.bench.gpu.record import Entry
from deepknn_jax.bench.timing import Row, table

_MORE = {
    "images_per_s": "images/s",
    "compile_seconds": "seconds to compile",
    "faults": "neighbours",
    "quartiles": "quartiles, ms",
    "off": "off XLA's",
}


def markdown(record: dict[str, Any]) -> str:
    """A heading for each section; its rows in one table, what else is known of them in another."""
    parts = []
    for name, section in record["sections"].items():
        parts.append(f"## {name}")
        if section.get("seconds") is not None:
            parts.append(f"In {section['seconds']:.0f} s.")
        if section.get("error"):
            parts.append(f"Not all: {section['error']}")
        parts += _tables(section["entries"])
    return "\n\n".join(parts)


def _tables(entries: Sequence[Entry]) -> Iterator[str]:
    rows = [entry for entry in entries if "milliseconds" in entry]
    if rows:
        known = [{key: row[key] for key in Row._fields if key in row} for row in rows]
        yield table([Row(**fields) for fields in known])
        yield _details(rows)
    for entry in entries:
        if "values" in entry:
            yield f"**{entry['task']}**"
            lines = [f"| {name} | {_cell(value)} |" for name, value in entry["values"].items()]
            yield "\n".join(["| | |", "|---|---|", *lines])
        if "error" in entry:
            yield f"**{entry['task']}**: {entry['error']}"


def _details(rows: Sequence[Entry]) -> str:
    keys = [key for key in _MORE if any(key in row for row in rows)]
    lines = [
        f"| {' | '.join(['', *(_MORE[key] for key in keys)])} |",
        "|---" * (len(keys) + 1) + "|",
    ]
    for row in rows:
        cells = [
            "; ".join(f"{side} {_cell(value)}" for side, value in row.get(key, {}).items())
            for key in keys
        ]
        lines.append(f"| {' | '.join([row['task'], *cells])} |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{_cell(number)} {name}" for name, number in value.items())
    if isinstance(value, list):
        return " to ".join(map(_cell, value))
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
