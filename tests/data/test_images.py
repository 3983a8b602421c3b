"""Decoding one image: orientation, bit depth, palettes, transparency, both resize rules."""

import io

import numpy as np
import pytest
from PIL import Image
from support.interop import import_vision
from support.tiffs import save_tiff

from deepknn_jax.data.images import fit_array, kind_of, open_image, read_image
from deepknn_jax.data.levels import EIGHT_BITS, WIDE

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return buffer


def quadrants():
    """Red green over blue white, 8 x 8."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4, :4], pixels[:4, 4:], pixels[4:, :4], pixels[4:, 4:] = RED, GREEN, BLUE, WHITE
    return Image.fromarray(pixels)


def corners(image):
    return [tuple(image[y, x].tolist()) for y in (0, -1) for x in (0, -1)]


# What a viewer shows of stored pixels under each orientation, from TIFF 6.0, "Orientation": which
# side of the picture the stored rows begin at, and which the columns.
TURNED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "TIFF lzw", "TIFF raw", "TIFF 16"])
def test_orientation_is_applied(tmp_path, kind, orientation):
    """From files, by their paths; 16 x 16 of four corners that differ, one of them with a notch."""
    pixels = np.asarray(quadrants().resize((16, 16), Image.Resampling.NEAREST)).copy()
    pixels[2:4, 4:6] = BLUE
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f"a.{kind.split()[0].lower()}"
    match kind:
        case "TIFF raw":
            save_tiff(file, pixels, orientation=orientation)
        case "TIFF 16":
            pixels = pixels[..., :1].repeat(3, axis=-1)
            save_tiff(file, pixels[..., 0] * np.uint16(257), orientation=orientation)
        case "TIFF lzw":
            Image.fromarray(pixels).save(file, compression="tiff_lzw", exif=exif)
        case "JPEG":
            Image.fromarray(pixels).save(file, quality=100, subsampling=0, exif=exif)
        case _:
            options = {"lossless": True} if kind == "WEBP" else {}
            Image.fromarray(pixels).save(file, exif=exif, **options)
    image = read_image(
        file, size=16, resize_rule="square", channels=3, set_range=(0, 65535)
    ).astype(int)
    assert np.abs(image - TURNED[orientation](pixels)).max() <= (60 if kind == "JPEG" else 0)


@pytest.mark.parametrize("orientation", TURNED)
def test_a_wide_image_is_turned_to_a_tall_one(tmp_path, orientation):
    pixels = np.arange(6 * 4, dtype=np.uint8).reshape(4, 6)
    for file in (tmp_path / "a.tif", tmp_path / "a.png"):
        if file.suffix == ".tif":
            save_tiff(file, pixels, orientation=orientation)
        else:
            exif = Image.Exif()
            exif[0x0112] = orientation
            Image.fromarray(pixels).save(file, exif=exif)
        np.testing.assert_array_equal(open_image(file), TURNED[orientation](pixels))


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    values = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
    for kind in ("PNG", "TIFF"):
        image = read_image(
            encoded(Image.fromarray(values), kind), size=8, resize_rule="square", channels=1,
            set_range=(0, 65535),
        )  # fmt: skip
        np.testing.assert_array_equal(image[..., 0], np.rint(values / 257))


def test_pixels_of_unknown_range_are_refused():
    for pixels, words in ((np.ones((4, 4), np.float32), "no range of their own"),
                          (np.full((4, 4), 70000, np.int32), "32 bits.*set")):  # fmt: skip
        file = encoded(Image.fromarray(pixels), "TIFF")
        with pytest.raises(ValueError, match=words):
            read_image(file, size=4, resize_rule="square", channels=1)


def test_npy_images_and_a_range_for_floats(tmp_path):
    def read(array, channels=1, **options):
        np.save(tmp_path / "a.npy", array)
        return read_image(
            tmp_path / "a.npy", size=len(array), resize_rule="square", channels=channels, **options
        )

    bytes_ = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read(bytes_, channels=3), bytes_)
    np.testing.assert_array_equal(read(bytes_[..., :1]), bytes_[..., :1])
    gamma = np.linspace(-0.5, 3, 64).reshape(8, 8)
    expected = np.rint(np.clip(gamma / 2, 0, 1) * 255)
    np.testing.assert_array_equal(read(gamma, value_range=(0, 2))[..., 0], expected)
    tif = encoded(Image.fromarray(gamma.astype(np.float32)), "TIFF")
    image = read_image(tif, size=8, resize_rule="square", channels=1, value_range=(0, 2))
    assert np.abs(image[..., 0] - expected).max() <= 1
    for array, words in (
        (gamma, "no range of their own: set `value_range`"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.zeros((4, 4, 3), np.float32), r"float32 \[4, 4, 3\] is no image"),
        (np.zeros((4, 4), complex), "complex128"),
    ):
        with pytest.raises(ValueError, match=words):
            read(array, value_range=() if array is gamma else (0, 2))


def test_palette_alpha_and_one_bit():
    def read(image, channels=3, kind="PNG", **options):
        return read_image(
            encoded(image, kind, **options), size=8, resize_rule="square", channels=channels
        )

    assert corners(read(quadrants().quantize(4))) == [RED, GREEN, BLUE, WHITE]
    with_hole = quadrants().quantize(4)
    hole = with_hole.getpixel((0, 0))
    assert corners(read(with_hole, transparency=hole)) == [(0, 0, 0), GREEN, BLUE, WHITE]
    clear = quadrants().convert("RGBA")
    clear.putalpha(0)
    assert read(clear).max() == 0
    half = quadrants().convert("LA")
    half.putalpha(128)
    assert read(half, channels=1)[-1, -1, 0] == 128
    one_bit = Image.fromarray(np.eye(8, dtype=bool))
    np.testing.assert_array_equal(read(one_bit, channels=1)[..., 0], 255 * np.eye(8))
    assert corners(read(quadrants().convert("CMYK"), kind="TIFF")) == [RED, GREEN, BLUE, WHITE]


def test_grey_and_colour_conversions():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    colour = fit_array(grey, size=8, resize_rule="square", channels=3)
    np.testing.assert_array_equal(colour, np.repeat(grey, 3, axis=-1))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    luma = pixels @ np.asarray([0.299, 0.587, 0.114])  # ITU-R 601, as PIL documents
    back = fit_array(pixels, size=8, resize_rule="square", channels=1)[..., 0]
    assert np.abs(back - luma).max() <= 1


def test_downscaling_is_antialiased():
    """Stripes finer than the target become grey; picking pixels would keep them black or white."""
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::2] = 255
    small = fit_array(stripes, size=16, resize_rule="square", channels=1)
    assert np.abs(small[:, 1:-1].astype(int) - 127).max() < 10


def test_the_two_rules_on_a_wide_image():
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, :15], wide[:, 15:25], wide[:, 25:] = RED, GREEN, BLUE
    cut = fit_array(wide, size=10, resize_rule="short_side", channels=3)
    assert (cut == GREEN).all()
    squashed = fit_array(wide, size=10, resize_rule="square", channels=3)
    assert corners(squashed) == [RED, BLUE, RED, BLUE]


@pytest.mark.interop
@pytest.mark.parametrize("shape", [(37, 91), (91, 37), (64, 65), (33, 33), (20, 150)])
def test_short_side_is_torchvisions(shape):
    functional = import_vision("torchvision.transforms.functional")
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for size in (16, 31, 64):
        expected = functional.center_crop(
            functional.resize(Image.fromarray(pixels), size), [size, size]
        )
        mine = fit_array(pixels, size=size, resize_rule="short_side", channels=3)
        np.testing.assert_array_equal(mine, np.asarray(expected))


def test_the_kind_is_by_content_whatever_the_ending(tmp_path):
    """A JPEG is known by its first bytes; a wide PNG that is called one is not."""
    quadrants().save(tmp_path / "a.png", "JPEG")
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "b.jpg", "PNG")
    (tmp_path / "c.jpg").write_bytes(b"\xff\xd8")
    kinds = [kind_of(tmp_path / name) for name in ("a.png", "b.jpg", "c.jpg")]
    assert kinds == [EIGHT_BITS, WIDE, EIGHT_BITS]
