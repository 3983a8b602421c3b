"""A model folder for a run that was finished without one: nothing is trained, or evaluated anew."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib
from deepknn_jax.answers.model import FOLDER
from deepknn_jax.data.dataset import TRAIN, VALIDATION
from deepknn_jax.engine.parallel import present_devices
from deepknn_jax.errors import UserError
from deepknn_jax.evaluation import report
from deepknn_jax.files import read_json
from deepknn_jax.knn.vote import MAJORITY
from deepknn_jax.logs import say
from deepknn_jax.trainer import (
    answering,
    content,
    identity,
    inherited,
    provenance,
    run_folder,
    voting,
)
from deepknn_jax.trainer.assess import embed_split, knn_entries, variables_of
from deepknn_jax.trainer.finished import check_trained
from deepknn_jax.trainer.identity import Stored
from deepknn_jax.trainer.loading import tell_and_load
from deepknn_jax.trainer.lock import held
from deepknn_jax.trainer.setup import build_embedder, settle


def make_model(workdir: str | Path) -> None:
    """Writes WORKDIR/model/ of a finished run from its last checkpoint and its data.

    Raises:
        UserError: the run is not finished, its checkpoints or data are gone, or the data are others
            than it was trained on.
    """
    workdir = Path(workdir).expanduser()
    stored, results = identity.stored_run(workdir), report.read_results(workdir)
    if stored.config is None or results is None:
        raise UserError(f"{workdir}: holds no finished run")
    check_trained(workdir)
    say(f"{workdir}: was finished without a {FOLDER}/ folder; it is made now of the last checkpoint"
        " and the data, once; nothing is trained")  # fmt: skip
    with held(workdir):
        _make(workdir, stored, results)
    say(f"written to {workdir / FOLDER}")


def _make(workdir: Path, stored: Stored, results: Mapping[str, Any]) -> None:
    config = _config_of(workdir, stored, results)
    kept = inherited.read(workdir) or inherited.Kept()
    try:
        dataset = tell_and_load(config, kept.set_range, to_train=False)
    except UserError as error:
        raise UserError(
            f"{workdir}: its {FOLDER}/ folder wants the data that it was trained on, where they "
            f"were then: {error}"
        ) from error
    began_with = {"data": _without_weights(stored.extra.get("data"))}
    identity.check_data(content.of_data(dataset, None), Stored(None, began_with), workdir)
    start = workdir / "first_stage" if config.first_stage else config.model.weights
    dataset = provenance.marked(dataset, str(start))
    config = settle(config, dataset)
    weights = run_folder.open_weights(config.model.name, workdir).variables
    embedder = build_embedder(
        config, dataset, weights, inherited.scale_of(kept, dataset), each_view=False
    )
    if not (workdir / inherited.FILE).exists():
        inherited.write(workdir, dataset, embedder.scale)
    variables = variables_of(embedder.state)
    parts = {
        split: embed_split(config, embedder, variables, split)
        for split in (TRAIN, VALIDATION)
        if len(dataset.rows(split))
    }
    reported = {"step": stored.step, "validation": stored.extra.get("best_figure")}
    vote = {"k_p": max(config.evaluate.k_p), **MAJORITY._asdict()}
    about = {"reported": reported, "vote": vote, **results}  # of before these were told
    found = {
        split: voting.elected(
            dataset, knn_entries(config, embedder, parts[split], parts[TRAIN])[1], about["vote"]
        )
        for split in parts
    }
    answering.write_model(config, embedder, variables, parts, found, about, workdir)
    report.write_results(workdir, {**results, "model_folder": dict(config.model_folder)})


def _config_of(workdir: Path, stored: Stored, results: Mapping[str, Any]) -> ConfigDict:
    """The run's config, with what its last evaluation had, on the devices that are here."""
    config = config_lib.of_json(json.dumps(stored.config))
    latest = read_json(workdir / "config.json") or {}
    config.model_folder.update(latest.get("model_folder", {}))
    config.evaluate.k_p = tuple(sorted(int(vote) for vote in results["test"] if vote != "head"))
    if config.devices > len(present_devices()):
        config.devices = 0
    return config


def _without_weights(data: Mapping[str, str] | None) -> dict[str, str] | None:
    """Digests of the data alone: the weights that the run began with are in its checkpoints."""
    if data is None:
        return None
    return {key: digest for key, digest in data.items() if key != "weights"}
