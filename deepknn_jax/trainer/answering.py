"""What a finished run leaves to be used: its model folder, and the report on its test part."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from deepknn_jax.answers import card, figures, page, thumbnails
from deepknn_jax.answers import model as model_lib
from deepknn_jax.answers.changes import contents_of
from deepknn_jax.answers.judge import calibrate, calibrate_left_out, judge
from deepknn_jax.answers.model import Gallery, Model
from deepknn_jax.data.copies import numbered
from deepknn_jax.data.dataset import TEST, TRAIN, VALIDATION, Dataset
from deepknn_jax.evaluation import report
from deepknn_jax.evaluation.evaluate import Embedded, Evidence
from deepknn_jax.knn.vote import VoteRule
from deepknn_jax.trainer import inherited, networks, provenance, voting
from deepknn_jax.trainer.assess import Variables
from deepknn_jax.trainer.methods import title_of
from deepknn_jax.trainer.setup import Embedder, Setup

_LEVEL, _ABSTAIN_ERROR = 0.9, 0.1


def write_model(
    config: ConfigDict,
    setup: Setup | Embedder,
    variables: Variables,
    parts: Mapping[str, Embedded],
    found: Mapping[str, Evidence],
    results: Mapping[str, Any],
    workdir: Path,
) -> Model:
    """Writes WORKDIR/model/ of the `variables` that are reported, and returns what is in it.

    `parts` are the embeddings of each part of the data set, `found` the votes on its validation
    part, if there is one, and on each training image by the others, and `results` what results.json
    holds.
    """
    dataset, wanted, vote = setup.dataset, config.model_folder, results["vote"]
    gallery = _gallery(dataset, parts[TRAIN], thumbs=wanted.thumbnails, names=wanted.names)
    gallery = gallery._replace(occurrence=_occurrence(parts[TRAIN], found[TRAIN]))
    calibrated = calibration = calibrated_by = None
    if (validated := found.get(VALIDATION)) is None:
        if provenance.is_frozen(config, dataset):
            calibrated_by = card.LEFT_OUT
            calibrated = calibrate_left_out(
                gallery, _bound_together(dataset)[parts[TRAIN].rows],
                k=int(vote["k_p"]), classes=dataset.class_names, p=config.loss.p,
                rule=voting.rule_told(vote),
            )  # fmt: skip
    else:
        calibrated_by = card.VALIDATION
        calibration = _gallery(dataset, parts[VALIDATION], thumbs=False, names=wanted.names)
        k, predicted = validated.reported
        calibrated = calibrate(
            parts[VALIDATION].embeddings, dataset.labels[parts[VALIDATION].rows], predicted,
            validated.distances[:, :k], gallery=gallery, classes=dataset.class_names,
            p=config.loss.p,
        )  # fmt: skip
    about = _about(config, setup, results, workdir) | {"calibration": calibrated_by}
    source = networks.source_of(config)
    backbone = networks.backbone_of(variables)
    model = Model(about, backbone, gallery, calibrated, source=source, calibration=calibration)
    named = bool(gallery.names) or gallery.thumbnails is not None
    text = card.card(about, calibrated, named=named, source=source and source.about)
    model_lib.write(workdir / model_lib.FOLDER, model, text)
    return model


def _bound_together(dataset: Dataset) -> np.ndarray:
    """What is left out with each example, int [N]: its group; where none is known, its copies."""
    if dataset.groups is not None:
        return dataset.groups
    if dataset.contents is not None:
        return numbered(dataset.contents)
    return np.arange(len(dataset.labels))


def _gallery(dataset: Dataset, part: Embedded, *, thumbs: bool, names: bool) -> Gallery:
    rows = part.rows
    return Gallery(
        part.embeddings,
        dataset.labels[rows],
        tuple(dataset.names[row] for row in rows) if names else (),
        None if dataset.groups is None else dataset.groups[rows],
        thumbnails.of_rows(dataset, rows) if thumbs else None,
        _contents(dataset, rows),
    )


def _contents(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """By what `gallery --add` finds copies of these rows, uint8 [n, 16]."""
    if dataset.contents is None or dataset.inputs.ndim == 2:
        return contents_of(dataset.inputs[rows])
    return dataset.contents[rows]


def _occurrence(part: Embedded, left_out: Evidence) -> np.ndarray:
    """int32 [G]: among the K_p nearest of how many other training images each one is."""
    near = left_out.rows[:, : left_out.reported[0]].ravel()
    places = np.searchsorted(part.rows, near[near >= 0])
    return np.bincount(places, minlength=len(part.rows)).astype(np.int32)


def _about(
    config: ConfigDict, setup: Setup | Embedder, results: Mapping[str, Any], workdir: Path
) -> dict[str, Any]:
    """What model.json holds (answers/model.py)."""
    dataset, vote = setup.dataset, results["vote"]
    k = int(vote["k_p"])
    counts = {
        part: np.bincount(
            dataset.labels[dataset.rows(part)], minlength=len(dataset.class_names)
        ).tolist()
        for part in (TRAIN, VALIDATION, TEST)
    }
    kept = inherited.read(workdir) or inherited.Kept()
    p = float(config.loss.p)
    return {
        **networks.about_network(config, dataset, setup.devices, kept.scale),
        "method": title_of(config),
        "source": config.data.source,
        "p": p if math.isfinite(p) else "inf",
        "k_p": k,
        "vote": {key: float(vote[key]) for key in VoteRule._fields},
        "classes": list(dataset.class_names),
        "counts": counts,
        "groups": dataset.groups is not None,
        "test": results["test"][str(k)],
        "intervals": results.get("intervals", {}).get(str(k)),
        "reported": results["reported"],
    }


def write_report(model: Model, dataset: Dataset, test: Embedded, workdir: Path) -> None:
    """report.html beside neighbors.csv: the first page.MOST test images and their evidence."""
    rows, k = test.rows[: page.MOST], model.about["k_p"]
    names = tuple(dataset.names[row] for row in rows)
    found = judge(test.embeddings[: page.MOST], names, model, k=k, level=_LEVEL,
                  abstain_error=_ABSTAIN_ERROR)  # fmt: skip
    labels = dataset.labels[rows].tolist()
    groups = None if dataset.groups is None else [str(each) for each in dataset.groups[rows]]
    with_pictures = model.gallery.thumbnails is not None
    made = thumbnails.of_rows(dataset, rows) if with_pictures else None
    shown = [b"" if made is None else made.webp(i) for i in range(len(rows))]
    page.write(
        workdir / report.REPORT,
        model,
        page.cases_of(found, shown, [dataset.class_names[label] for label in labels]),
        asked=f"Test images of {workdir.name}",
        k=k,
        level=_LEVEL,
        left_out=len(test.rows) - len(rows),
        results=figures.results(figures.answers(found, labels, groups), model, k=k, level=_LEVEL),
    )
