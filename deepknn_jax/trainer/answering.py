"""What a finished run leaves to be used: its model folder, and the report on its test part."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

import deepknn_jax
from deepknn_jax.answers import card, figures, page, thumbnails
from deepknn_jax.answers import model as model_lib
from deepknn_jax.answers.judge import calibrate, judge
from deepknn_jax.answers.model import Gallery, Model
from deepknn_jax.answers.network import Form
from deepknn_jax.data.dataset import TEST, TRAIN, VALIDATION, Dataset
from deepknn_jax.engine.inputs import KINDS
from deepknn_jax.evaluation import report
from deepknn_jax.evaluation.evaluate import Embedded, Evidence
from deepknn_jax.trainer import inherited
from deepknn_jax.trainer.assess import Variables
from deepknn_jax.trainer.methods import METHODS
from deepknn_jax.trainer.setup import Setup

_LEVEL, _ABSTAIN_ERROR = 0.9, 0.1


def write_model(
    config: ConfigDict,
    setup: Setup,
    variables: Variables,
    parts: Mapping[str, Embedded],
    validated: Evidence | None,
    results: Mapping[str, Any],
    workdir: Path,
) -> Model:
    """Writes WORKDIR/model/ of the `variables` that are reported, and returns what is in it.

    `parts` are the embeddings of each part of the data set, `validated` the votes on its validation
    part, if there is one, and `results` what results.json holds.
    """
    dataset, wanted = setup.dataset, config.model_folder
    gallery = _gallery(dataset, parts[TRAIN], thumbs=wanted.thumbnails, names=wanted.names)
    calibrated = None
    if validated is not None:
        k, predicted = validated.reported
        calibrated = calibrate(
            parts[VALIDATION].embeddings, dataset.labels[parts[VALIDATION].rows], predicted,
            validated.distances[:, :k], gallery=gallery, classes=dataset.class_names,
            p=config.loss.p,
        )  # fmt: skip
    about = _about(config, setup, results, workdir)
    model = Model(about, _backbone(variables), gallery, calibrated)
    named = bool(gallery.names) or gallery.thumbnails is not None
    model_lib.write(workdir / model_lib.FOLDER, model, card.card(about, calibrated, named=named))
    return model


def _gallery(dataset: Dataset, part: Embedded, *, thumbs: bool, names: bool) -> Gallery:
    rows = part.rows
    return Gallery(
        part.embeddings,
        dataset.labels[rows],
        tuple(dataset.names[row] for row in rows) if names else (),
        None if dataset.groups is None else dataset.groups[rows],
        thumbnails.of_rows(dataset, rows) if thumbs else None,
    )


def _backbone(variables: Variables) -> dict[str, Any]:
    """The network's variables without a head, which only training wants."""
    collections = zip(("params", "batch_stats"), variables, strict=True)
    return {
        name: {"backbone": jax.tree.map(np.asarray, dict(tree)["backbone"])}
        for name, tree in collections
        if "backbone" in tree
    }


def _about(
    config: ConfigDict, setup: Setup, results: Mapping[str, Any], workdir: Path
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
    batch = config.evaluate.batch_size
    batch += -batch % setup.devices.size
    p = float(config.loss.p)
    return {
        "deepknn_jax": deepknn_jax.__version__,
        "method": METHODS[config.loss.name].title,
        "source": config.data.source,
        "backbone": config.model.name,
        "embedding_size": config.model.embedding_size,
        "normalize": config.model.normalize,
        "dtype": config.model.dtype,
        "p": p if math.isfinite(p) else "inf",
        "k_p": k,
        "vote": {key: float(vote[key]) for key in ("class_size_power", "temperature")},
        "batch": batch // setup.devices.size,  # what one device embeds at a time
        "classes": list(dataset.class_names),
        "inputs": _form(config, dataset, workdir)._asdict(),
        "counts": counts,
        "groups": dataset.groups is not None,
        "test": results["test"][str(k)],
        "reported": results["reported"],
    }


def _form(config: ConfigDict, dataset: Dataset, workdir: Path) -> Form:
    shape = tuple(int(side) for side in dataset.inputs.shape[1:])
    kind = KINDS[dataset.inputs.ndim]
    kept = inherited.read(workdir) or inherited.Kept()
    if kind == "feature vectors":
        assert kept.scale is not None
        return Form(kind, shape, mean=tuple(kept.scale.mean.tolist()),
                    std=tuple(kept.scale.std.tolist()))  # fmt: skip
    square = kind == "images" and shape[0] == shape[1]
    return Form(
        kind,
        shape,
        size=shape[0] if square else 0,
        channels=shape[-1],
        resize_rule=config.data.resize_rule or "square",
        value_range=tuple(map(float, config.data.value_range)),
        set_range=dataset.set_range,
        frame=config.data.frame,
        crop=config.augment.crop,
        mean=tuple(config.augment.mean),
        std=tuple(config.augment.std),
        views=tuple(config.augment.views) if config.evaluate.views else (),
    )


def write_report(model: Model, dataset: Dataset, test: Embedded, workdir: Path) -> None:
    """report.html beside neighbors.csv: the first page.MOST test images and their evidence."""
    rows, k = test.rows[: page.MOST], model.about["k_p"]
    names = tuple(dataset.names[row] for row in rows)
    found = judge(test.embeddings[: page.MOST], names, model, k=k, level=_LEVEL,
                  abstain_error=_ABSTAIN_ERROR)  # fmt: skip
    labels = dataset.labels[rows].tolist()
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
        results=figures.results(figures.answers(found, labels), model, k=k, level=_LEVEL),
    )
