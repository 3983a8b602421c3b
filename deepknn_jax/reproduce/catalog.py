"""The tables as data: what the .toml, .csv and .json files beside this module hold.

The heads of tables.toml, searches.toml and methods.toml say what the fields mean.
"""

import csv
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from deepknn_jax import config as config_lib

Changes = dict[str, Any]  # {"loss.k": 5}
_NONE: Changes = {}

_HERE = Path(__file__).parent


class DataSet(NamedTuple):
    """A set of sets.csv.

    `config` is a file of configs/ and `path` where it finds the data below data_root, "" where a
    library brings them. `made` is where the runner puts what prepare's `maker` makes of that, or of
    the set `of`, below its own folder. `folds` counts the published ones, `images` the training
    part. `views` are augment.views of the features.
    """

    title: str
    config: str
    path: str
    made: str
    maker: str
    of: str
    folds: int
    images: int
    views: tuple[str, ...] = ()


class Method(NamedTuple):
    """A method of methods.toml."""

    title: str
    changes: Changes
    vote: str = "5"
    metric: bool = False
    start: str = ""


class Kind(NamedTuple):
    """Methods by name, and what all their cells change: `base` first, `changes` at the end."""

    methods: Mapping[str, Method]
    base: Changes = _NONE
    changes: Changes = _NONE
    cell: str = "{method}-seed{seed}"
    seconds: float = 0.0
    keep: bool = False


class Size(NamedTuple):
    """How images are trained: `metric_changes` are for losses of distances alone."""

    words: str = ""
    seeds: int = 0
    cpu_only: bool = False
    changes: Changes = _NONE
    metric_changes: Changes = _NONE


class RowPlan(NamedTuple):
    """A row of tables.toml."""

    method: str = "knn"
    reference: str = ""
    label: str = "{title}"
    vote: str = "5"
    changes: Changes = _NONE
    backbone: str = ""
    seeds: int = 0
    cell: str = ""
    seconds: float = 0.0


class SectionPlan(NamedTuple):
    """A section of tables.toml."""

    title: str
    set: str
    kind: str
    rows: Sequence[RowPlan]
    changes: Changes = _NONE
    sizes: Sequence[str] = ()
    backbone: str = ""
    folds: Sequence[int] = ()
    draws: Sequence[int] = ()
    split_seeds: bool = False
    most_seeds: int = 0
    chosen: str = ""
    chosen_on: str = ""
    paper: str = ""
    beside: str = ""
    in_place_of: Sequence[str] = ()
    part: str = ""


class TablePlan(NamedTuple):
    """A table or figure of tables.toml."""

    file: str
    title: str
    absent: Sequence[str]
    sections: Sequence[SectionPlan]
    search: str = "3"
    backbones: Sequence[str] = ()
    lacks: str = ""


class CountPlan(NamedTuple):
    """A table of tables.toml that counts sets."""

    file: str
    title: str
    paper: Sequence[str]
    ours: Sequence[str]
    parts: Sequence[str]
    words: str
    search: str = "3"


class SearchedSet(NamedTuple):
    """A set that a search of searches.toml is made for."""

    set: str
    tuning: str
    trials: int
    cell: str
    seconds: float
    axes: Sequence[str] = ()
    votes: Sequence[str] = ()
    changes: Changes = _NONE
    keep: bool = False


class Search(NamedTuple):
    """A search of searches.toml."""

    file: str
    kind: str
    methods: Mapping[str, Sequence[str]]
    sets: Sequence[SearchedSet]
    optional: bool = False
    by_set: bool = True
    point: bool = False


def _toml(name: str) -> dict[str, Any]:
    return tomllib.loads((_HERE / name).read_text(encoding="utf-8"))


def _csv(name: str) -> list[dict[str, str]]:
    with (_HERE / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, restval=""))


def _changes(nested: Mapping[str, Any]) -> Changes:
    """{"evaluate.k_p": (1, 5)} of TOML's {"evaluate": {"k_p": [1, 5]}}."""
    flat = config_lib.flatten(nested)
    return {key: tuple(v) if isinstance(v, list) else v for key, v in flat.items()}


def _with_changes(entry: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: entry[key] for key in ("base", "changes", "metric_changes") if key in entry}
    return {**entry, **{key: _changes(value) for key, value in found.items()}}


def _kind(entry: dict[str, Any]) -> Kind:
    methods = {name: Method(**_with_changes(method)) for name, method in entry["methods"].items()}
    return Kind(**_with_changes(entry) | {"methods": methods})


def _section(entry: dict[str, Any], shared: Mapping[str, Any]) -> SectionPlan:
    each, rows = entry.pop("each", {}), entry["rows"]
    rows = shared[rows] if isinstance(rows, str) else rows
    entry["rows"] = [RowPlan(**_with_changes(each | row)) for row in rows]
    return SectionPlan(**_with_changes(entry))


def _table(entry: dict[str, Any], shared: Mapping[str, Any]) -> TablePlan:
    sections = [_section(section, shared) for section in entry.get("sections", ())]
    return TablePlan(**entry | {"sections": sections})


def _search(entry: dict[str, Any]) -> Search:
    return Search(
        **entry | {"sets": [SearchedSet(**_with_changes(each)) for each in entry["sets"]]}
    )


_TABLES, _SEARCHES = _toml("tables.toml"), _toml("searches.toml")

SETS = {
    row.pop("name"): DataSet(
        **row  # type: ignore[arg-type]
        | {key: int(row[key] or 0) for key in ("folds", "images")}
        | {"views": tuple(row["views"].split())}
    )
    for row in _csv("sets.csv")
}
KINDS = {name: _kind(entry) for name, entry in _toml("methods.toml").items()}
SIZES = {name: Size(**_with_changes(entry)) for name, entry in _TABLES["sizes"].items()}
TABLES = {name: _table(entry, _TABLES["rows"]) for name, entry in _TABLES["tables"].items()}
COUNTS = {name: CountPlan(**entry) for name, entry in _TABLES["counts"].items()}
IMAGES_PER_S: Mapping[str, float] = _TABLES["images_per_s"]
AXES: Mapping[str, Sequence[Changes]] = {
    name: [_changes(option) for option in options] for name, options in _SEARCHES["axes"].items()
}
SEARCHES = {name: _search(entry) for name, entry in _SEARCHES["searches"].items()}
# What the searches chose: {search: {set: {method: {"vote", "changes"}}}}.
CHOSEN: Mapping[str, Any] = json.loads((_HERE / "chosen.json").read_text(encoding="utf-8"))

# What the papers print. (table, set, label) -> figures in per cent, {"acc", "mcr", "rs"} of them.
PRINTED = {
    (row["table"], row["set"], row["row"]): {
        key: float(row[key]) for key in ("acc", "mcr", "rs") if row[key]
    }
    for row in _csv("paper/tables.csv")
}
# (table, set) -> classes, training and test images, image size, smallest and largest class.
PRINTED_COUNTS = {
    (row.pop("table"), row.pop("set")): tuple(row.values()) for row in _csv("paper/counts.csv")
}
# Neighborhood Watch, table 2, EPID, PCA to 32, as far as it can be read (its damaged cells by the
# other copy's): title -> classifier -> accuracy; and table 3, sarcoma: title -> C-index.
PRINTED_CLASSIFIERS = {row.pop("features"): row for row in _csv("paper/classifiers.csv")}
PRINTED_C_INDEX = {row["features"]: row["c_index"] for row in _csv("paper/c_index.csv")}
