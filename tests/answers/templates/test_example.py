"""The example of an archive decodes to the pixel as a training does, or refuses."""

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from deepknn_jax.answers.templates import example
from deepknn_jax.data.images import read_image

ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of many modes and formats, 37 x 22 pixels."""
    root, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    pixels = rng.integers(0, 256, (22, 37, 4)).astype(np.uint8)
    rgba, rgb = Image.fromarray(pixels), Image.fromarray(pixels[..., :3].copy())
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    palette = rgb.quantize(16)
    made = {
        "rgb.png": (rgb, {}), "rgba.png": (rgba, {}), "grey.png": (rgb.convert("L"), {}),
        "la.png": (rgba.convert("LA"), {}), "one.png": (rgb.convert("1"), {}),
        "palette.png": (palette, {"transparency": 3}), "turned.jpg": (rgb, {"exif": turned}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}), "grey.tif": (rgb.convert("L"), {}),
        "turned.tif": (rgb.convert("L"), {"tiffinfo": {ORIENTATION: 6}}), "a.bmp": (rgb, {}),
        "moving.gif": (palette, {"save_all": True, "append_images": [palette.rotate(90)]}),
        "a.webp": (rgba, {"lossless": True}), "a.ppm": (rgb, {}),
    }  # fmt: skip
    for name, (image, options) in made.items():
        image.save(root / name, **options)
    return [root / name for name in made]


@pytest.mark.parametrize("rule", ["square", "short_side"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [15, 22, 40])
def test_pixels_are_those_of_a_training(files, rule, channels, size):
    shape = [size, size, channels]
    form = {"channels": channels, "size": size, "resize_rule": rule, "shape": shape}
    for file in files:
        expected = read_image(file, size=size, resize_rule=rule, channels=channels)
        np.testing.assert_array_equal(example.read_image(str(file), form), expected, str(file))


def test_images_that_are_not_square_go_in_as_they_are(files):
    form = {"kind": "images", "channels": 3, "size": 0, "resize_rule": "square",
            "shape": [22, 37, 3]}  # fmt: skip
    found = example.read_inputs([str(files[0]), str(files[1])], form)
    np.testing.assert_array_equal(found[0], np.asarray(Image.open(files[0])))
    assert found.shape == (2, 22, 37, 3)
    with pytest.raises(SystemExit, match=r"turned\.jpg: .* it is 37 x 22 pixels, not \[22, 37\]"):
        example.read_inputs([str(files[6])], form)


def refused(tmp_path):
    wide = Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4))
    wide.save(tmp_path / "wide.png")
    wide.save(tmp_path / "wide.tif")
    Image.fromarray(np.ones((3, 4), np.float32)).save(tmp_path / "float.tif")
    grey = Image.fromarray(np.ones((3, 4), np.uint8))
    grey.save(tmp_path / "pages.tif", save_all=True, append_images=[grey])
    signed = TiffImagePlugin.ImageFileDirectory_v2()
    signed[339] = 2
    grey.save(tmp_path / "signed.tif", tiffinfo=signed)
    np.save(tmp_path / "array.npy", np.ones((3, 4), np.uint8))
    (tmp_path / "broken.png").write_bytes((tmp_path / "wide.png").read_bytes()[:40])
    return sorted(tmp_path.iterdir())


def test_what_the_example_does_not_know_is_one_line(tmp_path):
    form = {"kind": "images", "channels": 1, "size": 4, "resize_rule": "square",
            "shape": [4, 4, 1]}  # fmt: skip
    files = refused(tmp_path)
    assert len(files) == 7
    for file in [*files, tmp_path / "absent.png"]:
        with pytest.raises(SystemExit, match=f"{file.name}: is not read by this example: .") as why:
            example.read_inputs([str(file)], form)
        assert "\n" not in str(why.value)


def test_arrays_are_volumes_or_features(tmp_path):
    volumes = np.arange(2 * 8, dtype=np.uint8).reshape(2, 2, 2, 2, 1)
    form = {"kind": "volumes", "shape": [2, 2, 2, 1], "dtype": "uint8"}
    np.save(tmp_path / "v.npy", volumes)
    found = example.read_inputs([str(tmp_path / "v.npy")] * 2, form)
    np.testing.assert_array_equal(found, np.concatenate([volumes, volumes]))
    np.save(tmp_path / "v.npy", volumes.astype(np.int16))
    with pytest.raises(SystemExit, match=r"int16 .*, not volumes"):
        example.read_inputs([str(tmp_path / "v.npy")], form)
    form = {"kind": "feature vectors", "shape": [2], "dtype": "float32", "mean": [1e6, 0],
            "std": [0.5, 2]}  # fmt: skip
    np.save(tmp_path / "f.npy", np.array([[1e6 + 0.01, 1.0]]))
    found = example.read_inputs([str(tmp_path / "f.npy")], form)
    np.testing.assert_allclose(found, [[0.02, 0.5]], rtol=1e-6)
    np.save(tmp_path / "f.npy", np.zeros((1, 3)))
    with pytest.raises(SystemExit, match=r"float64 \[1, 3\], not feature vectors \[2\]"):
        example.read_inputs([str(tmp_path / "f.npy")], form)
