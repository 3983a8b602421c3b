"""A model folder: all that a trained run answers with, enough by itself wherever it lies.

- parameters.safetensors: the network's variables, their names as paths (params/backbone/...);
- model.json: what the network is, and how an image gets from its file to it (`Model.about`);
- gallery.npz: the training part's embeddings [G, D], labels [G], and where they are known and
  wanted names [G], groups [G], thumbnails and thumbnail_ends (`thumbnails.Thumbnails`);
- calibration.npz, of a run with a validation part: scores and labels [n] (`doubt.Calibration`), the
  curve of errors (thresholds, coverage, error), and distances;
- README.md: the model card; checksums.json.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax import tree_util
from safetensors.numpy import save

from deepknn_jax.answers.thumbnails import Thumbnails
from deepknn_jax.data.npy import read_npz
from deepknn_jax.errors import UserError
from deepknn_jax.evaluation.doubt import Calibration, Curve
from deepknn_jax.files import (
    damage,
    parse_json,
    replacing_folder,
    write_arrays,
    write_checksums,
    write_text,
)
from deepknn_jax.models.weights.torch_files import read_tensors

VERSION = 1  # of the folder's form; a reader refuses a larger one
FOLDER = "model"  # in a workdir
_KEYS = ("backbone", "batch", "classes", "counts", "dtype", "embedding_size", "inputs", "k_p",
         "normalize", "p")  # fmt: skip


class Gallery(NamedTuple):
    """The G training examples that vote.

    `embeddings` float32 [G, D], `labels` int32 [G], `names` (empty: left out), `groups` int [G] and
    `thumbnails`, each None where it is not known or was left out.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...] = ()
    groups: np.ndarray | None = None
    thumbnails: Thumbnails | None = None

    def name(self, row: int) -> str:
        """What to call an example: where names were left out, by its number."""
        return self.names[row] if self.names else f"training image {row}"


class Calibrated(NamedTuple):
    """What the validation part tells of new images.

    `scores` of its images for their own classes; the `curve` of the vote's errors by credibility;
    `distances` [m], ascending, from those that were answered rightly to the neighbours that voted.
    """

    scores: Calibration
    curve: Curve
    distances: np.ndarray


class Model(NamedTuple):
    """A model folder in memory. `about`: what model.json holds; `calibrated` None: no such part.

    `variables`: {"params": ..., "batch_stats": ...} of numpy arrays, the second only where the
    network has some.
    """

    about: Mapping[str, Any]
    variables: Mapping[str, Any]
    gallery: Gallery
    calibrated: Calibrated | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the C classes."""
        return tuple(self.about["classes"])


def write(folder: Path, model: Model, card: str) -> None:
    """Replaces `folder` by the model's, with the model `card` as its README.md; whole or not."""
    with replacing_folder(folder) as temporary:
        named = named_variables(model.variables)
        (temporary / "parameters.safetensors").write_bytes(save(named))
        about = {"version": VERSION, **model.about}
        write_text(temporary / "model.json", json.dumps(about, indent=1, allow_nan=False) + "\n")
        write_arrays(temporary / "gallery.npz", _of_gallery(model.gallery))
        if model.calibrated is not None:
            write_arrays(temporary / "calibration.npz", _of_calibrated(model.calibrated))
        write_text(temporary / "README.md", card)
        write_checksums(temporary)


def named_variables(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A network's variables by their paths, such as params/backbone/bias."""
    leaves = tree_util.tree_leaves_with_path(dict(variables))
    return {"/".join(key.key for key in path): np.ascontiguousarray(leaf) for path, leaf in leaves}


def _of_gallery(gallery: Gallery) -> dict[str, np.ndarray]:
    arrays = {"embeddings": gallery.embeddings, "labels": gallery.labels}
    if gallery.names:
        arrays["names"] = np.asarray(gallery.names)
    if gallery.groups is not None:
        arrays["groups"] = gallery.groups
    if gallery.thumbnails is not None:
        arrays["thumbnails"] = gallery.thumbnails.data
        arrays["thumbnail_ends"] = gallery.thumbnails.ends
    return arrays


def _of_calibrated(found: Calibrated) -> dict[str, np.ndarray]:
    return {"scores": found.scores.scores, "labels": found.scores.labels,
            "distances": found.distances, **found.curve._asdict()}  # fmt: skip


def find(path: str | Path) -> Path:
    """The model folder that `path` means: itself, or the one in the workdir that it is.

    Raises:
        UserError: there is none.
    """
    given = Path(path).expanduser()
    for folder in (given, given / FOLDER):
        if (folder / "model.json").is_file():
            return folder
    if (given / "results.json").is_file():
        raise UserError(
            f"{given}: this run was finished before runs left a {FOLDER}/ folder: move its "
            "results.json away and start its command again, which evaluates it anew and trains "
            "nothing"
        )
    if (given / "config.json").is_file():
        raise UserError(f"{given}: this run is not finished: start its command again")
    raise UserError(f"{given}: is neither a run's workdir nor its {FOLDER}/ folder")


def read(folder: Path) -> Model:
    """What `write` wrote.

    Raises:
        UserError: it is damaged, or of a later version.
    """
    try:
        about = parse_json((folder / "model.json").read_text(encoding="utf-8"))
        version = int(about["version"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _damaged(folder, f"model.json: {error}") from error
    if version > VERSION:
        raise UserError(f"{folder}: is a model folder of version {version}, this program reads "
                        f"{VERSION}: install a later deepknn_jax")  # fmt: skip
    if reason := damage(folder):
        raise _damaged(folder, reason)
    try:
        _ = [about[key] for key in _KEYS]
        gallery = read_npz(folder / "gallery.npz")
        calibrated = None
        if (folder / "calibration.npz").exists():
            calibrated = _calibrated(read_npz(folder / "calibration.npz"), len(about["classes"]))
        variables = tree_of(read_tensors(folder / "parameters.safetensors"))
        return Model(about, variables, _gallery(gallery), calibrated)
    except (OSError, ValueError, EOFError, LookupError, MemoryError) as error:
        raise _damaged(folder, str(error)) from error


def _damaged(folder: Path, reason: str) -> UserError:
    return UserError(f"{folder}: is damaged ({reason}): copy it anew from where it was made")


def _gallery(arrays: Mapping[str, np.ndarray]) -> Gallery:
    thumbnails = None
    if "thumbnails" in arrays:
        thumbnails = Thumbnails(arrays["thumbnails"], arrays["thumbnail_ends"])
    names = tuple(str(name) for name in arrays.get("names", ()))
    return Gallery(arrays["embeddings"], arrays["labels"], names, arrays.get("groups"), thumbnails)


def _calibrated(arrays: Mapping[str, np.ndarray], classes: int) -> Calibrated:
    return Calibrated(
        Calibration(arrays["scores"], arrays["labels"], classes),
        Curve(*(arrays[name] for name in Curve._fields)),
        arrays["distances"],
    )


def tree_of(named: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays by their paths as nested dicts."""
    tree: dict[str, Any] = {}
    for name, array in named.items():
        *parents, leaf = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array
    return tree
