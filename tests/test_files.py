import errno
import json

import pytest

from deepknn_jax.errors import UserError
from deepknn_jax.files import (
    append,
    damage,
    forget_checksums,
    has_checksums,
    naming,
    new_folder,
    read_json,
    replacing,
    replacing_folder,
    write_checksums,
    write_text,
)


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old")
    with replacing(path) as temporary:
        assert temporary.parent == tmp_path  # of the same disk, so that renaming is atomic
        assert temporary.suffix == ".json"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_what_goes_wrong_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(type(error)), replacing(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_file(tmp_path):
    """/dev/full refuses every byte, as a full disk does."""
    path = tmp_path / "metrics.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as error:
        append(path, b"record\n")
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(path))


def test_an_error_that_names_its_file_keeps_it(tmp_path):
    with pytest.raises(FileNotFoundError) as error, naming(tmp_path / "other"):
        (tmp_path / "absent").read_text()
    assert error.value.filename == str(tmp_path / "absent")


def test_append_and_write(tmp_path):
    path = tmp_path / "lines"
    write_text(path, "é\n")
    append(path, b"2\n")
    append(path, b"3\n")
    assert path.read_text(encoding="utf-8") == "é\n2\n3\n"


def test_json_is_read_or_absent_or_named_as_damaged(tmp_path):
    path = tmp_path / "results.json"
    assert read_json(path) is None
    write_text(path, json.dumps({"a": [1, None]}))
    assert read_json(path) == {"a": [1, None]}
    for damaged in (b'{"a": [1', b"", b"\xff\xfe"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"results\.json: is damaged .*--workdir"):
            read_json(path)


def test_json_that_is_nested_too_deep_is_no_json(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"is damaged .*nested too deep"):
        read_json(path)


def test_checksums_tell_what_is_no_longer_as_it_was(tmp_path):
    (tmp_path / "below").mkdir()
    for name in ("a", "below/b"):
        (tmp_path / name).write_text(name * 3)
    assert not has_checksums(tmp_path)
    assert damage(tmp_path) == ""
    write_checksums(tmp_path)
    assert has_checksums(tmp_path)
    (tmp_path / "another").write_text("")  # of no matter
    assert damage(tmp_path) == ""
    (tmp_path / "a").write_text("aaA")
    assert damage(tmp_path) == "a is not what was written"
    assert damage(tmp_path, below="below/") == ""
    (tmp_path / "below" / "b").write_text("")
    assert damage(tmp_path, below="below/") == "below/b has 0 bytes in place of 21"
    (tmp_path / "a").unlink()
    assert damage(tmp_path) == "a is gone"
    for text in ("{", "[]", '{"a": 3}'):
        (tmp_path / "checksums.json").write_text(text)
        assert damage(tmp_path) == "checksums.json is damaged"


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "model"
    for text in ("first", "second"):
        with replacing_folder(folder) as temporary:
            (temporary / text).write_text(text)
        assert [path.name for path in folder.iterdir()] == [text]

    def half_written():
        with replacing_folder(folder) as temporary:
            (temporary / "third").write_text("third")
            raise OSError(28, "full")

    with pytest.raises(OSError, match="full") as caught:
        half_written()
    assert caught.value.filename == str(folder)
    assert [path.name for path in folder.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_new_folder_is_whole_and_made_once(tmp_path):
    with new_folder(tmp_path / "a" / "b") as temporary:
        (temporary / "x").write_text("first")
        assert not (tmp_path / "a" / "b").exists()
    with (
        pytest.raises(FileExistsError, match="is there already"),
        new_folder(tmp_path / "a" / "b") as temporary,
    ):
        (temporary / "x").write_text("second")
    with pytest.raises(KeyError), new_folder(tmp_path / "a" / "c"):
        raise KeyError
    assert (tmp_path / "a" / "b" / "x").read_text() == "first"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_files_without_a_checksum_may_change(tmp_path):
    for name in ("stays", "changes"):
        (tmp_path / name).write_text(name)
    write_checksums(tmp_path)
    forget_checksums(tmp_path, ("changes", "never there"))
    (tmp_path / "changes").write_text("another")
    assert damage(tmp_path) == ""
    (tmp_path / "stays").write_text("another")
    assert "stays" in damage(tmp_path)
