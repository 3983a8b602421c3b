"""report.html: images beside their evidence, one static file for people to read and print."""

import base64
import functools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from deepknn_jax.answers.card import (
    HEADS,
    class_rows,
    few_lines,
    figures_in_words,
    in_words,
    interval_line,
    trained_by,
    weights_lines,
    whole,
    why_none,
)
from deepknn_jax.answers.judge import Predictions, rule_of
from deepknn_jax.answers.model import Model
from deepknn_jax.answers.table import set_of
from deepknn_jax.answers.thumbnails import SIDE, smaller
from deepknn_jax.answers.voters import hubs, small_pictures, voters
from deepknn_jax.data.cache import threads
from deepknn_jax.evaluation import neighbors
from deepknn_jax.files import write_text

MOST = 2000  # images in a report
_BESIDE = 10  # neighbours shown, at most
_BARS = 5  # classes whose shares are shown, the largest
# Pictures are brought to the first of these sides, in pixels, at which all take less than _ROOM.
_SIDES, _ROOM, _QUALITY = (SIDE, 160, 96, 64), 5_500_000, 70
_TRIED = 60  # pictures by which the room that all take is judged


class Case(NamedTuple):
    """One image of a report: `found` with the one row that is its, its `thumbnail`, `truth`.

    `heat` is a WebP file of where the distance to the nearest neighbour comes from, or empty.
    """

    found: Predictions
    thumbnail: bytes
    truth: str | None = None
    heat: bytes = b""


class _Pictures:
    """Each distinct WebP file once, as a CSS class."""

    def __init__(self) -> None:
        self.classes: dict[Any, str] = {}
        self.files: list[bytes] = []

    def add(self, key: Any, webp: bytes) -> str:
        if not webp:
            return ""
        if key not in self.classes:
            self.classes[key] = f"t{len(self.files)}"
            self.files.append(webp)
        return self.classes[key]

    def rules(self) -> list[tuple[str, str]]:
        """(class, its WebP file in base 64), as large as there is room for."""
        if sum(map(len, self.files)) * 4 / 3 <= _ROOM:
            return self._at(max(_SIDES) * 4)
        tried = self.files[:: max(1, len(self.files) // _TRIED)]
        for side in _SIDES:
            size = sum(len(smaller(webp, side, _QUALITY)) for webp in tried) / len(tried)
            if size * len(self.files) * 4 / 3 <= _ROOM:
                break
        return self._at(side)

    def _at(self, side: int) -> list[tuple[str, str]]:
        with ThreadPoolExecutor(threads()) as pool:
            small = list(pool.map(lambda webp: smaller(webp, side, _QUALITY), self.files))
        return [(f"t{i}", base64.b64encode(webp).decode("ascii")) for i, webp in enumerate(small)]


class _Known(NamedTuple):
    """What all cases share: the model, its pictures, small ones to compare, and its hubs."""

    model: Model
    pictures: _Pictures
    small: dict[int, np.ndarray]
    hubs: np.ndarray


def cases_of(
    found: Predictions, thumbnails: Sequence[bytes], truths: Sequence[str | None]
) -> list[Case]:
    """The predictions of n images as n cases."""
    return [Case(_row(found, i), thumbnails[i], truths[i]) for i in range(len(found.names))]


def _row(found: Predictions, i: int) -> Predictions:
    own: list[Any] = [None if each is None else each[i : i + 1] for each in found]
    return Predictions(*own)


class Served(NamedTuple):
    """What the page of `serve` has beside a report: the form to ask by, and a `message`.

    `writable`: labels can be corrected; `files` {a case's id: its file in base 64}, which goes back
    with the correction, as nothing of it is kept.
    """

    message: str = ""
    writable: bool = False
    files: Mapping[str, str] = MappingProxyType({})


def write(path: Path, model: Model, cases: Sequence[Case], **options: Any) -> None:
    """Writes the report of the cases to the .html file `path`; `options` as of `text`."""
    write_text(path, text(model, cases, **options))


def text(
    model: Model,
    cases: Sequence[Case],
    *,
    asked: str,
    k: int,
    level: float,
    left_out: int = 0,
    errors: Mapping[str, str] | None = None,
    results: Mapping[str, Any] | None = None,
    large: bool = False,
    served: Served | None = None,
) -> str:
    """The report of the cases, HTML.

    Args:
        model: that answered.
        cases: at most MOST are shown well; the caller chooses.
        asked: what the images are, in a few words.
        k: neighbours that voted.
        level: of the sets.
        left_out: images that were answered and are not among the cases.
        errors: {name: why it could not be read}.
        results: of `figures`, where labels are known.
        large: few cases, with large pictures and without contents.
        served: by the page of `serve`.
    """
    pictures, near = _Pictures(), [case.found.indices[0] for case in cases]
    rows = np.unique(np.concatenate(near)) if near else np.zeros(0, int)
    small = small_pictures(model.gallery, rows[rows >= 0].tolist())
    known = _Known(model, pictures, small, hubs(model.gallery))
    shown = [_shown(case, i, known) for i, case in enumerate(cases)]
    shown.sort(key=lambda each: (each["order"], each["credible"], each["name"]))
    by_class: dict[str, list[dict[str, Any]]] = {}
    for each in shown:
        by_class.setdefault(each["prediction"], []).append(each)
    doubtful = sorted(shown, key=lambda each: (not each["abstain"], each["credible"]))
    html: str = _template().render(
        about=model.about, trained_by=trained_by(model.about),
        classes=class_rows(model.about), by_class=by_class, doubtful=doubtful,
        cases=shown, pictures=pictures.rules(), asked=asked, k=k, level=level, left_out=left_out,
        errors=errors or {}, results=results, calibrated=model.calibrated is not None,
        doubt_lines=_doubt_lines(model, level), gallery=len(model.gallery.labels),
        weights_lines=weights_lines(rule_of(model)),
        beside=min(k, _BESIDE), tiny=_is_tiny(model), curve=_curve(model),
        here=_here(model, results), interval_line=interval_line(model.about.get("intervals")),
        whole=functools.partial(whole, model.about), heads=HEADS, large=large,
        hubs=int(known.hubs.sum()), by_group=_by_group(results), served=served,
    )  # fmt: skip
    return html


@functools.cache
def _template() -> Any:  # jinja2.Template
    import jinja2  # only where a report is written

    return jinja2.Environment(
        loader=jinja2.PackageLoader("deepknn_jax.answers"), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    ).get_template("report.html")  # fmt: skip


def _doubt_lines(model: Model, level: float) -> list[str]:
    if model.calibrated is None:
        return [why_none(model.about)]
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


def _here(model: Model, results: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The figures of the images of the report themselves, in words."""
    if not results:
        return None
    (entry,), (found,) = results["test"].values(), results["intervals"].values()
    rows = [(name, of["n"], *figures_in_words(of)) for name, of in found["per_class"].items()]
    if found == model.about.get("intervals"):  # of a run's own test part they stand above
        rows = []
    return {"n": entry["n"], "acc": in_words(found["acc"]), "mcr": in_words(found["mcr"]),
            "rows": rows, "line": interval_line(found)}  # fmt: skip


def _by_group(results: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not results or "by_group" not in results:
        return None
    (entry,) = results["by_group"].values()
    found = entry["intervals"]
    return {"n": entry["n"], "mixed": entry["mixed"], "acc": in_words(found["acc"]),
            "mcr": in_words(found["mcr"])}  # fmt: skip


def _shown(case: Case, number: int, known: _Known) -> dict[str, Any]:
    """What the template takes of a case."""
    found, classes, pictures = case.found, known.model.classes, known.pictures
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
        "heat": pictures.add(("heat", number), case.heat),
        **_voters(found, known),
    }  # fmt: skip


def _voters(found: Predictions, known: _Known) -> dict[str, Any]:
    """The voters of a case, each a list of neighbours; how many there are, and agree."""
    gallery, label = known.model.gallery, int(found.labels[0])
    there = found.indices[0] >= 0
    rows, distances = found.indices[0][there], found.distances[0][there]
    number = voters(rows, gallery, known.small)
    agree = np.unique(number[gallery.labels[rows] == label])
    shown: dict[int, list[dict[str, Any]]] = {}
    for i in range(min(len(rows), _BESIDE)):
        beside = _neighbor(int(rows[i]), float(distances[i]), label, known)
        shown.setdefault(int(number[i]), []).append(beside)
    return {"voters": list(shown.values()), "independent": len(set(number.tolist())),
            "behind": len(agree), "votes": len(rows)}  # fmt: skip


def _neighbor(row: int, distance: float, label: int, known: _Known) -> dict[str, Any]:
    gallery = known.model.gallery
    webp = b"" if gallery.thumbnails is None else gallery.thumbnails.webp(row)
    near = ""
    if known.hubs[row] and gallery.occurrence is not None:
        near = f"{gallery.occurrence[row]:,} of {len(gallery.labels) - 1:,}"
    return {
        "name": gallery.name(row),
        "label": known.model.classes[gallery.labels[row]],
        "agrees": int(gallery.labels[row]) == label,
        "distance": f"{distance:.3g}",
        "percentile": percentile(known.model, distance),
        "picture": known.pictures.add(row, webp),
        "hub": near,
    }


def percentile(model: Model, distance: float) -> int | None:
    """Share in % of the distances behind right answers on validation that are below this one."""
    if model.calibrated is None or not len(model.calibrated.distances):
        return None
    return neighbors.percentile(model.calibrated.distances, distance)


def lines_of(case: Case, model: Model) -> list[str]:
    """A case in words, for a terminal."""
    rows = case.found.indices[0]
    small = small_pictures(model.gallery, rows[rows >= 0].tolist())
    each = _shown(case, 0, _Known(model, _Pictures(), small, hubs(model.gallery)))
    lines = [f"{each['name']}: {each['prediction']}"
             + ("" if each["truth"] is None else f", labelled {each['truth']}")]  # fmt: skip
    lines += [f"abstains: {each['abstain']}"] if each["abstain"] else []
    if each["credibility"] is not None:
        lines.append(
            f"credibility {each['credibility']:.2f}, set {', '.join(each['set']) or 'empty'}"
        )
    lines.append(f"{each['behind']} of {each['independent']} independent voters for the answer")
    for voter in each["voters"]:
        for i, near in enumerate(voter):
            far = near["distance"]
            far += "" if near["percentile"] is None else f", percentile {near['percentile']}"
            far += ", a hub" if near["hub"] else ""
            lines.append(f"  {'and' if i else '-'} {near['label']}, distance {far}: {near['name']}")
    return lines
