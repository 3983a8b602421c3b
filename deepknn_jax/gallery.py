"""The command: python -m deepknn_jax.gallery --run=RUN --add=PATH, or --list."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from deepknn_jax.answers import changes, state
from deepknn_jax.answers import gallery as gallery_lib
from deepknn_jax.answers import model as model_lib
from deepknn_jax.answers.card import few_lines, why_none
from deepknn_jax.answers.gallery import Changed
from deepknn_jax.answers.journal import Line
from deepknn_jax.answers.model import Model
from deepknn_jax.data.listing import check_filled, doubtful_labels, first_repeated, read_table
from deepknn_jax.errors import UserError, renaming
from deepknn_jax.logs import say
from deepknn_jax.shell import make_missing_model, parse_flags, run_command

_DOES = ("add", "remove", "relabel", "restore", "list")
_OPTIONS = {"images": "--add"} | {
    name: f"--{name}" for name in ("at", "restore", "image_column", "label_column")
}
_NAMED = 5


@renaming(_OPTIONS)
def main() -> None:
    """Changes the gallery of a run as the flags say, or lists it.

    Raises:
        UserError: a flag is missing or wrong; what cannot be done, by name. Nothing is changed
            then.
    """
    values = flags.FLAGS
    flagged = {name: values[name].value for name in _DOES}
    given = [name for name, value in flagged.items() if value is not None and value is not False]
    if not values.run:
        raise UserError("--run is not given: a run's workdir or its model folder")
    if len(given) != 1:
        raise UserError(f"give one of {', '.join(f'--{name}' for name in _DOES)}"
                        + (f", not {' and '.join(given)} at once" if given else ""))  # fmt: skip
    if values.at is not None and given != ["list"]:
        raise UserError("--at is of --list, and of predict; --restore=N goes back to line N")
    if values.calibrates and given != ["add"]:
        raise UserError("--calibrates is of --add")
    run, note = values.run, values.note
    make_missing_model(run)
    if given == ["list"]:
        show(run, values.at)
        return
    if given == ["add"]:
        changed = gallery_lib.add(
            run, values.add, calibrates=values.calibrates, note=note,
            image_column=values.image_column, label_column=values.label_column,
        )  # fmt: skip
    elif given == ["remove"]:
        changed = gallery_lib.remove(run, _names(run, values.remove), note=note)
    elif given == ["relabel"]:
        changed = gallery_lib.relabel(run, _labels(Path(values.relabel).expanduser()), note=note)
    else:
        changed = gallery_lib.restore(run, values.restore, note=note)
    _tell(changed)


def _names(run: str, given: str) -> list[str]:
    """The names that --remove gives: one, several between commas, or a line each of @FILE."""
    if given.startswith("@"):
        path = Path(given[1:]).expanduser()
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read as text in UTF-8 ({error})") from error
        names = [line.strip() for line in lines if line.strip()]
        if not names:
            raise UserError(f"{path}: holds no names")
        return names
    known = set(state.cases_of(state.read(model_lib.find(run))).names.tolist())
    if given in known:  # it has a comma itself
        return [given]
    return [name.strip() for name in given.split(",") if name.strip()]


def _labels(path: Path) -> dict[str, str]:
    """{name: label} of a csv with these columns."""
    table = read_table(path, ("name", "label"))
    check_filled(path, table, ("name", "label"))
    names, labels = table.columns["name"], table.columns["label"]
    if (name := first_repeated(names)) is not None:
        raise UserError(f"{path}: {name} is there twice; leave one row of it")
    return dict(zip(names, labels, strict=True))


def _tell(changed: Changed) -> None:
    """What became of it."""
    for name, reason in changed.errors.items():
        say(f"{name}: {reason}; left out")
    for name, of in changed.copies:
        what = "is there already" if of == name else f"is {of} over again"
        say(f"{name}: {what}; left out")
    if changed.line is None:
        say("nothing to do: the journal has no new line")
        return
    model = changed.model
    say(describe(changed.line))
    _classes(model)
    if model.calibrated is None:
        say(why_none(model.about))
    else:
        for line in few_lines(model.classes, model.calibrated, level=0.9):
            say(line)


def _classes(model: Model) -> None:
    counts = np.bincount(model.gallery.labels, minlength=len(model.classes)).tolist()
    own = ", ".join(f"{name} {n:,}" for name, n in zip(model.classes, counts, strict=True))
    n = 0 if model.calibration is None else len(model.calibration.labels)
    say(f"{len(model.gallery.labels):,} images vote: {own}; {n:,} calibrate")
    for line in doubtful_labels(model.gallery.labels, model.classes):
        say(line)


def describe(line: Line) -> str:
    """A line of the journal in words."""
    n = len(line.names)
    if line.did == changes.RESTORE:
        what = f"back to line {line.to}"
    elif line.did == changes.RELABEL:
        pairs = Counter(zip(line.were, line.labels, strict=True))
        what = f"{n:,} relabelled: " + ", ".join(f"{a} to {b} {m}" for (a, b), m in pairs.items())
    else:
        joins = line.did == changes.ADD
        words = "removed" if not joins else "added" if line.votes else "added to calibrate"
        classes = Counter(line.labels if joins else line.were)
        what = f"{n:,} {words}: " + ", ".join(f"{name} {m}" for name, m in classes.items())
    named = f" ({_few(line.names)})" if n else ""
    note = f"; {line.note}" if line.note else ""
    return f"line {line.number}, {line.when}: {what}{named}{note} [{line.content[:12]}]"


def _few(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def show(run: str, at: int | None = None) -> None:
    """Tells the lines of the journal, the first `at` of them or all, and what stands then.

    Raises:
        UserError: there is no run, or no such line.
    """
    lines = gallery_lib.history(run)
    model = state.read(model_lib.find(run), at)
    say("line 0: as it was trained")
    for line in lines[:at]:
        say(describe(line))
    _classes(model)
    cases = state.cases_of(model)
    for name, label, votes in zip(cases.names, cases.labels, cases.votes, strict=True):
        say(f"{name}\t{label}" + ("" if votes else "\tcalibrates"))


def parse(argv: list[str]) -> list[str]:
    """Defines the flags and parses them."""
    flags.DEFINE_string("run", None, "A run's workdir, or its model folder wherever it lies.")
    flags.DEFINE_string("add", None, "Labelled images that join: folders of classes, a csv, .npz.")
    flags.DEFINE_boolean("calibrates", False, "--add: they do not vote, p-values are made by them.")
    flags.DEFINE_string("remove", None, "Names of images that leave, between commas, or @FILE.")
    flags.DEFINE_string("relabel", None, "A csv of images' names and new labels (name, label).")
    flags.DEFINE_integer("restore", None, "The gallery is again as after that line; 0: as trained.")
    flags.DEFINE_boolean("list", False, "The journal, and the images with their labels.")
    flags.DEFINE_integer("at", None, "--list: as it was after that line.")
    flags.DEFINE_string("note", "", "Why, for the journal.")
    flags.DEFINE_string("image_column", "image", "--add, a csv: the column of the images' files.")
    flags.DEFINE_string("label_column", "label", "--add, a csv: the column of the labels.")
    return parse_flags(argv)


def cli() -> None:
    """Entry point."""
    run_command(main, parse, like="--list")


if __name__ == "__main__":
    cli()
