"""A csv beside its images: what is read, what is told, what is wrong with them."""

import numpy as np
import pytest
from PIL import Image

from deepknn_jax.data.load import load_dataset
from deepknn_jax.data.sources.csv_images import csv_images
from deepknn_jax.errors import UserError


def image(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(path)


CSV = """\ufeffid,what,who,part
x/1,7,ann,train
x/2,10,bob,VAL
3.png,7,ann,test
"""
COLUMNS = {"csv": "set.csv", "image_column": "id", "label_column": "what"}


@pytest.fixture
def table(tmp_path):
    for name in ("x/1.png", "x/2.png", "3.png"):
        image(tmp_path / name)
    (tmp_path / "set.csv").write_text(CSV)
    return tmp_path


def test_csv_images(table):
    listing = csv_images(table, **COLUMNS, group_column="who", split_column="part", suffix=".png")
    assert listing.names == ("x/1.png", "x/2.png", "3.png")
    assert [file.relative_to(table).as_posix() for file in listing.files] == list(listing.names)
    assert listing.class_names == ("7", "10")
    assert listing.labels.tolist() == [0, 1, 0]
    assert listing.groups.tolist() == [0, 1, 0]
    assert listing.splits.tolist() == ["train", "validation", "test"]


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        (CSV, {"csv": ""}, "no csv file given: set `csv`"),
        (CSV, {"csv": "gone.csv"}, r"gone.csv: .*No such file"),
        (CSV, {"label_column": "label"}, "no column 'label'; it has: id, what, who, part"),
        (
            CSV,
            {"suffix": ".jpg"},
            r"2 rows .* is .*x/1.jpg \(is .*x/1.png meant\?\); set `on_error`=skip",
        ),
        (CSV.replace("VAL", "holdout"), {}, "x/2.png has split 'holdout'"),
        (CSV + "x/1,7,ann,test\n", {}, "x/1.png is in train and test both"),
        (CSV + "x/1,7,ann,train\n", {}, "x/1.png is listed more than once"),
        (CSV + "x/1,,ann,train\n", {}, "line 5: what is empty"),
        (
            CSV + "x/1\n",
            {},
            "line 5: has 1 fields, but the header has 4; put a cell that holds ','",
        ),
        (CSV + "x/9,7,left arm, lower,test\n", {}, "line 5: has 5 fields, but the header has 4"),
        (CSV + 'x/9,7,"left arm,train\n', {}, "csv: line 5: unexpected end"),
        (CSV, {"empty_labels": "drop"}, "`empty_labels` is 'drop': choose from error, skip"),
        (CSV, {"label_columns": ("what", "who")}, "`label_column` and `label_columns` are both"),
        (CSV, {"label_column": "label", "label_columns": ("what",)}, "name several columns"),
        (CSV.splitlines()[0], {}, "no examples"),
        ("", {}, "set.csv: is empty; wanted is a csv with a header"),
        ("id|what|part\n", {}, r"'id'; it has: id\|what\|part \(fields are .* `image_column`$"),
        (CSV.replace("id", "Id"), {}, "has: Id, what, who, part; name one with `image_column`$"),
        (CSV.replace("who", "what"), {}, "more than one column 'what'; .*; rename all but one$"),
        (b"id,what\n\xff\xfe,1\n", {}, "cannot be read as csv"),
    ],
)
def test_what_csv_images_refuse(table, text, options, words):
    (table / "set.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    split = {} if isinstance(text, bytes) else {"split_column": "part"}
    with pytest.raises(UserError, match=words):
        csv_images(table, **(COLUMNS | {"suffix": ".png"} | split | options))


@pytest.mark.parametrize("separator", [";", "\t"])
def test_semicolons_and_tabs_part_fields_too(table, separator):
    (table / "set.csv").write_text(CSV.replace(",", separator).replace("ann", '"ann, dr"'))
    listing = csv_images(table, **COLUMNS, group_column="who", suffix=".png")
    assert listing.labels.tolist() == [0, 1, 0]
    assert listing.groups.tolist() == [0, 1, 0]


def test_a_quoted_cell_over_two_lines_does_not_shift_the_lines(table):
    (table / "set.csv").write_text('id,what,note\nx/1,7,"two\nlines"\n\n,,\nx/2\n')
    with pytest.raises(UserError, match="line 6: has 1 fields"):
        csv_images(table, **COLUMNS)


def test_names_without_suffix_are_tried_with_those_that_lie_there(table):
    (table / "set.csv").write_text(CSV.replace("3.png", "3"))
    (table / "x/2.png").rename(table / "x/2.JPG")
    listing = csv_images(table, **COLUMNS)
    assert listing.names == ("x/1.png", "x/2.JPG", "3.png")
    words = "set.csv: names without a suffix are read with that of the image there: .png 2, .JPG 1"
    assert words in "\n".join((*listing.account.lines, ""))
    image(table / "x/1.bmp")
    with pytest.raises(UserError, match=r"x/1 may be x/1\.bmp and x/1\.png: set `suffix`$"):
        csv_images(table, **COLUMNS)


def test_a_name_that_is_a_file_as_it_is_gets_no_suffix(table):
    image(table / "x/1.png")
    (table / "x/1.png").rename(table / "x/1")
    image(table / "x/1.bmp")
    (table / "set.csv").write_text(CSV)
    assert csv_images(table, **COLUMNS).names == ("x/1", "x/2.png", "3.png")


def test_paths_as_windows_writes_them(table):
    (table / "set.csv").write_text(CSV.replace("/", "\\").replace("\n", "\r\n"))
    listing = csv_images(table, **COLUMNS, suffix=".png")
    assert listing.names == ("x/1.png", "x/2.png", "3.png")
    assert any("2 names are read with / in the place of" in line for line in listing.account.lines)
    image(table / "x\\1.png")  # which is a name, too, where / parts folders
    assert csv_images(table, **COLUMNS, suffix=".png").names == ("x\\1.png", "x/2.png", "3.png")


@pytest.mark.parametrize(
    ("written", "meant"),
    [("x/1.PNG", "x/1.png"), ("x/1.jpg", "x/1.png"), ("1.png", "x/1.png"),
     ("/gone/of/1.png", "x/1.png"), ("C:\\scans\\1.png", "x/1.png")],
)  # fmt: skip
def test_the_image_that_may_be_meant_is_named(table, written, meant):
    (table / "set.csv").write_text(CSV.replace("x/1,", f"{written},"))
    with pytest.raises(UserError, match=rf"1 row has no .*\(is {table / meant} meant\?\)"):
        csv_images(table, **COLUMNS)


def test_one_file_under_two_names_is_refused(table):
    (table / "set.csv").write_text(CSV + "x/../x/1.png,7,ann,test\n")
    with pytest.raises(UserError, match=r"x/1\.png is listed more than once, under names"):
        csv_images(table, **COLUMNS, suffix=".png")


def test_images_without_a_row_are_counted(table):
    for name in ("x/8.png", "x/9.JPG", "y/1.png"):  # y holds no image of the table
        image(table / name)
    listing = csv_images(table, **COLUMNS)
    assert listing.account.left_out == {
        ".png without a row in set.csv": 1, ".jpg without a row in set.csv": 1
    }  # fmt: skip


def test_rows_that_are_left_out_are_named(table):
    image(table / "x/8.png")
    (table / "set.csv").write_text(CSV + "x/7.png,10,bob,test\nx/8,,ann,test\n")
    listing = csv_images(table, **COLUMNS, on_error="skip", empty_labels="skip")
    assert listing.names == ("x/1.png", "x/2.png", "3.png")
    assert listing.account.skipped == (str(table / "x/8.png"), str(table / "x/7.png"))
    assert listing.account.left_out == {}  # what has a row, though no label, is not without one


def test_the_data_set_names_what_was_left_out(tmp_path):
    rows = [(f"{i}.png", "ab"[i % 2]) for i in range(12)] + [("gone.png", "a"), ("12.png", "")]
    for i, (name, _) in enumerate(rows):
        image(tmp_path / name, i)  # each another: copies would stay on one side
    (tmp_path / "gone.png").unlink()
    (tmp_path / "3.png").write_bytes(b"no image")
    (tmp_path / "set.csv").write_text("id,what\n" + "".join(f"{a},{b}\n" for a, b in rows))
    found = load_dataset(
        "csv_images", folder=tmp_path, **COLUMNS, on_error="skip", empty_labels="skip", size=4,
        cache_dir=tmp_path / "cache",
    )  # fmt: skip
    assert len(found.names) == 11
    assert found.skipped == tuple(str(tmp_path / n) for n in ("12.png", "gone.png", "3.png"))


def test_rows_without_an_image_are_left_out_on_demand(table):
    (table / "x/2.png").unlink()
    options = COLUMNS | {"group_column": "who", "split_column": "part", "suffix": ".png"}
    listing = csv_images(table, **options, on_error="skip")
    assert listing.names == ("x/1.png", "3.png")
    assert len(listing.files) == 2
    assert listing.labels.tolist() == listing.groups.tolist() == [0, 0]
    assert listing.splits.tolist() == ["train", "test"]
    assert listing.class_names == ("7", "10")  # a class that is left empty is not dropped unseen
    words = "set.csv: left out: 1 of 3 rows, which have no image file"
    assert words in "\n".join((*listing.account.lines, ""))
    for name in ("x/1.png", "3.png"):
        (table / name).unlink()
    with pytest.raises(UserError, match=r"3 rows have no image file, .*x/1\.png$"):
        csv_images(table, **options, on_error="skip")


def test_rows_without_a_label_are_left_out_on_demand(table):
    """As CheXpert's, where an empty cell says that nothing was said."""
    (table / "set.csv").write_text(CSV.replace("10,bob", " ,bob"))
    with pytest.raises(UserError, match=r"3: what is empty \(1 rows .* set `empty_labels`=skip"):
        csv_images(table, **COLUMNS)
    listing = csv_images(table, **COLUMNS, split_column="part", empty_labels="skip")
    assert listing.names == ("x/1.png", "3.png")
    assert (listing.labels.tolist(), listing.class_names) == ([0, 0], ("7",))
    assert listing.splits.tolist() == ["train", "test"]
    words = "set.csv: left out: 1 of 3 rows, which have no label"
    assert words in "\n".join((*listing.account.lines, ""))


HOT = "id,MEL,NV,BCC\nx/1,0.0,1.0,0.0\nx/2,1,0,0\n3,,1,\n"
HOT_COLUMNS = {"csv": "set.csv", "image_column": "id", "label_columns": ("MEL", "NV", "BCC")}


def test_a_table_with_a_column_a_class(table):
    """As ISIC's ground truth; classes stand in the order of the option."""
    (table / "set.csv").write_text(HOT)
    listing = csv_images(table, **HOT_COLUMNS)
    assert listing.class_names == ("MEL", "NV", "BCC")
    assert listing.labels.tolist() == [1, 0, 1]
    assert listing.labels.dtype == np.int32


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("x/2,1,0,0", "x/2,1,0,1", "line 3: is of two classes, MEL and BCC; one is wanted"),
        ("x/2,1,0,0", "x/2,0,0,0", r"line 3: no column of `label_columns` is 1 \(1 rows"),
        ("x/2,1,0,0", "x/2,,,", r"line 3: no column of `label_columns` is 1 \(1 rows"),
        ("x/2,1,0,0", "x/2,1,-1,0", "line 3: NV is '-1'; cells of `label_columns` hold 0 or 1"),
        ("x/2,1,0,0", "x/2,yes,0,0", "line 3: MEL is 'yes'"),
        ("x/2,1,0,0", "x/2,nan,0,1", "line 3: MEL is 'nan'"),
        ("BCC", "AK", "no column 'BCC'; it has: id, MEL, NV, AK"),
    ],
)
def test_what_is_no_table_with_a_column_a_class(table, old, new, words):
    assert old in HOT
    (table / "set.csv").write_text(HOT.replace(old, new))
    with pytest.raises(UserError, match=words):
        csv_images(table, **HOT_COLUMNS)


def test_a_row_of_no_class_is_left_out_on_demand(table):
    (table / "set.csv").write_text(HOT.replace("x/2,1,0,0", "x/2,0,0,0"))
    listing = csv_images(table, **HOT_COLUMNS, empty_labels="skip")
    assert listing.labels.tolist() == [1, 1]
    assert listing.class_names == ("MEL", "NV", "BCC")
    assert "left out: 1 of 3 rows, which have no label" in "\n".join((*listing.account.lines, ""))


def test_labels_in_doubt_are_told(table):
    rows = [(f"{i}.png", label) for i, label in enumerate(["nv", "NV", " nv", "nan", "mel", "nv"])]
    for name, _ in rows:
        image(table / name)
    (table / "set.csv").write_text("id,what\n" + "".join(f"{a},{b}\n" for a, b in rows))
    listing = csv_images(table, **COLUMNS)
    assert listing.class_names == ("NV", "mel", "nan", "nv")  # spaces are no part of a label
    out = "\n".join((*listing.account.lines, ""))
    assert "set.csv: labels that may be one class count as several: 'NV' (1) and 'nv' (3)\n" in out
    assert "set.csv: labels that may stand for none count as classes: 'nan' (1)\n" in out
