"""The source that is a csv file with a row an image, beside the images."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from deepknn_jax.data.account import Account
from deepknn_jax.data.dataset import Listing
from deepknn_jax.data.listing import (
    SPLIT_WORDS,
    Table,
    check_filled,
    checked,
    existing_folder,
    index_groups,
    index_labels,
    read_table,
    told,
    with_files,
)
from deepknn_jax.data.sources.files import IMAGE_SUFFIXES
from deepknn_jax.errors import UserError, check_choice

EMPTY_LABELS = ("error", "skip")
Tell = Callable[[str], None]


def csv_images(
    folder: str | Path,
    *,
    csv: str,
    image_column: str,
    label_column: str = "label",
    label_columns: Sequence[str] = (),
    empty_labels: str = "error",
    group_column: str = "",
    split_column: str = "",
    suffix: str = "",
    on_error: str = "stop",
) -> Listing:
    """A csv file with a row an image, beside the images.

    `csv` and the names in `image_column` are relative to `folder` (or absolute). A name that has no
    image suffix gets `suffix`, or without one that of the image of this name that lies there.
    `label_columns` are read in the place of `label_column` where the table has a column a class,
    with 1 in one of them and 0 or nothing in the others (ISIC's ground truth). Rows without a label
    are left out with `empty_labels` = skip, and rows without an image with `on_error` = skip.
    `split_column` holds train, val, validation or test. What is left out or chosen is told.

    Raises:
        UserError: a missing folder, file, column, cell or image, a name listed twice, an unknown
            word for a split, a row of several classes.
    """
    folder = existing_folder(folder, "a csv file with a row an image, and the images")
    if not csv:
        raise UserError("no csv file given: set `csv` to its name, relative to `folder`")
    check_choice("`empty_labels`", empty_labels, EMPTY_LABELS)
    path = folder / csv
    lines: list[str] = []

    def tell(line: str) -> None:
        lines.append(f"{path}: {line}")

    hot = _check_label_columns(label_column, label_columns)
    others = [image_column, *filter(None, (group_column, split_column))]
    options = {image_column: "image_column", group_column: "group_column",
               split_column: "split_column", label_column: "label_column",
               **dict.fromkeys(hot, "label_columns")}  # fmt: skip
    table = read_table(path, [*others, *(hot or (label_column,))], options)
    words = _hot_labels(path, table, hot) if hot else table.columns[label_column]
    reason = "no column of `label_columns` is 1" if hot else f"{label_column} is empty"
    kept = _labelled(path, table, words, empty_labels, reason, tell)
    names = _with_slashes(folder, table.columns[image_column], suffix, tell)
    names = _with_suffixes(path, folder, names, suffix, tell)
    unlabelled = tuple(names[i] for i, word in enumerate(words) if not word)
    table = _rows(table, kept)
    check_filled(path, table, others)
    columns, names = table.columns, tuple(names[i] for i in kept)
    listing = Listing(
        names,
        *_index_labels([words[i] for i in kept], hot),
        files=tuple(folder / name for name in names),
        splits=_csv_splits(path, names, columns[split_column]) if split_column else None,
        groups=index_groups(columns[group_column]) if group_column else None,
        account=Account(skipped=tuple(str(folder / name) for name in unlabelled)),
    )
    return with_files(told(checked(listing, path), lines), folder, csv, on_error)


def _index_labels(
    words: Sequence[str], classes: tuple[str, ...]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels int32 [N] and class names: `classes` where these are given, in their order."""
    if not classes:
        return index_labels(words)
    return np.asarray([classes.index(word) for word in words], np.int32), classes


def _check_label_columns(label_column: str, label_columns: Sequence[str]) -> tuple[str, ...]:
    """The `label_columns`, none where `label_column` is to be read."""
    if not label_columns:
        return ()
    if label_column not in ("", "label"):  # the default
        raise UserError("`label_column` and `label_columns` are both set: leave one out")
    if (
        isinstance(label_columns, str)
        or len(set(label_columns)) != len(label_columns)
        or (len(label_columns) == 1)
    ):
        raise UserError(
            f"`label_columns` is {label_columns!r}: name several columns, each once; for one column"
            " of labels there is `label_column`"
        )
    return tuple(label_columns)


def _hot_labels(path: Path, table: Table, classes: Sequence[str]) -> list[str]:
    """The class [N] whose column holds 1; "" where none does."""
    labels = [""] * len(table.lines)
    for name in classes:
        for i, cell in enumerate(table.columns[name]):
            where = f"{path}, line {table.lines[i]}"
            if cell and _number(cell) not in (0.0, 1.0):
                raise UserError(
                    f"{where}: {name} is {cell!r}; cells of `label_columns` hold 0 or 1"
                )
            if cell and _number(cell) == 1.0:
                if labels[i]:
                    raise UserError(f"{where}: is of two classes, {labels[i]} and {name}; one is"
                                    " wanted")  # fmt: skip
                labels[i] = name
    return labels


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _labelled(
    path: Path, table: Table, labels: Sequence[str], empty_labels: str, reason: str, tell: Tell
) -> list[int]:
    """Which rows have a label; `reason` tells why one has none."""
    kept = [i for i, label in enumerate(labels) if label]
    if len(kept) == len(labels):
        return kept
    if empty_labels == "error":
        line = table.lines[labels.index("")]
        raise UserError(
            f"{path}, line {line}: {reason} ({len(labels) - len(kept):,} rows are so); fill it in,"
            " or set `empty_labels`=skip to leave such rows out"
        )
    tell(f"left out: {len(labels) - len(kept):,} of {len(labels):,} rows, which have no label")
    return kept


def _rows(table: Table, kept: Sequence[int]) -> Table:
    columns = {name: [cells[i] for i in kept] for name, cells in table.columns.items()}
    return Table(columns, [table.lines[i] for i in kept])


def _with_slashes(folder: Path, names: Sequence[str], suffix: str, tell: Tell) -> Sequence[str]:
    """The names with slashes for backslashes, which tables from Windows have in paths."""
    changed = {
        i
        for i, name in enumerate(names)
        if "\\" in name and not any((folder / (name + end)).is_file() for end in ("", suffix))
    }
    if changed:
        tell(f"{len(changed):,} names are read with / in the place of \\")
    return [name.replace("\\", "/") if i in changed else name for i, name in enumerate(names)]


def _with_suffixes(
    path: Path, folder: Path, names: Sequence[str], suffix: str, tell: Tell
) -> tuple[str, ...]:
    """The names, with a suffix where they have none."""
    inside: dict[Path, dict[str, list[str]]] = {}  # folder: {name: suffixes of the images there}
    found: Counter[str] = Counter()
    full = []
    for name in names:
        added = ""
        if not name.lower().endswith(IMAGE_SUFFIXES):
            added = suffix
            if not suffix and not (folder / name).is_file():
                parent = (folder / name).parent
                if parent not in inside:
                    inside[parent] = _suffixes(parent)
                choice = inside[parent].get(Path(name).name, [])
                if len(choice) > 1:
                    files = " and ".join(name + each for each in choice)
                    raise UserError(f"{path}: {name} may be {files}: set `suffix`")
                added = choice[0] if choice else ""
                found.update(choice)
        full.append(name + added)
    if found:
        counts = ", ".join(f"{each} {n:,}" for each, n in found.most_common())
        tell(f"names without a suffix are read with that of the image there: {counts}")
    return tuple(full)


def _suffixes(folder: Path) -> dict[str, list[str]]:
    """Of the images in `folder`, by their names without suffix, the suffixes; sorted."""
    suffixes: dict[str, list[str]] = {}
    for file in sorted(os.listdir(folder)) if folder.is_dir() else ():
        stem, suffix = os.path.splitext(file)
        if suffix.lower() in IMAGE_SUFFIXES:
            suffixes.setdefault(stem, []).append(suffix)
    return suffixes


def _csv_splits(path: Path, names: Sequence[str], words: Sequence[str]) -> np.ndarray:
    split_of: dict[str, str] = {}
    for name, word in zip(names, words, strict=True):
        if word.lower() not in SPLIT_WORDS:
            raise UserError(f"{path}: {name} has split {word!r}; use train, validation or test")
        split = SPLIT_WORDS[word.lower()]
        if split_of.setdefault(name, split) != split:
            raise UserError(f"{path}: {name} is in {split_of[name]} and {split} both")
    return np.asarray([SPLIT_WORDS[word.lower()] for word in words])
