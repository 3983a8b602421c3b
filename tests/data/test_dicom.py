"""DICOM files: tables, windows, inversion, compression; against pydicom's own processing."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut, get_decoder
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)
from support.optional import require
from support.tiny_sets import save_dicom

from deepknn_jax.data import dicom
from deepknn_jax.data.account import files_line
from deepknn_jax.data.decode import decode
from deepknn_jax.data.dicom import is_dicom, open_dicom
from deepknn_jax.data.images import kind_of, read_image
from deepknn_jax.data.levels import EIGHT_BITS, WIDE, Grey, scale
from deepknn_jax.errors import UserError

RAMP8 = np.arange(256, dtype=np.uint8).reshape(16, 16)
RAMP12 = np.linspace(0, 4095, 256).round().astype(np.uint16).reshape(16, 16)


def read(path, *, frame="", **ranges):
    """The frame as uint8; RAMP12's range is its set's."""
    image = open_dicom(path, frame=frame, windowed="value_range" not in ranges)
    if isinstance(image, Grey):
        image = scale(image, **({"set_range": (0, 4095)} | ranges))
    return np.asarray(image)


def test_eight_bits_pass_as_they_are_and_monochrome1_is_inverted(tmp_path):
    save_dicom(tmp_path / "a.dcm", RAMP8)
    np.testing.assert_array_equal(read(tmp_path / "a.dcm"), RAMP8)
    save_dicom(tmp_path / "b.dcm", RAMP8, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read(tmp_path / "b.dcm"), 255 - RAMP8)


def test_eight_stored_bits_are_their_own_range_after_rescale(tmp_path):
    save_dicom(tmp_path / "a.dcm", RAMP8 // 2, RescaleSlope="-2", RescaleIntercept="100")
    np.testing.assert_array_equal(read(tmp_path / "a.dcm"), 255 - RAMP8 // 2)
    signed = (RAMP8.astype(int) - 128).astype(np.int8)
    save_dicom(tmp_path / "b.dcm", signed)
    np.testing.assert_array_equal(read(tmp_path / "b.dcm"), RAMP8)


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT"])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_windows_are_pydicoms(tmp_path, function, kind):
    elements = {
        "RescaleSlope": "1.5", "RescaleIntercept": "-1024", "WindowCenter": ["300", "40"],
        "WindowWidth": ["1500", "80"], "PhotometricInterpretation": kind,
    }  # fmt: skip
    elements |= {"VOILUTFunction": function} if function else {}
    save_dicom(tmp_path / "a.dcm", RAMP12, bits=12, **elements)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    expected = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    low, high = -1024, 4095 * 1.5 - 1024  # the range that pydicom spreads the window over
    expected = np.rint(255 * (expected - low) / (high - low))
    assert 10 < (expected % 255 > 0).sum() < 240  # some inside, some cut off
    np.testing.assert_array_equal(
        read(tmp_path / "a.dcm"), 255 - expected if kind == "MONOCHROME1" else expected
    )


@pytest.mark.parametrize("window", [{}, {"WindowCenter": "40", "WindowWidth": "0"},
                                    {"WindowCenter": "", "WindowWidth": ""},
                                    {"WindowWidth": "80"}, {"WindowCenter": "40"}])  # fmt: skip
def test_a_window_that_is_none_leaves_the_range_to_the_set(tmp_path, window):
    elements = {"RescaleSlope": "1", "RescaleIntercept": "-1024"} | window
    save_dicom(tmp_path / "a.dcm", RAMP12, bits=12, **elements)
    assert kind_of(tmp_path / "a.dcm") == WIDE
    image = open_dicom(tmp_path / "a.dcm")
    assert (image.values.min(), image.values.max(), image.window) == (-1024, 3071, None)


@pytest.mark.parametrize(
    ("center", "width", "low", "high"),
    [
        ("0.5", "0.5", 0.25, 0.75),  # fractions: nothing is taken away
        ("0.5", "1", 0, 0),  # whole numbers: up to 0 black, above it white
        ("2", "3", 0.5, 2.5),
    ],
)
def test_the_width_of_a_window(tmp_path, center, width, low, high):
    elements = {"RescaleSlope": "0.00390625", "WindowCenter": center, "WindowWidth": width}
    save_dicom(tmp_path / "a.dcm", RAMP8, RescaleIntercept="0", **elements)
    assert open_dicom(tmp_path / "a.dcm").window == pytest.approx((low, high))


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_a_given_range_is_of_rescaled_values_and_goes_before_every_window(tmp_path, kind):
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4096, 0, 12], [0] * 4096
    table["LUTData"].VR = "US"
    elements = {
        "RescaleSlope": "2", "RescaleIntercept": "-1024", "PhotometricInterpretation": kind,
    }  # fmt: skip
    save_dicom(tmp_path / "a.dcm", RAMP12, bits=12, WindowCenter="0", WindowWidth="9", **elements)
    save_dicom(tmp_path / "b.dcm", RAMP12, bits=12, VOILUTSequence=[table], **elements)
    save_dicom(tmp_path / "c.dcm", RAMP12, bits=12, **elements)
    expected = 255 * np.clip((RAMP12 * 2.0 - 1024 + 160) / 400, 0, 1)
    expected = np.rint(255 - expected if kind == "MONOCHROME1" else expected)
    assert 10 < (expected % 255 > 0).sum() < 240
    for name in "abc":
        image = read(tmp_path / f"{name}.dcm", value_range=(-160, 240))
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("bits", [8, 16])
def test_palette_colour(tmp_path, bits):
    """Of 8 bits by pydicom's own words, of 16 by the upper end of each."""
    colours = {"Red": np.arange(256), "Green": 255 - np.arange(256), "Blue": np.full(256, 7)}
    elements = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, entries in colours.items():
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        entries = entries * 257 if bits == 16 else entries
        data = entries.astype(np.uint16 if bits == 16 else np.uint8).tobytes()
        elements[f"{name}PaletteColorLookupTableData"] = data
    save_dicom(tmp_path / "a.dcm", RAMP8, **elements)
    expected = np.stack([entries[RAMP8] for entries in colours.values()], axis=-1)
    np.testing.assert_array_equal(read(tmp_path / "a.dcm"), expected)
    assert kind_of(tmp_path / "a.dcm") == EIGHT_BITS


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("meta", [False, True])
def test_a_file_without_preamble(tmp_path, syntax, meta):
    save_dicom(tmp_path / "a.dcm", RAMP12, bits=12, syntax=syntax)
    data = (tmp_path / "a.dcm").read_bytes()
    length = int.from_bytes(data[140:144], "little")  # of the meta elements behind that number
    (tmp_path / "b.dcm").write_bytes(data[132:] if meta else data[144 + length :])
    np.testing.assert_array_equal(read(tmp_path / "b.dcm"), read(tmp_path / "a.dcm"))
    assert kind_of(tmp_path / "b.dcm") == WIDE


def test_dicom_is_known_by_its_content_whatever_its_name(tmp_path):
    for name in ("IM0001", "a.ima"):
        save_dicom(tmp_path / name, RAMP8)
        image = read_image(tmp_path / name, size=16, resize_rule="square", channels=1)
        np.testing.assert_array_equal(image[..., 0], RAMP8)


def test_an_enhanced_file_has_its_tables_frame_by_frame(tmp_path):
    def group(name, **elements):
        item = Dataset()
        for key, value in elements.items():
            setattr(item, key, value)
        outer = Dataset()
        setattr(outer, name, [item])
        return outer

    shared = group("PixelValueTransformationSequence", RescaleSlope="2", RescaleIntercept="-9")
    windows = [
        group("FrameVOILUTSequence", WindowCenter=str(100 * i), WindowWidth="50") for i in (1, 2)
    ]
    save_dicom(
        tmp_path / "a.dcm", np.concatenate([RAMP12, RAMP12]), bits=12, Rows=16,
        NumberOfFrames="2", SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=windows,
    )  # fmt: skip
    for frame in (0, 1):
        grey = open_dicom(tmp_path / "a.dcm", frame=str(frame))
        np.testing.assert_array_equal(grey.values, RAMP12 * 2.0 - 9)
        assert grey.window == (100 * frame + 75, 100 * frame + 124)


def test_a_table_goes_before_a_window(tmp_path):
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 12]
    table.LUTData = (4095 - np.arange(4096)).tolist()
    table["LUTData"].VR = "US"
    save_dicom(
        tmp_path / "a.dcm", RAMP12, bits=12, VOILUTSequence=[table], WindowCenter="1",
        WindowWidth="2",
    )  # fmt: skip
    np.testing.assert_array_equal(read(tmp_path / "a.dcm"), np.rint((4095 - RAMP12) * (255 / 4095)))


def test_jpeg_baseline_as_rsna_compresses(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(RAMP8).save(buffer, "JPEG", quality=95)
    save_dicom(tmp_path / "a.dcm", RAMP8, syntax=JPEGBaseline8Bit, data=buffer.getvalue())
    buffer.seek(0)
    np.testing.assert_array_equal(read(tmp_path / "a.dcm"), np.asarray(Image.open(buffer)))


def test_colour_in_jpeg_comes_as_rgb(tmp_path):
    colours = np.zeros((16, 16, 3), np.uint8)
    colours[..., 0], colours[:8, :, 1] = 200, 90
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, "JPEG", quality=100, subsampling=0)
    save_dicom(
        tmp_path / "a.dcm", colours, syntax=JPEGBaseline8Bit, data=buffer.getvalue(),
        SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL", PlanarConfiguration=0,
    )  # fmt: skip
    assert np.abs(read(tmp_path / "a.dcm").astype(int) - colours).max() < 6


def test_run_length_encoding(tmp_path):
    save_dicom(tmp_path / "a.dcm", RAMP12, bits=12)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.compress(RLELossless)
    dataset.save_as(tmp_path / "b.dcm")
    np.testing.assert_array_equal(read(tmp_path / "b.dcm"), read(tmp_path / "a.dcm"))


def shipped(name):
    """One of pydicom's own files."""
    return Path(get_testdata_file(f"{name}.dcm", download=False))


def test_jpeg_2000_needs_no_plug_in():
    plain, packed = (open_dicom(shipped(f"MR_small{end}")) for end in ("", "_jp2klossless"))
    np.testing.assert_array_equal(packed.values, plain.values)
    assert packed.window == plain.window


@pytest.mark.dicom
def test_jpeg_ls_and_lossless_jpeg():
    require("libjpeg")
    plain, packed = (open_dicom(shipped(f"MR_small{end}")) for end in ("", "_jpeg_ls_lossless"))
    np.testing.assert_array_equal(packed.values, plain.values)
    bars = np.asarray(open_dicom(shipped("SC_rgb_jpeg_gdcm")))[5::10, 50].tolist()
    assert bars == [
        [255, 0, 0], [255, 128, 128], [0, 255, 0], [128, 255, 128], [0, 0, 255], [128, 128, 255],
        [0, 0, 0], [64, 64, 64], [192, 192, 192], [255, 255, 255],
    ]  # fmt: skip


@pytest.mark.dicom
def test_twelve_bits_in_jpeg():
    require("libjpeg")
    grey = open_dicom(shipped("JPGExtended"))
    assert grey.bits == 12
    assert 255 < grey.values.max() < 4096


def test_a_file_that_needs_a_plug_in_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(get_decoder(JPEGLosslessSV1), "_available", {})
    monkeypatch.setattr(dicom, "PLUGINS", ("none_of_this_name",))
    save_dicom(tmp_path / "a.dcm", RAMP8, syntax=JPEGLosslessSV1, data=b"\xff\xd8\0\0")
    with pytest.raises(UserError, match=r"a.dcm: .*JPEG Lossless.*pip install \"deepknn-jax.dicom"):
        decode(
            [tmp_path / "a.dcm"], size=8, resize_rule="square", channels=1,
            cache_dir=tmp_path / "cache",
        )  # fmt: skip


def test_what_cannot_be_decoded_is_one_line_that_names_the_file(tmp_path):
    save_dicom(tmp_path / "a.dcm", RAMP8, syntax=JPEGBaseline8Bit, data=b"\xff\xd8\0\0")
    (tmp_path / "b.dcm").write_text("no image")
    save_dicom(tmp_path / "c.dcm", RAMP8, PhotometricInterpretation="PALETTE COLOR")
    for name, words in (("a", "Unable to decode"), ("b", "DICOM"), ("c", "Palette Color")):
        with pytest.raises(UserError, match=rf"{name}.dcm: cannot be decoded \(.*{words}"):
            decode(
                [tmp_path / f"{name}.dcm"], size=8, resize_rule="square", channels=1,
                cache_dir=tmp_path / "cache",
            )  # fmt: skip


def test_what_a_file_is_its_content_says_and_not_its_name(tmp_path):
    """The account, the kind of the pixels and the reader go by one rule."""
    save_dicom(tmp_path / "scan.jpg", RAMP8)
    Image.fromarray(RAMP8).save(tmp_path / "photo.png")
    (tmp_path / "photo.png").rename(tmp_path / "photo.dcm")
    assert is_dicom(tmp_path / "scan.jpg")
    assert not is_dicom(tmp_path / "photo.dcm")
    for name, kind in (("scan.jpg", "DICOM, 8 bits"), ("photo.dcm", "PNG, grey")):
        assert f"opened: {kind} 1" in files_line([tmp_path / name])
        image = read_image(tmp_path / name, size=16, resize_rule="square", channels=1)
        np.testing.assert_array_equal(image[..., 0], RAMP8)


def test_the_image_reader_takes_dicom(tmp_path):
    save_dicom(tmp_path / "a.DCM", RAMP8)
    image = read_image(tmp_path / "a.DCM", size=16, resize_rule="square", channels=3)
    np.testing.assert_array_equal(image, np.repeat(RAMP8[..., None], 3, axis=-1))
