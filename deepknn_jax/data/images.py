"""One image file, or one array, to uint8 [size, size, channels]."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile

from deepknn_jax.data.dicom import dicom_kind, is_dicom, open_dicom
from deepknn_jax.data.frames import choose_frame
from deepknn_jax.data.levels import EIGHT_BITS, FLOATS, WIDE, Grey, scale
from deepknn_jax.data.npy import read_npy, read_npy_type
from deepknn_jax.errors import UserError, check_choice

DECODER_VERSION = 2  # count it up whenever the pixels below change: caches are then made anew
RESIZE_RULES = ("square", "short_side")
# TIFF's tags and values.
_KIND_OF_PAGE, _BITS, _PHOTOMETRIC, _FORMAT = 254, 258, 262, 339
_REDUCED_OR_MASK = 1 | 4
_MIN_IS_WHITE, _UNSIGNED, _SIGNED = 0, 1, 2


def check_fit(*, size: int, resize_rule: str, channels: int) -> None:
    """Raises UserError for what `fit_image` does not take. Callers check before they decode."""
    if size < 1:
        raise UserError(f"`size` is {size}: it must be at least 1 for image files")
    check_choice("`resize_rule`", resize_rule, RESIZE_RULES)
    if channels not in (1, 3):
        raise UserError(f"`channels` is {channels}: it must be 1 or 3 for images")


def read_image(
    file: Path | BinaryIO,
    *,
    size: int,
    resize_rule: str,
    channels: int,
    value_range: Sequence[float] = (),
    set_range: Sequence[float] = (),
    frame: str = "",
) -> np.ndarray:
    """Decodes one image file to uint8 [size, size, channels]: `open_image`, then `fit_image`.

    Grey values of more than 8 bits, and floats, become 8 by `levels.scale`: `value_range` (low,
    high) is what the user gives, `set_range` the range of the set's wide integers.

    Raises:
        Exception: what `open_image` and `levels.scale` raise.
    """
    image = open_image(file, frame=frame, windowed=not len(value_range))
    if isinstance(image, Grey):
        image = scale(image, value_range=value_range, set_range=set_range)
    return fit_image(image, size=size, resize_rule=resize_rule, channels=channels)


def open_image(
    file: Path | BinaryIO, *, frame: str = "", windowed: bool = True
) -> Image.Image | Grey:
    """The image in a file: 8 bits a channel without transparency, or grey values to be scaled.

    EXIF orientation is applied; transparent parts become black. Colour of 16 bits a channel comes
    with its upper 8. DICOM as in `open_dicom`, known by `is_dicom`. An .npy file holds
    [H, W], or uint8 [H, W, 1 or 3]. Of the pages of a TIFF `frame` names one, masks and thumbnails
    not counted (see frames.choose_frame); of other moving images the first frame is taken.

    Raises:
        Exception: whatever the decoder raises on a file that is truncated or not an image, or
            ValueError on a TIFF of several pages of which none is named.
    """
    if isinstance(file, Path) and file.suffix.lower() == ".npy":
        return _open_npy(file)
    if isinstance(file, Path) and is_dicom(file):
        return open_dicom(file, frame=frame, windowed=windowed)
    with _opened(file) as opened:
        _turn_to_page(opened, frame)
        if isinstance(opened, PpmImageFile) and opened.mode == "I":
            return _wide_pgm(opened)
        ImageOps.exif_transpose(opened, in_place=True)
        if _kind(opened) != EIGHT_BITS:
            return _grey(opened)
        image = _opaque(opened)
        image.load()
    return image


def kind_of(file: Path | BinaryIO) -> str:
    """What its pixels are (see levels), from its header alone; broken ones pass as 8 bits."""
    try:
        if isinstance(file, Path) and file.suffix.lower() == ".npy":
            letter = read_npy_type(file)
            return EIGHT_BITS if letter == np.uint8 else FLOATS if letter.kind == "f" else WIDE
        if isinstance(file, Path) and is_dicom(file):
            return dicom_kind(file)
        if isinstance(file, Path) and _is_jpeg(file):
            return EIGHT_BITS  # the only kind that Pillow reads, and a third of the time
        with _opened(file) as opened:
            return _kind(opened)
    except Exception:  # whatever a decoder raises: it will again, and then with the file's name
        return EIGHT_BITS


def _is_jpeg(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(3) == b"\xff\xd8\xff"


@contextlib.contextmanager
def _opened(file: Path | BinaryIO) -> Iterator[Image.Image]:
    """Pillow's image of an open file: given a path it maps uncompressed grey TIFF into memory.

    Where orientation 5 to 8 turns the image, it then takes the sides of the turned one for those
    that are stored, and the lines are out of step.
    """
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(file.open("rb")) if isinstance(file, Path) else file
        try:
            yield stack.enter_context(Image.open(stream))
        except UnidentifiedImageError as error:
            raise ValueError(
                "it is neither DICOM nor an image of a format that Pillow knows"
            ) from error


def _turn_to_page(opened: Image.Image, frame: str) -> None:
    if not isinstance(opened, TiffImageFile) or opened.n_frames == 1:
        return
    pages = []
    for page in range(opened.n_frames):
        opened.seek(page)
        if not opened.tag_v2.get(_KIND_OF_PAGE, 0) & _REDUCED_OR_MASK:
            pages.append(page)
    opened.seek(pages[choose_frame(frame, len(pages))] if pages else 0)


def _kind(opened: Image.Image) -> str:
    """Of Pillow's modes. Signed bytes it takes for unsigned ones: they need a range, too."""
    tags = getattr(opened, "tag_v2", {})
    if opened.mode == "L" and tags.get(_FORMAT) == (_SIGNED,):
        return WIDE
    return {"I": WIDE, "F": FLOATS}.get(opened.mode[0], EIGHT_BITS)


def _grey(opened: Image.Image) -> Grey:
    """Values as they are in the file: Pillow's own conversion would clip them at 255."""
    tags = getattr(opened, "tag_v2", {})
    values = np.array(opened)
    if opened.mode == "F":
        bits = 0
    else:
        bits = tags.get(_BITS, (32 if opened.mode == "I" else 16,))[0]
        # Pillow knows no unsigned numbers of 32 bits, and no signed ones of 8.
        if tags and (bits, tags.get(_FORMAT, (_UNSIGNED,))[0]) == (32, _UNSIGNED):
            values = values.view(np.uint32)
        elif bits == 8:
            values = values.view(np.int8)
    return Grey(values, bits, low_is_white=tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE)


def _wide_pgm(opened: PpmImageFile) -> Grey:
    """The file's own numbers: Pillow stretches them to 65535 where they end at less."""
    args = opened.tile[0].args
    most = int(args[-1]) if isinstance(args, tuple) else 65535
    return Grey(np.rint(np.array(opened) * (most / 65535)).astype(np.int32), most.bit_length())


def _open_npy(file: Path) -> Image.Image | Grey:
    pixels = read_npy(file)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype == np.uint8 and (pixels.ndim == 2 or pixels.shape[2:] == (3,)):
        return Image.fromarray(pixels)
    if pixels.ndim != 2 or pixels.dtype.kind not in "fiu":
        raise ValueError(f"{pixels.dtype} {list(pixels.shape)} is no image")
    return Grey(pixels, 0 if pixels.dtype.kind == "f" else 8 * pixels.itemsize)


def fit_array(image_HxWxC: np.ndarray, *, size: int, resize_rule: str, channels: int) -> np.ndarray:
    """`fit_image` of an array that is uint8 [H, W, 1 or 3] already."""
    grey = image_HxWxC.shape[-1] == 1
    image = Image.fromarray(image_HxWxC[..., 0] if grey else image_HxWxC)
    return fit_image(image, size=size, resize_rule=resize_rule, channels=channels)


def fit_image(image: Image.Image, *, size: int, resize_rule: str, channels: int) -> np.ndarray:
    """Resizes 8 bits (bilinear, antialiased) to uint8 [size, size, channels]; channels 1 or 3.

    `resize_rule` "square" squashes; "short_side" brings the shorter side to `size`, keeping the
    aspect, and cuts out the centre, to the pixel as torchvision's Resize and CenterCrop do on PIL
    images.
    """
    mode = "L" if channels == 1 else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    if resize_rule == "square":
        width, height = size, size
    else:
        width, height = (size * side // min(image.size) for side in image.size)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    pixels = np.asarray(image)[top : top + size, left : left + size]
    return pixels.reshape(size, size, channels)


def _opaque(image: Image.Image) -> Image.Image:
    """Without transparency."""
    if image.has_transparency_data:
        # What lies under a transparent pixel is arbitrary; black is what masked images use.
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image
