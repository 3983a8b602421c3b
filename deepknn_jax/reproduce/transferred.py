"""Neighborhood Watch's second experiment on finished cells: what their embeddings are good for."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from deepknn_jax.data.dataset import TEST, TRAIN
from deepknn_jax.data.survival import Survival, of_names, read_survival
from deepknn_jax.errors import UserError
from deepknn_jax.files import read_json, write_text
from deepknn_jax.logs import say
from deepknn_jax.reproduce import store
from deepknn_jax.reproduce.catalog import PRINTED_C_INDEX, PRINTED_CLASSIFIERS
from deepknn_jax.reproduce.cells import Cell, Section, Table
from deepknn_jax.reproduce.markdown import grid, mean_of, shown
from deepknn_jax.reproduce.sets import config_of
from deepknn_jax.trainer.setup import load
from deepknn_jax.transfer import classifiers, cox

CLASSIFIERS = ("kNN", "SVM", "DT", "MLP")
PCA, COX_PCA = 32, 8
_FEATURES, _NETWORK = "the features themselves", "end to end (Cox network)"


def _kept(out: Path, cell: Cell, name: str, make: Callable[[Path, Cell], Any]) -> Any:
    """What the file `name` of the cell's workdir holds, made where it is not there."""
    path = store.workdir_of(out, cell) / f"{name}.json"
    found = read_json(path)
    if found is None:
        found = {"found": make(out, cell)}
        write_text(path, json.dumps(found) + "\n")
    return found["found"]


def write_nw2(table: Table, out: Path) -> list[str]:
    """Markdown: Acc / MCR of four classifiers on each method's features, beside EPID's Acc."""
    lines = []
    for section in table.sections:
        body = []
        for row in section.rows:
            found = [_kept(out, cell, "transfer", _classified) for cell in store.embedded(out, row)]
            if found:
                printed = PRINTED_CLASSIFIERS.get(row.title, {})
                body.append([row.title, *(_pair(found, name, printed) for name in CLASSIFIERS)])
        head = ["features", *(f"{name}, Acc / MCR (paper, EPID)" for name in CLASSIFIERS)]
        title = f"## PCA to {PCA}, then a simple classifier: {section.title}"
        lines += [title, "", *grid(head, body), ""]
    return lines


def _classified(out: Path, cell: Cell) -> dict[str, dict[str, float]]:
    arrays = store.embeddings_of(out, cell)
    train, test = arrays["splits"] == TRAIN, arrays["splits"] == TEST
    x, y = arrays["embeddings"], arrays["labels"]
    return classifiers.classify_all(x[train], y[train], x[test], y[test], pca=PCA)


def _pair(found: Sequence[Mapping[str, Any]], name: str, printed: Mapping[str, str]) -> str:
    acc, mcr = (shown(mean_of([100 * run[name][key] for run in found])) for key in ("acc", "mcr"))
    return f"{acc} / {mcr}" + (f" ({printed[name]})" if name in printed else "")


def write_nw3(table: Table, out: Path) -> list[str]:
    """Markdown: the C-index of Cox on PCA-8 of each method's features, and of its peers."""
    lines: list[str] = []
    for section in table.sections:
        body = []
        for label, each in _c_indices(section, out).items():
            if values := [value for value in each if value is not None]:
                count = f"{len(values)}" + f" of {len(each)}" * (len(values) < len(each))
                printed = PRINTED_C_INDEX.get(label, "")
                body.append([label, shown(mean_of(values), digits=3), printed, count])
        title = f"## C-index, Cox's model on PCA-{COX_PCA} of features: {section.title}"
        lines += [title, "", *grid(["features", "C-index", "paper (sarcoma)", "runs"], body), ""]
    return lines


def _c_indices(section: Section, out: Path) -> dict[str, list[float | None]]:
    """Of each method those of its cells; of the peers one for each fold."""
    done = {row.title: store.embedded(out, row) for row in section.rows}
    found = {
        title: [_kept(out, cell, "cox", _cox) for cell in each] for title, each in done.items()
    }
    folds = {cell.changes["data.fold"]: cell for each in done.values() for cell in each}
    peers = [_kept(out, cell, "peers", _peers) for cell in folds.values()]
    return found | {name: [peer[name] for peer in peers] for name in (_FEATURES, _NETWORK)}


def _survival(config: ConfigDict) -> Survival:
    data = config.data
    columns = {key: data[key] for key in ("time_column", "event_column", "name_column")}
    return read_survival(Path(data.dir) / data.csv, **columns)


def _cox(out: Path, cell: Cell) -> float | None:
    """The C-index; None where Cox's model has no optimum on the cell's features."""
    arrays = store.embeddings_of(out, cell)
    survival = _survival(config_of(cell.set, cell.changes))
    times, events = of_names(survival, arrays["names"].tolist())
    train, test = arrays["splits"] == TRAIN, arrays["splits"] == TEST
    x = arrays["embeddings"]
    known = x[train], times[train], events[train], x[test], times[test], events[test]
    try:
        return cox.cox_c_index(*known, pca=COX_PCA)
    except UserError as error:
        say(f"{cell.name}: {error}")
        return None


def _peers(out: Path, cell: Cell) -> dict[str, float]:
    """Of the cell's fold: Cox on PCA-8 of the features themselves, and the network end to end."""
    config = config_of(cell.set, cell.changes)
    dataset = load(config)
    times, events = of_names(_survival(config), dataset.names)
    train, test = dataset.rows(TRAIN), dataset.rows(TEST)
    x: np.ndarray = dataset.inputs
    known, truth = (x[train], times[train], events[train], x[test]), (times[test], events[test])
    return {
        _FEATURES: cox.cox_c_index(*known, *truth, pca=COX_PCA),
        _NETWORK: cox.c_index(cox.network_log_hazards(*known), *truth),
    }
