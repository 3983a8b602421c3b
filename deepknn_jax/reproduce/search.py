"""The search for a method's options: the same budget for each method, on a validation part.

Chosen is the highest mean of Acc and MCR. Acc alone is had by leaving the small classes out
(Skin-7, always nv: 67 %), and MCR alone rests on the 20 or so images of the smallest.
"""

import itertools
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepknn_jax.errors import UserError
from deepknn_jax.evaluation.operating_point import Point, choose
from deepknn_jax.files import read_json, write_text
from deepknn_jax.logs import say
from deepknn_jax.reproduce import store
from deepknn_jax.reproduce.catalog import AXES, CHOSEN, KINDS, SEARCHES, Changes, SearchedSet
from deepknn_jax.reproduce.cells import Cell, Options, named
from deepknn_jax.reproduce.runs import run_cells
from deepknn_jax.reproduce.sets import absent, all_absent

Trials = dict[str, list[tuple[Changes, Cell]]]


def chosen(out: Path, name: str) -> Mapping[str, Any]:
    """What the search chose, {set: {method: {"vote", "changes"}}}: that in `out`, or ours."""
    search = SEARCHES[name]
    found = read_json(out / search.file)
    if found is None:
        own: Mapping[str, Any] = CHOSEN[name]
        return own
    methods = found["methods"] if search.by_set else {search.sets[0].set: found["methods"]}
    return {
        each: {
            method: entry | {"changes": _of_today(name, method, entry["changes"])}
            for method, entry in of_set.items()
        }
        for each, of_set in methods.items()
    }


def _of_today(name: str, method: str, changes: Changes) -> Changes:
    """The changes of a file from when a neighbourhood's size was called loss.k."""
    loss = KINDS[SEARCHES[name].kind].methods[method].changes["loss.name"]
    if loss != "local_margin":
        return changes
    return {key.replace("loss.k", "loss.neighborhood"): value for key, value in changes.items()}


def trials(name: str, each: SearchedSet, method: str) -> list[Changes]:
    """The changes of each trial: the same places of the grid for every method."""
    axes = [AXES[axis] for axis in (*each.axes, *SEARCHES[name].methods[method])]
    grid = [
        {key: value for option in options for key, value in option.items()}
        for options in itertools.product(*axes)
    ]
    return [grid[i] for i in sorted(random.Random(0).sample(range(len(grid)), each.trials))]


def trial_cells(name: str, each: SearchedSet, options: Options) -> Trials:
    """Of each method its trials on one of the search's sets: the changes and their cell."""
    kind = KINDS[SEARCHES[name].kind]
    found: Trials = {}
    for method in SEARCHES[name].methods:
        found[method] = []
        for number, changes in enumerate(trials(name, each, method)):
            label = each.cell.format(method=method, number=number)
            everything = kind.base | kind.methods[method].changes | changes
            everything |= each.changes | kind.changes
            cell = Cell(label, each.tuning, method, everything, each.seconds, each.keep)
            found[method].append((changes, named(cell, options)))
    return found


def run_search(name: str, options: Options) -> Path:
    """Runs the trials that are not finished, and writes what was best into --out.

    A trial whose loss is not finite counts as worst of all.

    Raises:
        UserError: none of its sets is at hand; all trials of a method failed.
    """
    search, found = SEARCHES[name], {}
    methods = KINDS[search.kind].methods
    here = [each for each in search.sets if absent(each.tuning, options.data_root) is None]
    lacks = all_absent(options.data_root, *(each.tuning for each in search.sets))
    if not here:
        raise UserError(f"there is no set to search on: {'; '.join(lacks)}")
    for words in lacks:
        say(f"not searched on: {words}")
    for each in here:
        tried = trial_cells(name, each, options)
        cells = [cell for of_method in tried.values() for _, cell in of_method]
        run_cells(cells, data_root=options.data_root, out=options.out, go_on=True)
        found[each.set] = {
            method: best(
                method, of_method, options.out, each.votes or (methods[method].vote,),
                point=search.point,
            )
            for method, of_method in tried.items()
        }  # fmt: skip
    written: dict[str, Any] = {"commit": store.commit(), "machine": store.machine()}
    written["methods"] = found if search.by_set else found[search.sets[0].set]
    write_text(options.out / search.file, json.dumps(written, indent=1) + "\n")
    return options.out / search.file


def best(
    method: str,
    tried: Sequence[tuple[Changes, Cell]],
    out: Path,
    votes: Sequence[str],
    *,
    point: bool = False,
) -> dict[str, Any]:
    """The best trial's changes and vote, and all trials with their figures in per cent.

    With `point` also the best K_p and tau of its curve, such as "50, tau = 0.4".

    Raises:
        UserError: every trial failed.
    """
    lines = []
    for changes, trial in tried:
        record = store.read(out, trial)
        if record is None:
            continue
        for vote in votes:
            entry = record["results"]["test"][vote]
            shares = {key: round(100 * entry[key], 2) for key in ("acc", "mcr", "rs")}
            score = round(100 * (entry["acc"] + entry["mcr"]) / 2, 2)
            lines.append({"score": score, **shares, "vote": vote, "changes": changes})
            if point:
                lines[-1]["point"] = _point(record)
    if not lines:
        raise UserError(f"{method}: every trial failed; {out}/log.txt has their words")
    lines.sort(key=lambda line: -line["score"])
    kept = {key: lines[0][key] for key in ("changes", "vote", "point") if key in lines[0]}
    return kept | {"trials": lines}


def _point(record: store.Record) -> str:
    points = record["results"]["operating_points"]["test"]
    curves = {int(k): [Point(**each) for each in curve] for k, curve in points.items()}
    k_p, found = choose(curves, by="mean")
    return f"{k_p}{store.TAU}{found.class_size_power:g}"
