"""The source that is a csv file with a row an image, beside the images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepknn_jax.data.dataset import Listing
from deepknn_jax.data.listing import (
    SPLIT_WORDS,
    check_present,
    checked,
    existing_folder,
    index_groups,
    index_labels,
    read_csv,
)
from deepknn_jax.data.sources.files import IMAGE_SUFFIXES
from deepknn_jax.errors import UserError


def csv_images(
    folder: str | Path,
    *,
    csv: str,
    image_column: str,
    label_column: str,
    group_column: str = "",
    split_column: str = "",
    suffix: str = "",
) -> Listing:
    """A csv file with a row an image, beside the images.

    `csv` and the names in `image_column` are relative to `folder` (or absolute); `suffix` is added
    to a name that has no image suffix. `split_column` holds train, val, validation or test.

    Raises:
        UserError: a missing folder, file, column, cell or image, a name listed twice, an unknown
            word for a split.
    """
    folder = existing_folder(folder, "a csv file with a row an image, and the images")
    if not csv:
        raise UserError("no csv file given: set `csv` to its name")
    path = folder / csv
    wanted = [image_column, label_column, *filter(None, (group_column, split_column))]
    columns = dict(zip(wanted, read_csv(path, wanted), strict=True))
    names = tuple(
        name if name.lower().endswith(IMAGE_SUFFIXES) else name + suffix
        for name in columns[image_column]
    )
    splits = _csv_splits(path, names, columns[split_column]) if split_column else None
    files = tuple(folder / name for name in names)
    labels, class_names = index_labels(columns[label_column])
    groups = index_groups(columns[group_column]) if group_column else None
    listing = Listing(names, labels, class_names, files=files, splits=splits, groups=groups)
    listing = checked(listing, path)
    check_present(path, files)
    return listing


def _csv_splits(path: Path, names: Sequence[str], words: Sequence[str]) -> np.ndarray:
    split_of: dict[str, str] = {}
    for name, word in zip(names, words, strict=True):
        if word.lower() not in SPLIT_WORDS:
            raise UserError(f"{path}: {name} has split {word!r}; use train, validation or test")
        split = SPLIT_WORDS[word.lower()]
        if split_of.setdefault(name, split) != split:
            raise UserError(f"{path}: {name} is in {split_of[name]} and {split} both")
    return np.asarray([SPLIT_WORDS[word.lower()] for word in words])
