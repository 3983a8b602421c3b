"""A csv beside its images: what is read, what is told, what is wrong with them."""

import numpy as np
import pytest
from PIL import Image

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
        (CSV, {"suffix": ""}, "2 rows have no image file, the first is .*x/1$"),
        (CSV.replace("VAL", "holdout"), {}, "x/2.png has split 'holdout'"),
        (CSV + "x/1,7,ann,test\n", {}, "x/1.png is in train and test both"),
        (CSV + "x/1,7,ann,train\n", {}, "x/1.png is listed more than once"),
        (CSV + "x/1,,ann,train\n", {}, "line 5: what is empty"),
        (CSV + "x/1\n", {}, "line 5: what is empty"),
        (CSV.splitlines()[0], {}, "no examples"),
        ("", {}, "no column 'id'"),
        (b"id,what\n\xff\xfe,1\n", {}, "cannot be read as csv"),
    ],
)
def test_what_csv_images_refuse(table, text, options, words):
    (table / "set.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    split = {} if isinstance(text, bytes) else {"split_column": "part"}
    with pytest.raises(UserError, match=words):
        csv_images(table, **(COLUMNS | {"suffix": ".png"} | split | options))
