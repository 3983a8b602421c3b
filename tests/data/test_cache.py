"""The decode cache: what is made anew, what is not, and what must survive."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepknn_jax.data import cache
from deepknn_jax.data import decode as decode_lib
from deepknn_jax.data.cache import ABANDONED_S, PARTIAL, cached_images
from deepknn_jax.data.decode import decode
from deepknn_jax.data.images import read_image
from deepknn_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def files(tmp_path):
    """20 small images, each of another size and random content."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(20):
        pixels = rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return sorted(folder.iterdir())


def run(files, tmp_path, **options):
    defaults = {"size": 8, "resize_rule": "square", "channels": 3, "cache_dir": tmp_path / "cache"}
    return decode(files, **(defaults | options))


def entries(tmp_path):
    return sorted((tmp_path / "cache").iterdir())


@pytest.fixture
def decoded(monkeypatch):
    """The files decoded so far, in a list that grows."""
    read = []

    def counting(file, **options):
        read.append(Path(file).name)
        return read_image(file, **options)

    monkeypatch.setattr(decode_lib, "read_image", counting)
    return read


def test_decoded_once_in_order_and_read_only(files, tmp_path, decoded):
    images, kept, skipped, _ = run(files, tmp_path)
    assert images.shape == (20, 8, 8, 3)
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    assert (kept.tolist(), skipped) == (list(range(20)), ())
    for row, file in zip(images, files, strict=True):
        np.testing.assert_array_equal(
            row, read_image(file, size=8, resize_rule="square", channels=3)
        )
    assert sorted(decoded) == [file.name for file in files]
    again, *_ = run(files, tmp_path)
    np.testing.assert_array_equal(again, images)
    assert len(decoded) == 20
    (entry,) = entries(tmp_path)
    assert sorted(path.name for path in entry.iterdir()) == ["images.npy", "meta.json"]


def test_a_changed_file_and_changed_options_are_noticed(files, tmp_path, decoded):
    before = np.array(run(files, tmp_path)[0])
    stat = files[3].stat()
    os.utime(files[3], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    run(files, tmp_path)
    assert len(decoded) == 40
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(files[3])  # another size
    os.utime(files[3], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = run(files, tmp_path)[0]
    assert [i for i in range(20) if (before[i] != after[i]).any()] == [3]
    run(files, tmp_path, resize_rule="short_side")
    run(files, tmp_path, channels=1)
    run(files, tmp_path, size=9)
    run(files[::-1], tmp_path)
    run(files[1:], tmp_path)
    assert len(entries(tmp_path)) == 3 + 5


def test_a_moved_folder_keeps_its_entry(files, tmp_path, decoded):
    run(files, tmp_path)
    moved = files[0].parent.rename(tmp_path / "moved")
    run(sorted(moved.iterdir()), tmp_path)
    assert len(decoded) == 20


def break_files(files):
    """Makes 5 truncated, 7 no image, 0 empty."""
    files[5].write_bytes(files[5].read_bytes()[:-600])
    files[7].write_text("no image")
    files[0].write_bytes(b"")
    return (0, 5, 7)


def test_a_broken_file_stops_and_leaves_nothing(files, tmp_path):
    break_files(files)
    with pytest.raises(UserError, match=r"00.png: cannot be decoded.*set `on_error`=skip"):
        run(files, tmp_path)
    assert entries(tmp_path) == []
    with pytest.raises(UserError, match=r"05.png: cannot be decoded .*truncated"):
        run(files[1:], tmp_path)


def test_truncated_jpeg_is_an_error(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-200])
    with pytest.raises(UserError, match=r"a.jpg: cannot be decoded .*truncated"):
        run([tmp_path / "a.jpg"], tmp_path)


def test_broken_files_are_skipped_and_named(files, tmp_path, decoded):
    broken = break_files(files)
    for _ in range(2):  # the second time from the cache
        images, kept, skipped, _ = run(files, tmp_path, on_error="skip")
        assert kept.tolist() == [i for i in range(20) if i not in broken]
        assert skipped == tuple(str(files[i]) for i in broken)
        assert images.shape == (17, 8, 8, 3)
        for row, i in zip(images, kept, strict=True):
            expected = read_image(files[i], size=8, resize_rule="square", channels=3)
            np.testing.assert_array_equal(row, expected)
    assert len(decoded) == 20
    with pytest.raises(UserError, match=r"00.png: cannot be decoded"):
        run(files, tmp_path)  # the entry exists, but now no file may be missing
    with pytest.raises(UserError, match=r"00.png: cannot be decoded .*; mend or remove it$"):
        run([files[i] for i in broken], tmp_path, on_error="skip")


def test_a_decompression_bomb_is_one_line(files, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 250)
    with pytest.raises(UserError, match=r"00.png: .*exceeds limit of 500 pixels"):
        run(files, tmp_path)


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_an_image_for_which_the_memory_is_too_small_is_one_line(
    files, tmp_path, monkeypatch, on_error
):
    """Also with skip: what is left out must not depend on the machine."""

    def too_large(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(decode_lib, "read_image", too_large)
    with pytest.raises(UserError, match=r"wants more memory than there is\); mend or remove it$"):
        run(files, tmp_path, on_error=on_error)
    assert entries(tmp_path) == []


def test_a_missing_file_is_named(files, tmp_path):
    with pytest.raises(UserError, match=r"gone.png: No such file"):
        run([*files, files[0].with_name("gone.png")], tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, "^`size` is 0: it must be at least 1"),
        ({"channels": 4}, "^`channels` is 4: it must be 1 or 3"),
        ({"resize_rule": "crop"}, "^`resize_rule` is 'crop': choose from square, short_side"),
        ({"on_error": "ignore"}, "^`on_error` is 'ignore': choose from stop, skip"),
    ],
)
def test_options_out_of_range(files, tmp_path, options, words):
    with pytest.raises(UserError, match=words):
        run(files, tmp_path, **options)


@pytest.mark.parametrize(
    "damage",
    ["short", "header", "huge", "endless", "no_meta", "half_meta", "no_dict", "deep", "empty"],
)
def test_a_damaged_entry_is_made_anew(files, tmp_path, decoded, damage):
    expected = np.array(run(files, tmp_path)[0])
    (entry,) = entries(tmp_path)
    array, meta = entry / "images.npy", entry / "meta.json"
    match damage:
        case "short":
            os.truncate(array, array.stat().st_size - 1)
        case "header":
            array.write_bytes(b"\0" * array.stat().st_size)
        case "huge":
            sides = f"({len(files)}, ".encode()
            array.write_bytes(array.read_bytes().replace(sides, b"(" + b"9" * 25 + b", ", 1))
        case "endless":
            array.write_bytes(array.read_bytes().replace(b"}", b"("))
        case "no_dict":
            meta.write_text('{"shape": [1], "skipped": []}')
        case "deep":
            meta.write_text("[" * 100_000)
        case "no_meta":
            meta.unlink()
        case "half_meta":
            meta.write_text(meta.read_text()[:10])
        case "empty":
            array.unlink()
            meta.unlink()
    np.testing.assert_array_equal(run(files, tmp_path)[0], expected)
    assert len(decoded) == 40
    assert entries(tmp_path) == [entry]


def test_an_unwritable_cache_folder(files, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: .*give another \(`cache_dir`\)"):
        run(files, tmp_path, cache_dir=tmp_path / "file")
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(UserError, match="locked: Permission denied"):
            run(files, tmp_path, cache_dir=tmp_path / "locked")


def test_the_default_folder(files, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    run(files, tmp_path, cache_dir="")
    assert len(list((tmp_path / "xdg" / "deepknn_jax").iterdir())) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache.default_cache_dir() == Path("/home/somebody/.cache/deepknn_jax")


@pytest.mark.parametrize("reserve", [True, False])
def test_a_full_disk_is_one_line_and_leaves_nothing(files, tmp_path, monkeypatch, reserve):
    """A limit on the file size fails as a full disk does, in reserving and in writing."""
    if not reserve:
        monkeypatch.setattr(cache, "_reserve", lambda fd, size: None)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cache: File too large; free some space"):
            run(files, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert entries(tmp_path) == []


def test_space_that_cannot_be_reserved_is_written_all_the_same(files, tmp_path, monkeypatch):
    def refuse(fd, offset, size):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    for row, file in zip(run(files, tmp_path)[0], files, strict=True):
        expected = read_image(file, size=8, resize_rule="square", channels=3)
        np.testing.assert_array_equal(row, expected)


# A decode that writes slowly: what it says on stdout tells that it is in the middle.
SLOW = r"""
import os, signal, sys, time, types
import numpy as np
# The package itself brings jax, whose import takes longer than all of this.
sys.modules["deepknn_jax"] = types.ModuleType("deepknn_jax")
sys.modules["deepknn_jax"].__path__ = ["deepknn_jax"]
from deepknn_jax.data import cache
# Where the tests run in a shell's background, they inherit that Ctrl-C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
cache.PROGRESS_S = 0.0
def read(i):
    time.sleep(0.02)
    os.write(1, b"%d\n" % i)  # in one piece, unlike print from threads
    return np.full((4, 4, 1), i, np.uint8)
images, _, _ = cache.cached_images(
    "key", [str(i) for i in range(40)], read, shape=(4, 4, 1), cache_dir=sys.argv[1],
    on_error="stop",
)
assert (images[:, 0, 0, 0] == np.arange(40)).all()
"""


def start_slow(folder):
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_at_once_agree_on_one_entry(tmp_path):
    both = [start_slow(tmp_path / "cache") for _ in range(2)]
    decoded = [len(process.communicate(timeout=60)[0].split()) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert decoded == [40, 40]  # else they did not overlap, and this test says nothing
    assert [path.name for path in entries(tmp_path)] == ["key"]


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_decode_goes_on_where_it_was(tmp_path, stop):
    process = start_slow(tmp_path / "cache")
    assert process.stdout is not None
    assert all(process.stdout.readline() for _ in range(20))
    process.send_signal(stop)
    process.communicate()
    (left,) = entries(tmp_path)
    assert left.name.endswith(PARTIAL)  # and so is not taken for complete
    again = start_slow(tmp_path / "cache")
    decoded = [int(line) for line in again.communicate(timeout=60)[0].split()]
    assert again.returncode == 0
    assert max(decoded) == 39
    assert len(decoded) < 30  # of 40; 20 and a few were done
    assert [path.name for path in entries(tmp_path)] == ["key"]


def constant_images(tmp_path, key, n):
    images, _, _ = cached_images(
        key, [str(i) for i in range(n)], lambda i: np.full((4, 4, 1), i, np.uint8),
        shape=(4, 4, 1), cache_dir=tmp_path / "cache", on_error="stop",
    )  # fmt: skip
    assert images[:, 0, 0, 0].tolist() == list(range(n))


def test_progress_that_the_file_does_not_bear_out_is_not_believed(tmp_path):
    notes = ('{"done": 9, "skipped": {}}', '{"done": 4', "[]", '{"done": 2, "skipped": {}}')
    for key, note in zip("abcd", notes, strict=True):
        left = tmp_path / "cache" / f"{key}.1-0{PARTIAL}"
        left.mkdir(parents=True)
        (left / "images.npy").write_bytes(b"\1" * 150)  # header and one row
        (left / "meta.json").write_text(note)
        constant_images(tmp_path, key, 5)
        assert not left.exists()


def test_what_was_left_long_ago_is_removed(tmp_path):
    left = tmp_path / "cache" / f"key.1-0{PARTIAL}"
    left.mkdir(parents=True)
    (left / "images.npy").write_bytes(b"")
    constant_images(tmp_path, "other", 2)
    assert left in entries(tmp_path)  # young: it could be a living process's
    old = time.time() - ABANDONED_S - 10
    for path in (*left.iterdir(), left):
        os.utime(path, (old, old))
    constant_images(tmp_path, "third", 2)
    assert [path.name for path in entries(tmp_path)] == ["other", "third"]


def test_skipped_images_stay_skipped_when_a_decode_goes_on(tmp_path):
    """Rows 0..3 were done, 1 of them skipped; the reader now raises for 5 as well."""

    def read(i):
        if i in (1, 5):
            raise ValueError("no image")
        if i == 6 and interrupt:
            raise KeyboardInterrupt
        return np.full((4, 4, 1), i, np.uint8)

    def decode_all():
        return cached_images(
            "key", [str(i) for i in range(8)], read, shape=(4, 4, 1),
            cache_dir=tmp_path / "cache", on_error="skip",
        )  # fmt: skip

    interrupt = True
    with pytest.raises(KeyboardInterrupt):
        decode_all()
    (left,) = entries(tmp_path)
    (left / "meta.json").write_text('{"done": 4, "skipped": {"1": "no image"}}')
    interrupt = False
    images, kept, skipped = decode_all()
    assert kept.tolist() == [0, 2, 3, 4, 6, 7]
    assert images[:, 0, 0, 0].tolist() == kept.tolist()
    assert skipped == ("1", "5")


def test_volumes_are_cached_too(tmp_path):
    made = np.arange(48, dtype=np.uint8).reshape(2, 2, 3, 4, 1)
    for read in (made.__getitem__, None):  # the second time from the cache
        volumes, _, _ = cached_images(
            "key", ["a", "b"], read, shape=(2, 3, 4, 1), cache_dir=tmp_path
        )
        np.testing.assert_array_equal(volumes, made)
