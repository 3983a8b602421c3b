"""Tables 1 and S1: the statistics of the data sets, counted from the files at hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepknn_jax.data.dataset import TEST, TRAIN, Listing
from deepknn_jax.reproduce.catalog import COUNTS, PRINTED_COUNTS, SETS
from deepknn_jax.reproduce.markdown import grid
from deepknn_jax.reproduce.prepare import make
from deepknn_jax.reproduce.sets import absent, all_absent, folder, listing

_HEAD = ("Dataset", "", "#Class", "#Train", "#Test", "ImageSize", "Smallest", "Largest", "Ratio")


def count(found: Listing, parts: Sequence[str]) -> tuple[str, ...]:
    """The columns of a listing with splits; class sizes over the images of `parts`."""
    assert found.splits is not None
    counted = found.labels[np.isin(found.splits, parts)]
    sizes = np.bincount(counted, minlength=len(found.class_names))
    smallest, largest = int(sizes.min()), int(sizes.max())
    return (
        str(len(found.class_names)),
        *(str((found.splits == part).sum()) for part in (TRAIN, TEST)),
        _image_sizes(found),
        *(str(smallest), str(largest), f"{largest / max(smallest, 1):.1f}"),
    )


def _image_sizes(found: Listing) -> str:
    """Width x height where all images have the same, else the range of their sides."""
    if found.inputs is not None:
        height, width = found.inputs.shape[1:3]
        return f"{width} × {height}"
    assert found.files is not None
    sizes = np.asarray([image_size(path) for path in found.files])
    if (sizes == sizes[0]).all():
        return f"{sizes[0, 0]} × {sizes[0, 1]}"
    return f"[{sizes.min()}, {sizes.max()}]"


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file, from its header."""
    if path.suffix.lower() == ".dcm":
        import pydicom

        header = pydicom.dcmread(path, stop_before_pixels=True)
        return int(header.Columns), int(header.Rows)
    from PIL import Image

    with Image.open(path) as image:
        return image.size


def document(name: str, data_root: Path, out: Path) -> str:
    """Table "1" or "s1" as Markdown: the paper's line of a set, and below it the one counted here.

    Raises:
        UserError: a set at hand is unsound.
    """
    plan = COUNTS[name]
    names, body = (*plan.paper, *plan.ours), []
    for each in names:
        if (name, each) in PRINTED_COUNTS:
            body.append((SETS[each].title, "paper", *PRINTED_COUNTS[name, each], ""))
        if absent(each, data_root) is None:
            make(each, data_root, out)
            found = listing(each, folder(each, data_root, out))
            body.append((SETS[each].title, "here", *count(found, plan.parts)))
    lines = [f"# {plan.title}", "", *grid(_HEAD, body), ""]
    lines += [f"Smallest and largest class: of {plan.words}. Ratio: largest / smallest.", ""]
    lines += [f"- absent: {words}" for words in all_absent(data_root, *names)]
    return "\n".join(lines) + "\n"
