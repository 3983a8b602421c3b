"""The command: python -m deepknn_jax.predict --run=RUN --images=PATH --out=OUT."""

import difflib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from tqdm import tqdm

from deepknn_jax.answers import by_group, figures, heat, page, table
from deepknn_jax.answers.card import few_lines, why_none
from deepknn_jax.answers.intake import Block, Questions, one_block, questions
from deepknn_jax.answers.judge import Predictions, check_options, judge
from deepknn_jax.answers.model import Model
from deepknn_jax.answers.run import NOT_FINITE, Run, answered, open_run
from deepknn_jax.answers.thumbnails import LARGE
from deepknn_jax.errors import UserError, renaming
from deepknn_jax.evaluation.metrics import format_table
from deepknn_jax.files import replacing, sound, write_text
from deepknn_jax.logs import say
from deepknn_jax.shell import make_missing_model, parse_flags, run_command

_OPTIONS = ("images", "at", "k", "level", "abstain_error", "image_column", "label_column",
            "group_column")  # fmt: skip
_HEAT = 160  # side of a map in the report, in pixels


class Options(NamedTuple):
    """How to answer: as `Run.predict`; `shown`: images in the report, at most, with `heat` maps."""

    k: int
    level: float
    abstain_error: float
    shown: int
    by_group: bool = False
    heat: bool = False


class Summary(NamedTuple):
    """What is kept of all blocks for the report and the figures."""

    cases: list[page.Case]
    errors: dict[str, str]
    answers: list[figures.Answer]
    abstained: int
    voices: list[by_group.Voice]


@renaming({name: f"--{name}" for name in _OPTIONS})
def main() -> None:
    """Answers the images, and writes predictions.csv, report.html and, with labels, results.json.

    Raises:
        UserError: a flag is missing or wrong, the run or the images are not there, or none of them
            can be read.
    """
    values = flags.FLAGS
    for name, what in (("run", "a run's workdir or its model folder"), ("images", "what to answer"),
                       ("out", "the folder of the results")):  # fmt: skip
        if not values[name].value:
            raise UserError(f"--{name} is not given: {what}")
    make_missing_model(values.run)
    run = open_run(values.run, values.at)
    k = run.model.about["k_p"] if values.k is None else values.k
    check_options(run.model, k, values.level, values.abstain_error)
    options = Options(k, values.level, values.abstain_error, values.report_images,
                      values.by_group, values.heat)  # fmt: skip
    asked = questions(
        values.images, run.form, run.class_names, image_column=values.image_column,
        label_column=values.label_column, group_column=values.group_column,
    )  # fmt: skip
    out = Path(values.out).expanduser()
    if values.show:
        show(run, asked, out, options, name=values.show)
    else:
        predict(run, asked, out, options, title=Path(values.images).name)


def predict(run: Run, asked: Questions, out: Path, options: Options, *, title: str) -> None:
    """Answers what is `asked` by the run, a block at a time, and writes it to the folder `out`.

    Raises:
        UserError: none of the images can be read; `out` is a file; groups are wanted, and none is
            known.
    """
    if options.by_group and asked.groups is None:
        raise UserError("--by_group: no group of these images is known: give --images a csv with a "
                        "column of patients or lesions, which --group_column names")  # fmt: skip
    _make(out)
    _tell(run, asked, options)
    labels = _labels(asked, run.class_names)
    path = out / "predictions.csv"
    kept = Summary([], {}, [], 0, [])
    split = heat.splitter(run.model) if options.heat else None
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = table.writer(file)
        rows.writerow(header := table.header(run.class_names, options.k))
        for block, found in _answered(run, asked, options):
            known = len(kept.cases)
            kept = _kept(kept, block, found, asked, labels, options)
            if split and found:
                own = kept.cases[known:]
                kept.cases[known:] = _heated(own, split, run.model, block.inputs[: len(own)])
            rows.writerows(_in_order(block, found, run, asked, len(header)))
        if len(kept.errors) == len(asked.names):
            name, reason = next(iter(kept.errors.items()))
            raise UserError(f"{name}: {reason}; none of {len(asked.names)} images could be read")
    _write_groups(out / "predictions_by_group.csv", kept.voices, run.class_names, options)
    results = None
    if kept.answers:
        results = figures.results(kept.answers, run.model, k=options.k, level=options.level)
        write_text(out / "results.json", json.dumps(results, indent=2, allow_nan=False) + "\n")
    else:  # of an earlier answer
        (out / "results.json").unlink(missing_ok=True)
    count = len(asked.names) - len(kept.errors)
    page.write(
        out / "report.html", run.model, kept.cases, asked=sound(f"Answers for {title}"),
        k=options.k, level=options.level, left_out=count - len(kept.cases), errors=kept.errors,
        results=results,
    )  # fmt: skip
    if results:
        rows = [("answers", results["test"]), ("by group", results.get("by_group", {}))]
        say(format_table(rows))
    say(f"{count:,} answered, {kept.abstained:,} of these abstain, {len(kept.errors):,} could "
        f"not be read; written to {out}")  # fmt: skip


def _make(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; give --out a folder")
    out.mkdir(parents=True, exist_ok=True)


def _write_groups(
    path: Path, voices: Sequence[by_group.Voice], classes: Sequence[str], options: Options
) -> None:
    """predictions_by_group.csv, where it is wanted; one of an earlier answer is removed."""
    path.unlink(missing_ok=True)
    if options.by_group and voices:
        with (
            replacing(path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            rows = table.writer(file)
            rows.writerow(by_group.header(classes))
            rows.writerows(by_group.rows_of(voices, classes))


def show(run: Run, asked: Questions, out: Path, options: Options, *, name: str) -> None:
    """Answers the one image of that name, or file name, in words and in OUT/show.html.

    Raises:
        UserError: no image, or several, are called so; it cannot be read; `out` is a file.
    """
    rows = [i for i, each in enumerate(asked.names) if each == name] or [
        i for i, each in enumerate(asked.names) if Path(each).name == name
    ]
    if len(rows) != 1:
        near = difflib.get_close_matches(name, asked.names, cutoff=0.4)
        raise UserError(
            f"--show={name}: {f'{len(rows)} images are' if rows else 'no image is'} called so"
            + (f"; near is {', '.join(near)}" if near else "")
        )
    (row,) = rows
    block = one_block(asked, row, run.form)
    if block.errors:
        raise UserError(f"{asked.names[row]}: cannot be read ({block.errors[row]})")
    embeddings = run.embed_inputs(block.inputs)
    if not np.isfinite(embeddings).all():
        raise UserError(f"{asked.names[row]}: {NOT_FINITE}")
    _make(out)
    found = judge(embeddings, (asked.names[row],), run.model, k=options.k, level=options.level,
                  abstain_error=options.abstain_error)  # fmt: skip
    split = heat.splitter(run.model)
    case = page.Case(found, block.thumbnails[0], asked.labels[row])
    if split:
        (webp,) = heat.pictures(split, run.model, block.inputs, found.indices[:, 0], side=LARGE)
        case = case._replace(heat=webp)
    page.write(out / "show.html", run.model, [case], asked=sound(f"Answer for {asked.names[row]}"),
               k=options.k, level=options.level, large=True)  # fmt: skip
    for line in page.lines_of(case, run.model):
        say(line)
    say(f"written to {out / 'show.html'}")


def _tell(run: Run, asked: Questions, options: Options) -> None:
    model = run.model
    say(f"{len(asked.names):,} images; {model.about['backbone']}, {len(model.gallery.labels):,} "
        f"training images, {len(model.classes)} classes, K_p {options.k}")  # fmt: skip
    if since := model.about.get("changes"):
        say(f"the gallery was changed since the training: lines of its journal: {since['lines']:,}")
    if model.calibrated is None:
        say(why_none(model.about))
    else:
        for line in few_lines(model.classes, model.calibrated, level=options.level):
            say(line)


def _labels(asked: Questions, classes: Sequence[str]) -> list[int | None]:
    """The labels as indices of the classes; what is none of these is told, and not counted."""
    number = {name: c for c, name in enumerate(classes)}
    unknown = sorted({word for word in asked.labels if word is not None and word not in number})
    if unknown:
        say(f"labels that are none of the run's classes are not counted: {', '.join(unknown[:5])}"
            + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""))  # fmt: skip
    known = [None if word is None else number.get(word) for word in asked.labels]
    if any(label is not None for label in known):
        count = sum(label is not None for label in known)
        say(f"labels are known of {count:,} of {len(known):,} images")
    return known


def _answered(
    run: Run, asked: Questions, options: Options
) -> Iterator[tuple[Block, Predictions | None]]:
    """Each block with the predictions for what could be read of it; None where nothing could."""
    progress = tqdm(total=len(asked.names), desc="answering", unit=" images", delay=2, disable=None)
    for block, found in answered(run, asked, k=options.k, level=options.level,
                                 abstain_error=options.abstain_error):  # fmt: skip
        yield block, found
        progress.update(len(block.rows) + len(block.errors))
    progress.close()


def _kept(
    so_far: Summary,
    block: Block,
    found: Predictions | None,
    asked: Questions,
    labels: Sequence[int | None],
    options: Options,
) -> Summary:
    """The summary with one more block."""
    errors = so_far.errors | {asked.names[row]: why for row, why in block.errors.items()}
    if found is None:
        return so_far._replace(errors=errors)
    room = options.shown - len(so_far.cases)
    truths = [asked.labels[row] for row in block.rows]
    cases = page.cases_of(found, block.thumbnails, truths)[: max(0, room)]
    groups = None if asked.groups is None else [asked.groups[row] for row in block.rows]
    answers = figures.answers(found, [labels[row] for row in block.rows], groups)
    abstained = so_far.abstained + sum(map(bool, found.abstain))
    voices = by_group.voices(found, groups, truths) if groups and options.by_group else []
    return Summary(
        so_far.cases + cases, errors, so_far.answers + answers, abstained, so_far.voices + voices
    )


def _heated(
    cases: Sequence[page.Case], split: heat.Split, model: Model, inputs: np.ndarray
) -> list[page.Case]:
    """The cases, which are of these `inputs`, with maps of where their distances come from."""
    if not cases:
        return []
    nearest = np.array([case.found.indices[0, 0] for case in cases])
    drawn = heat.pictures(split, model, inputs, nearest, side=_HEAT)
    return [case._replace(heat=webp) for case, webp in zip(cases, drawn, strict=True)]


def _in_order(
    block: Block, found: Predictions | None, run: Run, asked: Questions, width: int
) -> list[list[str]]:
    """The block's rows of predictions.csv in the order of the images."""
    rows: dict[int, Any] = {
        row: table.error_row(asked.names[row], reason, width)
        for row, reason in block.errors.items()
    }
    if found is not None:
        rows |= dict(zip(block.rows.tolist(), table.rows_of(found, run.model), strict=True))
    return [rows[row] for row in sorted(rows)]


def parse(argv: list[str]) -> list[str]:
    """Defines the flags and parses them."""
    flags.DEFINE_string("run", None, "A run's workdir, or its model folder wherever it lies.")
    flags.DEFINE_string("images", None, "An image file, a folder at any depth, a csv, or an .npz.")
    flags.DEFINE_string("out", None, "Folder of predictions.csv, report.html and results.json.")
    flags.DEFINE_integer("at", None, "With the gallery after so many lines of its journal; 0, as "
                         "it was trained; by default after all.")  # fmt: skip
    flags.DEFINE_integer("k", None, "Neighbours that vote; the run's own K_p by default.")
    flags.DEFINE_float("level", 0.9, "Of each class such a share has its class in the set.")
    flags.DEFINE_float("abstain_error", 0.1, "Wanted share of wrong answers among those given.")
    flags.DEFINE_string("image_column", "image", "csv: the column of the images' files.")
    flags.DEFINE_string("label_column", "label", "csv: the column of the labels, if there is one.")
    flags.DEFINE_string("group_column", "group", "csv: the column of patients or lesions, if any.")
    flags.DEFINE_bool("by_group", False, "Also one answer a group: predictions_by_group.csv.")
    flags.DEFINE_bool("heat", False, "In the report: where each distance comes from.")
    flags.DEFINE_string("show", "", "Name of one of the images: only it, in words and show.html.")
    flags.DEFINE_integer("report_images", page.MOST, "Images in report.html, the first ones.",
                         lower_bound=0)  # fmt: skip
    return parse_flags(argv)


def cli() -> None:
    """Entry point."""
    run_command(main, parse, like="--k=5")


if __name__ == "__main__":
    cli()
