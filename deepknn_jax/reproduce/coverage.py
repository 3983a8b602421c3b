"""How often prediction sets hold the true class, by class, on test parts of real data.

Each run is calibrated as its model folder is: by its validation part, or where nothing was trained
by its gallery with whole groups left out. Beside the sets (class by class, Mondrian) stand those of
the same scores calibrated on all classes together.
"""

import contextlib
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepknn_jax.answers import model as model_lib
from deepknn_jax.answers.judge import nearest_of, p_of
from deepknn_jax.answers.model import Model
from deepknn_jax.data.dataset import TEST
from deepknn_jax.evaluation import doubt
from deepknn_jax.files import write_text
from deepknn_jax.logs import say
from deepknn_jax.reproduce import store
from deepknn_jax.reproduce.catalog import Changes
from deepknn_jax.reproduce.cells import Cell, Options, named
from deepknn_jax.reproduce.markdown import grid
from deepknn_jax.reproduce.prepare import make
from deepknn_jax.reproduce.runs import config_for
from deepknn_jax.reproduce.sets import absent
from deepknn_jax.trainer import loop

LEVEL = 0.9


class Case(NamedTuple):
    """What is measured: runs of `set` with `changes`, seeded at the keys `seeded`."""

    title: str
    set: str
    changes: Changes
    seeded: Sequence[str]
    seconds: float


_VALIDATED: Changes = {"data.validation": 0.2, "evaluate.every_epochs": 1, "evaluate.k_p": (1, 5)}
_BY_LESION: Changes = {"data.split": "grouped", "data.fold": 0}
_SMALL: Changes = {
    "model.name": "cnn", "data.size": 32, "augment.crop": 28, "data.channels": 1, "epochs": 4,
}  # fmt: skip
_BOTH = ("seed", "data.split_seed")

CASES = {
    "frozen": Case(
        "Skin-7, frozen features, split by lesion; leave-one-out by lesion", "skin7_lesions",
        _BY_LESION | {"epochs": 0, "model.name": "linear", "model.dropout": 0.0,
                      "evaluate.k_p": (1, 5)},
        _BOTH, 60,
    ),
    "trained": Case(
        "Skin-7, deep kNN on the features, split by lesion; a validation part", "skin7_lesions",
        _BY_LESION | _VALIDATED, _BOTH, 60,
    ),
    "chest_xray": Case(
        "chest X-rays at 32 px, deep kNN (small CNN, 4 epochs), split by patient; a validation "
        "part", "chest_xray", _VALIDATED | _SMALL, _BOTH, 120,
    ),
    "pneumoniamnist": Case(
        "PneumoniaMNIST, deep kNN (4 epochs), the published split and validation part",
        "pneumoniamnist", _VALIDATED | {"epochs": 4}, ("seed",), 120,
    ),
    "pneumoniamnist_drawn": Case(
        "PneumoniaMNIST, deep kNN (4 epochs), all images split anew; a validation part",
        "pneumoniamnist", _VALIDATED | {"epochs": 4, "data.split": "stratified"}, _BOTH, 120,
    ),
}  # fmt: skip


def cells_of(case: str, options: Options) -> list[Cell]:
    """The runs of the case, a seed each."""
    found = CASES[case]
    return [
        named(
            Cell(f"coverage-{case}-seed{seed}", found.set, "deep_knn",
                 found.changes | dict.fromkeys(found.seeded, seed), found.seconds),
            options,
        )
        for seed in range(options.seeds)
    ]  # fmt: skip


def run(options: Options) -> str:
    """Makes the runs that are not there, writes OUT/coverage.md anew after each, and returns it.

    Raises:
        UserError: whatever stops a run; those before it are finished and stay so.
    """
    for case, found in CASES.items():
        if (words := absent(found.set, options.data_root)) is not None:
            say(f"absent: {words}")
            continue
        for cell in cells_of(case, options):
            if store.read(options.out, cell) is None:
                say(cell.name)
                make(cell.set, options.data_root, options.out)
                _finish(cell, options.out)
                write_text(options.out / "coverage.md", document(options))
    return document(options)


def _finish(cell: Cell, out: Path) -> None:
    began, workdir, config = time.monotonic(), store.workdir_of(out, cell), config_for(cell, out)
    with (out / "log.txt").open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        results = loop.run(config, workdir)
    with np.load(workdir / "embeddings.npz", allow_pickle=False) as arrays:
        tests = arrays["splits"] == TEST
        embeddings, labels = arrays["embeddings"][tests], arrays["labels"][tests]
    found = measured(model_lib.read_trained(workdir / model_lib.FOLDER), embeddings, labels)
    run = {"results": {"test": results["test"]}, "coverage": found}
    store.write(out, cell, config.to_dict(), time.monotonic() - began, run)
    shutil.rmtree(workdir, ignore_errors=True)


def measured(model: Model, embeddings_nxD: np.ndarray, labels_n: np.ndarray) -> dict[str, Any]:
    """What the sets of a calibrated model are worth on n test images.

    Returns:
        `classes`, and for each `calibration` (images), `test`, and shares `mondrian` and `marginal`
        of its test images with their class in their set (None without any); and under `sizes` of
        both the mean size, and the shares of sets of one class and of none.
    """
    assert model.calibrated is not None
    near = nearest_of(embeddings_nxD, model.gallery, model.classes, p_of(model))
    scores = doubt.ratios(near)
    calibration = model.calibrated.scores
    sets = {
        "mondrian": doubt.prediction_sets(doubt.p_values(scores, calibration), level=LEVEL),
        "marginal": doubt.prediction_sets(
            doubt.marginal_p_values(scores, calibration), level=LEVEL
        ),
    }
    counts = range(len(model.classes))
    found: dict[str, Any] = {
        "classes": list(model.classes),
        "calibration": calibration.counts.tolist(),
        "test": np.bincount(labels_n, minlength=len(model.classes)).tolist(),
        "sizes": {},
    }
    for name, sets_nxC in sets.items():
        covered = sets_nxC[np.arange(len(labels_n)), labels_n]
        size = sets_nxC.sum(axis=1)
        found[name] = [
            float(covered[labels_n == c].mean()) if (labels_n == c).any() else None for c in counts
        ]
        found["sizes"][name] = {
            "coverage": float(covered.mean()), "mean": float(size.mean()),
            "single": float((size == 1).mean()), "empty": float((size == 0).mean()),
        }  # fmt: skip
    return found


def document(options: Options) -> str:
    """The records that are there as Markdown, a table a case: means over the seeds, in per cent."""
    lines = ["# Coverage of 90 % sets", "",
             f"    python -m deepknn_jax.reproduce --coverage --data_root=DATA "
             f"--seeds={options.seeds}", ""]  # fmt: skip
    for case, found in CASES.items():
        records = [store.read(options.out, cell) for cell in cells_of(case, options)]
        there = [record["coverage"] for record in records if record is not None]
        if there:
            lines += [f"## {found.title} ({len(there)} seeds)", "", *table(there), ""]
    return "\n".join(lines) + "\n"


def table(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a Markdown table of several seeds' records of one case."""
    head = ("class", "calibration", "test", "class by class", "all classes together")
    body = []
    for c, name in enumerate(records[0]["classes"]):
        counts = [_spread([record[key][c] for record in records]) for key in head[1:3]]
        shares = [
            _spread([100 * record[key][c] for record in records if record[key][c] is not None], 1)
            for key in ("mondrian", "marginal")
        ]
        body.append((name, *counts, *shares))
    for key, words, factor in (
        ("coverage", "all", 100), ("mean", "classes in a set", 1), ("single", "sets of one", 100),
        ("empty", "empty sets", 100),
    ):  # fmt: skip
        digits, both = 1 if factor > 1 else 2, ("mondrian", "marginal")
        values = [[factor * record["sizes"][kind][key] for record in records] for kind in both]
        body.append((words, "", "", *(_spread(each, digits) for each in values)))
    return grid(head, body)


def _spread(values: Sequence[float], digits: int = 0) -> str:
    """Mean ± standard deviation over the seeds; the number itself where all have it."""
    if not values:
        return "none there"
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len({*values}) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"
