"""Features as a command: a whole data set through a backbone, into one .npz file."""

import time
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from deepknn_jax.data.dataset import LEFT_OUT
from deepknn_jax.errors import UserError
from deepknn_jax.evaluation import report
from deepknn_jax.evaluation.evaluate import embed_rows
from deepknn_jax.logs import say
from deepknn_jax.trainer.assess import variables_of
from deepknn_jax.trainer.loop import check_workdir, prepare
from deepknn_jax.trainer.setup import first_state

FILE = "features.npz"


def run(config: ConfigDict, workdir: Path) -> Path:
    """Writes features.npz: features [N, D], labels, names, splits, classes, groups; its path.

    The images go through the config's centre crop and preprocessing and the backbone in evaluation
    mode. The file is a data set of source npz (configs/features.py).

    Raises:
        UserError: for whatever the user can mend.
    """
    path = workdir / FILE
    config, weights = check_workdir(config, workdir)
    if path.exists():
        say(f"{path}: written before")
        return path
    if weights is None:
        say("config.model.weights is not set: these are features of a random network")
    config, setup = prepare(config, weights, workdir)
    state = first_state(setup)
    began = time.monotonic()
    part = embed_rows(
        setup.embed,
        variables_of(state),
        setup.store,
        setup.devices,
        np.flatnonzero(setup.dataset.splits != LEFT_OUT).astype(np.int32),
        config.evaluate.batch_size,
    )
    if not np.isfinite(part.embeddings).all():
        raise UserError(f"{config.model.weights or config.model.name}: features are not finite")
    report.write_embeddings(path, setup.dataset, [part], key="features")
    count, width = part.embeddings.shape
    speed = count / (time.monotonic() - began)
    say(f"{count} x {width} features written to {path} ({speed:,.0f} images/s)")
    return path
