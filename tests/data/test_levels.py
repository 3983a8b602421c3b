"""Grey levels of more than 8 bits: a given range, the set's own, and what is told of both."""

import numpy as np
import pydicom
import pytest
from PIL import Image
from support.tiffs import save_tiff
from support.tiny_sets import save_dicom

from deepknn_jax.data import decode as decode_lib
from deepknn_jax.data.decode import decode
from deepknn_jax.data.images import open_image
from deepknn_jax.data.levels import Grey, scale, scale_arrays
from deepknn_jax.data.load import load_dataset
from deepknn_jax.errors import UserError

HU = np.linspace(-1000, 3000, 64).round().astype(np.int32).reshape(8, 8)


def run(files, tmp_path, **options):
    defaults = {"size": 8, "resize_rule": "square", "channels": 1, "cache_dir": tmp_path / "cache"}
    images, *_ = decode(files, **(defaults | options))
    return images[..., 0]


def spread(values, low, high):
    return np.rint(np.clip((values - float(low)) * (255 / (high - low)), 0, 255))


def save_hu(path, hu):
    """Hounsfield units in the form that the name tells."""
    kind = path.name.split("_")[0]
    match kind:
        case "offset":
            Image.fromarray((hu + 32768).astype(np.uint16)).save(path)
        case "signed":
            save_tiff(path, hu.astype(np.int16))
        case "big":
            save_tiff(path, hu.astype(np.int16), order=">")
        case "int32":
            Image.fromarray(hu).save(path)
        case "ct":
            stored = (hu + 24).astype(np.int16)
            save_dicom(path, stored, bits=16, RescaleSlope="1", RescaleIntercept="-24")
        case "npy":
            np.save(path, hu.astype(np.int16))


FORMS = {  # suffix, what is added to the units, bits
    "offset": (".png", 32768, 16),
    "signed": (".tif", 0, 16),
    "big": (".tif", 0, 16),
    "int32": (".tif", 0, 32),
    "ct": (".dcm", 0, 16),
    "npy": (".npy", 0, 16),
}


@pytest.mark.parametrize("form", FORMS)
def test_hounsfield_units_in_every_form(tmp_path, capsys, form):
    """The training part's range, for all; what is beyond it is clipped; and a given range."""
    suffix, offset, bits = FORMS[form]
    files = [tmp_path / f"{form}_{i}{suffix}" for i in range(3)]
    units = [HU, HU // 2, 2 * HU]  # the last one tests
    for file, hu in zip(files, units, strict=True):
        save_hu(file, hu)
    for _ in range(2):  # the second time from the cache
        images = run(files, tmp_path, training=[0, 1])
        for image, hu in zip(images, units, strict=True):
            np.testing.assert_array_equal(image, spread(hu, -1000, 3000))
        assert capsys.readouterr().out == (
            f"grey levels: {bits}-bit images scaled from {offset - 1000}..{offset + 3000} "
            "of the training part\n"
        )
    images = run(files, tmp_path, training=[0, 1], value_range=(offset - 160, offset + 240))
    for image, hu in zip(images, units, strict=True):
        np.testing.assert_array_equal(image, spread(hu, -160, 240))


def test_twelve_bits_in_sixteen(tmp_path, capsys):
    values = np.linspace(0, 4095, 64).round().astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_array_equal(run([tmp_path / "a.png"], tmp_path)[0], spread(values, 0, 4095))
    assert capsys.readouterr().out == "grey levels: 16-bit images scaled from 0..4095 of the set\n"


def test_unsigned_32_bits_are_not_negative(tmp_path):
    values = np.asarray([[0, 1 << 31], [(1 << 32) - 1, 1 << 30]], np.uint32)
    grey = open_image(save_tiff(tmp_path / "a.tif", values))
    np.testing.assert_array_equal(grey.values, values)


def test_signed_bytes_are_not_unsigned(tmp_path, capsys):
    values = np.arange(-128, 128, dtype=np.int16).astype(np.int8).reshape(16, 16)
    file = save_tiff(tmp_path / "a.tif", values)
    image = run([file], tmp_path, size=16)[0]
    np.testing.assert_array_equal(image, np.arange(256).reshape(16, 16))
    assert "8-bit images scaled from -128..127" in capsys.readouterr().out


@pytest.mark.parametrize("most", [1023, 4095, 65535])
def test_pgm_has_the_numbers_of_the_file(tmp_path, most):
    """Pillow stretches them to 16 bits; a range is given in the file's own."""
    values = np.linspace(0, most, 64).round().astype(np.uint16).reshape(8, 8)
    plain = f"P2 8 8 {most}\n" + " ".join(map(str, values.ravel()))
    (tmp_path / "plain.pgm").write_text(plain)
    header = f"P5 8 8 {most}\n".encode()
    (tmp_path / "raw.pgm").write_bytes(header + values.astype(">u2").tobytes())
    for name in ("plain", "raw"):
        grey = open_image(tmp_path / f"{name}.pgm")
        np.testing.assert_array_equal(grey.values, values)
        assert grey.bits == int(most).bit_length()


def test_min_is_white_inverts_in_every_depth(tmp_path):
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    for pixels, high in ((ramp, 255), (ramp * np.uint16(257), 65535), (ramp / np.float32(255), 1)):
        save_tiff(tmp_path / "a.tif", pixels, photometric=0)
        image = run([tmp_path / "a.tif"], tmp_path, value_range=(0, high))[0]
        np.testing.assert_array_equal(image, 255 - ramp)


def test_eight_bits_are_as_before_whatever_the_range(tmp_path, capsys):
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    Image.fromarray(ramp).save(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", ramp)
    files = [tmp_path / "a.png", tmp_path / "b.npy"]
    for options in ({}, {"value_range": (0, 2)}):
        for image in run(files, tmp_path, **options):
            np.testing.assert_array_equal(image, ramp)
        told = capsys.readouterr().out
        assert ("`value_range` is left aside: the images have 8 bits" in told) == (options != {})


def test_wide_and_eight_bits_in_one_set(tmp_path, capsys):
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    Image.fromarray(ramp).save(tmp_path / "a.png")
    Image.fromarray(ramp.astype(np.uint16) * 10).save(tmp_path / "b.png")
    images = run([tmp_path / "a.png", tmp_path / "b.png"], tmp_path)
    np.testing.assert_array_equal(images[0], ramp)
    np.testing.assert_array_equal(images[1], spread(ramp, 0, 252))
    assert "scaled from 0..2520" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"b.png: pixels of 16 bits, .*set `value_range`$"):
        run([tmp_path / "a.png", tmp_path / "b.png"], tmp_path, training=[0], on_error="skip")


@pytest.mark.parametrize("form", ["tif", "npy", "dcm"])
def test_floats_need_a_range(tmp_path, form):
    values = np.linspace(-0.5, 2, 64, dtype=np.float32).reshape(8, 8)
    file = tmp_path / f"a.{form}"
    match form:
        case "tif":
            save_tiff(file, values)
        case "npy":
            np.save(file, values)
        case "dcm":
            save_dicom(file, values.view(np.uint32), bits=32)
            dataset = pydicom.dcmread(file)
            for name in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
                delattr(dataset, name)
            dataset.FloatPixelData = values.tobytes()
            dataset.save_as(file)
    with pytest.raises(UserError, match=rf"a.{form}: float32 pixels .*: set `value_range`$"):
        run([file], tmp_path, on_error="skip")
    image = run([file], tmp_path, value_range=(0, 2))[0]
    np.testing.assert_array_equal(image, spread(values.astype(float), 0, 2))


def test_few_levels_are_warned_of(tmp_path, capsys):
    """An image with one hot pixel has the range of the set."""
    hot = np.arange(64, dtype=np.uint16).reshape(8, 8)
    hot[0, 0] = 65535
    Image.fromarray(hot).save(tmp_path / "a.png")
    run([tmp_path / "a.png"], tmp_path)
    words = "warning: the images have only 2 grey levels; set `value_range`"
    assert words in capsys.readouterr().out
    run([tmp_path / "a.png"], tmp_path, value_range=(0, 63))
    assert "warning" not in capsys.readouterr().out


def test_the_pass_is_made_once_and_follows_the_training_part(tmp_path, monkeypatch, capsys):
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for i, file in enumerate(files):
        Image.fromarray(((i + 1) * HU + 9000).astype(np.uint16)).save(file)
    opened = []

    def counting(file, **options):
        opened.append(file.name)
        return open_image(file, **options)

    monkeypatch.setattr(decode_lib, "open_image", counting)
    for _ in range(2):
        run(files, tmp_path, training=[0, 1])
    assert sorted(opened) == ["0.png", "1.png"]
    assert run(files, tmp_path, training=[2]).min() == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split(" scaled from ")[1].split()[0] for line in told] == [
        "7000..15000", "7000..15000", "6000..18000",
    ]  # fmt: skip


def test_a_broken_wide_file_may_be_skipped(tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file in files:
        Image.fromarray((HU + 9000).astype(np.uint16)).save(file)
    files[1].write_bytes(files[1].read_bytes()[:70])
    assert len(run(files, tmp_path, on_error="skip")) == 2
    with pytest.raises(UserError, match=r"1.png: cannot be decoded"):
        run(files, tmp_path)


def test_a_range_of_one_value_is_black():
    grey = Grey(np.full((2, 2), 7, np.uint16), 16)
    assert not np.asarray(scale(grey, set_range=(7, 7))).any()


def test_arrays_of_any_numbers(capsys):
    images = (np.arange(64, dtype=np.uint16).reshape(4, 4, 4, 1)) * 300
    training = np.asarray([0, 1])
    scaled, ends = scale_arrays(images, training=training)
    assert ends == (0, 9300)
    np.testing.assert_array_equal(scaled, spread(images, 0, 31 * 300))
    told = "grey levels: 16-bit images scaled from 0..9300 of the training part\n"
    assert capsys.readouterr().out == told
    again, ends = scale_arrays(images, training=training, set_range=(300, 6000))
    assert ends == (300, 6000)
    np.testing.assert_array_equal(again, spread(images, 300, 6000))
    assert "scaled from 300..6000 of an earlier run's training part" in capsys.readouterr().out
    floats = images / 1000
    with pytest.raises(UserError, match="float64 have no range of their own: set `value_range`"):
        scale_arrays(floats, training=training)
    scaled, ends = scale_arrays(floats, training=training, value_range=(0, 10))
    assert ends == ()
    np.testing.assert_array_equal(scaled, spread(floats, 0, 10))
    for kept in (images.astype(np.uint8), np.eye(3, dtype=np.float32)):
        assert scale_arrays(kept, training=training, value_range=(0, 1))[0] is kept


def test_an_npz_of_wide_images_is_scaled_by_the_part_that_trains(tmp_path, capsys):
    images = np.arange(6 * 16, dtype=np.uint16).reshape(6, 4, 4) * 50
    path = tmp_path / "a.npz"
    np.savez(path, x_train=images, y_train=[0, 1] * 3, x_test=images * 2, y_test=[0, 1] * 3)
    data = load_dataset("npz", folder=path, split="published")
    np.testing.assert_array_equal(data.inputs[:6, ..., 0], spread(images, 0, 95 * 50))
    np.testing.assert_array_equal(data.inputs[6:, ..., 0], spread(images * 2, 0, 95 * 50))
    assert "16-bit images scaled from 0..4750 of the training part" in capsys.readouterr().out
    data = load_dataset("npz", folder=path, split="published", value_range=(0, 9500))
    np.testing.assert_array_equal(data.inputs[:6, ..., 0], spread(images, 0, 9500))
    assert "left aside" not in capsys.readouterr().out
    bytes_ = images.astype(np.uint8)
    np.savez(path, x_train=bytes_, y_train=[0, 1] * 3, x_test=bytes_, y_test=[0, 1] * 3)
    data = load_dataset("npz", folder=path, split="published", value_range=(0, 9500))
    np.testing.assert_array_equal(data.inputs[:6, ..., 0], bytes_)
    assert "`value_range` is left aside" in capsys.readouterr().out
    np.savez(path, x_train=images / 4750, y_train=[0, 1] * 3, x_test=images / 9500, y_test=[0] * 6)
    with pytest.raises(UserError, match=r"x_train must be uint8.*set `value_range`"):
        load_dataset("npz", folder=path, split="published")
    data = load_dataset("npz", folder=path, split="published", value_range=(0, 1))
    np.testing.assert_array_equal(data.inputs[:6, ..., 0], spread(images, 0, 4750))


def test_class_folders_are_scaled_by_the_part_that_trains(tmp_path, capsys):
    for i in range(12):
        path = tmp_path / "set" / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((HU + 1000 + i).astype(np.uint16)).save(path)
    data = load_dataset(
        "class_folders", folder=tmp_path / "set", split="stratified", size=8, channels=1,
        cache_dir=tmp_path / "cache",
    )  # fmt: skip
    numbers = np.asarray([int(data.names[i][2:4]) for i in data.rows("train")])
    low, high = numbers.min(), 4000 + numbers.max()
    assert f"scaled from {low}..{high} of the training part" in capsys.readouterr().out
    for image, name in zip(data.inputs, data.names, strict=True):
        np.testing.assert_array_equal(image[..., 0], spread(HU + 1000 + int(name[2:4]), low, high))
