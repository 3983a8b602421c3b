"""DICOM files to PIL images of 8 bits."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def open_dicom(file: Path) -> Image.Image:
    """The first frame of a DICOM file as an "L" or "RGB" image.

    Grey values go through rescale slope and intercept, then, where the file has one, through its
    first VOI table or window (a sigmoid window as a linear one). What spans 0..255 is the window,
    else all that the stored bits can hold: never the values of the one image, so that images stay
    comparable. MONOCHROME1 (low is white) is inverted. Colour must have 8 bits a channel.
    Compressed files: JPEG baseline and JPEG 2000 by pillow, RLE; others with pydicom's plugins.
    Source: DICOM PS3.3, C.7.6.3.1.2 (photometric interpretation), C.11.1 and C.11.2 (tables).

    Raises:
        Exception: whatever pydicom raises on a file that is broken, no DICOM, or compressed in a
            way for which no decoder is installed.
    """
    import pydicom
    from pydicom.pixels import pixel_array

    dataset = pydicom.dcmread(file)
    pixels = pixel_array(dataset, index=0)  # YCbCr comes as RGB
    if dataset.SamplesPerPixel == 3 and pixels.dtype == np.uint8:
        return Image.fromarray(pixels)
    kind = dataset.PhotometricInterpretation
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(f"{kind} of {dataset.BitsStored} bits is not supported")
    values, low, high = _grey(pixels, dataset)
    scaled = np.clip((values.astype(np.float64) - low) * (255 / max(high - low, 1e-6)), 0, 255)
    if kind == "MONOCHROME1":
        scaled = 255 - scaled
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def _grey(pixels: np.ndarray, dataset: "Dataset") -> tuple[np.ndarray, float, float]:
    """Values of a grey frame after its tables, and those that become black and white."""
    from pydicom.pixels import apply_modality_lut, apply_voi

    bits = dataset.BitsStored
    ends = np.asarray([0, 2**bits - 1]) - (2 ** (bits - 1) if dataset.PixelRepresentation else 0)
    values = apply_modality_lut(pixels, dataset)
    if dataset.get("VOILUTSequence"):
        as_integers = np.rint(values).astype(np.int64)
        table_bits = dataset.VOILUTSequence[0].LUTDescriptor[2]
        return apply_voi(as_integers, dataset), 0, 2**table_bits - 1
    if "WindowWidth" not in dataset:
        low, high = np.sort(apply_modality_lut(ends, dataset)).tolist()
        return values, low, high
    center, width = (
        float(np.ravel(dataset[key].value)[0]) for key in ("WindowCenter", "WindowWidth")
    )
    if dataset.get("VOILUTFunction", "LINEAR") == "LINEAR":
        center, width = center - 0.5, width - 1
    return values, center - width / 2, center + width / 2
