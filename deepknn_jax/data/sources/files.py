"""Sources that are folders of image files: Skin-7, class folders."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deepknn_jax.data.account import Account, mask_lines
from deepknn_jax.data.dataset import TEST, TRAIN, Listing
from deepknn_jax.data.listing import (
    SPLIT_WORDS,
    checked,
    existing_folder,
    first_repeated,
    index_groups,
    index_labels,
    read_csv,
    with_files,
)
from deepknn_jax.data.walk import IMAGE_SUFFIXES, Walk, images_in, loose_files, subfolders, walk
from deepknn_jax.errors import UserError

SKIN7_CLASSES = ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")  # the fold csvs' labels 0..6
SKIN7_METADATA = "HAM10000_metadata.csv"
SKIN7_FOLDERS = ("HAM10000_images", "HAM10000_images_part_1", "HAM10000_images_part_2")


def skin7(folder: str | Path, *, fold: int = 0, on_error: str = "stop") -> Listing:
    """Skin-7 (HAM10000, ISIC 2018 task 3) as published; groups are lesions.

    `folder` holds HAM10000_images/ (or its parts HAM10000_images_part_1/ and _2/) with
    ISIC_*.jpg, HAM10000_metadata.csv, and, for `fold` 1..5, the Deep kNN authors' pair
    folds/split_data_{fold}_fold_{train,test}.csv as the published split. Fold 0: no split.
    Images without a row in the metadata are counted, rows without an image left out with `on_error`
    = skip.

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
        raise UserError(f"{metadata}: dx {min(unknown)!r} is none of {', '.join(SKIN7_CLASSES)}; "
                        "get the file anew, or read it as `source`=csv_images")  # fmt: skip
    labels = np.asarray([SKIN7_CLASSES.index(dx) for dx in diagnoses], np.int32)
    names = tuple(f"{image_id}.jpg" for image_id in ids)
    existing = [folder / part for part in SKIN7_FOLDERS if (folder / part).is_dir()]
    if not existing:
        raise UserError(f"{folder}: holds none of {', '.join(SKIN7_FOLDERS)}; wanted: {layout}")
    found = {path.name: path for part in existing for path in part.iterdir()}
    files = tuple(found.get(name, existing[0] / name) for name in names)
    listing = Listing(names, labels, SKIN7_CLASSES, files=files, groups=index_groups(lesions))
    listing = checked(listing, metadata)
    if fold:
        listing = listing._replace(splits=_fold_splits(folder, fold, listing))
    return with_files(listing, folder, SKIN7_METADATA, on_error)


def _fold_splits(folder: Path, fold: int, listing: Listing) -> np.ndarray:
    """The splits [N] of one pair of fold csvs, after comparing it with the metadata."""
    row = {name: i for i, name in enumerate(listing.names)}
    splits = np.full(len(listing.names), "", dtype="<U10")
    for split in (TRAIN, TEST):
        path = folder / "folds" / f"split_data_{fold}_fold_{split}.csv"
        if not path.exists():
            raise UserError(
                f"{path}: No such file (`fold`); without it set `split`=grouped and `fold`=0"
            )
        images, labels = read_csv(path, (f"image_{split}", f"label_{split}"))
        if (name := first_repeated(images)) is not None:
            raise UserError(f"{path}: {name} is listed more than once")
        for name, label in zip(images, labels, strict=True):
            if name not in row:
                raise UserError(f"{path}: {name} is not in {SKIN7_METADATA}; get the two anew")
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


def class_folders(
    folder: str | Path, *, group_pattern: str = "", ignore: Sequence[str] = ()
) -> Listing:
    """One folder a class; or train/, test/ and perhaps val/, each with one folder a class.

    In the second layout the split is published; parts are known by their names as `_parts` tells.
    Images are found at any depth below the class
    folder, by the rules of `walk`, which has `ignore`, too. `group_pattern` is a regular expression
    that is searched in the path below the class folder: what its capture groups hold is the image's
    group, or without any the whole match.

    Raises:
        UserError: no folders or no images; a folder that cannot be read or is reached twice; a
            pattern that fails to compile or to match.
    """
    root = existing_folder(folder, "one folder a class, or train/ and test/ that hold such folders")
    parts = _parts(root)
    published = bool(parts)
    walks = [
        (split, class_folder, walk(class_folder, ignore))
        for part, split in (parts if published else {root: ""}).items()
        for class_folder in subfolders(part)
    ]
    _check_no_folder_twice([found for _, _, found in walks])
    account = _account(root, parts, [(top, found) for _, top, found in walks], ignore)
    found = [(split, top, file) for split, top, each in walks for file in each.files]
    if not found:
        raise _no_images(root, account)
    # Every folder is a class, an empty one too: the check of class sizes then names it.
    class_names = index_labels([top.name for _, top, _ in walks])[1]
    number = {name: i for i, name in enumerate(class_names)}
    listing = Listing(
        tuple(file.relative_to(root).as_posix() for _, _, file in found),
        np.asarray([number[top.name] for _, top, _ in found], np.int32),
        class_names,
        files=tuple(file for _, _, file in found),
        splits=np.asarray([split for split, _, _ in found]) if published else None,
        groups=_groups(found, group_pattern) if group_pattern else None,
        account=account,
    )
    return checked(listing, root)


def _no_images(root: Path, account: Account) -> UserError:
    lies = ", ".join(f"{n:,} {what}" for what, n in account.left_out.items() if n)
    return UserError(f"{root}: no folder of a class with images ({' '.join(IMAGE_SUFFIXES)})"
                     + (f"; left out: {lies}" if lies else ""))  # fmt: skip


def _parts(root: Path) -> dict[Path, str]:
    """The folders in `root` that are parts of a split, each with its part; none: all are classes.

    They are called train, training, val, valid, validation, test or testing, in any case; or else
    have one of these words in their names (seg_train, TestImages), where one that trains and
    another hold a folder of the same class. A part may hold its classes in one more folder of its
    name, as archives do (train/train/).

    Raises:
        UserError: other folders beside the parts; or all have names of parts, but no class in
            common.
    """
    tops = subfolders(root)
    found = {path: SPLIT_WORDS[path.name.lower()] for path in tops
             if path.name.lower() in SPLIT_WORDS}  # fmt: skip
    by_word = {path: part for path in tops if (part := _part_in(path.name))}
    if not found and TRAIN in by_word.values() and set(by_word.values()) != {TRAIN}:
        held = [{top.name for path, part in by_word.items() if (part == TRAIN) == trains
                 for top in subfolders(_unpacked(path))} for trains in (True, False)]  # fmt: skip
        found = by_word if held[0] & held[1] else {}
        if not found and len(by_word) == len(tops):
            raise UserError(
                f"{root}: its folders {', '.join(path.name for path in tops)} are named like parts "
                "of a split, but no class has a folder in both; give each part a folder a class "
                "(labels in a csv: `source`=csv_images), or rename those that are classes"
            )
    if found and (strange := [path for path in tops if path not in found]):
        raise UserError(f"{strange[0]}: lies beside {', '.join(p.name for p in found)}, which are "
                        "read as parts of a split; move it elsewhere, or rename what is a class"
                        )  # fmt: skip
    return {_unpacked(path): part for path, part in found.items()}


def _part_in(name: str) -> str:
    """The part that a word in the name tells; "" for none, or for several."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    parts = {SPLIT_WORDS[word.lower()] for word in words if word.lower() in SPLIT_WORDS}
    return parts.pop() if len(parts) == 1 else ""


def _unpacked(part: Path) -> Path:
    """The folder of the part's classes: a folder of its name that is all that it holds, or it."""
    inside = subfolders(part)
    if [path.name.lower() for path in inside] == [part.name.lower()] and not images_in(part):
        return inside[0]
    return part


def _account(
    root: Path,
    parts: Mapping[Path, str],
    walks: Sequence[tuple[Path, Walk]],
    ignore: Sequence[str],
) -> Account:
    """What lies in class folders and beside them, and is no image or not one of a class."""
    left_out, ignored = Counter[str](), Counter(dict.fromkeys(ignore, 0))
    for top in (root, *parts):
        images, others = loose_files(top, ignore)
        left_out += others
        left_out += Counter({f"{what} beside class folders": n for what, n in images.items()})
    for _, found in walks:
        left_out += Counter(found.left_out)
        ignored.update(found.ignored)
    inside = [path.relative_to(root).as_posix() for top, found in walks
              for path in found.folders.values() if path.parent == top]  # fmt: skip
    lines = []
    named = {path.relative_to(root).as_posix(): part for path, part in parts.items()}
    if renamed := [f"{name} is {part}" for name, part in named.items() if name != part]:
        lines.append(f"parts: {', '.join(renamed)}")
    lines += [f"ignored: {n:,} files by {pattern} (`ignore`)" for pattern, n in ignored.items()]
    if inside:
        lines.append(f"folders in class folders count to the class: {len(inside):,}, {inside[0]}"
                     " is the first")  # fmt: skip
    names = {top.name for top, _ in walks} | set(SPLIT_WORDS)
    if alike := [path for path in inside if Path(path).name.lower() in names]:
        lines.append(f"hint: {alike[0]} is named like a class or a part, but counts to "
                     f"{Path(alike[0]).parent}: is `folder` the right folder?")  # fmt: skip
    lines += mask_lines(file for _, found in walks for file in found.files)
    shown = ", ".join(inside[:5]) + (f" and {len(inside) - 5} more" if len(inside) > 5 else "")
    remedy = "give `folder` the folder that holds the folders of classes"
    remedy += f"; inside are the folders {shown}" if inside else ""
    return Account(left_out, tuple(lines), remedy)


def _check_no_folder_twice(walks: Sequence[Walk]) -> None:
    """One folder in two classes or parts, by a link: its images would have two labels or sides."""
    seen: dict[tuple[int, int], Path] = {}
    for found in walks:
        for identity, path in found.folders.items():
            if seen.setdefault(identity, path) != path:
                raise UserError(f"{path}: is the same folder as {seen[identity]}, by a link; "
                                "remove one of them")  # fmt: skip


def _groups(found: Sequence[tuple[str, Path, Path]], pattern: str) -> np.ndarray:
    """The groups int32 [N] of (split, class folder, file), by the path below the class folder."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"`group_pattern` {pattern!r} is no expression: {error}") from error
    groups = []
    for _, top, file in found:
        path = file.relative_to(top).as_posix()
        match = compiled.search(path)
        held = match.groups() if match and compiled.groups else (match and match.group(),)
        if not any(held):
            raise UserError(f"{file}: `group_pattern` {pattern!r} matches nothing in {path}; widen "
                            "it, or rename the file")  # fmt: skip
        groups.append("/".join(filter(None, held)))
    return index_groups(groups)
