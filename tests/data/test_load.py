"""The one entry point: list, split, decode."""

import errno
import os

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_digits

from deepknn_jax.data.load import load_dataset
from deepknn_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """Two classes of 6 images, each of its own grey level."""
    for i in range(12):
        path = tmp_path / "set" / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 7, 3), 20 * i, np.uint8)).save(path)
    return tmp_path / "set"


def load(folder, **options):
    defaults = {"split": "stratified", "size": 4, "cache_dir": folder.parent / "cache"}
    return load_dataset("class_folders", folder=folder, **(defaults | options))


def test_files_become_a_dataset(folder):
    data = load(folder, validation=0.2)
    assert data.inputs.shape == (12, 4, 4, 3)
    for row, label, name in zip(data.inputs, data.labels, data.names, strict=True):
        number = int(name[2:4])
        assert (row == 20 * number).all()
        assert data.class_names[label] == name[0] == "ab"[number % 2]
    rows = np.concatenate([data.rows(split) for split in ("train", "validation", "test")])
    assert sorted(rows) == list(range(12))
    assert [len(data.rows(split)) for split in ("train", "validation", "test")] == [8, 2, 2]
    assert load(folder, channels=1).inputs.shape == (12, 4, 4, 1)


def test_a_skipped_file_leaves_the_others_where_they_were(folder):
    before = load(folder)
    (folder / "a" / "04.png").write_text("no image")
    with pytest.raises(UserError, match=r"04.png: cannot be decoded"):
        load(folder)
    after = load(folder, on_error="skip")
    kept = [i for i, name in enumerate(before.names) if name != "a/04.png"]
    assert [name.split("/")[-1] for name in after.skipped] == ["04.png"]
    assert after.names == tuple(before.names[i] for i in kept)
    np.testing.assert_array_equal(after.inputs, before.inputs[kept])
    np.testing.assert_array_equal(after.labels, before.labels[kept])
    np.testing.assert_array_equal(after.splits, before.splits[kept])


def test_skipping_may_not_leave_a_class_too_small(folder):
    for path in list((folder / "b").iterdir())[:5]:
        path.write_text("no image")
    with pytest.raises(UserError, match=r"b \([01]\)"):
        load(folder, on_error="skip")


def test_a_file_that_is_not_there_or_may_not_be_read_is_skipped_where_that_is_suggested(
    folder, monkeypatch
):
    (folder / "a" / "99.png").symlink_to("gone.png")
    with pytest.raises(UserError, match=r"99.png: it leads nowhere; .*or set `on_error`=skip$"):
        load(folder)
    assert [name.split("/")[-1] for name in load(folder, on_error="skip").skipped] == ["99.png"]
    (folder / "a" / "99.png").unlink()
    denied = str(folder / "a" / "04.png")
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != denied)  # root may read all
    with pytest.raises(UserError, match=r"04.png: no permission to read it; .*`on_error`=skip$"):
        load(folder)
    data = load(folder, on_error="skip")
    assert data.skipped == (denied,)
    assert len(data.labels) == len(data.inputs) == len(data.names) == len(data.splits) == 11
    for row, label, name in zip(data.inputs, data.labels, data.names, strict=True):
        assert (row == 20 * int(name[2:4])).all()
        assert data.class_names[label] == name[0]


def test_skipping_is_not_suggested_where_it_would_not_help(folder, monkeypatch):
    """An error of the machine stops also with on_error=skip, and nothing left is no data set."""

    def broken(*args, **kwargs):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Image, "open", broken)
    for on_error in ("stop", "skip"):
        with pytest.raises(UserError, match=r"Input/output error") as error:
            load(folder, on_error=on_error)
        assert "on_error" not in str(error.value)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.R_OK)
    with pytest.raises(UserError, match=r"no permission to read it; mend or remove it \(12 files"):
        load(folder, on_error="skip")


def test_one_class_is_refused_with_the_folders_inside(folder, tmp_path):
    """Given one level too high every image would be of one class, and every answer right."""
    (tmp_path / "high").mkdir()
    folder.rename(tmp_path / "high" / "set")
    with pytest.raises(
        UserError, match=r"high: all 12 .* one class, 'set'; give `folder`.*folders set/a, set/b$"
    ):
        load(tmp_path / "high")
    (tmp_path / "high" / "notes").mkdir()  # a second folder without images is no second class
    with pytest.raises(UserError, match=r"all 12 examples are of one class, 'set'"):
        load(tmp_path / "high")


def test_one_class_in_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "f.npz", features=np.eye(8, dtype=np.float32), labels=np.ones(8, int))
    with pytest.raises(UserError, match=r"f.npz: all 8 examples are of one class, '1'; give l"):
        load_dataset("npz", folder=tmp_path / "f.npz")
    images = np.zeros((6, 4, 4), np.uint8)
    np.savez(tmp_path / "k.npz", x_train=images, y_train=[3] * 6, x_test=images, y_test=[3] * 6)
    with pytest.raises(UserError, match=r"k.npz: all 12 examples are of one class, '3'"):
        load_dataset("npz", folder=tmp_path / "k.npz")


def test_one_class_in_a_csv_is_refused(folder):
    rows = [f"{path.parent.name}/{path.name},x" for path in sorted(folder.rglob("*.png"))]
    (folder / "t.csv").write_text("\n".join(["image,label", *rows]))
    columns = {"csv": "t.csv", "image_column": "image", "label_column": "label"}
    with pytest.raises(UserError, match=r"all 12 examples are of one class, 'x'"):
        load_dataset("csv_images", folder=folder, size=4, **columns)


@pytest.mark.parametrize(
    ("columns", "split"),
    [
        ({}, "stratified"),
        ({"group_column": "who"}, "grouped"),
        ({"split_column": "part"}, "published"),
        ({"group_column": "who", "split_column": "part"}, "published"),
    ],
)
def test_columns_of_parts_and_groups_are_used_as_soon_as_they_are_named(folder, columns, split):
    """With the split left open; before, the default drew over them."""
    files = sorted(folder.rglob("*.png"))
    rows = [f"{f.parent.name}/{f.name},{f.parent.name},p{i % 6 // 2},{('train', 'test')[i % 3 > 1]}"
            for i, f in enumerate(files)]  # fmt: skip
    (folder / "t.csv").write_text("\n".join(["image,label,who,part", *rows]))
    named = {"csv": "t.csv", "image_column": "image", "label_column": "label"} | columns
    cache = {"cache_dir": folder.parent / "cache"}
    data = load_dataset("csv_images", folder=folder, size=4, **named, **cache)
    assert any(line.startswith(f"split: {split}, as the source") for line in data.account)
    if split == "published":
        assert data.splits.tolist() == [("train", "test")[i % 3 > 1] for i in range(12)]
        shared = any(
            "4 of 4 test examples share one with training" in each for each in data.account
        )
        assert shared == ("group_column" in columns)
    if split == "grouped":
        patients = np.arange(12) % 6 // 2
        assert not set(patients[data.rows("train")]) & set(patients[data.rows("test")])


def test_the_account_comes_with_the_data(folder):
    (folder / "a" / "notes.txt").write_text("")
    assert load(folder, split="").account == (
        f"source: class_folders {folder}",
        "classes: 2: a 6, b 6",
        "files: .png 12; of 12 opened: PNG, colour 12; 7 x 9 pixels",
        "left out: 1 file (.txt 1)",
        "split: stratified, as the source gives neither parts nor groups: 10 train + 2 test",
    )
    account = load_dataset("digits").account
    assert account[0] == "source: digits"
    assert account[2] == "arrays: 1,797 images of 8 x 8 x 1, uint8"


def test_parts_given_are_the_split_unless_another_is_asked_for(folder):
    for i, path in enumerate(sorted(folder.glob("[ab]/*.png"))):
        target = folder / ("train" if i % 3 else "test") / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    for name in "ab":
        (folder / name).rmdir()
    data = load(folder, split="")
    assert [name.split("/")[0] for name in data.names] == data.splits.tolist()
    drawn = load(folder, split="stratified")
    assert any("not used: the source's own parts" in line for line in drawn.account)
    assert len(drawn.rows("test")) == 2


def test_arrays_keep_their_size_unless_told(tmp_path):
    data = load_dataset("digits", split="stratified", test_share=0.25)
    assert data.inputs.shape == (1797, 8, 8, 1)
    assert len(data.rows("test")) == pytest.approx(450, abs=3)
    cache = {"cache_dir": tmp_path / "cache"}
    larger = load_dataset("digits", split="stratified", size=16, channels=3, **cache).inputs
    assert larger.shape == (1797, 16, 16, 3)
    image = Image.fromarray(np.rint(load_digits().images[7] * (255 / 16)).astype(np.uint8))
    expected = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR))
    for channel in range(3):
        np.testing.assert_array_equal(larger[7, ..., channel], expected)
    colour = load_dataset("digits", split="stratified", channels=3, **cache).inputs
    assert colour.shape[1:] == (8, 8, 3)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    wide = np.zeros((6, 4, 5), np.uint8)
    np.savez(tmp_path / "wide.npz", x_train=wide, y_train=[0, 1] * 3, x_test=wide, y_test=[0] * 6)
    options = {"folder": tmp_path / "wide.npz", "split": "published"} | cache
    assert load_dataset("npz", **options).inputs.shape == (12, 4, 5, 1)
    assert load_dataset("npz", **options, size=4).inputs.shape == (12, 4, 4, 1)
    with pytest.raises(UserError, match="images of 4 x 5: set `size`, too, to change `channels`"):
        load_dataset("npz", **options, channels=3)


def test_features_pass_as_they_are():
    data = load_dataset("breast_cancer", split="stratified", size=256, channels=3)
    assert data.inputs.dtype == np.float32
    np.testing.assert_array_equal(data.inputs, load_breast_cancer().data.astype(np.float32))


def test_resized_arrays_of_other_content_are_not_taken_from_the_cache(tmp_path):
    for value in (3, 4, 3):
        images = np.full((6, 4, 4), value, np.uint8)
        np.savez(tmp_path / "a.npz", x_train=images, y_train=[0, 1] * 3, x_test=images,
                 y_test=[0] * 6)  # fmt: skip
        data = load_dataset("npz", folder=tmp_path / "a.npz", split="published", size=6,
                            cache_dir=tmp_path / "cache")  # fmt: skip
        assert isinstance(data.inputs, np.memmap)
        assert (data.inputs == value).all()
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_range_that_is_none(folder):
    for bad in ((2.0, 1.0), (1.0,), (0.0, float("nan"))):
        with pytest.raises(UserError, match=r"^`value_range` is .*give \(low, high\)"):
            load(folder, value_range=bad)


def test_an_unknown_source_names_the_near_ones():
    with pytest.raises(UserError, match=r"^`source` is 'skin_7': did you mean skin7\?"):
        load_dataset("skin_7", split="published")


@pytest.mark.data
def test_skin7_without_a_fold_has_no_published_split(data_root):
    with pytest.raises(UserError, match=r"publishes none.*fold"):
        load_dataset("skin7", folder=data_root / "skin7", split="published", size=8)
