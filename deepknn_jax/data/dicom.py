"""DICOM files to colours or grey values."""

import importlib.util
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from deepknn_jax.data.frames import choose_frame
from deepknn_jax.data.levels import EIGHT_BITS, FLOATS, WIDE, WINDOWED, Grey

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PLUGINS = ("pylibjpeg", "libjpeg", "openjpeg")  # modules of the extra [dicom]
_MARK = b"DICM"
# Where an enhanced file keeps, frame by frame, what a plain one has at its top.
FRAME_GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")


def is_dicom(file: Path) -> bool:
    """Whether what is in the file says that it is DICOM, whatever its name.

    That is the mark behind the preamble; in a file named .dcm an element in place of the preamble,
    too.

    Raises:
        OSError: it cannot be read.
    """
    head = _head(file)
    return head[128:] == _MARK or (file.suffix.lower() == ".dcm" and _begins_with_element(head))


def open_dicom(file: Path, *, frame: str = "", windowed: bool = True) -> Image.Image | Grey:
    """A frame of a DICOM file: an "RGB" image, or grey values.

    Grey values go through rescale slope and intercept, then, where the file has one and `windowed`,
    through its first VOI table or window (a sigmoid window as a linear one). Without either, 8 bits
    have what these can hold for a window, and more bits none. MONOCHROME1: low is white. Colour
    must have 8 bits a channel, or a palette. Of several frames `frame` names one (see
    frames.choose_frame). Compressed files: JPEG baseline and JPEG 2000 by pillow, RLE; others with
    the plug-ins of the extra [dicom]. A file that begins with elements in place of the preamble is
    read, too. Source: DICOM PS3.3, C.7.6.3.1.2 (photometric interpretation), C.11.1 and C.11.2
    (tables), C.7.6.16 (frames).

    Raises:
        Exception: whatever pydicom raises on a file that is broken or no DICOM; ValueError where it
            is compressed in a way for which no decoder is installed, or the frame is not named.
    """
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    dataset = _read(file)
    index = choose_frame(frame, int(dataset.get("NumberOfFrames") or 1))
    pixels = _pixels(dataset, index)  # YCbCr comes as RGB
    if dataset.SamplesPerPixel == 3 and pixels.dtype == np.uint8:
        return Image.fromarray(pixels)
    kind, bits = dataset.PhotometricInterpretation, dataset.get("BitsStored", 0)
    if kind == "PALETTE COLOR":
        colours = apply_color_lut(pixels, dataset)[..., :3]
        if colours.dtype != np.uint8:
            colours = np.rint(colours / 257).astype(np.uint8)
        return Image.fromarray(np.ascontiguousarray(colours))
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(f"{kind} of {bits} bits is not supported")
    _take_groups(dataset, index)
    values = np.asarray(apply_modality_lut(pixels, dataset))
    window = None
    if windowed:
        values, window = _windowed(values, dataset)
    return Grey(values, bits, window, kind == "MONOCHROME1")


def dicom_kind(file: Path) -> str:
    """What its pixels are (see levels), from its header alone."""
    dataset = _read(file, stop_before_pixels=True)
    if dataset.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        return EIGHT_BITS
    if not dataset.get("BitsStored"):
        return FLOATS
    _take_groups(dataset, 0)
    has_own = dataset.get("VOILUTSequence") or _window(dataset) or dataset.BitsStored <= 8
    return WINDOWED if has_own else WIDE


def _read(file: Path, *, stop_before_pixels: bool = False) -> "Dataset":
    import pydicom
    from pydicom.dataset import FileMetaDataset

    head = _head(file)
    bare = head[128:] != _MARK and _begins_with_element(head)
    dataset = pydicom.dcmread(file, force=bare, stop_before_pixels=stop_before_pixels)
    if bare and "TransferSyntaxUID" not in dataset.file_meta:
        implicit = dataset.original_encoding[0] is not False
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = (
            pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
        )
    return dataset


def _head(file: Path) -> bytes:
    """The preamble and the mark behind it."""
    with file.open("rb") as opened:
        return opened.read(132)


def _begins_with_element(head: bytes) -> bool:
    """Whether the first bytes are an element of group 2 or 8, little endian, as old files begin."""
    if len(head) < 12:
        return False
    group, element, length = struct.unpack("<HHI", head[:8])
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return group in (2, 8) and element < 0x1200 and (explicit or length < 1024)


def _pixels(dataset: "Dataset", index: int) -> np.ndarray:
    from pydicom.pixels import get_decoder, pixel_array

    try:
        return pixel_array(dataset, index=index)
    except RuntimeError as error:
        syntax = dataset.file_meta.TransferSyntaxUID
        lacking = any(importlib.util.find_spec(name) is None for name in PLUGINS)
        none_fits = not get_decoder(syntax).is_available or "does not support" in str(error)
        if syntax.is_compressed and none_fits and lacking:
            raise ValueError(f"{syntax.name}: its decoder is not installed: "
                             'pip install "deepknn-jax[dicom]"') from error  # fmt: skip
        raise


def _take_groups(dataset: "Dataset", index: int) -> None:
    """Brings rescale and window of frame `index` of an enhanced file to the top."""
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or ()
    for item in (*(dataset.get("SharedFunctionalGroupsSequence") or ()), *per_frame[index:][:1]):
        for name in FRAME_GROUPS:
            for group in item.get(name) or ():
                dataset.update({element.tag: element for element in group})


def _windowed(
    values: np.ndarray, dataset: "Dataset"
) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Values of a frame after its table, if it has one, and what becomes black and white."""
    from pydicom.pixels import apply_modality_lut, apply_voi

    if dataset.get("VOILUTSequence"):
        as_integers = np.rint(values).astype(np.int64)
        table_bits = dataset.VOILUTSequence[0].LUTDescriptor[2]
        return apply_voi(as_integers, dataset), (0, 2**table_bits - 1)
    bits = dataset.get("BitsStored", 0)
    if (window := _window(dataset)) or not 0 < bits <= 8:
        return values, window
    ends = np.asarray([0, 2**bits - 1]) - (2 ** (bits - 1) if dataset.PixelRepresentation else 0)
    low, high = np.sort(apply_modality_lut(ends, dataset)).tolist()
    return values, (low, high)


def _window(dataset: "Dataset") -> tuple[float, float] | None:
    """The ends of the first window; none where it is not there, empty, or of no width."""
    center, width = (
        [float(value) for value in np.ravel(dataset.get(key)) if value not in (None, "")][:1]
        for key in ("WindowCenter", "WindowWidth")
    )
    if not center or not width or width[0] <= 0:
        return None
    middle, whole = center[0], width[0]
    # A width below 1 has no "- 1" to take away: it is on a scale of fractions, where that of the
    # standard's LINEAR, which counts integers, makes no sense.
    if dataset.get("VOILUTFunction", "LINEAR") == "LINEAR" and whole >= 1:
        middle, whole = middle - 0.5, whole - 1
    return middle - whole / 2, middle + whole / 2
