"""The gallery of a model folder, changed: cases join, leave, or get another label.

Each function appends one line to the folder's journal (docs/gallery.md) and brings model.json and
the model card after it. The network stays as it is. Several processes may do so at once: each
change is made to what stands when its line is written.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from deepknn_jax.answers import changes, journal, state
from deepknn_jax.answers import model as model_lib
from deepknn_jax.answers.card import LEFT_OUT, card
from deepknn_jax.answers.changes import Cases, Change
from deepknn_jax.answers.intake import Images, Questions, blocks, questions
from deepknn_jax.answers.journal import Line
from deepknn_jax.answers.judge import calibrate, calibrate_left_out, judge, p_of, rule_of
from deepknn_jax.answers.model import Calibrated, Model
from deepknn_jax.answers.run import Run, open_run
from deepknn_jax.data.copies import DIGEST, numbered
from deepknn_jax.errors import UserError
from deepknn_jax.files import forget_checksums, parse_json, write_text

_TRIES = 100  # when others change it meanwhile
_NAMED = 3
_ONE = threading.Lock()  # the threads of a process change a folder one after the other


class Changed(NamedTuple):
    """What a change did: its `line`, None where there was nothing to do; the `model` after it.

    `copies`: (name, what it is a copy of) of what was there already and did not join; `errors`
    {name: why it could not be read}.
    """

    line: Line | None
    model: Model
    copies: Sequence[tuple[str, str]] = ()
    errors: Mapping[str, str] = MappingProxyType({})


class _Plan(NamedTuple):
    """A line to be written, None where there is nothing to do, and the change of the cases by it.

    A restore has none: the lines alone say what stands.
    """

    line: Line | None
    change: Change | None = None
    copies: Sequence[tuple[str, str]] = ()


def add(
    path: str | Path,
    images: Images,
    labels: Sequence[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    calibrates: bool = False,
    note: str = "",
    image_column: str = "image",
    label_column: str = "label",
    run: Run | None = None,
) -> Changed:
    """Labelled images join the gallery, and vote from now on; classes may be new.

    Args:
        path: of a run's workdir or its model folder.
        images: as `Run.predict` takes them. In a folder an image's label is the nearest of the
            folders it lies in that is called like a class, else the first one below the given one.
        labels: [n] names of classes, where `images` do not bring them.
        names: [n] of the images, where the files' names are not wanted, or there are none.
        calibrates: they join the images that p-values are calibrated on, and do not vote. They
            must come from where new images will come from, and be none of the training's.
        note: why, for the journal.
        image_column: of a csv.
        label_column: of a csv.
        run: the same run, where it is open already: its network is taken.

    Raises:
        UserError: a label is missing, none can be read, or one is in the gallery under another
            label. Nothing is changed then.
    """
    run = run or open_run(path)
    asked = _asked(images, run, image_column, label_column)
    asked = _labelled(asked, labels, names, label_column)
    new, errors = _embedded(asked, run, votes=not calibrates)

    def plan(now: Cases, trained: Model, number: int) -> _Plan:
        cases, copies = changes.without_copies(new, now)
        if not len(cases.names):
            return _Plan(None, None, copies)
        if calibrates:
            _check_votes(cases, now)
        names_n = cases.names.tolist()
        if not trained.gallery.names:  # they were left out, as data of patients
            names_n = [f"added image {number}.{i}" for i in range(1, len(names_n) + 1)]
        unique = changes.without_clashes(names_n, now.names.tolist(), number)
        pictures = None if trained.gallery.thumbnails is None else cases.pictures
        cases = cases._replace(names=np.asarray(unique), pictures=pictures)
        line = Line(number, changes.ADD, note=note, names=unique, labels=cases.labels.tolist(),
                    votes=not calibrates)  # fmt: skip
        return _Plan(line, Change(changes.ADD, cases), copies)

    return _commit(path, plan)._replace(errors=errors)


def remove(path: str | Path, names: Sequence[str], *, note: str = "") -> Changed:
    """Images leave the gallery, or what calibrates, by their names (`Gallery.names`).

    A class whose last voting image goes is a class no more: it has no votes, no p-value and no
    column, and its calibration images do not count until it comes back.

    Raises:
        UserError: a name that no image has; fewer would remain than K_p, which vote.
    """

    def plan(now: Cases, trained: Model, number: int) -> _Plan:
        changes.check_known(names, now)
        gone = np.isin(now.names, list(names))
        left, k = int((now.votes & ~gone).sum()), trained.about["k_p"]
        if left < k:
            raise UserError(f"{left} images would remain in the gallery, of which K_p = {k} vote: "
                            "keep at least so many")  # fmt: skip
        own, were = now.names[gone].tolist(), now.labels[gone].tolist()
        line = Line(number, changes.REMOVE, note=note, names=own, were=were)
        return _Plan(line, Change(changes.REMOVE, names=own)) if own else _Plan(None)

    return _commit(path, plan)


def relabel(path: str | Path, labels: Mapping[str, str], *, note: str = "") -> Changed:
    """Images of the gallery, or of what calibrates, get another label: {name: class}.

    The class may be new. What has its label already is passed over.

    Raises:
        UserError: a name that no image has; an empty label.
    """
    empty = [name for name, label in labels.items() if not label.strip()]
    if empty:
        raise UserError(f"{empty[0]}: its new label is empty")

    def plan(now: Cases, trained: Model, number: int) -> _Plan:
        changes.check_known(list(labels), now)
        found = [
            (name, labels[name], label)
            for name, label in zip(now.names.tolist(), now.labels.tolist(), strict=True)
            if name in labels and labels[name] != label
        ]
        if not found:
            return _Plan(None)
        own, new, were = (list(each) for each in zip(*found, strict=True))
        line = Line(number, changes.RELABEL, note=note, names=own, labels=new, were=were)
        return _Plan(line, Change(changes.RELABEL, names=own, labels=new))

    return _commit(path, plan)


def restore(path: str | Path, to: int, *, note: str = "") -> Changed:
    """The gallery is again what it was after `to` lines of its journal; 0, as it was trained.

    It is a line like others: what it undoes can be had back.

    Raises:
        UserError: there is no such line.
    """

    def plan(now: Cases, trained: Model, number: int) -> _Plan:
        if not 0 <= to < number:
            raise UserError(f"`restore` is {to}: the journal has {number - 1} lines; 0 is what the "
                            "training left")  # fmt: skip
        return _Plan(Line(number, changes.RESTORE, note=note, to=to))

    return _commit(path, plan)


def history(path: str | Path) -> tuple[Line, ...]:
    """The lines of the journal.

    Brings model.json and the card after them, should a kill have left these behind.
    """
    folder = model_lib.find(path)
    trained = model_lib.read_trained(folder)
    lines = journal.read(folder, state.start_of(trained))
    about = parse_json((folder / "model.json").read_text(encoding="utf-8"))
    if about.get("changes", {}).get("lines", 0) != len(lines):
        _follow(folder, trained, state.after(trained, folder, lines))
    return lines


def _commit(path: str | Path, plan: Callable[[Cases, Model, int], _Plan]) -> Changed:
    """Writes the line that is planned for what stands; anew where another process was faster."""
    folder = model_lib.find(path)
    with _ONE:
        trained = model_lib.read_trained(folder)
        start = state.start_of(trained)
        for _ in range(_TRIES):
            lines = journal.read(folder, start)
            now = state.cases_after(trained, folder, lines)
            made = plan(now, trained, len(lines) + 1)
            if made.line is None or (made.change is None and _stands(lines, made.line)):
                return Changed(None, state.after(trained, folder, lines), made.copies)
            told = [*lines, made.line]
            if made.change is None:
                model, arrays = state.after(trained, folder, told), {}
            else:
                model = state.with_cases(trained, changes.applied(now, [made.change]), told)
                model = model._replace(calibrated=recalibrated(model))
                arrays = state.of_line(made.change.cases, model.calibrated)
            try:
                line = journal.append(folder, made.line, arrays, start=start)
            except FileExistsError:
                continue
            model = model._replace(about={**model.about, "changes": changes.told([*lines, line])})
            _follow(folder, trained, model)
            return Changed(line, model, made.copies)
    raise UserError(f"{folder}: other processes change it again and again; try later")


def _stands(lines: Sequence[Line], restore: Line) -> bool:
    """Whether what a restore would bring back is there already."""
    dids = [(line.did, line.to) for line in lines]
    return changes.standing(dids[: restore.to]) == changes.standing(dids)


def recalibrated(model: Model) -> Calibrated | None:
    """The calibration of a model by the images that it keeps for that; None without any."""
    k = int(model.about["k_p"])
    if model.calibration is None:
        return _recalibrated_left_out(model, k)
    own = model.calibration
    found = judge(own.embeddings, ("",) * len(own.labels), model._replace(calibrated=None), k=k,
                  level=0.9, abstain_error=0.1)  # fmt: skip
    return calibrate(own.embeddings, own.labels, found.labels, found.distances,
                     gallery=model.gallery, classes=model.classes, p=p_of(model))  # fmt: skip


def _recalibrated_left_out(model: Model, k: int) -> Calibrated | None:
    """The calibration of a gallery by itself, where nothing was trained on it."""
    gallery = model.gallery
    if model.about.get("calibration") != LEFT_OUT or gallery.contents is None:
        return None
    bound = numbered(gallery.contents) if gallery.groups is None else gallery.groups
    return calibrate_left_out(gallery, bound, k=k, classes=model.classes, p=p_of(model),
                              rule=rule_of(model))  # fmt: skip


def _follow(folder: Path, trained: Model, model: Model) -> None:
    """Writes model.json and the card of the model; of a later one, where there is one meanwhile.

    The journal is what counts: killed here, they are one change behind, and the next command that
    looks at the journal brings them after.
    """
    named = bool(trained.gallery.names) or trained.gallery.thumbnails is not None
    while True:
        about = {**model.about, "version": model_lib.VERSION, "trained": trained.about}
        forget_checksums(folder, ("model.json", "README.md"))
        text = json.dumps(about, indent=1, allow_nan=False)
        write_text(folder / "model.json", text + "\n")
        write_text(folder / "README.md", _card(model, named=named))
        if journal.count(folder) == model.about["changes"]["lines"]:
            return
        model = state.read(folder)


def _card(model: Model, *, named: bool) -> str:
    source = model.source and model.source.about
    return card(model.about, model.calibrated, named=named, source=source)


def _asked(images: Images, run: Run, image_column: str, label_column: str) -> Questions:
    """The images; folders may be called like classes that are new."""
    classes = run.class_names
    if isinstance(images, str | Path) and (root := Path(images).expanduser()).is_dir():
        first = {path.name for path in root.iterdir() if path.is_dir()}
        classes = (*classes, *sorted(first - set(classes)))
    return questions(images, run.form, classes, image_column=image_column,
                     label_column=label_column)  # fmt: skip


def _labelled(
    asked: Questions, labels: Sequence[str] | None, names: Sequence[str] | None, column: str
) -> Questions:
    n = len(asked.names)
    for what, given in (("labels", labels), ("names", names)):
        if given is not None and len(given) != n:
            raise UserError(f"{n} images and {len(given)} `{what}`: there must be as many")
    found = asked.labels if labels is None else tuple(str(label).strip() for label in labels)
    asked = asked._replace(labels=found, names=tuple(names or asked.names))
    absent = [name for name, label in zip(asked.names, found, strict=True) if not label]
    if absent:
        raise UserError(f"{absent[0]}: has no label ({len(absent)} of {n} images): put images in "
                        f"folders of their classes, or give a csv with a column {column!r}"
                        )  # fmt: skip
    return asked


def _embedded(asked: Questions, run: Run, *, votes: bool) -> tuple[Cases, dict[str, str]]:
    """What could be read, as cases, and {name: why not} of the rest."""
    parts: list[Cases] = []
    errors: dict[str, str] = {}
    own = tuple(run.model.about["inputs"]["shape"])
    for block in blocks(asked, run.form):
        embeddings = run.embed_inputs(block.inputs)
        good = np.asarray(np.isfinite(embeddings).all(axis=1))
        errors |= {asked.names[row]: why for row, why in block.errors.items()}
        errors |= {asked.names[row]: "its embedding is not finite" for row in block.rows[~good]}
        if not good.any():
            continue
        rows, inputs = block.rows[good], block.inputs[good]
        digests = np.zeros((len(rows), DIGEST), np.uint8)
        if inputs.shape[1:] == own:
            digests = changes.contents_of(inputs)
        labels, names = (
            np.asarray([str(of[row]) for row in rows]) for of in (asked.labels, asked.names)
        )
        pictures = tuple(each for each, is_good in zip(block.thumbnails, good, strict=True)
                         if is_good)  # fmt: skip
        parts.append(Cases(embeddings[good], labels, names, np.full(len(rows), votes), digests,
                           None, pictures))  # fmt: skip
    if not parts:
        name, reason = next(iter(errors.items()), ("`images`", "holds none"))
        raise UserError(f"{name}: {reason}; none of {len(asked.names)} images could be read")
    return changes.joined(parts), errors


def _check_votes(cases: Cases, now: Cases) -> None:
    """Raises UserError for cases that are to calibrate a class of which no image votes."""
    absent = sorted(set(cases.labels.tolist()) - set(now.labels[now.votes].tolist()))
    if absent:
        raise UserError(f"{', '.join(absent[:_NAMED])}: no image of it is in the gallery, so there "
                        "is nothing to calibrate: add some that vote first")  # fmt: skip
