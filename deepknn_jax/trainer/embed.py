"""Features as a command: a whole data set through a backbone, into one .npz file."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from deepknn_jax import config as config_lib
from deepknn_jax.data.dataset import LEFT_OUT
from deepknn_jax.engine import hosts
from deepknn_jax.errors import UserError
from deepknn_jax.evaluation import report
from deepknn_jax.evaluation.evaluate import embed_rows
from deepknn_jax.files import write_text
from deepknn_jax.logs import say
from deepknn_jax.trainer import inherited, networks, provenance
from deepknn_jax.trainer.assess import variables_of
from deepknn_jax.trainer.loading import check_copies, tell_and_load
from deepknn_jax.trainer.lock import holding
from deepknn_jax.trainer.loop import check_workdir, describe
from deepknn_jax.trainer.setup import Embedder, build_embedder, settle

FILE = "features.npz"


@holding
def run(config: ConfigDict, workdir: Path) -> Path:
    """Writes features.npz: features [N, D], labels, names, splits, classes, groups; its path.

    With config.augment.views they are [N, V, D], V views of each image (engine.views.views_of).
    And where the images lie, or thumbnails of arrays (`data.view`), and beside it, as source/, the
    network, by which a run on the features answers for images. The images go through the
    config's centre crop and preprocessing, or a run's with its weights (`trainer.inherited`), and
    the backbone in evaluation mode. The file is a data set of source npz (configs/features.py).

    Raises:
        UserError: for whatever the user can mend.
    """
    path = workdir / FILE
    config, weights = check_workdir(config, workdir)
    if hosts.by_main(path.exists):
        say(f"{path}: written before")
        return path
    if weights is None:
        say("config.model.weights is not set: these are features of a random network")
    config, embedder = prepare(config, weights, workdir)
    began = time.monotonic()
    part = embed_rows(
        embedder.embed,
        variables_of(embedder.state),
        embedder.store,
        embedder.devices,
        np.flatnonzero(embedder.dataset.splits != LEFT_OUT).astype(np.int32),
        config.evaluate.batch_size,
    )
    if not np.isfinite(part.embeddings).all():
        raise UserError(f"{config.model.weights or config.model.name}: features are not finite")
    if hosts.is_main():
        network = networks.write_source(config, embedder, workdir)
        report.write_features(path, embedder.dataset, part, network)
    shape = " x ".join(map(str, part.embeddings.shape))
    count = len(part.rows)
    speed = count / (time.monotonic() - began)
    say(f"{shape} features written to {path} ({speed:,.0f} images/s)")
    return path


def prepare(
    config: ConfigDict, weights: Mapping[str, Any] | None, workdir: Path
) -> tuple[ConfigDict, Embedder]:
    """Loads, builds what embeds, and writes config.json: as `loop.prepare` of a training."""
    kept = inherited.kept_for(config, workdir)
    dataset = tell_and_load(config, kept.set_range, to_train=False)
    describe(dataset)
    check_copies(config, dataset, workdir)
    dataset = provenance.marked(dataset, config.model.weights)
    config = settle(config, dataset)
    embedder = build_embedder(config, dataset, weights, inherited.scale_of(kept, dataset))
    if hosts.is_main():
        workdir.mkdir(parents=True, exist_ok=True)
        write_text(workdir / "config.json", config_lib.to_json(config))
    return config, embedder
