"""What sources share: folders, tables, labels to indices, and the checks of a listing."""

import contextlib
import csv
import io
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from deepknn_jax.data.dataset import TEST, TRAIN, VALIDATION, Listing
from deepknn_jax.data.walk import images_in, suffix_of, walk
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

_SEPARATORS = (",", ";", "\t")
# What tables have in the place of a label that is not known.
_NO_LABELS = (
    "",
    "-",
    "--",
    ".",
    "?",
    "#n/a",
    "<na>",
    "missing",
    "n/a",
    "na",
    "nan",
    "nil",
    "none",
    "null",
)


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


class Table(NamedTuple):
    """Of a csv file: `columns` {name: N stripped strings}; `lines` [N], where each row begins."""

    columns: dict[str, list[str]]
    lines: list[int]


def read_table(
    path: Path, columns: Sequence[str], options: Mapping[str, str] = MappingProxyType({})
) -> Table:
    """The named columns of a csv file with a header; rows without any text are passed over.

    Fields are parted by commas, semicolons or tabs: whichever finds all columns in the header, else
    the most fields. `options` are what the user sets to name a column, for messages.

    Raises:
        UserError: no such file, not a csv in UTF-8, a column is missing (those that exist are
            named) or there twice, or a row has more or fewer fields than the header.
    """
    text = _csv_text(path)
    separator, header = _csv_header(text, columns)
    for column in columns:
        if header.count(column) != 1:
            raise _no_column(path, header, column, options.get(column, ""))
    rows, lines = [], []
    reader = _csv_reader(text, separator)
    try:
        next(reader, None)
        end = reader.line_num
        for row in reader:
            begin, end = end + 1, reader.line_num  # a quoted cell may go over several lines
            if not any(map(str.strip, row)):
                continue
            if len(row) != len(header):
                raise UserError(
                    f"{path}, line {begin}: has {len(row)} fields, but the header has"
                    f" {len(header)}; put a cell that holds {separator!r} in double quotes"
                )
            rows.append(row)
            lines.append(begin)
    except csv.Error as error:
        words = f"{path}: cannot be read as csv: line {reader.line_num}: {error}"
        raise UserError(words) from error
    places = {column: header.index(column) for column in columns}
    return Table({name: [row[i].strip() for row in rows] for name, i in places.items()}, lines)


def _no_column(path: Path, header: Sequence[str], column: str, option: str) -> UserError:
    """The error for a column that is not there once; `option` is what names it, if any."""
    how = "more than one" if column in header else "no"
    if not header:
        return UserError(f"{path}: is empty; wanted is a csv with a header")
    words = f"{path}: {how} column {column!r}; it has: {', '.join(header)}"
    if len(header) == 1:
        words += " (fields are parted by commas, semicolons or tabs)"
    if column in header:
        return UserError(f"{words}; rename all but one")
    return UserError(words + (f"; name one with `{option}`" if option else ""))


def read_csv(
    path: Path, columns: Sequence[str], options: Mapping[str, str] = MappingProxyType({})
) -> list[list[str]]:
    """The named columns of a csv file with a header, each a list of N stripped strings.

    Raises:
        UserError: as `read_table`; or a cell of a wanted column is empty.
    """
    table = read_table(path, columns, options)
    check_filled(path, table, columns)
    return [table.columns[column] for column in columns]


def check_filled(path: Path, table: Table, columns: Sequence[str]) -> None:
    """Raises UserError, naming the first line, where a cell of these columns is empty."""
    for i, line in enumerate(table.lines):
        for column in columns:
            if not table.columns[column][i]:
                raise UserError(f"{path}, line {line}: {column} is empty; fill it in")


def read_header(path: Path, columns: Sequence[str] = ()) -> list[str]:
    """The names of all columns of a csv file, which has the `columns` among them.

    Raises:
        UserError: no such file, or not a csv in UTF-8.
    """
    return _csv_header(_csv_text(path), columns)[1]


def _csv_text(path: Path) -> str:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return file.read()
    except OSError as error:
        raise UserError(f"{path}: cannot be read as csv: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as csv: {error}; save it in UTF-8") from error


def _csv_reader(text: str, separator: str) -> Any:  # csv.reader, whose class has no public name
    # Strict: else a quote that is never closed swallows all rows after it.
    lines = io.StringIO(text, newline="")
    return csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)


def _csv_header(text: str, columns: Sequence[str]) -> tuple[str, list[str]]:
    """The separator of the fields, and the header."""
    headers: dict[str, list[str]] = {}
    for separator in _SEPARATORS:
        headers[separator] = []
        with contextlib.suppress(csv.Error):  # of another separator, with quotes
            row: list[str] = next(_csv_reader(text, separator), [])
            headers[separator] = [name.strip() for name in row]
    return max(headers.items(), key=lambda each: (set(columns) <= set(each[1]), len(each[1])))


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
            raise UserError(f"{path}, line {number}: has {len(row)} fields, but {least} are wanted;"
                            " mend the line")  # fmt: skip
    return [[field.strip() for field in row] for _, row in rows]


def with_files(listing: Listing, root: Path, table: str, on_error: str = "") -> Listing:
    """The listing of those rows of `table`, which lies in `root`, whose image file is there.

    Rows without one are left out with `on_error` = skip, and told; images beside those that the
    rows name, but without a row, are counted.

    Raises:
        UserError: a row has no file, and `on_error` is another; or none has one.
    """
    files = listing.files
    assert files is not None
    left_out = Counter(listing.account.left_out)
    named = {os.path.normpath(file) for file in (*map(str, files), *listing.account.skipped)}
    for folder in sorted({file.parent for file in files if file.parent.is_dir()}):
        for file in images_in(folder):
            if os.path.normpath(file) not in named:
                left_out[f"{suffix_of(file.name)} without a row in {table}"] += 1
    listing = listing._replace(account=listing.account._replace(left_out=left_out))
    kept = [i for i, file in enumerate(files) if file.is_file()]
    absent = [file for file in files if not file.is_file()]
    if not absent:
        return listing
    if on_error != "skip" or not kept:
        rows = "1 row has" if len(absent) == 1 else f"{len(absent):,} rows have"
        or_skip = "; set `on_error`=skip to leave such rows out" if kept and on_error else ""
        raise UserError(f"{root / table}: {rows} no image file, the first is {absent[0]}"
                        f"{_may_be_meant(root, absent[0])}{or_skip}")  # fmt: skip
    line = f"{root / table}: left out: {len(absent):,} of {len(files):,} rows, which have no image"
    account = listing.account
    account = account._replace(
        lines=(*account.lines, f"{line} file"), skipped=(*account.skipped, *map(str, absent))
    )
    splits, groups = (None if of is None else of[kept] for of in (listing.splits, listing.groups))
    return listing._replace(
        names=tuple(listing.names[i] for i in kept),
        labels=listing.labels[kept],
        files=tuple(files[i] for i in kept),
        splits=splits,
        groups=groups,
        account=account,
    )


def _may_be_meant(root: Path, missing: Path) -> str:
    """Words on an image in or below `root` that is called like the one that is not there."""
    name = PureWindowsPath(missing.name)  # a name from Windows holds its folders
    files = walk(root).files
    alike = [file for file in files if file.name.lower() == name.name.lower()]
    alike += [file for file in files if file.stem.lower() == name.stem.lower()]
    alike.sort(key=lambda file: file.parent != missing.parent)  # which keeps their order
    return f" (is {alike[0]} meant?)" if alike else ""


def doubtful_labels(labels_N: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """Lines about labels that look like one class (nv, NV; 0, 0.0) or like none (nan)."""
    sizes = np.bincount(labels_N, minlength=len(class_names)).tolist()
    alike: dict[str, list[str]] = {}
    for name, size in zip(class_names, sizes, strict=True):
        alike.setdefault(_plain(name), []).append(f"{name!r} ({size:,})")
    twins = [" and ".join(names) for names in alike.values() if len(names) > 1]
    none = [name for key in _NO_LABELS for name in alike.get(key, ())]
    lines = []
    if twins:
        more = f"; and {len(twins) - 5} more" if len(twins) > 5 else ""
        lines.append(f"labels that may be one class count as several: {'; '.join(twins[:5])}{more}")
    if none:
        lines.append(f"labels that may stand for none count as classes: {', '.join(none)}")
    return lines


def _plain(name: str) -> str:
    """What is left of a label without case, spaces, signs of no width, and a number's form."""
    seen = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
    text = " ".join(unicodedata.normalize("NFKC", seen).casefold().replace("_", " ").split())
    try:
        return repr(float(text))
    except ValueError:
        return text


def checked(listing: Listing, where: str | Path) -> Listing:
    """`listing` itself, if it is fit for use; `where` names its source in messages.

    Names of examples and classes become such as UTF-8 can hold: they stand in files and pictures.
    Labels that are in doubt (`doubtful_labels`) are told.

    Raises:
        UserError: no examples; a name or a file twice; an array of another length; a label outside
            the classes; a feature that is not finite.
    """
    listing = listing._replace(
        names=tuple(map(sound, listing.names)), class_names=tuple(map(sound, listing.class_names))
    )
    n = len(listing.names)
    if n == 0:
        raise UserError(f"{where}: holds no examples; give `folder` one that does")
    if (name := first_repeated(listing.names)) is not None:
        raise UserError(f"{where}: {name} is listed more than once; list each example once")
    if listing.files is not None:
        paths = map(os.path.normpath, listing.files)
        if (path := first_repeated(paths)) is not None:
            raise UserError(f"{where}: {path} is listed more than once, under names that differ; "
                            "list each example once")  # fmt: skip
    for key in ("labels", "inputs", "files", "splits", "groups", "contents", "trained"):
        value = getattr(listing, key)
        if value is not None and len(value) != n:
            raise UserError(f"{where}: {len(value)} {key} for {n} examples")
    low, high = int(listing.labels.min()), int(listing.labels.max())
    if low < 0 or high >= len(listing.class_names):
        bad = low if low < 0 else high
        raise UserError(f"{where}: label {bad} is outside the {len(listing.class_names)} classes")
    features = listing.inputs
    if features is not None and features.ndim in (2, 3) and not np.isfinite(features).all():
        finite = np.isfinite(features).reshape(n, -1).all(axis=1)
        row = int(np.flatnonzero(~finite)[0])
        raise UserError(f"{where}: {listing.names[row]} has a feature that is NaN or infinite")
    doubts = doubtful_labels(listing.labels, listing.class_names)
    return told(listing, [f"warning: {where}: {line}" for line in doubts])


def told(listing: Listing, lines: Sequence[str]) -> Listing:
    """The listing with further lines in its account."""
    account = listing.account
    return listing._replace(account=account._replace(lines=(*account.lines, *lines)))
