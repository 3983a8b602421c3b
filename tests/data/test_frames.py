"""One frame of a file with several: TIFF pages, DICOM frames."""

import numpy as np
import pytest
from PIL import Image
from support.tiny_sets import save_dicom

from deepknn_jax.data.decode import decode
from deepknn_jax.data.frames import check_frame, choose_frame
from deepknn_jax.data.images import read_image
from deepknn_jax.errors import UserError

LEVELS = (10, 20, 30, 40)


def save(path, levels=LEVELS):
    """A file whose frames are each of one grey level."""
    stack = np.stack([np.full((4, 4), level, np.uint8) for level in levels])
    if path.suffix == ".dcm":
        save_dicom(path, stack.reshape(-1, 4), Rows=4, NumberOfFrames=str(len(stack)))
    else:
        pages = [Image.fromarray(page) for page in stack]
        pages[0].save(path, save_all=True, append_images=pages[1:])
    return path


def level(path, **options):
    (value,) = np.unique(read_image(path, size=4, resize_rule="square", channels=1, **options))
    return value


@pytest.mark.parametrize("suffix", [".tif", ".dcm"])
def test_a_frame_is_named_or_the_file_refused(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}")
    assert [level(path, frame=frame) for frame in ("0", "3", "middle")] == [10, 40, 30]
    with pytest.raises(ValueError, match=r"has 4 frames: set `frame` to middle or to .* 0..3"):
        level(path)
    with pytest.raises(ValueError, match=r"has 4 frames, 0..3, and `frame` is 4"):
        level(path, frame="4")
    alone = save(tmp_path / f"b{suffix}", levels=(50,))
    assert [level(alone, frame=frame) for frame in ("", "2", "middle")] == [50] * 3


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_skipping_does_not_leave_out_what_an_option_mends(tmp_path, on_error):
    files = [save(tmp_path / "a.tif"), save(tmp_path / "b.tif", levels=(50,))]
    with pytest.raises(UserError, match=r"a.tif: has 4 frames: set `frame` to [^;]*$"):
        decode(
            files, size=4, resize_rule="square", channels=1, cache_dir=tmp_path / "c",
            on_error=on_error,
        )  # fmt: skip


def test_another_frame_is_another_entry_of_the_cache(tmp_path):
    files = [save(tmp_path / "a.tif")]
    for frame, expected in (("0", 10), ("1", 20), ("0", 10)):
        images, *_ = decode(
            files, size=4, resize_rule="square", channels=1, cache_dir=tmp_path / "c", frame=frame
        )
        assert (images == expected).all()


def test_a_thumbnail_is_no_page(tmp_path):
    full, small = (Image.fromarray(np.full((n, n), n, np.uint8)) for n in (8, 4))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    full.save(tmp_path / "a.tif", save_all=True, append_images=[small])
    assert level(tmp_path / "a.tif") == 8


def test_moving_images_for_the_screen_give_their_first_frame(tmp_path):
    assert level(save(tmp_path / "a.gif")) == 10


def test_the_middle():
    assert [choose_frame("middle", n) for n in (1, 2, 3, 4)] == [0, 1, 1, 2]


def test_what_names_no_frame():
    for bad in ("first", "-1", "1.5", "²"):
        with pytest.raises(UserError, match=r"^`frame` is .*give middle, or a frame's number"):
            check_frame(bad)
    for good in ("", "middle", "0", "12"):
        check_frame(good)
