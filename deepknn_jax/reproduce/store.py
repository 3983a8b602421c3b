"""What runs leave: a JSON file a cell, whose presence means that it is finished; its workdir."""

import json
import os
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deepknn_jax.files import read_json, write_text
from deepknn_jax.reproduce.cells import Cell, Row

Record = dict[str, Any]


def path_of(out: Path, cell: Cell) -> Path:
    """The cell's JSON."""
    return out / "cells" / f"{cell.name}.json"


def workdir_of(out: Path, cell: Cell) -> Path:
    """The folder of the cell's run."""
    return out / "cells" / cell.name


def read(out: Path, cell: Cell) -> Record | None:
    """The record of a finished cell, or None."""
    found: Record | None = read_json(path_of(out, cell))
    return found


def write(out: Path, cell: Cell, config: dict[str, Any], seconds: float, run: Record) -> None:
    """The record: the cell's config, `run` (results and curve), how long, of which code, where."""
    record = {
        "name": cell.name,
        "start": cell.start.name if cell.start else None,
        "reference": cell.reference or None,
        "commit": commit(),
        "machine": machine(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": seconds,
        "config": config,
        **run,
    }
    path = path_of(out, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record, indent=1, allow_nan=False) + "\n")


TAU = ", tau = "


def figures_at(record: Record, vote: str) -> dict[str, Any]:
    """The figures of the test part at `vote`: "5", "head", or "50, tau = 0.4" on the curve."""
    results = record["results"]
    k_p, _, power = vote.partition(TAU)
    found: dict[str, Any] = results["test"][k_p]
    if not power:
        return found
    of_class = {"rs_class": found["rs_class"]}
    points = results["operating_points"]["test"][k_p]
    return of_class | next(p for p in points if p["class_size_power"] == float(power))


def embedded(out: Path, row: Row) -> list[Cell]:
    """The row's finished cells whose embeddings are there."""
    return [
        cell
        for cell in row.cells
        if read(out, cell) and (workdir_of(out, cell) / "embeddings.npz").exists()
    ]


def embeddings_of(out: Path, cell: Cell) -> dict[str, np.ndarray]:
    """The arrays of the cell's embeddings.npz: embeddings, labels, names, splits, classes."""
    with np.load(workdir_of(out, cell) / "embeddings.npz", allow_pickle=False) as archive:
        return dict(archive)


@cache
def commit() -> str:
    """The checkout's commit, with "-dirty" where files differ from it; "unknown" elsewhere."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # installed, perhaps inside a checkout of something else
        return "unknown"
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        ran = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return ran.stdout.strip()


def machine() -> str:
    """What a run's seconds are of."""
    device = jax.devices()[0].device_kind
    return f"{os.cpu_count()} CPU cores, {len(jax.devices())} x {device}, jax {jax.__version__}"
