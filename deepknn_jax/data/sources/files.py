"""Sources that are folders of image files: Skin-7, class folders."""

import filecmp
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepknn_jax.data.dataset import TEST, TRAIN, Listing
from deepknn_jax.data.listing import (
    SPLIT_WORDS,
    check_present,
    checked,
    existing_folder,
    first_repeated,
    index_groups,
    index_labels,
    read_csv,
)
from deepknn_jax.errors import UserError

IMAGE_SUFFIXES = (
    ".bmp", ".dcm", ".gif", ".jpeg", ".jpg", ".npy", ".pgm", ".png", ".ppm", ".tif", ".tiff",
    ".webp",
)  # fmt: skip
SKIN7_CLASSES = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")  # the fold csvs' labels 0..6
SKIN7_METADATA = "HAM10000_metadata.csv"
SKIN7_FOLDERS = ("HAM10000_images", "HAM10000_images_part_1", "HAM10000_images_part_2")


def skin7(folder: str | Path, *, fold: int = 0) -> Listing:
    """Skin-7 (HAM10000, ISIC 2018 task 3) as published; groups are lesions.

    `folder` holds HAM10000_images/ (or its parts HAM10000_images_part_1/ and _2/) with
    ISIC_*.jpg, HAM10000_metadata.csv, and, for `fold` 1..5, the Deep kNN authors' pair
    folds/split_data_{fold}_fold_{train,test}.csv as the published split. Fold 0: no split.

    Raises:
        UserError: any of these is missing or they contradict each other.
    """
    layout = (
        "HAM10000_images/ISIC_*.jpg, HAM10000_metadata.csv and, for a fold, "
        "folds/split_data_{1..5}_fold_{train,test}.csv"
    )
    folder = existing_folder(folder, layout, (SKIN7_METADATA,))
    if fold not in range(6):
        raise UserError(f"`fold` is {fold}: choose 1..5, or 0 for none")
    metadata = folder / SKIN7_METADATA
    ids, diagnoses, lesions = read_csv(metadata, ("image_id", "dx", "lesion_id"))
    if unknown := set(diagnoses) - set(SKIN7_CLASSES):
        raise UserError(f"{metadata}: dx {min(unknown)!r} is none of {', '.join(SKIN7_CLASSES)}")
    labels = np.asarray([SKIN7_CLASSES.index(dx) for dx in diagnoses], np.int32)
    names = tuple(f"{image_id}.jpg" for image_id in ids)
    existing = [folder / part for part in SKIN7_FOLDERS if (folder / part).is_dir()]
    if not existing:
        raise UserError(f"{folder}: holds none of {', '.join(SKIN7_FOLDERS)}; wanted: {layout}")
    found = {path.name: path for part in existing for path in part.iterdir()}
    files = tuple(found.get(name, existing[0] / name) for name in names)
    check_present(metadata, files)
    listing = Listing(names, labels, SKIN7_CLASSES, files=files, groups=index_groups(lesions))
    listing = checked(listing, metadata)
    return listing._replace(splits=_fold_splits(folder, fold, listing)) if fold else listing


def _fold_splits(folder: Path, fold: int, listing: Listing) -> np.ndarray:
    """The splits [N] of one pair of fold csvs, after comparing it with the metadata."""
    row = {name: i for i, name in enumerate(listing.names)}
    splits = np.full(len(listing.names), "", dtype="<U10")
    for split in (TRAIN, TEST):
        path = folder / "folds" / f"split_data_{fold}_fold_{split}.csv"
        if not path.exists():
            raise UserError(
                f"{path}: No such file; without the fold csvs `split`=grouped and `fold`=0 work"
            )
        images, labels = read_csv(path, (f"image_{split}", f"label_{split}"))
        if (name := first_repeated(images)) is not None:
            raise UserError(f"{path}: {name} is listed more than once")
        for name, label in zip(images, labels, strict=True):
            if name not in row:
                raise UserError(f"{path}: {name} is not in HAM10000_metadata.csv")
            i = row[name]
            if label != str(listing.labels[i]):
                dx = SKIN7_CLASSES[listing.labels[i]]
                raise UserError(
                    f"{path}: {name} has label {label}, but the metadata's {dx} is "
                    f"{listing.labels[i]}"
                )
            if splits[i]:
                raise UserError(f"{path}: {name} is in train and test both")
            splits[i] = split
    if (left_out := np.flatnonzero(splits == "")).size:
        raise UserError(
            f"{folder}: {left_out.size} images of the metadata are in neither csv of fold {fold}, "
            f"the first is {listing.names[left_out[0]]}"
        )
    return splits


def class_folders(folder: str | Path, *, group_pattern: str = "") -> Listing:
    """One folder a class; or train/, test/ and perhaps val/, each with one folder a class.

    In the second layout the split is published. Images are found at any depth below the class
    folder; hidden files and files without an image suffix are left out. `group_pattern` is a
    regular expression: what it matches in the file name is the image's group.

    Raises:
        UserError: no folders or no images; a pattern that fails to compile or to match; a file of
            the same class, name and content in two parts.
    """
    root = existing_folder(folder, "one folder a class, or train/ and test/ that hold such folders")
    parts = {path: SPLIT_WORDS[path.name.lower()] for path in _subfolders(root)
             if path.name.lower() in SPLIT_WORDS}  # fmt: skip
    published = bool(parts)
    if published and (strange := [path for path in _subfolders(root) if path not in parts]):
        raise UserError(f"{strange[0]}: lies beside {', '.join(p.name for p in parts)}; remove it")
    found = [
        (split, class_folder.name, file)
        for part, split in (parts if published else {root: ""}).items()
        for class_folder in _subfolders(part)
        for file in _image_files(class_folder)
    ]
    if not found:
        raise UserError(f"{root}: no folder of a class with images ({' '.join(IMAGE_SUFFIXES)})")
    files = tuple(file for _, _, file in found)
    names = tuple(file.relative_to(root).as_posix() for file in files)
    # Every folder is a class, an empty one too: the check of class sizes then names it.
    tops = [p for part in (parts if published else (root,)) for p in _subfolders(part)]
    class_names = index_labels([path.name for path in tops])[1]
    labels = np.asarray([class_names.index(name) for _, name, _ in found], np.int32)
    splits = np.asarray([split for split, _, _ in found]) if published else None
    groups = index_groups(_match_groups(files, group_pattern)) if group_pattern else None
    if published:
        _check_no_copy_across(found)
    listing = Listing(names, labels, class_names, files=files, splits=splits, groups=groups)
    return checked(listing, root)


def _subfolders(folder: Path) -> list[Path]:
    """Its folders, sorted; hidden ones and what macOS adds to zip files are left out."""
    return sorted(path for path in folder.iterdir()
                  if path.is_dir() and not path.name.startswith((".", "__")))  # fmt: skip


def _image_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*")
                  if path.suffix.lower() in IMAGE_SUFFIXES
                  and not path.name.startswith("."))  # fmt: skip


def _match_groups(files: Sequence[Path], pattern: str) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"`group_pattern` {pattern!r}: {error}") from error
    matches = [compiled.search(file.name) for file in files]
    for file, match in zip(files, matches, strict=True):
        if match is None:
            raise UserError(f"{file}: `group_pattern` {pattern!r} matches nothing in its name")
    return [match.group() for match in matches if match]


def _check_no_copy_across(found: Sequence[tuple[str, str, Path]]) -> None:
    """One image in two parts. Only namesakes are compared: reading every file would take long."""
    seen: dict[tuple[str, str], list[tuple[str, Path]]] = {}
    for split, class_name, file in found:
        namesakes = seen.setdefault((class_name, file.name), [])
        for other_split, other in namesakes:
            if other_split != split and filecmp.cmp(file, other, shallow=False):
                raise UserError(f"{file}: is in {other_split} and {split} both (also {other})")
        namesakes.append((split, file))
