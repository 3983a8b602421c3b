"""Tables, and labels that are in doubt."""

import numpy as np
import pytest

from deepknn_jax.data.dataset import Listing
from deepknn_jax.data.listing import checked, doubtful_labels, read_csv, read_header, read_table
from deepknn_jax.errors import UserError


def written(folder, text):
    (folder / "t.csv").write_text(text, encoding="utf-8")
    return folder / "t.csv"


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("a,b\n1,2\n", ("a", "b")),
        ("a;b\n1;2\n", ("a", "b")),
        ("a\tb\n1\t2\n", ("a", "b")),
        ('"a";"b"\n"1";"2"\n', ("a", "b")),
        ('a, b\n1, "2"\n', ("a", "b")),
        ("a,b,x (mm; px; cm; m)\n1,2,3\n", ("a", "b")),  # most semicolons, but no such columns
        ("a\n1\n", ("a",)),
        ("\n".join(["\ufeffa,b", "1,2", "", " ", ",", ""]), ("a", "b")),
        ("a,b\r\n1,2\r\n", ("a", "b")),
    ],
)
def test_the_header_tells_what_parts_the_fields(tmp_path, text, columns):
    path = written(tmp_path, text)
    assert read_csv(path, columns) == [["1"], ["2"]][: len(columns)]
    assert read_header(path, columns)[: len(columns)] == list(columns)


def test_each_row_has_its_line(tmp_path):
    table = read_table(written(tmp_path, 'a,b\n1,"x\ny"\n\n2,z\n'), ("a", "b"))
    assert table == ({"a": ["1", "2"], "b": ["x\ny", "z"]}, [2, 5])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,a\n1,2\n", "more than one column 'a'; it has: a, a"),
        ("a,b\n1\n", r"t.csv, line 2: has 1 fields, but the header has 2"),
        ("a;b\n1;2\n\n1;2;3\n", "line 4: has 3 fields, but the header has 2; .*';' in double"),
        ('a,b\n1,"2\n3,4\n', "cannot be read as csv: line 3: unexpected end of data"),
    ],
)
def test_what_is_no_table(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        read_table(written(tmp_path, text), ("a",))


def test_another_encoding_is_named_with_the_remedy(tmp_path):
    (tmp_path / "t.csv").write_bytes("a,b\nü,1\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"t.csv: cannot be read as csv: .*; save it in UTF-8$"):
        read_table(tmp_path / "t.csv", ("a",))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("NV", "mel", "nv"), ["count as several: 'NV' (2) and 'nv' (2)"]),
        (("0", "0.0", "1"), ["count as several: '0' (2) and '0.0' (2)"]),
        (("left arm", "left_arm"), ["count as several: 'left arm' (2) and 'left_arm' (2)"]),
        (("nv", "nv\u200b"), ["count as several: 'nv' (2) and 'nv\\u200b' (2)"]),
        (("N/A", "a", "b"), ["stand for none count as classes: 'N/A' (2)"]),
        (("", "NaN"), ["stand for none count as classes: '' (2), 'NaN' (2)"]),
        (("NA", "na"), ["several: 'NA' (2) and 'na' (2)", "none count as classes: 'NA' (2), 'na'"]),
        (("1", "2", "10", "-1", "nv", "mel", "nova", "1_2"), []),
    ],
)
def test_labels_in_doubt(names, words):
    lines = doubtful_labels(np.repeat(np.arange(len(names)), 2), names)
    assert len(lines) == len(words)
    for line, wanted in zip(lines, words, strict=True):
        assert wanted in line


def test_of_many_twins_a_few_are_named():
    names = [f"{case}{i}" for i in range(9) for case in "xX"]
    (line,) = doubtful_labels(np.arange(18), names)
    assert line.endswith("'x4' (1) and 'X4' (1); and 4 more")


def test_a_listing_s_names_become_sound_and_its_doubts_are_told():
    labels = np.asarray([0, 1], np.int32)
    listing = Listing(("a\udce9", "b"), labels, ("\udcfc", "None"), inputs=np.zeros((2, 1)))
    found = checked(listing, "here")
    assert found.names == ("a\\udce9", "b")
    assert found.class_names == ("\\udcfc", "None")
    assert "\n".join((*found.account.lines, "")).startswith(
        "warning: here: labels that may stand for none"
    )
