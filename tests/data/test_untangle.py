"""Copies in a data set as a user has it: told, kept on one side, dropped."""

import numpy as np
import pytest
from PIL import Image

from deepknn_jax.data import load as load_lib
from deepknn_jax.data.copies import numbered
from deepknn_jax.data.dataset import LEFT_OUT
from deepknn_jax.data.load import load_dataset
from deepknn_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """train/ and test/ of a/ and b/, 8 and 4 images each; 40 px of noise, none like another."""
    rng = np.random.default_rng(11)
    for part, n in (("train", 8), ("test", 4)):
        for name in "ab":
            (tmp_path / "set" / part / name).mkdir(parents=True)
            for i in range(n):
                save(tmp_path / "set" / part / name / f"{i}.png", rng.integers(0, 256, (40, 40, 3)))
    return tmp_path / "set"


def save(path, pixels):
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def pixels(path):
    return np.asarray(Image.open(path))


def load(folder, **options):
    defaults = {"size": 40, "cache_dir": folder.parent / "cache"}
    return load_dataset("class_folders", folder=folder, **(defaults | options))


def lines(data):
    return [line for line in data.account if line.startswith(("copies", "near-copies", "split"))]


def with_copies(folder):
    """One as another format and one under another label, both of test images."""
    Image.open(folder / "test/a/0.png").save(folder / "train/a/x.bmp")
    save(folder / "train/b/7.png", pixels(folder / "test/a/1.png"))


def test_without_copies_nothing_is_said(folder):
    assert lines(load(folder)) == ["split: published, as the source has one: 16 train + 8 test"]


def test_copies_of_other_formats_and_labels_are_told(folder):
    with_copies(folder)
    _, line = lines(load(folder))
    assert line == (
        "copies: 2 of 8 test examples are those of train over again, 1 of them under another label;"
        " the first is test/a/0.png, a copy of train/a/x.bmp (`copies`=drop leaves the latter out)"
    )


@pytest.mark.parametrize("option", ["copies", "near_copies"])
def test_copies_are_dropped_from_the_training_part(folder, option):
    with_copies(folder)
    before, data = load(folder), load(folder, **{option: "drop"})
    gone = [name for name, part in zip(data.names, data.splits, strict=True) if part == LEFT_OUT]
    assert gone == ["train/a/x.bmp", "train/b/7.png"]
    kept = data.splits != LEFT_OUT
    np.testing.assert_array_equal(data.splits[kept], before.splits[kept])
    (said,) = lines(data)[1:]
    assert said == (
        "copies: 2 train examples are left out, as a copy tests or validates "
        f"(`{option}`=drop), which leaves 15 train + 8 test"
    )


def test_dropping_may_not_leave_a_class_too_small(folder):
    for i in range(4):
        for j in (i, i + 4):
            save(folder / f"train/b/{j}.png", pixels(folder / f"test/b/{i}.png"))
    with pytest.raises(UserError, match=r"too few training examples.*b \(0\)"):
        load(folder, copies="drop")


def test_copies_stop_where_they_are_to(folder):
    load(folder, copies="stop")
    with_copies(folder)
    with pytest.raises(UserError, match=r"^test/a/0.png \(test\) is a copy of train/a/x.bmp"):
        load(folder, copies="stop")


def test_near_copies_are_told_and_dropped(folder):
    image = pixels(folder / "test/b/2.png")
    noise = np.random.default_rng(0).normal(0, 8, image.shape)
    save(folder / "train/b/3.png", np.clip(image * 0.7 + 30 + noise, 0, 255))
    data = load(folder)
    assert lines(data)[1].startswith("near-copies: 1 of 8 test examples nearly are train examples")
    assert "test/b/2.png and train/b/3.png (r 0.9" in lines(data)[1]
    near = data.near
    assert [data.names[i] for i in (*near.rows, *near.others)] == ["test/b/2.png", "train/b/3.png"]
    assert lines(load(folder, size=16))[1:] == []
    (_, said) = lines(load(folder, size=16, near_copies="drop"))
    assert said == "near-copies: images of less than 32 pixels are not compared"
    dropped = load(folder, near_copies="drop")
    assert dropped.names[int(np.flatnonzero(dropped.splits == LEFT_OUT)[0])] == "train/b/3.png"
    assert not len(dropped.near.rows)


def features(path, *, copied, n=60, **more):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(n, 5)).astype(np.float32)
    for i, j in copied:
        x[i] = x[j]
    np.savez(path, features=x, labels=np.arange(n) % 3, **more)
    return path


@pytest.mark.parametrize("seed", range(4))
def test_a_drawn_split_parts_no_copies_and_changes_little(tmp_path, seed):
    options = {"split_seed": seed, "validation": 0.2}
    plain = load_dataset("npz", folder=features(tmp_path / "a.npz", copied=()), **options)
    copied = [(3, 0), (7, 1), (11, 5), (20, 5), (40, 52)]  # 7 and 1 are of one class
    data = load_dataset("npz", folder=features(tmp_path / "b.npz", copied=copied), **options)
    for i, j in copied:
        assert data.splits[i] == data.splits[j]
    assert (data.splits != plain.splits).sum() <= 12
    assert not any(line.startswith("copies") and "over again" in line and "test" in line
                   for line in data.account)  # fmt: skip
    assert lines(plain)[1:] == []


def test_a_set_of_copies_alone_is_not_split(tmp_path):
    path = features(tmp_path / "a.npz", copied=[(i, 0) for i in range(60)])
    with pytest.raises(UserError, match=r"^the test .*\(59 of 60 examples are copies of others"):
        load_dataset("npz", folder=path)


def test_copies_link_groups(tmp_path):
    groups = np.repeat(np.arange(20), 3)
    path = features(tmp_path / "a.npz", copied=[(0, 30), (31, 59)], groups=groups)
    data = load_dataset("npz", folder=path)
    linked = [part for part, group in zip(data.splits, groups, strict=True) if group in (0, 10, 19)]
    assert len(set(linked)) == 1


def test_features_of_images_are_copies_where_the_images_are(tmp_path):
    contents = np.random.default_rng(0).integers(0, 256, (60, 16), dtype=np.uint8)
    contents[50] = contents[2]
    splits = np.repeat(["train", "test"], [45, 15])
    path = features(tmp_path / "a.npz", copied=[(48, 3)], splits=splits, contents=contents)
    data = load_dataset("npz", folder=path)
    assert "copies: 1 of 15 test examples are those of train over again" in data.account[-1]
    assert "the first is 50, a copy of 2 (" in data.account[-1]
    np.testing.assert_array_equal(data.contents, contents)


def test_wide_integers_are_scaled_by_what_trains_after_copies_are_gone(tmp_path, capsys):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 1000, (24, 6, 6)).astype(np.uint16)
    images[3], images[21] = 9000, 9000  # a copy, and the range's end
    path = tmp_path / "w.npz"
    np.savez(path, x_train=images[:16], y_train=np.arange(16) % 2, x_test=images[16:],
             y_test=np.arange(8) % 2)  # fmt: skip
    load_dataset("npz", folder=path)
    assert "0..9000 of" in capsys.readouterr().out.replace(str(images[:16].min()) + "..", "0..")
    data = load_dataset("npz", folder=path, copies="drop")
    assert data.splits[3] == LEFT_OUT
    assert (data.inputs[0] == np.rint((images[0, ..., None] - images[:16].min())
            * (255 / (np.delete(images[:16], 3, 0).max() - images[:16].min())))).all()  # fmt: skip


def test_a_file_that_is_skipped_is_no_copy(folder):
    for name in ("train/a/0.png", "test/a/0.png"):
        (folder / name).write_text("no image")
    data = load(folder, on_error="skip")
    assert lines(data)[1:] == []
    assert len(np.unique(numbered(data.contents))) == len(data.names) == 22


def test_sources_are_the_same_at_every_size(folder, monkeypatch):
    small, large = load(folder, size=8), load(folder, size=16)
    np.testing.assert_array_equal(small.sources, large.sources)
    assert (small.contents != large.contents).any(axis=1).all()
    monkeypatch.setattr(load_lib, "digest", lambda data: pytest.fail("reads the files again"))
    load(folder, size=16)
