"""DICOM files: tables, windows, inversion, compression; against pydicom's own processing."""

import io

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut, get_decoder
from pydicom.uid import JPEGBaseline8Bit, JPEGLosslessSV1, RLELossless
from support.tiny_sets import save_dicom

from deepknn_jax.data import dicom
from deepknn_jax.data.decode import decode
from deepknn_jax.data.dicom import open_dicom
from deepknn_jax.data.images import read_image
from deepknn_jax.data.levels import Grey, scale
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


def test_the_image_reader_takes_dicom(tmp_path):
    save_dicom(tmp_path / "a.DCM", RAMP8)
    image = read_image(tmp_path / "a.DCM", size=16, resize_rule="square", channels=3)
    np.testing.assert_array_equal(image, np.repeat(RAMP8[..., None], 3, axis=-1))
