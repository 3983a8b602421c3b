"""Where the images of features lie: written, read again, and told where they are others now."""

import os

import numpy as np
import pytest
from PIL import Image
from support.tiny_sets import save_image

from deepknn_jax.data.images import read_image
from deepknn_jax.data.view import View, of_arrays, thumbnails, to_arrays
from deepknn_jax.errors import UserError

HOW = {"size": 8, "resize_rule": "short_side", "channels": 1, "value_range": (), "frame": "",
       "set_range": ()}  # fmt: skip


@pytest.fixture
def files(tmp_path):
    found = [tmp_path / part / f"{i}.png" for i, part in enumerate(("out/in", "out", "else"))]
    for i, file in enumerate(found):
        save_image(file, i)
    return tuple(found)


def again(view, rows, folder):
    """The view as it comes back from an .npz in `folder`."""
    path = folder / "features.npz"
    np.savez(path, **to_arrays(view, np.asarray(rows), folder))
    with np.load(path, allow_pickle=False) as archive:
        return of_arrays(dict(archive), len(rows), path), dict(archive)


def test_files_come_back_relative_where_they_lie_below(files, tmp_path):
    view, arrays = again(View(files, HOW), [2, 0, 1], tmp_path / "out")
    assert arrays["files"].tolist() == [str(files[2]), os.path.join("in", "0.png"), "1.png"]
    wanted = np.stack([read_image(files[i], **HOW) for i in (1, 2)])
    np.testing.assert_array_equal(view.images(np.array([2, 0])), wanted)
    (tmp_path / "out").rename(tmp_path / "moved")
    with np.load(tmp_path / "moved" / "features.npz") as archive:
        view = of_arrays(dict(archive), 3, tmp_path / "moved" / "features.npz")
    np.testing.assert_array_equal(view.images(np.array([2, 0])), wanted)
    # Of features of these features the stamps are still those of the first ones.
    files[2].write_bytes(b"")
    _, arrays = again(view, [1, 0], tmp_path)
    np.testing.assert_array_equal(arrays["file_stamps"], view.stamps[[1, 0]])


def test_what_is_gone_or_another_is_named(files, tmp_path):
    view, _ = again(View(files, HOW), [0, 1, 2], tmp_path)
    files[0].unlink()
    with pytest.raises(UserError, match=r"0\.png: cannot be shown \(No such file"):
        view.images(np.array([0]))
    files[1].write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1\.png: cannot be shown"):
        view.images(np.array([1]))
    save_image(files[2], 3, side=13)
    with pytest.raises(UserError, match=r"2\.png: was changed since its features were made"):
        view.images(np.array([2]))


def test_thumbnails_keep_small_images_and_the_aspect_of_large_ones(tmp_path):
    small = np.random.default_rng(0).integers(0, 256, (3, 8, 9, 1), np.uint8)
    assert thumbnails(small) is small
    view, _ = again(View(thumbnails=small), [2, 1], tmp_path)
    np.testing.assert_array_equal(view.images(np.array([1, 0])), small[1:])
    large = np.random.default_rng(0).integers(0, 256, (2, 100, 200, 3), np.uint8)
    found = thumbnails(large)
    assert found.shape == (2, 32, 64, 3)
    wanted = np.asarray(Image.fromarray(large[1]).resize((64, 32)))
    np.testing.assert_array_equal(found[1], wanted)


def test_keys_that_do_not_fit_are_refused(files, tmp_path):
    path, arrays = tmp_path / "a.npz", to_arrays(View(files, HOW), np.arange(3), tmp_path)
    assert of_arrays({}, 3, path) is None
    for wrong in (
        {"thumbnails": np.zeros((2, 4, 4, 1), np.uint8)},
        {"thumbnails": np.zeros((3, 4))},
    ):
        with pytest.raises(UserError, match=r"thumbnails must be uint8 \[3"):
            of_arrays(wrong, 3, path)
    with pytest.raises(UserError, match="3\\] files for 4 features"):
        of_arrays(arrays, 4, path)
    for read in ("{", "{}", "3"):
        with pytest.raises(UserError, match="files_read is not what"):
            of_arrays(arrays | {"files_read": np.asarray(read)}, 3, path)
