"""Lines of a journal: whole or absent, one writer each, and none that was touched later."""

import json
import os
import time

import numpy as np
import pytest

from deepknn_jax.answers import journal
from deepknn_jax.answers.journal import Line, append, arrays, count, place, read
from deepknn_jax.errors import UserError

START = "what the training left"


def line(number, **fields):
    return Line(number, "remove", **fields)


@pytest.fixture
def folder(tmp_path):
    append(tmp_path, line(1, names=["a"], note="was blurred"), {"x": np.arange(3)}, start=START)
    append(tmp_path, line(2, names=["b"]), {}, start=START)
    return tmp_path


def test_lines_come_back_in_their_order(folder):
    first, second = read(folder, START)
    assert (first.number, first.names, first.note, first.before) == (
        1, ["a"], "was blurred", START)  # fmt: skip
    assert second.before not in (START, "")
    assert first.when.endswith("+00:00")
    np.testing.assert_array_equal(arrays(folder, first)["x"], np.arange(3))
    assert arrays(folder, second) == {}
    assert count(folder) == 2
    assert read(folder / "nowhere", START) == ()


def test_a_line_that_is_there_is_not_written_again(folder):
    before = place(folder, 2).joinpath("line.json").read_bytes()
    with pytest.raises(FileExistsError):
        append(folder, line(2, names=["c"]), {}, start=START)
    assert place(folder, 2).joinpath("line.json").read_bytes() == before
    assert sorted(path.name for path in (folder / journal.FOLDER).iterdir()) == ["0001", "0002"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(lambda root: (root / "0001/line.json").write_text("{"), r"0001: is damaged"),
     (lambda root: (root / "0001").rename(root / "0007"), r"0001: is damaged"),
     (lambda root: (root / "0002").rename(root / "0003"), r"there is line 3"),
     (lambda root: _edit(root / "0001/line.json", note="another reason"), r"0002.*not follow"),
     (lambda root: _edit(root / "0001/line.json", unknown=1), r"0001: is damaged")],
)  # fmt: skip
def test_what_was_touched_is_found(folder, spoil, words):
    spoil(folder / journal.FOLDER)
    with pytest.raises(UserError, match=words):
        read(folder, START)


def _edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields, indent=1) + "\n")


def test_a_journal_of_another_gallery_and_other_arrays_are_refused(folder):
    with pytest.raises(UserError, match="does not follow"):
        read(folder, "another")
    first = read(folder, START)[0]
    np.savez(place(folder, 1) / "arrays.npz", x=np.arange(4))
    with pytest.raises(UserError, match=r"arrays\.npz: is damaged \(it is not what was written"):
        arrays(folder, first)


def test_what_a_killed_process_left_is_removed_once_it_is_old(folder):
    root = folder / journal.FOLDER
    old, young, ahead = root / ".0001.9.tmp", root / ".0002.9.tmp", root / ".0003.9.tmp"
    for path in (old, young, ahead):
        path.mkdir()
    past = time.time() - 2 * journal._OLD_S
    for path in (old, ahead):
        os.utime(path, (past, past))
    append(folder, line(3), {}, start=START)
    assert [path.exists() for path in (old, young, ahead)] == [False, True, True]
    assert len(read(folder, START)) == 3
