"""The walker: what is an image, what is passed over or counted, links, what cannot be read."""

import importlib.machinery
import os
import sys
import types

import numpy as np
import pytest
from support.tiny_sets import save_dicom, save_image

from deepknn_jax.data import walk as module
from deepknn_jax.data.images import read_image
from deepknn_jax.data.load import load_dataset
from deepknn_jax.data.walk import loose_files, open_heic, subfolders, suffix_of, walk
from deepknn_jax.errors import UserError


def touch(folder, *names, content=b""):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def names(found, folder):
    return [file.relative_to(folder).as_posix() for file in found.files]


def test_images_at_any_depth_are_sorted_and_whatever_else_is_counted(tmp_path):
    touch(tmp_path, "b.PNG", "a/deep/er/x.jfif", "a/y.jpe", "a.jpg", "z.dcm", "v.npy")
    touch(tmp_path, "notes.txt", "a/t.TXT", "scan.nii.gz", "README", "p. 3 of it", "x.")
    found = walk(tmp_path)
    assert names(found, tmp_path) == ["a/deep/er/x.jfif", "a/y.jpe", "a.jpg", "b.PNG", "v.npy",
                                      "z.dcm"]  # fmt: skip
    assert found.left_out == {".txt": 2, ".nii.gz": 1, "without suffix": 3}
    assert found.ignored == {}


def test_what_is_hidden_and_what_systems_leave_is_passed_over(tmp_path):
    touch(tmp_path, "a/1.png", "a/.ipynb_checkpoints/1-checkpoint.png", "a/@eaDir/1.png",
          "__MACOSX/a/._1.png", "__MACOSX/2.png", "Thumbs.db", "a/.DS_Store", "a/._1.png",
          "a/desktop.ini", ".git/3.png")  # fmt: skip
    found = walk(tmp_path)
    assert names(found, tmp_path) == ["a/1.png"]
    assert found.left_out == {}
    touch(tmp_path, "__background__/1.png")
    assert [path.name for path in subfolders(tmp_path)] == ["__background__", "a"]


def test_a_folder_that_is_named_like_an_image_is_a_folder(tmp_path):
    touch(tmp_path, "1.png/2.jpg", "3.png")
    (tmp_path / "4.png").mkdir()
    assert names(walk(tmp_path), tmp_path) == ["1.png/2.jpg", "3.png"]


def test_links_to_folders_are_followed_once(tmp_path):
    touch(tmp_path, "set/a/1.png", "elsewhere/2.png", "elsewhere/deep/3.png")
    a = tmp_path / "set" / "a"
    (a / "more").symlink_to(tmp_path / "elsewhere")
    (a / "again").symlink_to(tmp_path / "elsewhere" / "deep")
    (a / "self").symlink_to(a)
    (a / "up").symlink_to("..")
    (tmp_path / "elsewhere" / "back").symlink_to(a)
    (a / "zz").mkdir()
    touch(a, "zz/4.png")
    (a / "aa").symlink_to("zz")  # by its own path, though the link comes first
    found = walk(a)
    assert sorted(file.name for file in found.files) == ["1.png", "2.png", "3.png", "4.png"]
    assert a / "zz" / "4.png" in found.files
    (tmp_path / "set" / "loop").symlink_to("..")
    (tmp_path / "set" / "b").symlink_to(tmp_path / "elsewhere")
    assert [path.name for path in subfolders(tmp_path / "set")] == ["a", "b"]


def test_a_link_that_leads_nowhere_is_the_file_that_its_name_tells(tmp_path):
    touch(tmp_path, "1.png")
    (tmp_path / "2.png").symlink_to("gone.png")
    (tmp_path / "3").symlink_to("gone")
    (tmp_path / "4.png").symlink_to("4.png")
    found = walk(tmp_path)
    assert names(found, tmp_path) == ["1.png", "2.png", "4.png"]
    assert found.left_out == {"links that lead nowhere": 1}


def test_what_is_no_regular_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "1.png")  # opening it would wait for ever
    os.mkfifo(tmp_path / "2")
    assert walk(tmp_path).files == ()
    assert walk(tmp_path).left_out == {"no regular file": 2}


@pytest.mark.parametrize("denied", ["scandir", "access"])
def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch, denied):
    """Without the right to list it, or to open what is in it. Root may do both."""
    touch(tmp_path, "a/b/1.png")
    real = getattr(os, denied)

    def refuse(path, *args, **kwargs):
        if os.fspath(path).endswith("b"):
            if denied == "access":
                return False
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(module.os, denied, refuse)
    with pytest.raises(UserError, match=r"a/b: this folder cannot be read: Permission denied"):
        walk(tmp_path)


def test_ignored_files_are_counted_by_pattern(tmp_path):
    touch(tmp_path, "1.png", "1_mask.png", "deep/2_MASK.PNG", "x_thumb.jpg", "notes_mask.txt")
    found = walk(tmp_path, ["*_mask.*", "*thumb*", "never*"])
    assert names(found, tmp_path) == ["1.png"]
    assert found.ignored == {"*_mask.*": 3, "*thumb*": 1, "never*": 0}
    assert found.left_out == {}


def test_dicom_is_known_by_its_mark(tmp_path):
    stored = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for name in ("IM-0001", "1.2.840.113", "x.ima", "y.dcm"):
        save_dicom(tmp_path / "a" / name, stored)
    touch(tmp_path, "a/DICOMDIR", content=bytes(128) + b"DICM")
    touch(tmp_path, "a/IM-0002", content=bytes(128) + b"DICX")
    touch(tmp_path, "a/short", content=b"DICM")
    touch(tmp_path, "a/jpeg.jpg", content=bytes(128) + b"DICM")
    found = walk(tmp_path)
    assert [file.name for file in found.files] == ["1.2.840.113", "IM-0001", "jpeg.jpg", "x.ima",
                                                   "y.dcm"]  # fmt: skip
    assert found.left_out == {"DICOMDIR": 1, "without suffix": 2}
    pixels = [
        read_image(tmp_path / "a" / name, size=8, resize_rule="square", channels=1)
        for name in ("IM-0001", "1.2.840.113", "y.dcm")
    ]
    np.testing.assert_array_equal(pixels[0][..., 0], stored)
    np.testing.assert_array_equal(pixels[1], pixels[0])
    np.testing.assert_array_equal(pixels[2], pixels[0])


def test_heic_is_left_out_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "heic_is_read", lambda: False)
    touch(tmp_path, "1.HEIC", "2.heif", "3.png")
    assert names(walk(tmp_path), tmp_path) == ["3.png"]
    assert walk(tmp_path).left_out == {".heic": 1, ".heif": 1}
    with pytest.raises(UserError, match=r"1.HEIC: 1 HEIC files need the package pillow-heif: pip"):
        open_heic([tmp_path / "1.HEIC", tmp_path / "3.png"])


def test_heic_is_read_with_its_package(tmp_path, monkeypatch):
    """A stand-in for the package, whose opener is asked for once there is such a file."""
    calls = []
    package = types.ModuleType("pillow_heif")
    package.__spec__ = importlib.machinery.ModuleSpec("pillow_heif", None)
    package.register_heif_opener = lambda: calls.append(1)
    monkeypatch.setitem(sys.modules, "pillow_heif", package)
    for i in range(20):
        save_image(tmp_path / "ab"[i % 2] / f"{i}.png", i)
        (tmp_path / "ab"[i % 2] / f"{i}.png").rename(tmp_path / "ab"[i % 2] / f"{i}.heic")
    assert len(walk(tmp_path).files) == 20
    open_heic([tmp_path / "x.png"])
    assert calls == []
    data = load_dataset("class_folders", folder=tmp_path, size=4, cache_dir=tmp_path / "cache")
    assert calls
    assert len(data.labels) == 20


def test_files_right_in_a_folder(tmp_path):
    touch(tmp_path, "1.png", "2.png", "README", "x.csv", "y_mask.png", ".hidden", "a/3.png")
    images, others = loose_files(tmp_path, ["*_mask.*"])
    assert (images, others) == ({".png": 2}, {"without suffix": 1, ".csv": 1})


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.PNG", ".png"), ("a.nii.gz", ".nii.gz"), ("a.gz", ".gz"), ("a", "without suffix"),
     ("a. Final", "without suffix"), ("1.2.840.113", ".113"), ("a.averylongword", "without suffix")]
)  # fmt: skip
def test_suffixes(name, suffix):
    assert suffix_of(name) == suffix
