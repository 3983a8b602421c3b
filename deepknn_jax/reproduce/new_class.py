"""What it costs to add a class to a gallery in the place of a training: measured on real data.

Classes are left out of a training, then 5, 10, ... of their images join the model folder's gallery
by `answers.gallery.add`, as a user's do, and the same test images are asked each time: those of the
new classes and all others. Beside it stands a training with the same images in. What joins is drawn
from the new classes' training part; their test images are never in a gallery.
"""

import contextlib
import itertools
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepknn_jax.answers import gallery
from deepknn_jax.answers import model as model_lib
from deepknn_jax.answers.run import Run, open_run
from deepknn_jax.data.dataset import TEST, TRAIN, VALIDATION, Listing
from deepknn_jax.data.splits import assign_splits
from deepknn_jax.files import write_arrays, write_text
from deepknn_jax.logs import say
from deepknn_jax.reproduce import store
from deepknn_jax.reproduce.catalog import Changes
from deepknn_jax.reproduce.cells import Cell, Options, named
from deepknn_jax.reproduce.new_class_tables import K_P, LEVEL, lost_table, sets_table, votes_table
from deepknn_jax.reproduce.prepare import make
from deepknn_jax.reproduce.runs import config_for
from deepknn_jax.reproduce.sets import absent, folder, listing
from deepknn_jax.trainer import loop

DRAWS = 3  # of the images that join, a training


class Case(NamedTuple):
    """What is measured: runs of `set` without the classes `leave`, or so many drawn by the seed.

    `sizes` images a class join, ascending; with `again` trainings with as many stand beside them.
    `validation` is a share of the training part, or 0.
    """

    title: str
    set: str
    leave: tuple[str, ...] | int
    sizes: tuple[int, ...]
    split: str
    test_share: float
    validation: float
    changes: Changes
    seconds: float
    again: bool = True


_SKIN7: Changes = {"data.fold": 0, "data.validation": 0.2, "evaluate.every_epochs": 3}

CASES = {
    "skin7": Case(
        "Skin-7 without vasc, deep kNN on the features, split by lesion", "skin7_lesions",
        ("vasc",), (5, 10, 50), "grouped", 0.2, 0.2,
        _SKIN7, 100,
    ),
    "skin7_frozen": Case(
        "Skin-7 without vasc, the same frozen features, nothing trained", "skin7_lesions",
        ("vasc",), (5, 10, 50), "grouped", 0.2, 0.2,
        _SKIN7 | {"epochs": 0, "model.name": "linear", "model.dropout": 0.0}, 60, again=False,
    ),
    "omniglot": Case(
        "Omniglot without five of its characters, deep kNN (12 epochs)", "omniglot",
        5, (5, 10, 15), "stratified", 0.25, 0.0,
        {"epochs": 12, "optimizer.halve_every_epochs": 5, "data.test_share": 0.2}, 100,
    ),
}  # fmt: skip


class Parts(NamedTuple):
    """A set's N examples with the part of each, `splits` [N]; `new` are the classes left out."""

    listed: Listing
    splits: np.ndarray
    new: tuple[str, ...]

    @property
    def labels(self) -> np.ndarray:
        """Names [N] of the examples' classes."""
        return np.asarray(self.listed.class_names)[self.listed.labels]

    def rows(self, part: str, *, new: bool) -> np.ndarray:
        """Rows int [n] of the part, of the classes left out or of the others."""
        return np.flatnonzero((self.splits == part) & (np.isin(self.labels, self.new) == new))


def parts_of(case: Case, seed: int, options: Options) -> Parts:
    """The case's set, made where it is not there, drawn into parts by the seed."""
    make(case.set, options.data_root, options.out)
    path = folder(case.set, options.data_root, options.out)
    listed = listing(case.set, path, split=case.split, fold=0)
    splits = assign_splits(listed, split=case.split, test_share=case.test_share,
                           validation=case.validation, split_seed=seed)  # fmt: skip
    new = case.leave
    if isinstance(new, int):
        drawn = np.random.default_rng([seed, 0]).permutation(len(listed.class_names))[:new]
        new = tuple(listed.class_names[c] for c in sorted(drawn.tolist()))
    return Parts(listed, splits, new)


def joining(parts: Parts, seed: int, draw: int, size: int) -> np.ndarray:
    """Rows int [n] of `size` training images of each new class; of a larger size, these first."""
    pool, labels = parts.rows(TRAIN, new=True), parts.labels
    rng = np.random.default_rng([seed, 1, draw])
    drawn = [rng.permutation(pool[labels[pool] == name])[:size] for name in parts.new]
    return np.stack(drawn, axis=1).ravel()


def training_file(parts: Parts, joined: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of an .npz with a published split: all but the new classes, and `joined` rows."""
    inputs = parts.listed.inputs
    assert inputs is not None
    rows = {part: parts.rows(part, new=False) for part in (TRAIN, VALIDATION, TEST)}
    rows[TRAIN] = np.concatenate([rows[TRAIN], joined]).astype(np.int64)
    if inputs.ndim == 4:
        letters = {"train": TRAIN, "val": VALIDATION, "test": TEST}
        return {
            f"{letter}_{word}": array[rows[part]]
            for word, part in letters.items() if len(rows[part])
            for letter, array in (("x", inputs), ("y", parts.labels))
        }  # fmt: skip
    every = np.sort(np.concatenate(list(rows.values())))
    arrays = {"features": inputs, "labels": parts.labels, "splits": parts.splits,
              "names": np.asarray(parts.listed.names)}  # fmt: skip
    if parts.listed.groups is not None:
        arrays["groups"] = parts.listed.groups
    return {key: array[every] for key, array in arrays.items()}


def cells_of(name: str, options: Options) -> dict[int, list[Cell]]:
    """{0: the trainings without the new classes, n: those with n images of each}, a seed each."""
    case = CASES[name]
    return {
        size: [
            named(
                Cell(f"new_class-{name}-{f'with{size}' if size else 'without'}-seed{seed}",
                     case.set, "deep_knn",
                     case.changes | {"data.split": "published", "evaluate.k_p": K_P, "seed": seed},
                     case.seconds),
                options,
            )
            for seed in range(options.seeds)
        ]
        for size in (0, *(case.sizes if case.again else ()))
    }  # fmt: skip


def run(options: Options) -> str:
    """Makes the runs that are not there, writes OUT/new_class.md anew after each, and returns it.

    Raises:
        UserError: whatever stops a run; those before it are finished and stay so.
    """
    for name, case in CASES.items():
        if (words := absent(case.set, options.data_root)) is not None:
            say(f"absent: {words}")
            continue
        cells = cells_of(name, options)
        for seed, size in itertools.product(range(options.seeds), cells):
            if store.read(options.out, cell := cells[size][seed]) is None:
                say(cell.name)
                _finish(case, cell, seed, size, options)
                write_text(options.out / "new_class.md", document(options))
    return document(options)


def _finish(case: Case, cell: Cell, seed: int, size: int, options: Options) -> None:
    """Trains the cell's run, measures, writes the record. What was stopped goes on."""
    began, out = time.monotonic(), options.out
    parts = parts_of(case, seed, options)
    joined = joining(parts, seed, 0, size) if size else np.zeros(0, np.int64)
    workdir, file = store.workdir_of(out, cell), out / "cells" / f"{cell.name}.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(file, training_file(parts, joined))
    config = config_for(cell._replace(changes=cell.changes | {"data.dir": str(file)}), out)
    with (out / "log.txt").open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        results = loop.run(config, workdir)
    model = workdir / model_lib.FOLDER
    found: dict[str, Any] = {"new": list(parts.new), "test": _counts(parts, TEST)}
    if size:
        found["trained"] = asked(open_run(model), parts)
    else:
        found["trained"] = asked(open_run(model, at=0), parts)
        found["draws"] = [
            grown(model, case, parts, seed, draw, found["trained"]["answers"])
            for draw in range(DRAWS)
        ]
    record = {"results": {"test": results["test"]}, "new_class": found}
    store.write(out, cell, config.to_dict(), time.monotonic() - began, record)
    shutil.rmtree(workdir, ignore_errors=True)
    file.unlink()


def _counts(parts: Parts, part: str) -> dict[str, int]:
    labels = parts.labels[parts.splits == part]
    return {name: int((labels == name).sum()) for name in parts.listed.class_names}


def grown(
    model: Path, case: Case, parts: Parts, seed: int, draw: int, before: Sequence[str]
) -> list[dict[str, Any]]:
    """What the run at `model` answers as images of the new classes join, a record a stage.

    The last stage, where there is a validation part, is with that of the new classes calibrating.
    `before` are the answers of the gallery as it was trained.
    """
    gallery.restore(model, 0, note=f"draw {draw}")
    stages, there = [], 0
    for size in case.sizes:
        rows = joining(parts, seed, draw, size)[there * len(parts.new) :]
        _join(model, parts, rows, calibrates=False)
        there = size
        stages.append({"size": size, "calibrating": 0, **asked(open_run(model), parts, before)})
    if len(rows := parts.rows(VALIDATION, new=True)):
        _join(model, parts, rows, calibrates=True)
        stages.append(
            {"size": there, "calibrating": len(rows), **asked(open_run(model), parts, before)}
        )
    return stages


def _join(model: Path, parts: Parts, rows: np.ndarray, *, calibrates: bool) -> None:
    assert parts.listed.inputs is not None
    names = [f"new/{parts.listed.names[row]}" for row in rows]
    gallery.add(model, parts.listed.inputs[rows], parts.labels[rows].tolist(), names=names,
                calibrates=calibrates)  # fmt: skip


def asked(run: Run, parts: Parts, before: Sequence[str] | None = None) -> dict[str, Any]:
    """What the run answers to the whole test part, new classes included, by `told`."""
    assert parts.listed.inputs is not None
    rows = np.flatnonzero(parts.splits == TEST)
    found = run.predict(parts.listed.inputs[rows], k=max(K_P), level=LEVEL)
    classes = np.asarray([*run.class_names, ""])  # -1, nobody voted, is the last
    votes = {
        1: classes[run.model.gallery.labels[found.indices[:, 0]]],
        max(K_P): classes[found.labels],
    }
    return told(votes, found.sets, run.class_names, parts.labels[rows], parts.new, before)


def told(
    votes: Mapping[int, np.ndarray],
    sets_nxC: np.ndarray | None,
    classes: Sequence[str],
    truth_n: np.ndarray,
    new: Sequence[str],
    before: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Figures of n answers, `votes` {K_p: names [n]}, of the new classes and of the others.

    Returns:
        `figures` {K_p: `new`, the share of the new classes' images that is right, `acc` and `mcr`
        of the others, `taken`, how many of each other class are answered as new}; at the largest
        K_p `answers` [n], and beside those `before` of each other class how many were `lost`
        (right, now wrong), `lost_to_new` and `gained`; of the sets (None without any) `covered`,
        {class: share with its class in its set} where it could be, `size` (mean classes in a set)
        and `with_new`, the share of the others' sets that hold a new class.
    """
    is_new, every = np.isin(truth_n, new), np.unique(truth_n)
    others = [name for name in every.tolist() if name not in new]
    figures = {
        str(k): {
            "new": float((answer == truth_n)[is_new].mean()),
            "acc": float((answer == truth_n)[~is_new].mean()),
            "mcr": float(np.mean([(answer == name)[truth_n == name].mean() for name in others])),
            "taken": _by_class(truth_n, np.isin(answer, new), others),
        }
        for k, answer in votes.items()
    }
    answer = votes[max(votes)]
    found: dict[str, Any] = {"figures": figures, "answers": answer.tolist(), "sets": None}
    if before is not None:
        was, now = np.asarray(before) == truth_n, answer == truth_n
        found["lost"] = _by_class(truth_n, was & ~now, others)
        found["lost_to_new"] = _by_class(truth_n, was & np.isin(answer, new), others)
        found["gained"] = _by_class(truth_n, now & ~was, others)
    if sets_nxC is not None:
        place = {name: c for c, name in enumerate(classes)}
        found["sets"] = {
            "covered": {
                name: float(sets_nxC[truth_n == name, place[name]].mean())
                for name in every.tolist() if name in place
            },
            "others": float(np.mean([sets_nxC[i, place[truth_n[i]]]
                                     for i in np.flatnonzero(~is_new)])),
            "size": float(sets_nxC.sum(axis=1).mean()),
            "with_new": float(sets_nxC[~is_new][:, np.isin(classes, new)].any(axis=1).mean()),
        }  # fmt: skip
    return found


def _by_class(truth_n: np.ndarray, chosen_n: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    return {name: int((chosen_n & (truth_n == name)).sum()) for name in names}


def document(options: Options) -> str:
    """The records that are there as Markdown: of each case the votes, what was lost, the sets."""
    lines = ["# A new class in the gallery", "",
             f"    python -m deepknn_jax.reproduce --new_class --data_root=DATA "
             f"--seeds={options.seeds}", ""]  # fmt: skip
    for name, case in CASES.items():
        records = {
            size: [record["new_class"] for cell in cells
                   if (record := store.read(options.out, cell)) is not None]
            for size, cells in cells_of(name, options).items()
        }  # fmt: skip
        if records[0]:
            lines += [f"## {case.title} ({len(records[0])} seeds x {DRAWS} draws)", "",
                      *votes_table(records), "", *lost_table(records[0]), ""]  # fmt: skip
            lines += [*sets, ""] if (sets := sets_table(records[0])) else []
    return "\n".join(lines) + "\n"
