"""SD-198, RSNA pneumonia, CUB-200, Tiny ImageNet: the layouts, and what is wrong with them."""

import re

import numpy as np
import pytest
from support import tiny_sets

from deepknn_jax.data.sources.papers import cub200, pneumonia, sd198, tiny_imagenet
from deepknn_jax.data.splits import assign_splits
from deepknn_jax.errors import UserError

LISTS = {"train_list": "8_2_split/train_0.txt", "test_list": "8_2_split/val_0.txt"}


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def parts(listing):
    return [int((listing.splits == part).sum()) for part in ("train", "validation", "test")]


def test_sd198_reads_its_lists(tmp_path):
    tiny_sets.sd198(tmp_path, classes=12, train=3, test=1)
    listing = sd198(tmp_path, **LISTS)
    assert parts(listing) == [36, 0, 12]
    assert "Disease_0/unlisted.jpg" not in listing.names
    unlisted = ".jpg without a row in 8_2_split/train_0.txt and 8_2_split/val_0.txt"
    assert listing.account.left_out == {unlisted: 1}
    assert listing.names[0] == "Disease_0/train0.jpg"
    assert all(file.is_file() for file in listing.files)
    for name, label in zip(listing.names, listing.labels, strict=True):
        assert name.split("/")[0] == listing.class_names[label]
    for path in (tmp_path / "8_2_split").iterdir():  # lists without numbers say the same
        path.write_text(re.sub(r" \d+$", "", path.read_text(), flags=re.M))
    plain = sd198(tmp_path, **LISTS)
    assert plain.names == listing.names
    np.testing.assert_array_equal(plain.labels, listing.labels)
    without = sd198(tmp_path, train_list="", test_list="")
    assert len(without.names) == 49
    assert without.splits is None


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: (d / "images").rename(d / "x"), r"holds no images; wanted: images/<class>/"),
        (lambda d: (d / "8_2_split/val_0.txt").unlink(), "holds no 8_2_split/val_0.txt; wanted"),
        (lambda d: (d / "images/Disease_1/val0.jpg").unlink(), "val_0.txt: 1 row has .*/val0.jpg"),
        (lambda d: edit(d / "8_2_split/val_0.txt", "Disease_1/val0.jpg 1", "Disease_1/val0.jpg 2"),
         "Disease_1/val0.jpg has label 2, but others of its class 1"),
        (lambda d: edit(d / "8_2_split/val_0.txt", "Disease_1/val0", "Disease_1/train0"),
         "Disease_1/train0.jpg is listed more than once"),
        (lambda d: (d / "8_2_split/val_0.txt").write_bytes(b"\xff\xff"), "val_0.txt: cannot be re"),
    ],
)  # fmt: skip
def test_what_sd198_refuses(tmp_path, spoil, words):
    tiny_sets.sd198(tmp_path, classes=2, train=2, test=1)
    spoil(tmp_path)
    with pytest.raises(UserError, match=words):
        sd198(tmp_path, **LISTS)


def test_sd198_wants_both_lists_or_none(tmp_path):
    tiny_sets.sd198(tmp_path, classes=2, train=2, test=1)
    with pytest.raises(UserError, match="`train_list` and `test_list`: give both, or neither"):
        sd198(tmp_path, train_list=LISTS["train_list"], test_list="")


def test_pneumonia_counts_a_patient_once(tmp_path):
    tiny_sets.pneumonia(tmp_path, n=9)
    rows = (tmp_path / "stage_2_detailed_class_info.csv").read_text().splitlines()
    assert len(rows) == 1 + 12  # with the repeated
    listing = pneumonia(tmp_path)
    assert listing.class_names == ("Lung Opacity", "No Lung Opacity / Not Normal", "Normal")
    assert listing.labels.tolist() == [2, 1, 0] * 3
    assert listing.names[1] == "0001-3aa4"
    assert listing.files[1] == tmp_path / "stage_2_train_images" / "0001-3aa4.dcm"
    assert listing.splits is None


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: (d / "stage_2_detailed_class_info.csv").unlink(),
         "holds no stage_2_detailed_class_info.csv; wanted: stage_2_train_images/<patientId>.dcm"),
        (lambda d: (d / "stage_2_train_images").rename(d / "x"), "holds no stage_2_train_images"),
        (lambda d: (d / "stage_2_train_images/0003-3aa4.dcm").unlink(), "1 row .*/0003-3aa4.dcm"),
        (lambda d: edit(d / "stage_2_detailed_class_info.csv", "class", "label"), "no column 'cl"),
        (lambda d: edit(d / "stage_2_detailed_class_info.csv", "0002-3aa4,Lung Opacity",
                        "0002-3aa4,Normal"), "0002-3aa4 is both 'Normal' and 'Lung Opacity'"),
    ],
)  # fmt: skip
def test_what_pneumonia_refuses(tmp_path, spoil, words):
    tiny_sets.pneumonia(tmp_path, n=9)
    spoil(tmp_path)
    with pytest.raises(UserError, match=words):
        pneumonia(tmp_path)


def test_cub200_joins_its_tables(tmp_path):
    tiny_sets.cub200(tmp_path)
    listing = cub200(tmp_path)
    assert parts(listing) == [100, 0, 20]
    assert listing.class_names[:2] == ("001.Bird_0", "002.Bird_1")
    assert listing.class_names[9] == "010.Bird_9"
    for name, label, file in zip(listing.names, listing.labels, listing.files, strict=True):
        assert name.startswith(listing.class_names[label])
        assert file.is_file()
    assert listing.splits.tolist()[8:13] == ["train"] * 2 + ["test"] * 2 + ["train"]
    # Rows in another order, as long as their numbers agree.
    labels = tmp_path / "image_class_labels.txt"
    labels.write_text("\n".join(labels.read_text().splitlines()[::-1]))
    np.testing.assert_array_equal(cub200(tmp_path).labels, listing.labels)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: (d / "classes.txt").unlink(), "no classes.txt; wanted: images/ and"),
        (lambda d: edit(d / "train_test_split.txt", "7 1\n", ""), "train_test_split.txt: image 7 "),
        (lambda d: edit(d / "image_class_labels.txt", "\n7 1\n", "\n7 11\n"), "class 11 is not in"),
        (lambda d: edit(d / "image_class_labels.txt", "\n7 1\n", "\n7\n"), "line 7: has 1 fields"),
        (lambda d: edit(d / "images.txt", "Bird_0_0003", "Bird_0_0999"), "1 row has .*_0999.jpg"),
    ],
)  # fmt: skip
def test_what_cub200_refuses(tmp_path, spoil, words):
    tiny_sets.cub200(tmp_path)
    spoil(tmp_path)
    with pytest.raises(UserError, match=words):
        cub200(tmp_path)


def test_tiny_imagenet_tests_on_its_val_part(tmp_path):
    tiny_sets.tiny_imagenet(tmp_path, classes=3, each=4)
    listing = tiny_imagenet(tmp_path)
    assert parts(listing) == [12, 0, 3]
    assert listing.class_names == ("n00009000 thing 0", "n00008999 thing 1", "n00008998 thing 2")
    assert listing.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [0, 1, 2]
    assert listing.names[4] == "train/n00008999/images/n00008999_0.JPEG"
    assert listing.names[-1] == "val/images/val_2.JPEG"
    assert all(file.is_file() for file in listing.files)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: (d / "wnids.txt").unlink(), "holds no wnids.txt; wanted: wnids.txt, wo"),
        (lambda d: (d / "val/val_annotations.txt").unlink(), "holds no val/val_annotations.txt"),
        (lambda d: edit(d / "val/val_annotations.txt", "n00008999", "n00000001"),
         "val_1.JPEG has class n00000001, not in wnids.txt"),
        (lambda d: (d / "val/images/val_1.JPEG").unlink(), "1 row has .*val_1.JPEG"),
    ],
)  # fmt: skip
def test_what_tiny_imagenet_refuses(tmp_path, spoil, words):
    tiny_sets.tiny_imagenet(tmp_path, classes=3, each=4)
    spoil(tmp_path)
    with pytest.raises(UserError, match=words):
        tiny_imagenet(tmp_path)


@pytest.mark.parametrize("source", [pneumonia, cub200, tiny_imagenet, lambda d: sd198(d, **LISTS)])
def test_a_folder_that_is_not_there_is_told_with_the_layout(tmp_path, source):
    with pytest.raises(UserError, match=r"set `folder` to one that holds \w+"):
        source("")
    with pytest.raises(UserError, match=r"gone: no such folder \(`folder`\); it should hold \w+"):
        source(tmp_path / "gone")


def test_pneumonia_s_split_is_as_large_as_the_paper_s(tmp_path):
    """Class sizes of table 1 in Deep kNN; 21,345 / 5,339 there."""
    labels = np.repeat(np.arange(3, dtype=np.int32), (6012, 11821, 8851))
    tiny_sets.pneumonia(tmp_path, n=3)
    listing = pneumonia(tmp_path)._replace(
        labels=labels, names=tuple(map(str, range(26684))), files=None
    )
    splits = assign_splits(
        listing, split="stratified", test_share=5339 / 26684, validation=0, split_seed=0
    )
    assert (splits == "test").sum() == 5339
    assert (splits == "train").sum() == 21345
