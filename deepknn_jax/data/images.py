"""One image file, or one array, to uint8 [size, size, channels]."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from deepknn_jax.data.dicom import open_dicom
from deepknn_jax.data.npy import read_npy
from deepknn_jax.data.walk import is_dicom
from deepknn_jax.errors import UserError, check_choice

DECODER_VERSION = 1  # count it up whenever the pixels below change: caches are then made anew
RESIZE_RULES = ("square", "short_side")


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
) -> np.ndarray:
    """Decodes one image file to uint8 [size, size, channels]; the first frame where it has many.

    EXIF orientation is applied; 16-bit grey is scaled to 8 bits; transparent parts become black;
    .dcm as in `open_dicom`; then `fit_image`. `value_range` (low, high) is what becomes 0 and 255,
    beyond it clipped, of pixels that have no range of their own: floats (.npy, .tif) and .npy
    integers other than uint8. An .npy file holds [H, W], or uint8 [H, W, 1 or 3].

    Raises:
        Exception: whatever the decoder raises on a file that is truncated or not an image, or
            ValueError on one whose range is unknown (float without `value_range`, above 16 bits).
    """
    if isinstance(file, Path) and file.suffix.lower() == ".npy":
        image = _open_npy(file, value_range)
    elif isinstance(file, Path) and is_dicom(file):
        image = open_dicom(file)
    else:
        with Image.open(file) as opened:
            ImageOps.exif_transpose(opened, in_place=True)
            image = _eight_bits(opened, value_range)
            image.load()
    return fit_image(image, size=size, resize_rule=resize_rule, channels=channels)


def _open_npy(file: Path, value_range: Sequence[float]) -> Image.Image:
    pixels = read_npy(file)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype == np.uint8 and (pixels.ndim == 2 or pixels.shape[2:] == (3,)):
        return Image.fromarray(pixels)
    if pixels.ndim != 2 or pixels.dtype.kind not in "fiu":
        raise ValueError(f"{pixels.dtype} {list(pixels.shape)} is no image")
    return _scaled(pixels, value_range)


def _scaled(pixels: np.ndarray, value_range: Sequence[float]) -> Image.Image:
    """Pixels [H, W] of any numbers as 8 bits."""
    if not len(value_range):
        raise ValueError(f"{pixels.dtype} pixels have no range of their own: "
                         "set `value_range`")  # fmt: skip
    if not np.isfinite(pixels).all():
        raise ValueError("NaN or infinite pixels")
    low, high = value_range
    scaled = np.clip((pixels.astype(np.float64) - low) * (255 / (high - low)), 0, 255)
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


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
    image = image.convert("L" if channels == 1 else "RGB")
    if resize_rule == "square":
        width, height = size, size
    else:
        width, height = (size * side // min(image.size) for side in image.size)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    pixels = np.asarray(image)[top : top + size, left : left + size]
    return pixels.reshape(size, size, channels)


def _eight_bits(image: Image.Image, value_range: Sequence[float]) -> Image.Image:
    """An image of 8 bits a channel without transparency."""
    if image.mode.startswith("I"):  # PIL's own conversion of 16 bits would clip at 255
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("more than 16 bits a pixel; save it with 8 or 16")
        return Image.fromarray(np.rint(values / 257).astype(np.uint8))
    if image.mode == "F":
        return _scaled(np.asarray(image), value_range)
    if image.has_transparency_data:
        # What lies under a transparent pixel is arbitrary; black is what masked images use.
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image
