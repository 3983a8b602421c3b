"""Runs the cells that are not finished, cheapest first."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from deepknn_jax.errors import UserError
from deepknn_jax.logs import duration, read_records, say
from deepknn_jax.reproduce import store
from deepknn_jax.reproduce.cells import Cell
from deepknn_jax.reproduce.prepare import make, unmade
from deepknn_jax.reproduce.sets import config_of
from deepknn_jax.trainer import assess, loop, setup
from deepknn_jax.trainer.check import check


def unfinished(cells: Iterable[Cell], out: Path) -> list[Cell]:
    """Each cell without a record once, with those that it starts from, in order of cost."""
    wanted: dict[str, Cell] = {}
    for cell in cells:
        if store.read(out, cell) is None:
            for each in (cell.start, cell):
                if each is not None and store.read(out, each) is None:
                    wanted[each.name] = each
    return sorted(wanted.values(), key=_cost)


def _cost(cell: Cell) -> float:
    """With that of the cell before it, so that this comes first."""
    return cell.seconds + (_cost(cell.start) if cell.start else 0.0)


def run_cells(
    cells: Iterable[Cell],
    *,
    data_root: Path,
    out: Path,
    after: Callable[[], None] = lambda: None,
    go_on: bool = False,
) -> None:
    """Runs what is not finished; `after` is called after each cell.

    A cell that was stopped goes on from its last checkpoint; what its run prints goes to log.txt.

    Raises:
        UserError: for whatever the user can mend; the cells before it are finished and stay so.
            With `go_on` it is told and the next cell runs.
    """
    todo = unfinished(cells, out)
    began, done, total = time.monotonic(), 0.0, sum(cell.seconds for cell in todo)
    out.mkdir(parents=True, exist_ok=True)
    for number, cell in enumerate(todo, 1):
        if (path := unmade(cell.set, out)) is not None:
            say(f"making {path}")
            make(cell.set, data_root, out)
            began = time.monotonic()
        start = time.monotonic()
        try:
            finish(cell, out)
        except UserError as error:
            if not go_on:
                raise
            say(f"{cell.name}: {error}")
        done += cell.seconds
        left = duration((time.monotonic() - began) / done * (total - done))
        say(f"[{number}/{len(todo)}] {cell.name}  {time.monotonic() - start:.1f} s  {left} left")
        after()


def finish(cell: Cell, out: Path) -> None:
    """Runs the cell to its end and writes its record."""
    began = time.monotonic()
    workdir = store.workdir_of(out, cell)
    config = config_for(cell, out)
    with (out / "log.txt").open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        say(f"--- {cell.name}")
        if cell.reference:
            found: dict[str, Any] = {"results": {"test": reference_entries(cell, config, workdir)}}
        else:
            if cell.start:  # finished before, but its workdir may have been deleted
                loop.run(config_for(cell.start, out), store.workdir_of(out, cell.start))
            found = {"results": loop.run(config, workdir)}
            records = read_records(workdir / "metrics.jsonl")
            found["curve"] = [[r["epoch"], r["train_acc"]] for r in records if "train_acc" in r]
    store.write(out, cell, config.to_dict(), time.monotonic() - began, found)
    if not cell.keep:
        shutil.rmtree(workdir, ignore_errors=True)


def config_for(cell: Cell, out: Path) -> ConfigDict:
    """The cell's config, its weights those of the cell that it starts from."""
    # Nobody looks at the training images of a table's runs, and to make them small takes time.
    changes = cell.changes | {"model_folder.thumbnails": False}
    if cell.start:
        changes = changes | {"model.weights": str(store.workdir_of(out, cell.start))}
    config = config_of(cell.set, changes)
    check(config)
    return config


def reference_entries(cell: Cell, config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """{K_p: figures} of kNN without any training, by the cell's reference."""
    config = config.copy_and_resolve_references()
    config.evaluate.references = (cell.reference,)
    config, weights = setup.resolve(config, None)
    (found,) = assess.references(*loop.prepare(config, weights, workdir)).values()
    entries: dict[str, Any] = found["test"]
    return entries
