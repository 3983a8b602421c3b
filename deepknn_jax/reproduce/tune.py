"""The search for the options of table 3's methods: the same budget for each, on a validation part.

Each method has 20 trials (methods.trials) of the table's own length, one seed, on fold 1's training
part alone: four fifths train, and a fifth, without a lesion that trains, validates; the file that a
trial reads does not hold the test part. Chosen is the highest mean of Acc and MCR, of the head for
Weighted-CE and at K_p = 5 for all others. Acc alone is had by leaving the small classes out (always
nv: 67 %), and MCR alone rests on the 20 or so images of the smallest.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deepknn_jax.errors import UserError
from deepknn_jax.files import write_text
from deepknn_jax.reproduce import store
from deepknn_jax.reproduce.cells import Cell, Options, cell
from deepknn_jax.reproduce.methods import ON_FEATURES, TUNED, VOTE, Changes, trials
from deepknn_jax.reproduce.runs import run_cells
from deepknn_jax.reproduce.sets import absent


def trial_cells(options: Options) -> dict[str, list[tuple[Changes, Cell]]]:
    """Of each method its trials: the changes tried and the cell that tries them."""
    found: dict[str, list[tuple[Changes, Cell]]] = {}
    for method in ON_FEATURES:
        for number, changes in enumerate(trials(method)):
            everything = ON_FEATURES[method] | changes
            everything |= {"data.fold": 0, "checkpoint_seconds": 600.0}
            label = f"{method}-trial{number:02d}"
            run = cell(options, "skin7_tuning", label, everything, minutes=0.25)
            found.setdefault(method, []).append((changes, run))
    return found


def score(entry: dict[str, Any]) -> float:
    """What the search maximises, of the figures of one vote."""
    return float(entry["acc"] + entry["mcr"]) / 2


def tune(options: Options) -> Path:
    """Table 3's search: runs the trials that are not finished and writes what was best.

    Raises:
        UserError: Skin-7 is not at hand; all trials of a method failed.
    """
    if words := absent("skin7_tuning", options.data_root):
        raise UserError(words)
    found = search(
        options, trial_cells(options), votes={m: (VOTE.get(m, "5"),) for m in ON_FEATURES}
    )
    return save(options, TUNED, found)


def search(
    options: Options,
    tried: Mapping[str, Sequence[tuple[Changes, Cell]]],
    votes: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """What is best of each method's trials, which are run where they are not finished.

    A trial whose loss is not finite counts as worst of all. `votes` are the votes to choose from.
    """
    cells = [trial for each in tried.values() for _, trial in each]
    run_cells(cells, data_root=options.data_root, out=options.out, go_on=True)
    return {name: best(name, each, options.out, votes[name]) for name, each in tried.items()}


def save(options: Options, name: str, methods: dict[str, Any]) -> Path:
    """The file `name` of --out with what was found."""
    path = options.out / name
    found = {"commit": store.commit(), "machine": store.machine(), "methods": methods}
    write_text(path, json.dumps(found, indent=1) + "\n")
    return path


def best(
    method: str, each: Sequence[tuple[Changes, Cell]], out: Path, votes: Sequence[str]
) -> dict[str, Any]:
    """The best trial's changes and vote, and all trials with their figures in per cent."""
    lines = []
    for changes, trial in each:
        record = store.read(out, trial)
        if record is None:
            continue
        for vote in votes:
            entry = record["results"]["test"][vote]
            figures = {key: round(100 * entry[key], 2) for key in ("acc", "mcr", "rs")}
            points = round(100 * score(entry), 2)
            lines.append({"score": points, **figures, "vote": vote, "changes": changes})
    if not lines:
        raise UserError(f"{method}: every trial failed; {out}/log.txt has their words")
    lines.sort(key=lambda line: -line["score"])
    return {"changes": lines[0]["changes"], "vote": lines[0]["vote"], "trials": lines}
