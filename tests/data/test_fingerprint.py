"""The cache knows the pixels: files that look alike and are not, and those that are."""

import os
import shutil
import threading

import numpy as np
import pytest
from PIL import Image

from deepknn_jax.data import cache, fingerprint
from deepknn_jax.data import decode as decode_lib
from deepknn_jax.data.decode import decode
from deepknn_jax.data.images import read_image
from deepknn_jax.errors import UserError

PAST_NS = 1_700_000_000_000_000_000


def fill(folder, level):
    """Four images of a level; names, sizes and times are the same whatever it is."""
    folder.mkdir(exist_ok=True)
    for i in range(4):
        Image.fromarray(np.full((5, 5), level + i, np.uint8)).save(folder / f"{i}.bmp")
        os.utime(folder / f"{i}.bmp", ns=(PAST_NS, PAST_NS))
    return sorted(folder.iterdir())


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function: files -> the levels decoded; `run.decoded` are the files read so far."""

    def counting(file, **options):
        run.decoded.append(file)
        return read_image(file, **options)

    def run(files):
        images, *_ = decode(
            files, size=4, resize_rule="square", channels=1, cache_dir=tmp_path / "cache"
        )
        return images[:, 0, 0, 0].tolist()

    monkeypatch.setattr(decode_lib, "read_image", counting)
    fingerprint.content_of.cache_clear()
    run.decoded = []
    return run


def test_two_folders_that_differ_in_pixels_alone(tmp_path, run):
    first, second = fill(tmp_path / "a", 10), fill(tmp_path / "b", 60)
    assert [f.stat().st_size for f in first] == [f.stat().st_size for f in second]
    for _ in range(2):  # the second time from the cache, where each has its entry
        assert run(first) == [10, 11, 12, 13]
        assert run(second) == [60, 61, 62, 63]
    assert run.decoded == first + second


def test_other_pixels_in_the_same_files(tmp_path, run):
    files = fill(tmp_path / "a", 10)
    inodes = [file.stat().st_ino for file in files]
    assert run(files) == [10, 11, 12, 13]
    fill(tmp_path / "a", 60)
    assert [file.stat().st_ino for file in files] == inodes
    assert run(files) == [60, 61, 62, 63]


def test_another_set_in_the_place_of_the_first(tmp_path, run):
    assert run(fill(tmp_path / "a", 10)) == [10, 11, 12, 13]
    shutil.rmtree(tmp_path / "a")
    assert run(fill(tmp_path / "a", 60)) == [60, 61, 62, 63]


def test_copied_moved_and_touched_folders_share_an_entry_by_their_content(
    tmp_path, run, monkeypatch
):
    files = fill(tmp_path / "a", 10)
    run(files)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    os.chmod(files[0], 0o600)  # a new time of change, and nothing else
    for _ in range(2):
        assert run(sorted((tmp_path / "b").iterdir())) == [10, 11, 12, 13]
        assert run(files) == [10, 11, 12, 13]
        monkeypatch.setattr(cache, "content_of", None)  # what was compared once is known
    assert run.decoded == files
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_files_that_change_while_they_are_decoded_are_not_vouched_for(tmp_path, run, monkeypatch):
    files = fill(tmp_path / "a", 10)
    whole = threading.Lock()  # no other thread reads a file that is half written

    def changing(file, **options):
        with whole:
            image = read_image(file, **options)
            fill(tmp_path / "a", 60)
            return image

    with monkeypatch.context() as changed:
        changed.setattr(decode_lib, "read_image", changing)
        run(files)
    assert run(files) == [60, 61, 62, 63]


def test_content_that_cannot_be_read_equals_none(tmp_path):
    files = fill(tmp_path / "a", 10)
    source = fingerprint.fingerprint(files)
    files[0].unlink()
    assert fingerprint.content_of(source) == ""
    with pytest.raises(UserError, match=r"0.bmp: No such file"):
        fingerprint.fingerprint(files)
