"""Neighborhood Watch's second experiment on finished cells: what their embeddings are good for."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from deepknn_jax.data.dataset import TEST, TRAIN
from deepknn_jax.data.survival import Survival, of_names, read_survival
from deepknn_jax.errors import UserError
from deepknn_jax.evaluation import pictures
from deepknn_jax.files import read_json, write_text
from deepknn_jax.logs import say
from deepknn_jax.reproduce import paper, store
from deepknn_jax.reproduce.cells import Cell, Row, Table
from deepknn_jax.reproduce.sets import SETS, config_of
from deepknn_jax.reproduce.tables import line_of, shown, spread
from deepknn_jax.trainer.setup import load
from deepknn_jax.transfer import classifiers, cox
from deepknn_jax.transfer.cox import c_index

CLASSIFIERS = ("kNN", "SVM", "DT", "MLP")
PCA, COX_PCA = 32, 8


def _kept(out: Path, cell: Cell, name: str, make: Callable[[], Any]) -> Any:
    """The file `name` of the cell's workdir, made where it is not there."""
    path = store.workdir_of(out, cell) / f"{name}.json"
    found = read_json(path)
    if found is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        found = {"found": make()}
        write_text(path, json.dumps(found) + "\n")
    return found["found"]


def _embeddings(out: Path, cell: Cell) -> dict[str, np.ndarray]:
    with np.load(store.workdir_of(out, cell) / "embeddings.npz", allow_pickle=False) as archive:
        return dict(archive)


def _done(out: Path, row: Row) -> list[Cell]:
    """The row's finished cells whose embeddings are there."""
    return [
        cell
        for cell in row.cells
        if store.read(out, cell) and (store.workdir_of(out, cell) / "embeddings.npz").exists()
    ]


def write_nw2(table: Table, out: Path) -> list[str]:
    """Markdown: Acc / MCR of four classifiers on each method's features, beside EPID's Acc."""
    lines = []
    for section in table.sections:
        lines += [f"## PCA to {PCA}, then a simple classifier: {section.title}", ""]
        heads = [f"{name}, Acc / MCR (paper, EPID)" for name in CLASSIFIERS]
        lines += [line_of(["features", *heads]), line_of(["---"] * 5)]
        for row in section.rows:
            found = [
                _kept(out, cell, "transfer", functools.partial(_classified, out, cell))
                for cell in _done(out, row)
            ]
            if found:
                label = row.label.split(",")[0]
                lines.append(line_of([label, *_cells_of(found, paper.NW2.get(label, {}))]))
        lines.append("")
    return lines


def _classified(out: Path, cell: Cell) -> dict[str, dict[str, float]]:
    arrays = _embeddings(out, cell)
    train, test = arrays["splits"] == TRAIN, arrays["splits"] == TEST
    x, y = arrays["embeddings"], arrays["labels"]
    return classifiers.classify_all(x[train], y[train], x[test], y[test], pca=PCA)


def _cells_of(found: Sequence[Mapping[str, Any]], printed: Mapping[str, float]) -> list[str]:
    cells = []
    for name in CLASSIFIERS:
        acc, mcr = (shown(spread([run[name][key] for run in found])) for key in ("acc", "mcr"))
        beside = f" ({printed[name]})" if name in printed else ""
        cells.append(f"{acc} / {mcr}{beside}")
    return cells


def write_nw3(table: Table, out: Path) -> list[str]:
    """Markdown: the C-index of Cox on PCA-8 of each method's features, and of its peers."""
    lines: list[str] = []
    for section in table.sections:
        found = {row.label: [_cox(out, cell) for cell in _done(out, row)] for row in section.rows}
        folds = {_fold(cell): cell for row in section.rows for cell in _done(out, row)}
        found |= {"the features themselves": [], "end to end (Cox network)": []}
        for cell in folds.values():
            for name, value in _peers(out, cell).items():
                found[name].append(value)
        lines += [f"## C-index, Cox's model on PCA-{COX_PCA} of features: {section.title}", ""]
        lines += [line_of(["features", "C-index", "paper (sarcoma)", "runs"]), line_of(["---"] * 4)]
        for label, each in found.items():
            if values := [value / 100 for value in each if value is not None]:
                mean = spread(values)
                words = f"{mean.mean:.3f}"
                words += f" ± {mean.deviation:.3f}" if mean.deviation is not None else ""
                count = f"{len(values)}" + f" of {len(each)}" * (len(values) < len(each))
                lines.append(line_of([label, words, str(paper.NW3.get(label, "")), count]))
        lines.append("")
    return lines


def _fold(cell: Cell) -> int:
    return int(cell.changes["data.fold"])


def _survival(config: ConfigDict) -> Survival:
    data = config.data
    columns = {key: data[key] for key in ("time_column", "event_column", "name_column")}
    return read_survival(Path(data.dir) / data.csv, **columns)


def _cox(out: Path, cell: Cell) -> float | None:
    """The C-index; None where Cox's model has no optimum on the cell's features."""

    def made() -> float | None:
        arrays = _embeddings(out, cell)
        survival = _survival(config_of(SETS[cell.set].config, cell.changes))
        times, events = of_names(survival, arrays["names"].tolist())
        train, test = arrays["splits"] == TRAIN, arrays["splits"] == TEST
        x = arrays["embeddings"]
        known = x[train], times[train], events[train], x[test], times[test], events[test]
        try:
            return cox.cox_c_index(*known, pca=COX_PCA)
        except UserError as error:
            say(f"{cell.name}: {error}")
            return None

    found: float | None = _kept(out, cell, "cox", made)
    return found


def _peers(out: Path, cell: Cell) -> dict[str, float]:
    """Of the cell's fold: Cox on PCA-8 of the features themselves, and the network end to end."""

    def made() -> dict[str, float]:
        config = config_of(SETS[cell.set].config, cell.changes)
        dataset = load(config)
        times, events = of_names(_survival(config), dataset.names)
        train, test = dataset.rows(TRAIN), dataset.rows(TEST)
        x = dataset.inputs
        known = x[train], times[train], events[train], x[test]
        hazards = cox.network_log_hazards(*known)
        return {
            "the features themselves": cox.cox_c_index(
                *known, times[test], events[test], pca=COX_PCA
            ),
            "end to end (Cox network)": c_index(hazards, times[test], events[test]),
        }

    found: dict[str, float] = _kept(out, cell, "peers", made)
    return found


def write_figure4(table: Table, out: Path) -> list[str]:
    """nw_fig4.png: the test part on two principal components."""
    for section in table.sections:
        for row in section.rows:
            for cell in _done(out, row):
                arrays = _embeddings(out, cell)
                train, test = arrays["splits"] == TRAIN, arrays["splits"] == TEST
                x, classes = arrays["embeddings"], arrays["classes"].tolist()
                pictures.scatter(
                    out / "nw_fig4.png", x[train], x[test], arrays["labels"][test], classes
                )
                return [f"![{section.title}](nw_fig4.png)", ""]
    return []
