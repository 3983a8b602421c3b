"""An earlier run's folder as weights to start from: its newest checkpoint, by its config."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from deepknn_jax.data.npy import read_npz
from deepknn_jax.engine.averaging import averaged
from deepknn_jax.errors import UserError
from deepknn_jax.files import parse_json
from deepknn_jax.models.weights.load import Pretrained, find_weights, read_weights, variable_shapes
from deepknn_jax.models.weights.published import Preprocessing
from deepknn_jax.trainer import checkpoint

TRAINED_ON = "trained_on.npz"  # digests of what a run, and the runs before it, trained on


def trained_on(folder: Path) -> np.ndarray | None:
    """Contents uint8 [n, 16] (data.copies) that trained the run; None of one that kept none.

    Raises:
        UserError: the file is damaged.
    """
    path = workdir_of(folder) / TRAINED_ON
    if not path.exists():
        return None
    try:
        found = read_npz(path)["contents"]
    except (OSError, ValueError, KeyError, MemoryError) as error:
        raise UserError(f"{path}: is damaged; remove it, or take another run") from error
    return found


def open_weights(name: str, path: str | Path, *, embedding_size: int | None = None) -> Pretrained:
    """Weights to start the backbone `name` from: a published file's, or those of an earlier run.

    Args:
        name: a name of models.BACKBONES.
        path: as `models.load_weights`; or the folder of a run of this project, of which the newest
            checkpoint is taken (the best variables, where it has a validation part), without its
            head.
        embedding_size: what a run's must be (0: the backbone's own); None: any.

    Raises:
        UserError: as `models.load_weights`; or the run is of another model.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return read_weights(name, find_weights(name, path))
    return Pretrained(_variables(name, folder, embedding_size), run_preprocessing(folder))


def run_preprocessing(folder: Path) -> Preprocessing:
    """The resizing and normalisation of a run's images.

    Raises:
        UserError: the folder is not a run's, or its config.json is damaged.
    """
    config = run_config(folder)
    mean, std = (tuple(config["augment"][key]) for key in ("mean", "std"))
    return Preprocessing(mean, std, config["data"]["resize_rule"] or "square")


def _variables(name: str, folder: Path, embedding_size: int | None) -> dict[str, Any]:
    """The backbone's variables in the newest checkpoint of a run."""
    workdir, own = workdir_of(folder), run_config(folder)["model"]
    found = f"{own['name']} with config.model.embedding_size={own['embedding_size']}"
    if own["name"] != name or embedding_size not in (None, own["embedding_size"]):
        size = "" if embedding_size is None else f" with {embedding_size}"
        raise UserError(f"{workdir}: its model is {found}, not {name}{size}")
    state, best, *_ = checkpoint.newest_arrays(workdir / "checkpoints")
    # Without a validation part there is no best.
    last = averaged(state["opt_state"], state["params"]), state["batch_stats"]
    params, batch_stats = best if best[0] else last
    variables = {"params": params["backbone"]}
    if batch_stats:
        variables["batch_stats"] = batch_stats["backbone"]
    # Shapes depend on the run's data; names do not.
    expected = variable_shapes(name, own["embedding_size"])
    if _names(variables) != _names(expected):
        raise UserError(f"{workdir}: its checkpoint is of another version of {found}")
    return variables


def _names(variables: Any) -> list[str]:
    return [
        jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(variables)
    ]


def run_config(folder: Path) -> dict[str, Any]:
    """The config of the run whose workdir, or folder of checkpoints, `folder` is.

    Raises:
        UserError: the folder is not a run's, or its config.json is damaged.
    """
    workdir = workdir_of(folder)
    path = workdir / "config.json"
    try:
        _, extra = checkpoint.newest_extra(workdir / "checkpoints") or (0, {})
        config = parse_json(extra.get("config") or path.read_text(encoding="utf-8"))
        _ = config["model"]["name"], config["model"]["embedding_size"]
        _ = config["augment"]["mean"], config["augment"]["std"], config["data"]["resize_rule"]
    except FileNotFoundError as error:
        raise UserError(f"{folder}: has no config.json, so it is no run's folder") from error
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path}: is damaged, or not of a run") from error
    return dict(config)


def workdir_of(folder: Path) -> Path:
    """The workdir of the run: `folder` itself, or what the folder of checkpoints lies in."""
    inside = folder.name == "checkpoints" and not (folder / "config.json").exists()
    return folder.absolute().parent if inside else folder
