"""Small pictures for people, as WebP: of the gallery in a model folder, of new images in a report.

They are made from the files where these are larger than what the network sees, and keep their
aspect.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from deepknn_jax.data.cache import threads
from deepknn_jax.data.dataset import Dataset
from deepknn_jax.data.images import open_image
from deepknn_jax.data.levels import Grey, scale
from deepknn_jax.data.walk import open_heic
from deepknn_jax.errors import UserError

SIDE = 256  # longest side in pixels of what is kept,
LARGE = 512  # and of an image that is shown alone
# Of more images than _FEW less is kept, of about 4 kB each instead of 10.
_FEW, _LESS = 5000, 160
_QUALITY = 75
_EXACT = 32  # up to this side, in pixels, nothing is lost: each pixel of a tiny image counts
# Inputs of this side are shown as they are, without a look at the files: of few images, of many.
_ENOUGH = (200, 96)


class Thumbnails(NamedTuple):
    """N pictures: the WebP files one after the other, uint8, and where each ends, int64 [N].

    One of no bytes stands for an image that could not be read.
    """

    data: np.ndarray
    ends: np.ndarray

    def webp(self, row: int) -> bytes:
        """The WebP file of one picture; empty where there is none."""
        start = self.ends[row - 1] if row else 0
        return bytes(self.data[start : self.ends[row]])


def joined(pictures: Sequence[bytes]) -> Thumbnails:
    """WebP files as one value."""
    ends = np.cumsum([len(picture) for picture in pictures], dtype=np.int64)
    return Thumbnails(np.frombuffer(b"".join(pictures), np.uint8), ends)


def encode(image: Image.Image, side: int = SIDE, quality: int = _QUALITY) -> bytes:
    """A WebP file of an image of 8 bits, at most `side` pixels long; small ones keep each pixel."""
    image = image.convert("RGB")
    if max(image.size) > side:
        image.thumbnail((side, side))
    file = io.BytesIO()
    exact = max(image.size) <= _EXACT
    image.save(file, "WEBP", quality=100 if exact else quality, lossless=exact, method=4)
    return file.getvalue()


def encode_array(image_HxWxC: np.ndarray, side: int = SIDE) -> bytes:
    """`encode` of uint8 [H, W, 1 or 3]."""
    grey = image_HxWxC.shape[-1] == 1
    return encode(Image.fromarray(image_HxWxC[..., 0] if grey else image_HxWxC), side)


def smaller(webp: bytes, side: int, quality: int) -> bytes:
    """A WebP file brought to at most `side` pixels; as it is where it is that small, or empty."""
    if not webp:
        return webp
    with Image.open(io.BytesIO(webp)) as image:
        return webp if max(image.size) <= side else encode(image, side, quality)


def open_scaled(file: Path, how: Mapping[str, Any]) -> Image.Image:
    """The image in a file, of 8 bits, at its own size; `how` has value_range, set_range, frame.

    Raises:
        Exception: as `data.images.read_image`.
    """
    value_range, set_range = how["value_range"], how["set_range"]
    image = open_image(file, frame=how["frame"], windowed=not len(value_range))
    if isinstance(image, Grey):
        return scale(image, value_range=value_range, set_range=set_range)
    return image


def of_rows(dataset: Dataset, rows_n: np.ndarray) -> Thumbnails | None:
    """The pictures of those rows of a data set; None where it has no images, or nobody knows them.

    Of a file that cannot be read any more the network's own input is taken, if that is an image.
    """
    view, inputs, few = dataset.view, dataset.inputs, len(rows_n) <= _FEW
    side, enough = SIDE if few else _LESS, _ENOUGH[0 if few else 1]
    if inputs.ndim == 4 and (view is None or not view.files or min(inputs.shape[1:3]) >= enough):
        return joined([encode_array(np.asarray(inputs[row]), side) for row in rows_n])
    if view is None or inputs.ndim == 5:
        return None
    if view.thumbnails is not None:
        return joined([encode_array(view.thumbnails[row], side) for row in rows_n])
    files, how = view.files, view.how

    def of_file(row: int) -> bytes:
        try:
            return encode(open_scaled(files[row], how), side)
        except Exception:  # whatever a decoder raises: it is gone, or changed since
            return encode_array(np.asarray(inputs[row])) if inputs.ndim == 4 else b""

    with contextlib.suppress(UserError):  # each of them is then as one that cannot be read
        open_heic([files[row] for row in rows_n])
    with ThreadPoolExecutor(threads()) as pool:
        return joined(list(pool.map(of_file, rows_n.tolist())))
