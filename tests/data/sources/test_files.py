"""Skin-7, class folders: the layouts, and what is wrong with them."""

import re

import numpy as np
import pytest
from PIL import Image

from deepknn_jax.data.sources.files import SKIN7_CLASSES, class_folders, skin7
from deepknn_jax.data.splits import assign_splits
from deepknn_jax.errors import UserError


def image(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(path)


@pytest.fixture
def skin(tmp_path):
    """21 images, 3 of each class; image i has class i % 7, lesion i // 2, in test if i < 7."""
    lines, parts = ["lesion_id,image_id,dx,age"], {"train": [], "test": []}
    for i in range(21):
        label = i % 7
        image(tmp_path / "HAM10000_images" / f"ISIC_{i}.jpg")
        lines.append(f"HAM_{i // 2},ISIC_{i},{SKIN7_CLASSES[label]},")
        parts["test" if i < 7 else "train"].append(f"ISIC_{i}.jpg,{label}")
    (tmp_path / "HAM10000_metadata.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "folds").mkdir()
    for part, rows in parts.items():
        text = "\n".join([f"image_{part},label_{part}", *rows])
        (tmp_path / "folds" / f"split_data_2_fold_{part}.csv").write_text(text)
    return tmp_path


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_skin7_reads_labels_lesions_and_a_fold(skin):
    listing = skin7(skin, fold=2)
    assert listing.class_names == SKIN7_CLASSES
    assert listing.labels.tolist() == [i % 7 for i in range(21)]
    assert listing.splits.tolist() == ["test"] * 7 + ["train"] * 14
    assert listing.names[5] == "ISIC_5.jpg"
    assert all(f.name == n for f, n in zip(listing.files, listing.names, strict=True))
    same = listing.groups[:, None] == listing.groups
    np.testing.assert_array_equal(same, np.arange(21)[:, None] // 2 == np.arange(21) // 2)
    assert skin7(str(skin), fold=0).splits is None


def test_skin7_accepts_the_published_parts(skin):
    whole, part = skin / "HAM10000_images", skin / "HAM10000_images_part_2"
    part.mkdir()
    for i in range(10):
        (whole / f"ISIC_{i}.jpg").rename(part / f"ISIC_{i}.jpg")
    whole.rename(skin / "HAM10000_images_part_1")
    assert all(file.is_file() for file in skin7(skin, fold=2).files)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: (d / "HAM10000_metadata.csv").unlink(), "holds no HAM10000_metadata.csv; w"),
        (lambda d: (d / "HAM10000_images").rename(d / "x"), "holds none of HAM10000_images"),
        (lambda d: (d / "HAM10000_images/ISIC_3.jpg").unlink(), "1 row has .*ISIC_3.jpg; set"),
        (lambda d: edit(d / "HAM10000_metadata.csv", ",dx,", ",diagnosis,"),
         "no column 'dx'; it has: lesion_id, image_id, diagnosis, age"),
        (lambda d: edit(d / "HAM10000_metadata.csv", "ISIC_4,bkl", "ISIC_4,wart"),
         "dx 'wart' is none of mel, nv"),
        (lambda d: edit(d / "HAM10000_metadata.csv", "ISIC_5,df", "ISIC_4,df"), "ISIC_4.jpg is"),
        (lambda d: edit(d / "HAM10000_metadata.csv", "HAM_3,", ","), "line 8: lesion_id is empty"),
        (lambda d: (d / "folds/split_data_2_fold_test.csv").unlink(), "fold_test.csv: .*No such"),
        (lambda d: edit(d / "folds/split_data_2_fold_test.csv", "ISIC_2.jpg,2", "ISIC_2.jpg,4"),
         "ISIC_2.jpg has label 4, but the metadata's bcc is 2"),
        (lambda d: edit(d / "folds/split_data_2_fold_test.csv", "ISIC_2.jpg,2", "ISIC_9.jpg,2"),
         "ISIC_9.jpg is in train and test both"),
        (lambda d: edit(d / "folds/split_data_2_fold_test.csv", "ISIC_2.jpg,2", "ISIC_99.jpg,2"),
         "ISIC_99.jpg is not in HAM10000_metadata.csv"),
        (lambda d: edit(d / "folds/split_data_2_fold_test.csv", "ISIC_2.jpg,2\n", ""),
         "1 images of the metadata are in neither csv of fold 2, the first is ISIC_2.jpg"),
        (lambda d: edit(d / "folds/split_data_2_fold_test.csv", "ISIC_2.jpg,2", "ISIC_1.jpg,1"),
         "ISIC_1.jpg is listed more than once"),
    ],
)  # fmt: skip
def test_what_skin7_refuses(skin, spoil, words):
    spoil(skin)
    with pytest.raises(UserError, match=words):
        skin7(skin, fold=2)


def test_skin7_accounts_for_rows_without_image_and_images_without_row(skin):
    image(skin / "HAM10000_images" / "ISIC_90.jpg")
    image(skin / "HAM10000_images" / "ISIC_91.png")
    (skin / "HAM10000_images" / "notes.txt").write_text("")
    absent = skin / "HAM10000_images" / "ISIC_3.jpg"
    absent.unlink()
    with pytest.raises(UserError, match=r"1 row has no image file, .*ISIC_3\.jpg; set `on_error`"):
        skin7(skin)
    listing = skin7(skin, fold=2, on_error="skip")
    kept = [i for i in range(21) if i != 3]
    assert listing.names == tuple(f"ISIC_{i}.jpg" for i in kept)
    assert listing.labels.tolist() == [i % 7 for i in kept]
    assert listing.splits.tolist() == ["test"] * 6 + ["train"] * 14
    assert listing.account.skipped == (str(absent),)
    assert listing.account.left_out == {
        ".jpg without a row in HAM10000_metadata.csv": 1,
        ".png without a row in HAM10000_metadata.csv": 1,
    }


def test_folds_that_do_not_exist(skin):
    with pytest.raises(UserError, match=r"`fold` is 6: choose 1\.\.5"):
        skin7(skin, fold=6)
    words = r"split_data_3_fold_train.csv: No such file \(`fold`\); .* `split`=grouped and `fold`=0"
    with pytest.raises(UserError, match=words):
        skin7(skin, fold=3)


def test_a_missing_or_unnamed_folder(tmp_path):
    with pytest.raises(
        UserError, match=r"no data folder given: set `folder` to one that holds HAM10000_images/"
    ):
        skin7("", fold=0)
    with pytest.raises(UserError, match="gone: no such folder"):
        class_folders(tmp_path / "gone")


def test_class_folders(tmp_path):
    for name in ("b/2.png", "b/deeper/1.JPG", "a/x.png", "10/x.png"):
        image(tmp_path / name.lower())
    (tmp_path / "b" / "Thumbs.db").write_text("")
    (tmp_path / "a" / "._x.png").write_text("")
    (tmp_path / "__MACOSX").mkdir()
    listing = class_folders(tmp_path)
    assert listing.names == ("10/x.png", "a/x.png", "b/2.png", "b/deeper/1.jpg")
    assert listing.class_names == ("10", "a", "b")
    assert listing.labels.tolist() == [0, 1, 2, 2]
    assert listing.splits is None


def test_class_folders_with_published_parts_and_groups(tmp_path):
    for part in ("train", "val", "test"):
        for value, name in enumerate(("a/p1_1.png", "a/p2_1.png", "b/p1_2.png")):
            image(tmp_path / part / name, value + 50 * len(part))
    listing = class_folders(tmp_path, group_pattern=r"^p\d+")
    assert listing.splits.tolist() == ["test"] * 3 + ["train"] * 3 + ["validation"] * 3
    assert listing.labels.tolist() == [0, 0, 1] * 3
    assert listing.groups.tolist() == [0, 1, 0] * 3
    assert listing.names[0] == "test/a/p1_1.png"


def parted(root, names):
    """Classes a and b, with as many images of each as `names` {path of a part: count} say."""
    for value, (name, count) in enumerate(names.items()):
        for i in range(2 * count):
            image(root / name / "ab"[i % 2] / f"{i}.png", 50 * value + i)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"Training": 3, "Testing": 2}, "Testing is test, Training is train"),
        ({"TRAIN": 3, "Test": 2}, "TRAIN is train, Test is test"),
        ({"train": 3, "test": 2}, ""),
        ({"seg_train": 3, "seg_test": 2}, "seg_test is test, seg_train is train"),
        ({"TrainImages": 3, "TestImages": 2}, "TestImages is test, TrainImages is train"),
        ({"train2017": 3, "test 2018": 2}, "test 2018 is test, train2017 is train"),
        ({"seg_train/seg_train": 3, "seg_test/seg_test": 2},
         "seg_test/seg_test is test, seg_train/seg_train is train"),
        ({"train/Train": 3, "test": 2}, "train/Train is train"),
    ],
)  # fmt: skip
def test_parts_are_known_by_a_word_in_their_names(tmp_path, names, told):
    parted(tmp_path, names)
    listing = class_folders(tmp_path)
    assert listing.class_names == ("a", "b")
    parts, counts = np.unique(listing.splits, return_counts=True)
    assert dict(zip(parts.tolist(), counts.tolist(), strict=True)) == {"test": 4, "train": 6}
    lines = [line for line in listing.account.lines if line.startswith("parts: ")]
    assert lines == ([f"parts: {told}"] if told else [])


def test_classes_with_such_words_in_their_names_stay_classes(tmp_path):
    for name in ("train station", "test tube", "car"):
        image(tmp_path / name / "1.png")
    listing = class_folders(tmp_path)
    assert listing.class_names == ("car", "test tube", "train station")
    assert listing.splits is None


def test_parts_without_classes_are_not_taken_for_classes(tmp_path):
    """As competitions have them, beside a csv of labels."""
    for name in ("train_images", "test_images"):
        image(tmp_path / name / "1.png")
    with pytest.raises(
        UserError, match=r"test_images, train_images are named like parts .*csv_images"
    ):
        class_folders(tmp_path)


def test_classes_that_parts_spell_otherwise_are_named(tmp_path):
    for part, names in (("train", ("Benign", "Malignant")), ("test", ("benign", "malignant"))):
        for name in names:
            for i in range(2):
                image(tmp_path / part / name / f"{i}.png", len(part) + i)
    listing = class_folders(tmp_path)
    options = {"test_share": 0.2, "validation": 0.0, "split_seed": 0}
    with pytest.raises(UserError, match=r"benign \(0\), malignant .* 'Benign' \(2\) and 'benign'"):
        assign_splits(listing, split="", **options)


def test_what_class_folders_refuse(tmp_path):
    with pytest.raises(UserError, match="no folder of a class with images"):
        class_folders(tmp_path)
    (tmp_path / "train" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match="no folder of a class with images"):
        class_folders(tmp_path)
    image(tmp_path / "train/a/1.png")
    image(tmp_path / "test/a/1.png", 9)
    with pytest.raises(UserError, match=r"1.png: `group_pattern` 'person' matches nothing"):
        class_folders(tmp_path, group_pattern="person")
    with pytest.raises(UserError, match=r"^`group_pattern` '\(' is no expression: "):
        class_folders(tmp_path, group_pattern="(")
    (tmp_path / "more").mkdir()
    with pytest.raises(UserError, match="more: lies beside test, train"):
        class_folders(tmp_path)


def test_copies_of_notebooks_are_no_images(tmp_path):
    for name in ("a/1.png", "a/.ipynb_checkpoints/1-checkpoint.png", "b/2.png", "b/@eaDir/2.png"):
        image(tmp_path / name)
    assert class_folders(tmp_path).names == ("a/1.png", "b/2.png")


def test_what_class_folders_leave_out_is_counted(tmp_path):
    for name in ("train/a/1.png", "test/a/1.png", "3.png", "test/4.png"):
        image(tmp_path / name, len(name))
    for name in ("train/a/x.txt", "train/notes.txt", "labels.csv", "train/a/y", "train/a/z.txt"):
        (tmp_path / name).write_text("")
    account = class_folders(tmp_path).account
    assert account.left_out == {".txt": 3, ".csv": 1, "without suffix": 1,
                                ".png beside class folders": 2}  # fmt: skip


def test_patterns_of_names_to_ignore(tmp_path):
    for name in ("a/1.png", "a/1_mask.png", "b/2.png", "b/2_mask.png"):
        image(tmp_path / name)
    assert any("1_mask.png beside 1.png" in line for line in class_folders(tmp_path).account.lines)
    listing = class_folders(tmp_path, ignore=("*_mask.*", "*.tif"))
    assert listing.names == ("a/1.png", "b/2.png")
    assert listing.account.lines == ("ignored: 2 files by *_mask.* (`ignore`)",
                                     "ignored: 0 files by *.tif (`ignore`)")  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        (r"^p\d", ["p1", "p1", "p2", "p1"]),  # no capture group: the whole match
        (r"^(p\d)_\d", ["p1", "p1", "p2", "p1"]),  # the capture group alone
        (r"^p\d_(\d)", ["1", "2", "1", "2"]),
        (r"^(p\d)_(\d)", ["p1/1", "p1/2", "p2/1", "p1/2"]),
        (r"(p1)|(p2)", ["p1", "p1", "p2", "p1"]),  # of alternatives the one that matched
    ],
)
def test_the_capture_group_is_the_group(tmp_path, pattern, groups):
    names = ("a/p1_1.png", "a/p1_2.png", "a/p2_1.png", "b/p1_2.png")
    for name in names:
        image(tmp_path / name)
    found = class_folders(tmp_path, group_pattern=pattern)
    assert found.names == names
    assert found.groups.tolist() == np.unique(groups, return_inverse=True)[1].tolist()


def test_patients_may_be_folders(tmp_path):
    """The pattern sees the path below the class folder, in either layout."""
    names = ("a/p1/1.png", "a/p1/x/2.png", "a/p2/1.png", "b/p1/1.png", "b/p3/1.png")
    for name in names:
        image(tmp_path / "set" / name)
        image(tmp_path / "parts" / "train" / name)
        image(tmp_path / "parts" / "test" / name, 9)
    for pattern in (r"^([^/]+)/", "^[^/]+"):
        assert class_folders(tmp_path / "set", group_pattern=pattern).groups.tolist() == [
            0, 0, 1, 0, 2
        ]  # fmt: skip
        groups = class_folders(tmp_path / "parts", group_pattern=pattern).groups.tolist()
        assert groups == [0, 0, 1, 0, 2] * 2
    with pytest.raises(UserError, match=r"1.png: `group_pattern` .* matches nothing in p1/1"):
        class_folders(tmp_path / "set", group_pattern="^(a?)")


def test_one_folder_by_a_link_in_two_classes_is_refused(tmp_path):
    image(tmp_path / "a" / "1.png")
    image(tmp_path / "b" / "2.png")
    (tmp_path / "c").symlink_to("a")
    with pytest.raises(UserError, match=r"c: is the same folder as .*a, by a link"):
        class_folders(tmp_path)
    (tmp_path / "c").unlink()
    (tmp_path / "a" / "more").symlink_to(tmp_path / "b")
    with pytest.raises(UserError, match=r"b: is the same folder as .*a/more, by a link"):
        class_folders(tmp_path)


def test_folders_in_class_folders_are_told(tmp_path):
    """As where a set holds a copy of itself, whose name then is a third class."""
    for name in ("yes/1.png", "no/p1/1.png", "set/yes/1.png", "set/no/1.png"):
        image(tmp_path / name)
    lines = class_folders(tmp_path).account.lines
    assert lines[0] == "folders in class folders count to the class: 3, no/p1 is the first"
    assert lines[1].startswith("hint: set/no is named like a class or a part, but counts to set")


def test_a_folder_of_images_alone_says_what_lies_there(tmp_path):
    image(tmp_path / "1.png")
    image(tmp_path / "2.png")
    with pytest.raises(UserError, match=r"no folder of a class .*left out: 2 .png beside class"):
        class_folders(tmp_path)


def test_an_empty_class_folder_is_named(tmp_path):
    for i in range(4):
        image(tmp_path / "a" / f"{i}.png")
    (tmp_path / "b").mkdir()
    listing = class_folders(tmp_path)
    with pytest.raises(UserError, match=r"b \(0\)"):
        assign_splits(listing, split="stratified", test_share=0.2, validation=0, split_seed=0)


SIZES = {1: (8010, 2005), 2: (8010, 2005), 3: (8012, 2003), 4: (8013, 2002), 5: (8015, 2000)}


@pytest.mark.data
def test_the_real_skin7(data_root):
    for fold, sizes in SIZES.items():
        listing = skin7(data_root / "skin7", fold=fold)
        train, test = listing.splits == "train", listing.splits == "test"
        assert (train.sum(), test.sum()) == sizes
        shared = np.isin(listing.groups[test], listing.groups[train]).mean()
        assert 0.37 <= shared < 0.395  # 0.374, 0.374, 0.378, 0.391, 0.390
    counts = dict(zip(listing.class_names, np.bincount(listing.labels).tolist(), strict=True))
    assert counts == {
        "nv": 6705, "mel": 1113, "bkl": 1099, "bcc": 514, "akiec": 327, "vasc": 142, "df": 115
    }  # fmt: skip
    splits = assign_splits(listing, split="grouped", test_share=0.2, validation=0.1, split_seed=0)
    parts = [set(listing.groups[splits == part]) for part in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set(listing.groups))
    share = np.bincount(listing.labels[splits == "test"]) / np.bincount(listing.labels)
    assert np.abs(share - 0.2).max() < 0.01


@pytest.mark.data
def test_the_real_chest_xrays(data_root):
    pattern = r"^(person\d+|(?:NORMAL2-)?IM-\d+)"
    listing = class_folders(data_root / "chest_xray", group_pattern=pattern)
    assert listing.class_names == ("bacteria", "normal", "virus")
    assert np.bincount(listing.labels).tolist() == [2530, 1341, 1345]
    patients = {re.match(pattern, name.split("/")[1]).group() for name in listing.names}
    assert len(patients) == len(set(listing.groups.tolist())) == 2846
    splits = assign_splits(listing, split="grouped", test_share=0.2, validation=0, split_seed=0)
    assert not set(listing.groups[splits == "train"]) & set(listing.groups[splits == "test"])
