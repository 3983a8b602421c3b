"""Cells, the single runs that tables are made of; and the rows and sections that they make."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from deepknn_jax import config as config_lib
from deepknn_jax.reproduce.catalog import IMAGES_PER_S, SETS, Changes
from deepknn_jax.reproduce.sets import config_of, folder

# Where things lie, and what does not touch a result: not part of a cell's name.
_PLACES = ("data.dir", "data.cache_dir", "data.placement", "checkpoint_seconds", "model.weights")
_GPU = 100  # times as fast as two CPU cores: an estimate
_PASSES = 1.25  # over the training part, an epoch: the evaluations take a quarter
_REFERENCE_PASSES = 0.5
_EVERY_CELL: Changes = {
    "evaluate.every_epochs": 0,
    "evaluate.k_p": (1, 3, 5, 7, 9),  # tables 2 to 4 take 1 and 5, table S4 the rest
    "evaluate.references": (),
    "evaluate.pictures": False,
}


class Cell(NamedTuple):
    """One run of a config.

    `name` is "set/method-...-digest", the digest that of the config: another config is another
    cell. `seconds` is about what it takes. `keep`: its workdir stays. `start`: the cell from whose
    network it starts. `reference`: "pixels" or "untrained", kNN without any training.
    """

    name: str
    set: str
    method: str
    changes: Changes
    seconds: float
    keep: bool = False
    start: "Cell | None" = None
    reference: str = ""


class Row(NamedTuple):
    """Figures at `vote` ("5": K_p, "head") over `cells`, beside the `paper`'s.

    `title` is the method's; `label` may say more.
    """

    label: str
    cells: Sequence[Cell]
    vote: str
    paper: Mapping[str, float] = {}
    title: str = ""


class Section(NamedTuple):
    """Rows that are compared.

    `beside` is a class whose recall stands beside the smallest's, `part` what a figure shows.
    """

    title: str
    rows: Sequence[Row]
    beside: str = ""
    part: str = ""


class Table(NamedTuple):
    """A table or figure: `absent` tells what cannot be run here and what that needs."""

    title: str
    sections: Sequence[Section]
    absent: Sequence[str] = ()

    @property
    def cells(self) -> list[Cell]:
        """Each cell once."""
        rows = (row for section in self.sections for row in section.rows)
        return list({cell.name: cell for row in rows for cell in row.cells}.values())


class Options(NamedTuple):
    """What the command was given: where the data and the results are, how many seeds, and more.

    `weights` is a folder of published weights, <model>.pth or .safetensors, or None; `untuned`
    leaves out what a search chose; `gpu` is whether there is one.
    """

    data_root: Path
    out: Path
    seeds: int
    weights: Path | None = None
    untuned: bool = False
    gpu: bool = False


def named(cell: Cell, options: Options) -> Cell:
    """The cell by its whole name, with what all cells change and the seconds on this machine.

    Its own name is what the reader is to see of its method and run; its seconds are those of two
    CPU cores, and are reckoned where they are 0.
    """
    changes = _EVERY_CELL | cell.changes
    changes |= {"data.dir": str(folder(cell.set, options.data_root, options.out))}
    now = config_lib.flatten(config_of(cell.set, changes))
    default = config_lib.flatten(config_lib.default())
    parts: dict[str, Any] = {
        key: now[key] for key in now if now[key] != default[key] and key not in _PLACES
    }
    # Names are older than two options: a neighbourhood's size was loss.k, as deep kNN's K is, and a
    # stratified split was the default.
    size = parts.pop("loss.neighborhood", None)
    if size is not None and now["loss.name"] != "deep_knn":
        parts["loss.k"] = size
    if parts.get("data.split") == "stratified":
        del parts["data.split"]
    if cell.reference:  # without training the optimizer's options make no other cell
        parts = {key: value for key, value in parts.items() if not key.startswith("optimizer.")}
    weights = changes.get("model.weights", "")
    parts |= {"weights": Path(weights).name} if weights else {}
    parts |= {"start": cell.start.name} if cell.start else {}
    parts |= {"reference": cell.reference} if cell.reference else {}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]
    seconds = (cell.seconds or _reckoned(cell, now)) / (_GPU if options.gpu else 1)
    name = f"{cell.set}/{cell.name}-{digest}"
    return cell._replace(name=name, changes=changes, seconds=seconds)


def _reckoned(cell: Cell, config: Mapping[str, Any]) -> float:
    """The seconds of two CPU cores, by the numbers of images and pixels that are gone through."""
    passes = _REFERENCE_PASSES if cell.reference else _PASSES * config["epochs"]
    pixels = config["augment.crop"] or config["data.size"] or 28
    speed = IMAGES_PER_S[config["model.name"]] * (224 / pixels) ** 2
    return SETS[cell.set].images * passes / speed
