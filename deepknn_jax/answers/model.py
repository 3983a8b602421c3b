"""A model folder: all that a trained run answers with, enough by itself wherever it lies.

- parameters.safetensors: the network's variables, their names as paths (params/backbone/...);
- source/, of a run on features that --mode=embed made: the network that these came from;
- model.json: what the network is, and how an image gets from its file to it (`Model.about`);
- gallery.npz: the training part's embeddings [G, D], labels [G], and where they are known and
  wanted names [G], groups [G], occurrence [G], thumbnails and thumbnail_ends
  (`thumbnails.Thumbnails`), and contents [G, 16] (data.copies), by which copies are found;
- calibration.npz, of a run with a validation part: scores and labels [n] (`doubt.Calibration`), the
  curve of errors (thresholds, coverage, error), and distances; embeddings [n, D], contents and
  names of its images, by which all that is done anew after a change of the gallery;
- changes/, where the gallery was changed since (`journal`): then model.json and README.md follow,
  and what the training left in model.json is kept in it as `trained`;
- README.md: the model card; checksums.json.

Version 1 had no contents, and no embeddings of what calibrates.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepknn_jax.answers import journal
from deepknn_jax.answers.source import KEYS, VERSION, Source, read_network, write_network
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
from deepknn_jax.logs import say

FOLDER = "model"  # in a workdir
_KEYS = (*KEYS, "classes", "counts", "k_p", "p")


class Gallery(NamedTuple):
    """The G examples that vote; or that calibrate.

    `embeddings` float32 [G, D], `labels` int32 [G], `names` (empty: left out), `groups` int [G],
    `thumbnails`; `contents` uint8 [G, 16] (data.copies); and `occurrence` int32 [G], among the K_p
    nearest of how many others each was when the run ended, None once the gallery was changed. Each
    is None where it is not known or was left out.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...] = ()
    groups: np.ndarray | None = None
    thumbnails: Thumbnails | None = None
    contents: np.ndarray | None = None
    occurrence: np.ndarray | None = None

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

    `source` is the network that made the features which this one takes, where that is known.
    `calibration` are the examples that it was calibrated on, None where the folder has not kept
    them.

    `variables`: {"params": ..., "batch_stats": ...} of numpy arrays, the second only where the
    network has some.
    """

    about: Mapping[str, Any]
    variables: Mapping[str, Any]
    gallery: Gallery
    calibrated: Calibrated | None = None
    source: Source | None = None
    calibration: Gallery | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the C classes."""
        return tuple(self.about["classes"])


def write(folder: Path, model: Model, card: str) -> None:
    """Replaces `folder` by the model's, with the model `card` as its README.md; whole or not.

    One whose gallery was changed since its training is kept beside: nobody else has its journal.
    """
    if journal.count(folder):
        n = 1
        while (kept := folder.with_name(f"{folder.name}.changed_{n}")).exists():
            n += 1
        folder.rename(kept)
        say(f"{folder}: its gallery was changed since its training; what it was is kept as {kept}, "
            "and its changes are not in the new one")  # fmt: skip
    with replacing_folder(folder) as temporary:
        write_network(temporary, model.about, model.variables, model.source)
        write_arrays(temporary / "gallery.npz", of_gallery(model.gallery))
        if model.calibrated is not None:
            write_arrays(temporary / "calibration.npz", _of_calibration(model))
        write_text(temporary / "README.md", card)
        write_checksums(temporary)


def of_gallery(gallery: Gallery) -> dict[str, np.ndarray]:
    """A gallery as arrays by their names in the folder."""
    arrays = {"embeddings": gallery.embeddings, "labels": gallery.labels}
    if gallery.names:
        arrays["names"] = np.asarray(gallery.names)
    if gallery.groups is not None:
        arrays["groups"] = gallery.groups
    if gallery.occurrence is not None:
        arrays["occurrence"] = gallery.occurrence
    if gallery.thumbnails is not None:
        arrays["thumbnails"] = gallery.thumbnails.data
        arrays["thumbnail_ends"] = gallery.thumbnails.ends
    if gallery.contents is not None:
        arrays["contents"] = gallery.contents
    return arrays


def _of_calibration(model: Model) -> dict[str, np.ndarray]:
    assert model.calibrated is not None
    cases = {} if model.calibration is None else of_gallery(model.calibration)
    return cases | of_calibrated(model.calibrated)


def of_calibrated(found: Calibrated) -> dict[str, np.ndarray]:
    """A calibration as arrays by their names in the folder."""
    return {"scores": found.scores.scores, "labels": found.scores.labels,
            "distances": found.distances, **found.curve._asdict()}  # fmt: skip


def lacks(path: str | Path) -> bool:
    """Whether a finished run without a model folder is at `path`."""
    given = Path(path).expanduser()
    has_model = any((folder / "model.json").is_file() for folder in (given, given / FOLDER))
    return not has_model and (given / "results.json").is_file()


def find(path: str | Path) -> Path:
    """The model folder that `path` means: itself, or the one in the workdir that it is.

    Raises:
        UserError: there is none.
    """
    given = Path(path).expanduser()
    for folder in (given, given / FOLDER):
        if (folder / "model.json").is_file():
            return folder
    if lacks(given):
        raise UserError(
            f"{given}: this run was finished before runs left a {FOLDER}/ folder: make it by "
            f"python -m deepknn_jax.predict --run={given}, or in Python by "
            "deepknn_jax.trainer.afterwards.make_model, where its data still lie there"
        )
    if (given / "config.json").is_file():
        raise UserError(f"{given}: this run is not finished: start its command again")
    raise UserError(f"{given}: is neither a run's workdir nor its {FOLDER}/ folder")


def read_trained(folder: Path) -> Model:
    """What `write` wrote, whatever became of its gallery since: `state.read` gives that.

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
    # A second look: at the first change model.json loses its checksum, then is written anew.
    if (reason := damage(folder)) and damage(folder):
        raise _damaged(folder, reason)
    try:
        about, variables, source = read_network(folder, _KEYS)
        about = about.get("trained", about)
        gallery = read_npz(folder / "gallery.npz")
        calibrated = calibration = None
        if (folder / "calibration.npz").exists():
            arrays = read_npz(folder / "calibration.npz")
            calibrated = calibrated_of(arrays, len(about["classes"]))
            calibration = gallery_of(arrays) if "embeddings" in arrays else None
        return Model(about, variables, gallery_of(gallery), calibrated, source, calibration)
    except (OSError, ValueError, EOFError, LookupError, TypeError, MemoryError) as error:
        raise _damaged(folder, str(error)) from error


def _damaged(folder: Path, reason: str) -> UserError:
    return UserError(f"{folder}: is damaged ({reason}): copy it anew from where it was made")


def gallery_of(arrays: Mapping[str, np.ndarray]) -> Gallery:
    """What `of_gallery` gave."""
    thumbnails = None
    if "thumbnails" in arrays:
        thumbnails = Thumbnails(arrays["thumbnails"], arrays["thumbnail_ends"])
    names = tuple(str(name) for name in arrays.get("names", ()))
    return Gallery(arrays["embeddings"], arrays["labels"], names, arrays.get("groups"), thumbnails,
                   arrays.get("contents"), arrays.get("occurrence"))  # fmt: skip


def calibrated_of(arrays: Mapping[str, np.ndarray], classes: int) -> Calibrated:
    """What `of_calibrated` gave, of so many classes."""
    return Calibrated(
        Calibration(arrays["scores"], arrays["labels"], classes),
        Curve(*(arrays[name] for name in Curve._fields)),
        arrays["distances"],
    )
