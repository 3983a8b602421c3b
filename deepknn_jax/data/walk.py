"""Which files of a folder are images: one walk with explicit rules, and a count of what is not."""

import errno
import importlib
import importlib.util
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import NamedTuple

from deepknn_jax.data.dicom import is_dicom
from deepknn_jax.errors import UserError

HEIC_SUFFIXES = (".heic", ".heif")
IMAGE_SUFFIXES = (
    ".bmp", ".dcm", ".gif", *HEIC_SUFFIXES, ".jfif", ".jpe", ".jpeg", ".jpg", ".npy", ".pgm",
    ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
HEIC_PACKAGE = "pillow-heif"
# What systems and programs leave beside a user's files; hidden names besides. In lower case.
JUNK = ("@eadir", "__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini")
NO_SUFFIX = "without suffix"

Identity = tuple[int, int]  # device and inode: what a folder is, however it is reached


class Walk(NamedTuple):
    """What lies below a folder.

    `files` are the images, sorted; `left_out` counts the other files by suffix; `ignored` counts
    by pattern those that were to be ignored; `folders` are the folders that were entered.
    """

    files: tuple[Path, ...]
    left_out: Mapping[str, int]
    ignored: Mapping[str, int]
    folders: Mapping[Identity, Path]


def walk(folder: Path, ignore: Sequence[str] = ()) -> Walk:
    """The images at any depth below `folder`.

    An image is a file with one of IMAGE_SUFFIXES (HEIC_SUFFIXES: where HEIC_PACKAGE is installed),
    or a DICOM file under any name. A link that leads nowhere counts as the file that its name
    tells. Hidden files and folders and JUNK are passed over. Links to folders are followed, each
    folder is entered once, and none above `folder`. `ignore` are patterns as *_mask.* of file
    names, whatever their case.

    Raises:
        UserError: a folder that cannot be read.
    """
    files: list[Path] = []
    left_out: Counter[str] = Counter()
    ignored = Counter(dict.fromkeys(ignore, 0))
    entered: dict[Identity, Path] = {}
    above = _above(folder)
    folders, links = deque([folder]), deque[Path]()
    while folders or links:  # links last: a folder is entered by its own path where it has one
        here = (folders or links).popleft()
        identity = _identity(here)
        if identity in entered or identity in above:
            continue
        entered[identity] = here
        for path, mode in _entries(here):
            if mode is not None and S_ISDIR(mode):
                (links if path.is_symlink() else folders).append(path)
            elif pattern := _ignoring(path.name, ignore):
                ignored[pattern] += 1
            elif what := _no_image(path, mode):
                left_out[what] += 1
            else:
                files.append(path)
    return Walk(tuple(sorted(files)), left_out, ignored, entered)


def subfolders(folder: Path) -> list[Path]:
    """The folders in `folder`, sorted, without hidden ones, JUNK and links to what is above.

    Raises:
        UserError: `folder` cannot be read.
    """
    above = _above(folder) | {_identity(folder)}
    return sorted(
        path
        for path, mode in _entries(folder)
        if mode is not None and S_ISDIR(mode) and _identity(path) not in above
    )


def loose_files(folder: Path, ignore: Sequence[str] = ()) -> tuple[Counter[str], Counter[str]]:
    """Counts of the images and of the other files right in `folder`, by suffix."""
    images, others = Counter[str](), Counter[str]()
    for path, mode in _entries(folder):
        if (mode is not None and S_ISDIR(mode)) or _ignoring(path.name, ignore):
            continue
        what = _no_image(path, mode)
        (others if what else images)[what or suffix_of(path.name)] += 1
    return images, others


def images_in(folder: Path) -> list[Path]:
    """The images right in `folder`, sorted.

    Raises:
        UserError: `folder` cannot be read.
    """
    return sorted(
        path
        for path, mode in _entries(folder)
        if (mode is None or not S_ISDIR(mode)) and not _no_image(path, mode)
    )


def suffix_of(name: str) -> str:
    """The suffix in lower case (".nii.gz", too), or NO_SUFFIX, as in "IM-1" and "p. 3 of it"."""
    suffixes = Path(name.lower()).suffixes
    suffix = "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])
    return suffix if suffix.replace(".", "").isalnum() and len(suffix) <= 9 else NO_SUFFIX


def heic_is_read() -> bool:
    """Whether HEIC_PACKAGE is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def open_heic(files: Sequence[Path]) -> None:
    """Prepares Pillow for those of the `files` that are HEIC.

    Raises:
        UserError: there are some, and HEIC_PACKAGE is not installed.
    """
    found = [file for file in files if file.suffix.lower() in HEIC_SUFFIXES]
    if found and not heic_is_read():
        raise UserError(f"{found[0]}: {len(found)} HEIC files need the package {HEIC_PACKAGE}: "
                        f"pip install {HEIC_PACKAGE}")  # fmt: skip
    if found:
        importlib.import_module("pillow_heif").register_heif_opener()


def _entries(folder: Path) -> Iterator[tuple[Path, int | None]]:
    """What is in `folder` but hidden names and JUNK, each with its mode; None: leads nowhere."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
        if not os.access(folder, os.X_OK):  # names, but not what they name
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UserError(f"{folder}: this folder cannot be read: {error.strerror}") from error
    for name in names:
        if name.startswith(".") or name.lower() in JUNK:
            continue
        path = folder / name
        try:
            mode = path.stat().st_mode
        except OSError:
            yield path, None
        else:
            yield path, mode


def _identity(folder: Path) -> Identity:
    try:
        found = folder.stat()
    except OSError as error:
        raise UserError(f"{folder}: this folder cannot be read: {error.strerror}") from error
    return found.st_dev, found.st_ino


def _above(folder: Path) -> set[Identity]:
    """The folders above `folder`, by its path as given and by where that leads."""
    paths = {*folder.absolute().parents, *folder.resolve().parents}
    return {_identity(path) for path in paths}


def _ignoring(name: str, patterns: Sequence[str]) -> str:
    """The first of the patterns that the name fits, or "" for none."""
    return next((each for each in patterns if fnmatch(name.lower(), each.lower())), "")


def _no_image(path: Path, mode: int | None) -> str:
    """What to count it as; nothing for an image."""
    suffix = suffix_of(path.name)
    if mode is None:
        return "" if suffix in IMAGE_SUFFIXES else "links that lead nowhere"
    if not S_ISREG(mode):
        return "no regular file"
    if suffix in HEIC_SUFFIXES:
        return "" if heic_is_read() else suffix
    if suffix in IMAGE_SUFFIXES:
        return ""
    if path.name.upper() == "DICOMDIR":  # an index of DICOM files that is one itself
        return "DICOMDIR"
    try:
        return "" if is_dicom(path) else suffix
    except OSError:
        return suffix
