"""report.html: images beside their evidence, one static file for people to read and print."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepknn_jax.answers.card import WITHOUT, class_rows, few_lines, weights_lines
from deepknn_jax.answers.judge import Predictions, rule_of
from deepknn_jax.answers.model import Model
from deepknn_jax.answers.table import set_of
from deepknn_jax.answers.thumbnails import smaller
from deepknn_jax.files import write_text

MOST = 2000  # images in a report
_BESIDE = 10  # neighbours shown, at most
_BARS = 5  # classes whose shares are shown, the largest
_MANY, _SMALL, _QUALITY = 300, 96, 70  # with more images pictures are brought to so many pixels


class Case(NamedTuple):
    """One image of a report: `found` with the one row that is its, its `thumbnail`, `truth`."""

    found: Predictions
    thumbnail: bytes
    truth: str | None = None


class _Pictures:
    """Each distinct WebP file once, as a CSS class."""

    def __init__(self, *, many: bool) -> None:
        self.classes: dict[Any, str] = {}
        self.rules: list[tuple[str, str]] = []
        self.many = many

    def add(self, key: Any, webp: bytes) -> str:
        if not webp:
            return ""
        if key not in self.classes:
            small = smaller(webp, _SMALL, _QUALITY) if self.many else webp
            name = f"t{len(self.rules)}"
            self.classes[key] = name
            self.rules.append((name, base64.b64encode(small).decode("ascii")))
        return self.classes[key]


def cases_of(
    found: Predictions, thumbnails: Sequence[bytes], truths: Sequence[str | None]
) -> list[Case]:
    """The predictions of n images as n cases."""
    return [Case(_row(found, i), thumbnails[i], truths[i]) for i in range(len(found.names))]


def _row(found: Predictions, i: int) -> Predictions:
    own: list[Any] = [None if each is None else each[i : i + 1] for each in found]
    return Predictions(*own)


def write(
    path: Path,
    model: Model,
    cases: Sequence[Case],
    *,
    asked: str,
    k: int,
    level: float,
    left_out: int = 0,
    errors: Mapping[str, str] | None = None,
    results: Mapping[str, Any] | None = None,
) -> None:
    """Writes the report of the cases.

    Args:
        path: of the .html file.
        model: that answered.
        cases: at most MOST are shown well; the caller chooses.
        asked: what the images are, in a few words.
        k: neighbours that voted.
        level: of the sets.
        left_out: images that were answered and are not among the cases.
        errors: {name: why it could not be read}.
        results: of `figures`, where labels are known.
    """
    import jinja2  # only where a report is written

    pictures = _Pictures(many=len(cases) > _MANY)
    shown = [_shown(case, i, model, pictures) for i, case in enumerate(cases)]
    shown.sort(key=lambda each: (each["order"], each["credible"], each["name"]))
    by_class: dict[str, list[dict[str, Any]]] = {}
    for each in shown:
        by_class.setdefault(each["prediction"], []).append(each)
    doubtful = sorted(shown, key=lambda each: (not each["abstain"], each["credible"]))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("deepknn_jax.answers"), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    text = environment.get_template("report.html").render(
        about=model.about, classes=class_rows(model.about), by_class=by_class, doubtful=doubtful,
        cases=shown, pictures=pictures.rules, asked=asked, k=k, level=level, left_out=left_out,
        errors=errors or {}, results=results, calibrated=model.calibrated is not None,
        doubt_lines=_doubt_lines(model, level), gallery=len(model.gallery.labels),
        weights_lines=weights_lines(rule_of(model)),
        beside=min(k, _BESIDE), tiny=_is_tiny(model), curve=_curve(model),
    )  # fmt: skip
    write_text(path, text)


def _doubt_lines(model: Model, level: float) -> list[str]:
    if model.calibrated is None:
        return [WITHOUT]
    return few_lines(model.classes, model.calibrated, level=level)


def _curve(model: Model) -> dict[str, Any] | None:
    """The validation part's error by share answered, as an SVG polyline in 240 x 120."""
    if model.calibrated is None:
        return None
    curve = model.calibrated.curve
    most = max(0.02, float(curve.error.max()))
    every = max(1, len(curve.error) // 200)
    at = np.unique(np.append(np.arange(0, len(curve.error), every), [0, len(curve.error) - 1]))
    points = [f"{240 * curve.coverage[i]:.1f},{120 * (1 - curve.error[i] / most):.1f}" for i in at]
    return {"points": " ".join(points), "most": most, "whole": float(curve.error[0])}


def _is_tiny(model: Model) -> bool:
    """Whether the images have so few pixels that each should be seen as a square."""
    shape = model.about["inputs"]["shape"]
    return len(shape) == 3 and max(shape[:2]) <= 32


def _shown(case: Case, number: int, model: Model, pictures: _Pictures) -> dict[str, Any]:
    """What the template takes of a case."""
    found, classes = case.found, model.classes
    label = int(found.labels[0])
    prediction = classes[label] if label >= 0 else "no answer"
    credible = None if found.credibility is None else float(found.credibility[0])
    order = np.argsort(-found.shares[0], kind="stable")[:_BARS]
    return {
        "id": f"c{number}",
        "name": found.names[0],
        "order": label if label >= 0 else len(classes),
        "prediction": prediction,
        "truth": case.truth,
        "right": None if case.truth is None else case.truth == prediction,
        "credible": 0.0 if credible is None else credible,
        "credibility": credible,
        "abstain": found.abstain[0],
        "set": set_of(found, 0, classes),
        "shares": [(classes[c], round(100 * float(found.shares[0, c]))) for c in order
                   if found.shares[0, c] > 0],
        "picture": pictures.add(("query", number), case.thumbnail),
        "neighbors": _neighbors(found, model, pictures),
    }  # fmt: skip


def _neighbors(found: Predictions, model: Model, pictures: _Pictures) -> list[dict[str, Any]]:
    gallery, label = model.gallery, int(found.labels[0])
    shown = []
    for row, distance in zip(
        found.indices[0, :_BESIDE].tolist(), found.distances[0, :_BESIDE].tolist(), strict=True
    ):
        if row < 0:
            continue
        webp = b"" if gallery.thumbnails is None else gallery.thumbnails.webp(row)
        shown.append({
            "name": gallery.name(row),
            "label": model.classes[gallery.labels[row]],
            "agrees": int(gallery.labels[row]) == label,
            "distance": f"{distance:.3g}",
            "percentile": percentile(model, distance),
            "picture": pictures.add(row, webp),
        })  # fmt: skip
    return shown


def percentile(model: Model, distance: float) -> int | None:
    """Share in % of the distances behind right answers on validation that are below this one."""
    if model.calibrated is None or not len(model.calibrated.distances):
        return None
    known = model.calibrated.distances
    return round(100 * float(np.searchsorted(known, distance, side="left")) / len(known))
