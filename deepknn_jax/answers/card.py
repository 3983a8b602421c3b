"""The model card: README.md of a model folder."""

from collections.abc import Mapping, Sequence
from typing import Any

from deepknn_jax.answers.model import Calibrated
from deepknn_jax.evaluation.doubt import too_few
from deepknn_jax.evaluation.intervals import FEW
from deepknn_jax.knn.vote import MAJORITY, VoteRule

LEFT_OUT = "left out"  # model.json's `calibration` where each training image was judged by others
VALIDATION = "validation"  # and where a validation part was

HEADS = ("class", "training", "validation", "test", "sensitivity", "specificity", "AUC")
WITHOUT = (
    "No image was kept apart to calibrate on, so there are no p-values, no sets and no abstaining: "
    "train with --config.data.validation=0.2 to have them."
)
# Of a gallery that was changed.
LOST = (
    "No image is there to calibrate the changed gallery on (a folder of version 1 keeps none), so "
    "there are no p-values, no sets and no abstaining: add some by gallery --add=PATH "
    "--calibrates, or go back by --restore=0."
)


def why_none(about: Mapping[str, Any]) -> str:
    """Why a model has no calibration, and the remedy."""
    once = about.get("calibration") or sum(about.get("trained_validation", ()))
    return LOST if about.get("changes") and once else WITHOUT


def card(
    about: Mapping[str, Any],
    calibrated: Calibrated | None,
    *,
    named: bool,
    source: Mapping[str, Any] | None = None,
) -> str:
    """The text of a model's card.

    `named`: the folder holds names or pictures of the images. `source` is `about` the network that
    made its features, where that is known.
    """
    counts, inputs = about["counts"], about["inputs"]
    n = {part: sum(counts[part]) for part in counts}
    shape = " x ".join(map(str, inputs["shape"]))
    lines = [
        "# Model card",
        "",
        f"A kNN classifier on the embeddings of {about['backbone']}, {trained_by(about)} "
        f"(deepknn_jax {about['deepknn_jax']}). It takes {inputs['kind']} of {shape}"
        f"{_made_by(source)} and finds the {about['k_p']} nearest of {n['train']:,} training "
        "images, which vote and are the evidence.",
        *weights_lines(VoteRule(**about.get("vote", {}))),
        "",
        "## Data",
        "",
        f"Source: {about['source']}. {n['train']:,} training, {n['validation']:,} validation and "
        f"{n['test']:,} test images. "
        + ("No patient, lesion or other group is in two of these parts."
           if about["groups"] else
           "Nothing is known of groups: images of one patient may be in several of these parts, "
           "and the figures then look better than they are."),
        "",
        *table(about),
        "",
        f"Acc {whole(about, 'acc')}, mean class recall {whole(about, 'mcr')} on the test part, "
        f"which neither trained nor chose anything; K_p = {about['k_p']}. "
        + interval_line(about.get("intervals")),
        "",
        *_changes(about),
        "## Doubt",
        "",
        *_doubt(about, calibrated),
        "",
        *_use(named=named),
    ]  # fmt: skip
    return "\n".join(lines)


def _use(*, named: bool) -> list[str]:
    """What a model is not for, and how to ask it."""
    return [
        "## What it is not for",
        "",
        "Images of other devices, populations, preparations or diseases than those above: the vote "
        "always names a known class, and p-values and figures hold only for images that come from "
        "where these came from. It is no medical device. A person looks at the evidence and "
        "decides.",
        "",
        "## Use",
        "",
        "    python -m deepknn_jax.predict --run=THIS_FOLDER --images=PATH --out=OUT",
        "",
        "    run = deepknn_jax.open_run(THIS_FOLDER); run.predict(PATH)",
        "",
        "This folder holds embeddings of the training images"
        + (", and their names or thumbnails: treat it as the data themselves." if named
           else "; their names and thumbnails were left out."),
        "",
    ]  # fmt: skip


def weights_lines(rule: VoteRule) -> list[str]:
    """A line on what a vote weighs, where it is not 1."""
    if rule == MAJORITY:
        return []
    meant = ["n_c is the number of training images of its class"] if rule.class_size_power else []
    meant += ["d is its distance"] if rule.temperature else []
    return [f"The vote of a neighbour weighs {rule.words()}, where {' and '.join(meant)}."]


def _made_by(source: Mapping[str, Any] | None) -> str:
    if source is None:
        return ""
    shape = " x ".join(map(str, source["inputs"]["shape"]))
    return f", or {source['inputs']['kind']} of {shape}, of which {source['backbone']} makes them,"


def trained_by(about: Mapping[str, Any]) -> str:
    """How the network came to its weights, in words."""
    if not about["reported"]["step"]:
        return "which was not trained on these data"
    return f"trained by {about['method']}"


def is_of_features(about: Mapping[str, Any]) -> bool:
    """Whether the run was given feature vectors, made by a network that it did not train."""
    return bool(about["inputs"]["kind"] == "feature vectors")


def whole(about: Mapping[str, Any], key: str) -> str:
    """Acc or mcr of a model's test part in words, with its interval where there is one."""
    known = about.get("intervals") or {}
    return in_words(known.get(key) or {"value": about["test"][key]})


def table(about: Mapping[str, Any]) -> list[str]:
    """Lines of a markdown table: of each class its images and its figures on the test part."""
    lines = ["| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
    for row in class_rows(about):
        cells = [str(row[0]).replace("|", "\\|"), *map(str, row[1:])]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def class_rows(about: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The row of each class, under `HEADS`; a folder of an earlier version knows no intervals."""
    counts, recalls = about["counts"], about["test"]["per_class_recall"]
    parts: Sequence[Sequence[int]] = [counts[part] for part in ("train", "validation", "test")]
    known = about.get("intervals") or {"per_class": {}}
    rows = []
    for name, *numbers in zip(about["classes"], *parts, strict=True):
        of = known["per_class"].get(name) or {"sensitivity": {"value": recalls[name]}}
        rows.append((name, *numbers, *figures_in_words(of)))
    return rows


def figures_in_words(of: Mapping[str, Any]) -> tuple[str, str, str]:
    """Sensitivity, specificity and AUC of an entry of `intervals.class_figures`' per_class."""
    rough = " (rough)" if of.get("few") and (of["sensitivity"].get("low") is not None) else ""
    there = of["sensitivity"]["value"] is not None
    return (
        in_words(of["sensitivity"]) + rough if there else "none there",
        in_words(of.get("specificity", {})),
        in_words(of.get("auc", {}), percent=False),
    )


def in_words(figure: Mapping[str, Any], *, percent: bool = True) -> str:
    """A figure of `intervals.class_figures`, such as 75.0 % (62.1 to 84.0); "-" for none."""
    if figure.get("value") is None:
        return "-"
    scale, form, unit = (100, "{:.1f}", " %") if percent else (1, "{:.3f}", "")
    value = form.format(scale * figure["value"]) + unit
    if figure.get("low") is None:
        return value
    return (
        f"{value} ({form.format(scale * figure['low'])} to {form.format(scale * figure['high'])})"
    )


def interval_line(found: Mapping[str, Any] | None) -> str:
    """What the intervals of `intervals.class_figures` are, in words; empty for none."""
    if not found:
        return ""
    unit = "patients or other groups" if found["unit"] == "groups" else "images"
    few = f" These are fewer than {FEW}: all intervals are rough." if found["few"] else ""
    return (
        f"In brackets {100 * found['level']:g} % intervals, by {found['draws']:,} bootstrap draws "
        f"of {found['units']:,} {unit}; none where fewer than two stand behind a figure, and rough "
        f"where fewer than {FEW} do.{few} Sensitivity is the recall. AUC is of one class against "
        "the rest, by its share of the votes, equal shares ordered by nearness."
    )  # fmt: skip


def _doubt(about: Mapping[str, Any], calibrated: Calibrated | None) -> list[str]:
    if calibrated is None:
        return [why_none(about)]
    few = few_lines(about["classes"], calibrated, level=0.9)
    n = len(calibrated.scores.scores)
    if about.get("calibration") == LEFT_OUT:
        return [
            f"p-values and prediction sets are calibrated class by class on the {n:,} training "
            "images, each judged without its own group (without a known group: without its "
            "copies). That holds only where nothing was trained on them: the network here was not"
            + (", and what made its features is taken not to have been." if is_of_features(about)
               else "."),
            *few,
        ]  # fmt: skip
    return [
        f"p-values and prediction sets are calibrated class by class on the {n:,} validation "
        "images, which never trained the network (its epoch was chosen by them).",
        *few,
    ]  # fmt: skip


def _changes(about: Mapping[str, Any]) -> list[str]:
    """A section on what was done to the gallery after the training."""
    if not about.get("changes"):
        return []
    lines, last = about["changes"]["lines"], about["changes"]["last"]
    return [
        "## Changes",
        "",
        f"Since the training the gallery was changed ({lines:,} lines of its journal, the last "
        f"{len(last)} below). Numbers of training and validation images above are those of the "
        "gallery and of what calibrates now; the figures on the test part are the run's own as it "
        "was trained, and were not measured anew.",
        "",
        "| line | when | what | images | why |",
        "|---|---|---|---|---|",
        *(
            f"| {line['line']} | {line['when']} | {_did(line)} | {line['cases'] or ''} | "
            + line["note"].replace("|", "\\|").replace("\n", " ") + " |"
            for line in last
        ),
        "",
    ]  # fmt: skip


def _did(line: Mapping[str, Any]) -> str:
    return f"{line['did']} line {line['to']}" if line["did"] == "restore" else str(line["did"])


def few_lines(classes: Sequence[str], calibrated: Calibrated, *, level: float) -> list[str]:
    """Lines on classes that are in every set, for want of calibration images; or none."""
    counts = calibrated.scores.counts
    few_of = too_few(calibrated.scores, level=level)
    none = [classes[c] for c in (counts == 0).nonzero()[0].tolist()]
    few = [classes[c] for c in (few_of & (counts > 0)).nonzero()[0].tolist()]
    lines = []
    if few:
        lines.append(f"In every set at {100 * level:g} %, as too few calibration images are there "
                     f"to rule them out: {', '.join(few)}.")  # fmt: skip
    if none:
        lines.append(f"Without any image to calibrate on, so without a p-value and in every set: "
                     f"{', '.join(none)}. gallery --add=PATH --calibrates adds such.")  # fmt: skip
    return lines
