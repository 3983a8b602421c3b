"""What was found and what was left out, in lines that are told before a training."""

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deepknn_jax.data.dicom import is_dicom
from deepknn_jax.data.walk import (
    HEIC_PACKAGE,
    HEIC_SUFFIXES,
    IMAGE_SUFFIXES,
    heic_is_read,
    open_heic,
    suffix_of,
)

SAMPLE = 20  # files that are opened to tell sizes and formats
SHOWN = 12  # classes that are named, each with its count
_MASK = re.compile(r"(.+?)([ _-](?:mask|masks|seg|segmentation))([ _-]?\d*)", re.IGNORECASE)


class Account(NamedTuple):
    """What a source tells beside its listing; arguments stand in backticks, as in a UserError.

    `left_out` counts files by what they are (".heic", "without suffix"); `skipped` names examples
    of a table that were left out; `lines` is whatever else is to be told; `remedy` goes on after
    "all examples are of one class".
    """

    left_out: Mapping[str, int] = {}
    lines: tuple[str, ...] = ()
    remedy: str = ""
    skipped: tuple[str, ...] = ()


def classes_line(labels_N: np.ndarray, class_names: Sequence[str]) -> str:
    """The classes with their counts; of many, the smallest and the largest."""
    sizes = np.bincount(labels_N, minlength=len(class_names)).tolist()
    named = [f"{name} {size:,}" for name, size in zip(class_names, sizes, strict=True)]
    start = f"classes: {len(named)}"
    if len(named) <= SHOWN:
        return f"{start}: {', '.join(named)}"
    order = np.argsort(sizes, kind="stable").tolist()
    small, large = (", ".join(named[c] for c in part) for part in (order[:3], order[:-4:-1]))
    return f"{start}, of {sum(sizes):,} examples: the smallest {small}; the largest {large}"


def files_line(files: Sequence[Path]) -> str:
    """The suffixes of all files; format, kind of pixels and size of SAMPLE of them."""
    rows = np.unique(np.linspace(0, len(files) - 1, SAMPLE).round().astype(int))
    if heic_is_read():
        open_heic([files[row] for row in rows])
    looks = [_look(files[row]) for row in rows]
    kinds = Counter(kind for kind, _ in looks)
    sizes = sorted(size for _, size in looks if size)
    suffixes = Counter(suffix_of(file.name) for file in files)
    known = Counter({suffix: n for suffix, n in suffixes.items() if suffix in IMAGE_SUFFIXES})
    if others := suffixes.total() - known.total():
        known["DICOM under other names"] = others
    line = f"files: {counted(known)}; of "
    line += f"{len(looks)} opened: {counted(kinds)}"
    if sizes:
        ends = dict.fromkeys((min(sizes, key=np.prod), max(sizes, key=np.prod)))
        line += f"; {' to '.join(f'{width} x {height}' for width, height in ends)} pixels"
    return line


def inputs_line(inputs: np.ndarray) -> str:
    """What the arrays are."""
    shape = " x ".join(map(str, inputs.shape[1:]))
    kinds = {2: "feature vectors", 3: "feature vectors in views", 4: "images", 5: "volumes"}
    kind = kinds[inputs.ndim]
    return f"arrays: {len(inputs):,} {kind} of {shape}, {inputs.dtype}"


def left_out_lines(left_out: Mapping[str, int]) -> list[str]:
    """As "left out: 25 files (.heic 5, without suffix 20)", and what would read them; or none."""
    found = {what: n for what, n in left_out.items() if n}
    if not found:
        return []
    n = sum(found.values())
    lines = [f"left out: {n:,} {'file' if n == 1 else 'files'} ({counted(found)})"]
    if any(suffix in found for suffix in HEIC_SUFFIXES):
        lines.append(f"{', '.join(HEIC_SUFFIXES)}: read once the package {HEIC_PACKAGE} is "
                     f"installed (pip install {HEIC_PACKAGE})")  # fmt: skip
    return lines


def mask_lines(files: Iterable[Path]) -> list[str]:
    """A hint where files are named like masks of other files (x_mask.png beside x.png)."""
    stems = {(file.parent, file.stem): file for file in files}
    masks = [
        (file, stems[parent, match[1]], f"*{match[2].lower()}{'*' if match[3] else '.*'}")
        for (parent, stem), file in stems.items()
        if (match := _MASK.fullmatch(stem)) and (parent, match[1]) in stems
    ]
    if not masks:
        return []
    mask, image, _ = masks[0]
    patterns = sorted({pattern for _, _, pattern in masks})
    return [f"hint: {len(masks):,} images are named like masks of others, {mask.name} beside "
            f"{image.name}; to leave them out: `ignore`={tuple(patterns)}"]  # fmt: skip


def counted(counts: Mapping[str, int]) -> str:
    """As ".heic 5, without suffix 20"."""
    return ", ".join(f"{what} {n:,}" for what, n in sorted(counts.items()))


def _look(file: Path) -> tuple[str, tuple[int, ...]]:
    """Format and pixels of a file, as "JPEG, grey", and (width, height)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _header(file)
    except Exception:  # whatever a decoder raises: the decoding itself will name the file
        return "unreadable", ()


def _header(file: Path) -> tuple[str, tuple[int, ...]]:
    if file.suffix.lower() == ".npy":
        array = np.load(file, mmap_mode="r", allow_pickle=False)
        return f"npy, {array.dtype}", array.shape[1::-1] if array.ndim > 1 else ()
    if is_dicom(file):
        import pydicom

        dataset = pydicom.dcmread(file, stop_before_pixels=True)
        return f"DICOM, {dataset.BitsStored} bits", (dataset.Columns, dataset.Rows)
    from PIL import Image

    kinds = {"1": "1 bit", "L": "grey", "P": "palette", "RGB": "colour", "RGBA": "transparency",
             "F": "floats", "I": "32 bits grey", "I;16": "16 bits grey"}  # fmt: skip
    with Image.open(file) as image:
        kind = f"{image.format}, {kinds.get(image.mode, image.mode)}"
        frames = getattr(image, "n_frames", 1)
        return kind + (f", {frames} frames" if frames > 1 else ""), image.size
