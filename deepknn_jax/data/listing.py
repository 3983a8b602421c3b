"""What sources share: folders, tables, labels to indices, and the checks of a listing."""

import contextlib
import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from deepknn_jax.data.dataset import TEST, TRAIN, VALIDATION, Listing
from deepknn_jax.errors import UserError
from deepknn_jax.files import sound

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


def existing_folder(folder: str | Path, layout: str, needed: Sequence[str] = ()) -> Path:
    """`folder` as a path; `layout` tells in messages what it should hold.

    Raises:
        UserError: it is not given, is no folder, or one of the paths `needed` is not in it.
    """
    if not str(folder):
        raise UserError(f"no data folder given: set `folder` to one that holds {layout}")
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise UserError(f"{path}: no such folder (`folder`); it should hold {layout}")
    if missing := [name for name in needed if not (path / name).exists()]:
        raise UserError(f"{path}: holds no {missing[0]}; wanted: {layout}")
    return path


def read_csv(path: Path, columns: Sequence[str]) -> list[list[str]]:
    """The named columns of a csv file with a header, each a list of N stripped strings.

    Raises:
        UserError: no such file, not a csv in UTF-8, a column is missing (those that exist are
            named), or a cell of a wanted column is empty.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or ()
            for column in columns:
                if column not in header:
                    raise UserError(f"{path}: no column {column!r}; it has: {', '.join(header)}")
            table: list[list[str]] = [[] for _ in columns]
            for row in reader:
                for column, cells in zip(columns, table, strict=True):
                    cell = (row[column] or "").strip()
                    if not cell:
                        raise UserError(f"{path}, line {reader.line_num}: {column} is empty")
                    cells.append(cell)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{path}: cannot be read as csv: {reason}") from error
    return table


def read_fields(path: Path, least: int, separator: str | None = None) -> list[list[str]]:
    """The lines of a text file, each split at `separator` (None: blanks); empty ones left out.

    Raises:
        UserError: it cannot be read as UTF-8, or a line has fewer than `least` fields.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{path}: cannot be read: {reason}") from error
    rows = [(number, line.split(separator)) for number, line in enumerate(lines, 1) if line.strip()]
    for number, row in rows:
        if len(row) < least:
            raise UserError(f"{path}, line {number}: has {len(row)} fields, wanted are {least}")
    return [[field.strip() for field in row] for _, row in rows]


def check_present(table: Path, files: Iterable[Path]) -> None:
    """Raises UserError where one of the `files` that rows of `table` name does not exist."""
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise UserError(
            f"{table}: {len(missing)} rows have no image file, the first is {missing[0]}"
        )


def checked(listing: Listing, where: str | Path) -> Listing:
    """`listing` itself, if it is fit for use; `where` names its source in messages.

    Names of examples and classes become such as UTF-8 can hold: they stand in files and pictures.

    Raises:
        UserError: no examples; a name twice; an array of another length; a label outside the
            classes; a feature that is not finite.
    """
    listing = listing._replace(
        names=tuple(map(sound, listing.names)), class_names=tuple(map(sound, listing.class_names))
    )
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
