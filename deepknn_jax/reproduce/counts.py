"""Tables 1 and S1: the statistics of the data sets, counted from the files at hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deepknn_jax.data.dataset import TEST, TRAIN, VALIDATION, Listing
from deepknn_jax.reproduce import paper
from deepknn_jax.reproduce.prepare import make
from deepknn_jax.reproduce.sets import SETS, absent, all_absent, folder, listing
from deepknn_jax.reproduce.tables import line_of

# Table 1 counts the smallest and largest class over all images, table S1 over the training part:
# so the paper's own figures are (df 115 of all; CUB 29 and 30 of the training images).
TABLES = {
    "1": (
        "Table 1. Data sets",
        paper.TABLE1,
        ("chest_xray", "pneumoniamnist", "omniglot"),
        (TRAIN, VALIDATION, TEST),
    ),
    "s1": ("Table S1. Natural images", paper.TABLES1, ("mnist",), (TRAIN,)),
}
_HEAD = ("Dataset", "", "#Class", "#Train", "#Test", "ImageSize", "Smallest", "Largest", "Ratio")


class Counts(NamedTuple):
    """Numbers of a data set; `sides` are the least and largest (width, height) in pixels."""

    classes: int
    train: int
    test: int
    sides: tuple[tuple[int, int], tuple[int, int]]
    smallest: int
    largest: int


def count(found: Listing, parts: Sequence[str]) -> Counts:
    """The counts of a listing with splits; class sizes over the images of `parts`."""
    assert found.splits is not None
    counted = found.labels[np.isin(found.splits, parts)]
    sizes = np.bincount(counted, minlength=len(found.class_names))
    return Counts(
        classes=len(found.class_names),
        train=int((found.splits == TRAIN).sum()),
        test=int((found.splits == TEST).sum()),
        sides=_sides(found),
        smallest=int(sizes.min()),
        largest=int(sizes.max()),
    )


def _sides(found: Listing) -> tuple[tuple[int, int], tuple[int, int]]:
    if found.inputs is not None:
        height, width = found.inputs.shape[1:3]
        return (width, height), (width, height)
    assert found.files is not None
    sizes = np.asarray([image_size(path) for path in found.files])
    least, most = sizes.min(0).tolist(), sizes.max(0).tolist()
    return (least[0], least[1]), (most[0], most[1])


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file, from its header."""
    if path.suffix.lower() == ".dcm":
        import pydicom

        header = pydicom.dcmread(path, stop_before_pixels=True)
        return int(header.Columns), int(header.Rows)
    from PIL import Image

    with Image.open(path) as image:
        return image.size


def markdown(table: str, data_root: Path, out: Path) -> str:
    """Table "1" or "s1" as Markdown: the paper's line of a set, and below it the one counted here.

    Raises:
        UserError: a set at hand is unsound.
    """
    title, printed, ours, parts = TABLES[table]
    lines = [f"# {title}", "", line_of(_HEAD), line_of(("---",) * len(_HEAD))]
    for name in (*printed, *ours):
        if name in printed:
            lines.append(line_of((SETS[name].title, "paper", *printed[name], "")))
        if absent(name, data_root) is None:
            make(name, data_root, out)
            counts = count(listing(name, folder(name, data_root, out)), parts)
            lines.append(line_of((SETS[name].title, "here", *_cells(counts))))
    over = "all images" if TEST in parts else "the training part"
    lines += ["", f"Smallest and largest class: of {over}. Ratio: largest / smallest.", ""]
    lines += [f"- absent: {words}" for words in all_absent(data_root, *printed, *ours)]
    return "\n".join(lines) + "\n"


def _cells(counts: Counts) -> tuple[str, ...]:
    least, most = counts.sides
    one = least == most
    size = f"{least[0]} × {least[1]}" if one else f"[{min(least)}, {max(most)}]"
    numbers = counts.classes, counts.train, counts.test
    ratio = f"{counts.largest / max(counts.smallest, 1):.1f}"
    return (*map(str, numbers), size, str(counts.smallest), str(counts.largest), ratio)
