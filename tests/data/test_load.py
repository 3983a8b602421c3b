"""The one entry point: list, split, decode."""

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
    with pytest.raises(
        UserError, match=r"^`source` is 'skin_7', which is unknown; did you mean skin7"
    ):
        load_dataset("skin_7", split="published")


@pytest.mark.data
def test_skin7_without_a_fold_has_no_published_split(data_root):
    with pytest.raises(UserError, match=r"publishes none.*fold"):
        load_dataset("skin7", folder=data_root / "skin7", split="published", size=8)
