"""The model card: README.md of a model folder."""

from collections.abc import Mapping, Sequence
from typing import Any

from deepknn_jax.answers.model import Calibrated
from deepknn_jax.evaluation.doubt import too_few
from deepknn_jax.knn.vote import MAJORITY, VoteRule

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
        f"Acc {_percent(about['test']['acc'])}, mean class recall {_percent(about['test']['mcr'])}"
        " on the test part, which neither trained nor chose anything.",
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


def weights_lines(rule: VoteRule) -> list[str]:
    """A line on what a vote weighs, where it is not 1."""
    if rule == MAJORITY:
        return []
    meant = ["n_c is the number of training images of its class"] if rule.class_size_power else []
    meant += ["d is its distance"] if rule.temperature else []
    return [f"The vote of a neighbour weighs {rule.words()}, where {' and '.join(meant)}."]


def table(about: Mapping[str, Any]) -> list[str]:
    """Lines of a markdown table: of each class its images and its recall on the test part."""
    lines = ["| class | training | validation | test | recall on test |", "|---|---|---|---|---|"]
    for row in class_rows(about):
        lines.append(
            "| " + " | ".join([str(row[0]).replace("|", "\\|"), *map(str, row[1:])]) + " |"
        )
    return lines


def class_rows(about: Mapping[str, Any]) -> list[tuple[str, int, int, int, str]]:
    """Of each class: name, numbers of training, validation and test images, recall in words."""
    counts, recalls = about["counts"], about["test"]["per_class_recall"]
    parts: Sequence[Sequence[int]] = [counts[part] for part in ("train", "validation", "test")]
    return [
        (name, train, validation, test, _percent(recalls[name]))
        for name, train, validation, test in zip(about["classes"], *parts, strict=True)
    ]


def _percent(share: float | None) -> str:
    return "none there" if share is None else f"{100 * share:.1f} %"


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
