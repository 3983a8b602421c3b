"""What every source shares: labels to indices, and the checks that a listing must pass."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from deepknn_jax.data.dataset import TEST, TRAIN, VALIDATION, Listing
from deepknn_jax.errors import UserError

SPLIT_WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "test": TEST,
    "testing": TEST,
}


def index_labels(values: Sequence[str] | np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels int32 [N] and the class names they index, in ascending order.

    `values` [N] are strings or integers; strings that all are integers sort as numbers ("2" before
    "10").
    """
    distinct = sorted({str(value) for value in np.asarray(values).tolist()})
    with contextlib.suppress(ValueError):  # names, not numbers, stay in the alphabet's order
        distinct.sort(key=int)
    index = {value: i for i, value in enumerate(distinct)}
    labels = [index[str(value)] for value in np.asarray(values).tolist()]
    return np.asarray(labels, np.int32), tuple(distinct)


def index_groups(values: Sequence[str]) -> np.ndarray:
    """Group numbers int32 [N] of N group names."""
    return np.unique(np.asarray(values), return_inverse=True)[1].astype(np.int32)


def first_repeated(values: Iterable[str]) -> str | None:
    """The first value that occurs more than once, or None."""
    return next((value for value, n in Counter(values).items() if n > 1), None)


def existing_folder(folder: str | Path) -> Path:
    """`folder` as a path.

    Raises:
        UserError: it is not given, or is no folder.
    """
    if not str(folder):
        raise UserError("no data folder given: set config.data.dir")
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise UserError(f"{path}: no such folder (config.data.dir)")
    return path


def checked(listing: Listing, where: str | Path) -> Listing:
    """`listing` itself, if it is fit for use; `where` names its source in messages.

    Raises:
        UserError: no examples; a name twice; an array of another length; a label outside the
            classes; a feature that is not finite.
    """
    n = len(listing.names)
    if n == 0:
        raise UserError(f"{where}: holds no examples")
    if (name := first_repeated(listing.names)) is not None:
        raise UserError(f"{where}: {name} is listed more than once; list each example once")
    for key in ("labels", "inputs", "files", "splits", "groups"):
        value = getattr(listing, key)
        if value is not None and len(value) != n:
            raise UserError(f"{where}: {len(value)} {key} for {n} examples")
    low, high = int(listing.labels.min()), int(listing.labels.max())
    if low < 0 or high >= len(listing.class_names):
        bad = low if low < 0 else high
        raise UserError(f"{where}: label {bad} is outside the {len(listing.class_names)} classes")
    features = listing.inputs
    if features is not None and features.ndim == 2 and not np.isfinite(features).all():
        row = int(np.flatnonzero(~np.isfinite(features).all(1))[0])
        raise UserError(f"{where}: {listing.names[row]} has a feature that is NaN or infinite")
    return listing
