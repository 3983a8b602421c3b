"""The run at its desk: it answers what came, and takes corrections, one request after the other."""

import base64
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from deepknn_jax.answers import gallery, journal, page, state
from deepknn_jax.answers.intake import Questions, questions
from deepknn_jax.answers.judge import check_options
from deepknn_jax.answers.run import Run, answered
from deepknn_jax.answers.table import set_of
from deepknn_jax.errors import UserError
from deepknn_jax.serve.uploads import MOST_FILES, Upload, ending, refusal, told_apart


class Options(NamedTuple):
    """How to answer: as `Run.predict`; `writable`: corrections are taken."""

    k: int
    level: float
    abstain_error: float
    writable: bool = False


class Answers(NamedTuple):
    """What was said of some files.

    `cases`, one an image; `errors` {name: why it has none}; `files` {a case's name: its bytes}, of
    those that are image files.
    """

    cases: list[page.Case]
    errors: dict[str, str]
    files: dict[str, bytes]


class Desk:
    """A run that is open, and whose gallery may change; not for several threads at once."""

    def __init__(self, run: Run, options: Options) -> None:
        self.run, self.options = run, options

    def _refresh(self) -> None:
        """Takes the gallery as it stands now: other commands change it, too."""
        known = self.run.model.about.get("changes", {}).get("lines", 0)
        if journal.count(self.run.folder) != known:
            self.run = self.run._replace(model=state.read(self.run.folder))
        options = self.options
        check_options(self.run.model, options.k, options.level, options.abstain_error)

    def answer(self, uploads: Sequence[Upload]) -> Answers:
        """The answers for the files; those that cannot be read, or are refused, by name.

        They lie in a folder of their own meanwhile, which is gone at the end, however that comes.

        Raises:
            UserError: the run is not there any more, or too small for K_p.
        """
        self._refresh()
        with tempfile.TemporaryDirectory(prefix="deepknn_serve_") as folder:
            return _answer(self.run, self.options, uploads, Path(folder))

    def html(self, found: Answers, *, title: str, message: str = "") -> str:
        """The page of some answers, with the form to ask again."""
        options, names = (
            self.options,
            {case.found.names[0]: i for i, case in enumerate(found.cases)},
        )
        files = {
            f"c{names[name]}": base64.b64encode(data).decode("ascii")
            for name, data in found.files.items()
            if name in names and options.writable
        }
        return page.text(
            self.run.model, found.cases, asked=title, k=options.k, level=options.level,
            errors=found.errors, served=page.Served(message, options.writable, files),
        )  # fmt: skip

    def plain(self, found: Answers) -> dict[str, Any]:
        """The answers for JSON: a dict an image, in the place of infinity and NaN None."""
        model = self.run.model
        told = [_plain(case, self.run) for case in found.cases]
        told += [{"name": name, "error": reason} for name, reason in found.errors.items()]
        lines = model.about.get("changes", {}).get("lines", 0)
        return {"classes": list(model.classes), "k": self.options.k, "level": self.options.level,
                "gallery": {"images": len(model.gallery.labels), "changes": lines},
                "images": told}  # fmt: skip

    def correct(self, name: str, label: str, note: str, data: bytes | None) -> str:
        """Gives an image its label, in words: of the gallery by its name, or one that joins it.

        Raises:
            UserError: there is no such class or image, it cannot be read or cannot join.
        """
        self._refresh()
        label, note = label.strip(), note.strip()
        if label not in self.run.class_names:
            raise UserError(f"{label!r} is no class of this run: choose from "
                            f"{', '.join(self.run.class_names)}; a new one joins by python -m "
                            "deepknn_jax.gallery --add")  # fmt: skip
        if data is None:
            changed = gallery.relabel(self.run.folder, {name: label}, note=note)
        else:
            changed = self._joined(Upload(name, data), label, note)
        self.run = self.run._replace(model=changed.model)
        if changed.line is None:
            of = (
                f"it is {changed.copies[0][1]} over again" if changed.copies else "it was so before"
            )
            return f"{name} is {label}: {of}; nothing was changed"
        return f"{name} is {label} from now on: line {changed.line.number} of the gallery's journal"

    def _joined(self, upload: Upload, label: str, note: str) -> gallery.Changed:
        with tempfile.TemporaryDirectory(prefix="deepknn_serve_") as folder:
            file = Path(folder) / f"0{ending(upload.name)}"
            file.write_bytes(upload.data)
            if reason := refusal(file):
                raise UserError(f"{upload.name}: {reason}")
            return gallery.add(self.run.folder, [file], [label], names=[upload.name], note=note,
                               run=self.run)  # fmt: skip


def _answer(run: Run, options: Options, uploads: Sequence[Upload], folder: Path) -> Answers:
    found = Answers([], {}, {})
    asked = list(_asked(run, uploads, folder, found))
    room = MOST_FILES
    for each in asked:
        room -= len(each.names)
        if room < 0:
            found.errors[each.names[0]] = (
                f"with it they are more than {MOST_FILES} images: ask python -m deepknn_jax.predict"
            )
            continue
        for block, said in answered(run, each, k=options.k, level=options.level,
                                    abstain_error=options.abstain_error):  # fmt: skip
            for row, reason in block.errors.items():
                found.errors[each.names[row]] = _without(reason, folder)
            if said is not None:
                truths = [each.labels[row] for row in block.rows]
                found.cases.extend(page.cases_of(said, block.thumbnails, truths))
    return found


def _asked(
    run: Run, uploads: Sequence[Upload], folder: Path, found: Answers
) -> Iterator[Questions]:
    """What the files ask: all images at once, then each .npz; what is refused goes to `found`."""
    images, arrays = {}, {}
    for i, name in enumerate(told_apart([upload.name for upload in uploads])):
        suffix, data = ending(name), uploads[i].data
        file = folder / f"{i}{suffix}"
        file.write_bytes(data)
        if suffix == ".npz":
            arrays[name] = file
        elif run.form.kind != "images":
            found.errors[name] = f"this run takes {run.form.kind}: give an .npz of them, no images"
        elif reason := refusal(file):
            found.errors[name] = _without(reason, folder)
        else:
            images[name], found.files[name] = file, data
    if images:
        yield Questions(tuple(images), (None,) * len(images), files=tuple(images.values()))
    for name, file in arrays.items():
        try:
            asked = questions(file, run.form, run.class_names)
        except UserError as error:
            found.errors[name] = str(error).removeprefix(f"{file}: ")
        else:
            yield asked._replace(names=tuple(f"{name}: {each}" for each in asked.names))


def _without(reason: str, folder: Path) -> str:
    """A reason in one line, that does not name where the file lay meanwhile."""
    return " ".join(reason.replace(f"{folder}{os.sep}", "").split())


def _plain(case: page.Case, run: Run) -> dict[str, Any]:
    found, classes, gallery_ = case.found, run.class_names, run.model.gallery
    label = int(found.labels[0])
    pairs = [(int(row), _number(far)) for row, far in zip(found.indices[0], found.distances[0],
                                                        strict=True) if row >= 0]  # fmt: skip
    return {
        "name": found.names[0],
        "label": classes[label] if label >= 0 else None,
        "shares": _by_class(found.shares[0], classes),
        "p_values": None if found.p_values is None else _by_class(found.p_values[0], classes),
        "credibility": None if found.credibility is None else _number(found.credibility[0]),
        "set": None if found.sets is None else set_of(found, 0, classes),
        "abstain": found.abstain[0] or None,
        "neighbours": [{"name": gallery_.name(row), "label": classes[gallery_.labels[row]],
                        "distance": far} for row, far in pairs],
    }  # fmt: skip


def _by_class(values_C: Any, classes: Sequence[str]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in zip(classes, values_C, strict=True)}


def _number(value: Any) -> float | None:
    """To six digits, as in predictions.csv; None for what JSON has no number for."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
