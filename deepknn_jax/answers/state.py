"""A model folder as it stands: what the training left, and the lines of its journal since."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deepknn_jax.answers import changes, journal
from deepknn_jax.answers.card import VALIDATION
from deepknn_jax.answers.changes import Cases, Change
from deepknn_jax.answers.journal import Line
from deepknn_jax.answers.model import (
    Calibrated,
    Gallery,
    Model,
    calibrated_of,
    gallery_of,
    of_calibrated,
    of_gallery,
    read_trained,
)
from deepknn_jax.answers.thumbnails import joined
from deepknn_jax.data.copies import DIGEST
from deepknn_jax.errors import UserError

_CALIBRATED = "calibrated_"  # of arrays in a line


def read(folder: Path, at: int | None = None) -> Model:
    """What the training left, and what became of it by its journal: after `at` lines, or after all.

    Raises:
        UserError: it is damaged, or of a later version; the journal has no line `at`.
    """
    model = read_trained(folder)
    lines = journal.read(folder, start_of(model))
    if at is not None and not 0 <= at <= len(lines):
        raise UserError(f"`at` is {at}: the journal of {folder} has {len(lines)} lines; 0 is what "
                        "the training left")  # fmt: skip
    return after(model, folder, lines[:at])


def start_of(trained: Model) -> str:
    """Sha256, in hex, of what the training left and a journal begins with."""
    found = hashlib.sha256(json.dumps(dict(trained.about), sort_keys=True).encode())
    found.update(np.ascontiguousarray(trained.gallery.embeddings).tobytes())
    found.update(np.ascontiguousarray(trained.gallery.labels).tobytes())
    return found.hexdigest()


def after(trained: Model, folder: Path, lines: Sequence[Line]) -> Model:
    """The model after the lines of its folder's journal.

    Raises:
        UserError: the arrays of a line are damaged.
    """
    if not lines:
        return trained
    stand = _standing(folder, lines)
    if not stand:
        return trained._replace(about={**trained.about, "changes": changes.told(lines)})
    cases = changes.applied(cases_of(trained), [_change(*each) for each in stand])
    model = with_cases(trained, cases, lines)
    last = {name.removeprefix(_CALIBRATED): array for name, array in stand[-1][1].items()
            if name.startswith(_CALIBRATED)}  # fmt: skip
    return model._replace(calibrated=calibrated_of(last, len(model.classes)) if last else None)


def cases_after(trained: Model, folder: Path, lines: Sequence[Line]) -> Cases:
    """The cases after the lines; also those that calibrate a class of which none votes.

    Raises:
        UserError: the arrays of a line are damaged.
    """
    found = [_change(*each) for each in _standing(folder, lines)]
    return changes.applied(cases_of(trained), found)


def _standing(folder: Path, lines: Sequence[Line]) -> list[tuple[Line, dict[str, np.ndarray]]]:
    """The lines that make the state, with the arrays of those that brought some, and the last."""
    stand = [lines[i] for i in changes.standing([(line.did, line.to) for line in lines])]
    return [
        (line, journal.arrays(folder, line) if line.did == changes.ADD or line is stand[-1] else {})
        for line in stand
    ]


def _change(line: Line, arrays: Mapping[str, np.ndarray]) -> Change:
    if line.did != changes.ADD:
        return Change(line.did, names=line.names, labels=line.labels)
    there = {name: array for name, array in arrays.items() if not name.startswith(_CALIBRATED)}
    n = len(line.names)
    own = gallery_of({**there, "labels": np.zeros(n, np.int32)})
    cases = _cases(own, np.asarray(line.labels), np.asarray(line.names), votes=line.votes)
    return Change(line.did, cases)


def of_line(cases: Cases | None, calibrated: Calibrated | None) -> dict[str, np.ndarray]:
    """What a line's arrays.npz holds: of the cases that joined, and the calibration after it."""
    found = {} if calibrated is None else of_calibrated(calibrated)
    arrays = {_CALIBRATED + name: array for name, array in found.items()}
    if cases is None:
        return arrays
    thumbnails = None if cases.pictures is None else joined(cases.pictures)
    own = Gallery(cases.embeddings, np.zeros(0), (), cases.groups, thumbnails, cases.contents)
    return arrays | {name: each for name, each in of_gallery(own).items() if name != "labels"}


def cases_of(model: Model) -> Cases:
    """The examples of a model that vote, then those that calibrate."""
    classes = np.asarray(model.classes)
    parts = []
    for part, word in ((model.gallery, "training"), (model.calibration, "validation")):
        if part is not None:
            n = len(part.labels)
            names = np.asarray(part.names or [f"{word} image {i}" for i in range(n)], str)
            parts.append(_cases(part, classes[part.labels], names, votes=word == "training"))
    return changes.joined(parts)


def _cases(part: Gallery, labels: np.ndarray, names: np.ndarray, *, votes: bool) -> Cases:
    n, pictures = len(names), part.thumbnails
    contents = np.zeros((n, DIGEST), np.uint8) if part.contents is None else part.contents
    return Cases(
        part.embeddings, labels, names, np.full(n, votes), contents, part.groups,
        None if pictures is None else tuple(pictures.webp(i) for i in range(n)),
    )  # fmt: skip


def with_cases(trained: Model, cases: Cases, lines: Sequence[Line]) -> Model:
    """The model with other cases, and no calibration."""
    classes = changes.classes_of(trained.classes, cases_of(trained), cases)
    about = changes.about_changed(trained.about, classes, cases, lines)
    if not cases.votes.all():
        about["calibration"] = VALIDATION
    gallery, calibration = (
        _of_cases(changes.taken(cases, rows & np.isin(cases.labels, classes)), classes)
        for rows in (cases.votes, ~cases.votes)
    )
    return trained._replace(
        about=about, gallery=gallery, calibrated=None,
        calibration=calibration if len(calibration.labels) else None,
    )  # fmt: skip


def _of_cases(cases: Cases, classes: Sequence[str]) -> Gallery:
    number = {name: c for c, name in enumerate(classes)}
    labels = np.asarray([number[label] for label in cases.labels.tolist()], np.int32)
    thumbnails = None if cases.pictures is None else joined(cases.pictures)
    names = tuple(cases.names.tolist())
    return Gallery(cases.embeddings, labels, names, cases.groups, thumbnails, cases.contents)
