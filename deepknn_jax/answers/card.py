"""The model card: README.md of a model folder."""

from collections.abc import Mapping, Sequence
from typing import Any

from deepknn_jax.answers.model import Calibrated
from deepknn_jax.evaluation.doubt import too_few
from deepknn_jax.evaluation.intervals import FEW

HEADS = ("class", "training", "validation", "test", "sensitivity", "specificity", "AUC")
WITHOUT = (
    "No image was kept apart to calibrate on, so there are no p-values, no sets and no abstaining: "
    "train with --config.data.validation=0.2 to have them."
)


def card(about: Mapping[str, Any], calibrated: Calibrated | None, *, named: bool) -> str:
    """The text of a model's card. `named`: the folder holds names or pictures of the images."""
    counts, inputs = about["counts"], about["inputs"]
    n = {part: sum(counts[part]) for part in counts}
    shape = " x ".join(map(str, inputs["shape"]))
    lines = [
        "# Model card",
        "",
        f"A kNN classifier on the embeddings of {about['backbone']}, trained by "
        f"{about['method']} (deepknn_jax {about['deepknn_jax']}). It takes {inputs['kind']} of "
        f"{shape} and finds the {about['k_p']} nearest of {n['train']:,} training images, which "
        "vote and are the evidence.",
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
        "## Doubt",
        "",
        *_doubt(about, calibrated),
        "",
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
    return "\n".join(lines)


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
        return [WITHOUT]
    few = few_lines(about["classes"], calibrated, level=0.9)
    n = len(calibrated.scores.scores)
    return [
        f"p-values and prediction sets are calibrated class by class on the {n:,} validation "
        "images, which never trained the network (its epoch was chosen by them).",
        *few,
    ]  # fmt: skip


def few_lines(classes: Sequence[str], calibrated: Calibrated, *, level: float) -> list[str]:
    """A line on the classes that are in every set, for want of calibration images; or none."""
    few_of = too_few(calibrated.scores, level=level)
    few = [classes[c] for c in few_of.nonzero()[0].tolist()]
    if not few:
        return []
    return [f"In every set at {100 * level:g} %, as too few validation images are there to rule "
            f"them out: {', '.join(few)}."]  # fmt: skip
