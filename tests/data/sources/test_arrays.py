"""scikit-learn's sets and .npz files."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits

from deepknn_jax.data.sources import arrays as sources_arrays
from deepknn_jax.data.sources.arrays import breast_cancer, digits, npz
from deepknn_jax.errors import UserError


def test_digits_are_images_of_the_full_range():
    listing, bunch = digits(), load_digits()
    assert listing.inputs.shape == (1797, 8, 8, 1)
    assert listing.inputs.dtype == np.uint8
    np.testing.assert_array_equal(np.rint(listing.inputs[..., 0] / (255 / 16)), bunch.images)
    np.testing.assert_array_equal(listing.labels, bunch.target)
    assert listing.class_names == tuple("0123456789")
    assert listing.names[3] == "digits/0003"
    assert listing.splits is None
    assert listing.groups is None


def test_breast_cancer_is_scikit_learns():
    listing, bunch = breast_cancer(), load_breast_cancer()
    assert listing.inputs.dtype == np.float32
    np.testing.assert_allclose(listing.inputs, bunch.data, rtol=1e-6)
    np.testing.assert_array_equal(listing.labels, bunch.target)
    assert listing.class_names == ("malignant", "benign")


def save(tmp_path, **arrays):
    np.savez(tmp_path / "set.npz", **arrays)
    return tmp_path / "set.npz"


def images(n, *shape):
    return np.random.default_rng(n).integers(0, 256, (n, *shape), dtype=np.uint8)


TWO = {"features": np.zeros((2, 2)), "labels": [0, 1]}


def medmnist(**changes):
    arrays = {}
    for part, n in (("train", 6), ("val", 3), ("test", 4)):
        arrays[f"{part}_images"] = images(n, 5, 5)
        arrays[f"{part}_labels"] = (np.arange(n) % 2).astype(np.uint8)[:, None]
    return {k: v for k, v in (arrays | changes).items() if v is not None}


def keras(**changes):
    arrays = {
        "x_train": images(6, 5, 4, 3), "y_train": np.asarray([3, 8, 3, 8, 3, 8]),
        "x_test": images(2, 5, 4, 3), "y_test": np.asarray([8, 3]),
    }  # fmt: skip
    return arrays | changes


def test_medmnists_keys(tmp_path):
    arrays = medmnist()
    listing = npz(save(tmp_path, **arrays))
    expected = np.concatenate([arrays[f"{p}_images"] for p in ("train", "val", "test")])
    np.testing.assert_array_equal(listing.inputs, expected[..., None])
    assert listing.splits.tolist() == ["train"] * 6 + ["validation"] * 3 + ["test"] * 4
    assert listing.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 1, 0, 1]
    assert listing.names[6] == "validation/00000"
    without = npz(save(tmp_path, **medmnist(val_images=None, val_labels=None)))
    assert len(without.names) == 10


def test_keras_keys_with_any_label_values(tmp_path):
    listing = npz(save(tmp_path, **keras()))
    assert listing.inputs.shape == (8, 5, 4, 3)
    assert listing.class_names == ("3", "8")
    assert listing.labels.tolist() == [0, 1, 0, 1, 0, 1, 1, 0]


def test_features_with_all_optional_keys_and_with_none(tmp_path):
    features = np.random.default_rng(0).normal(size=(4, 3))
    listing = npz(
        save(
            tmp_path, embeddings=features, labels=[1, 0, 1, 0], names=["a", "b", "c", "d"],
            classes=["no", "yes"], splits=["train", "train", "validation", "test"],
        )
    )  # fmt: skip
    np.testing.assert_array_equal(listing.inputs, features)
    assert listing.inputs.dtype == np.float64
    assert listing.names == ("a", "b", "c", "d")
    assert listing.class_names == ("no", "yes")
    assert listing.labels.tolist() == [1, 0, 1, 0]
    assert listing.splits.tolist() == ["train", "train", "validation", "test"]
    for dtype, kept in ((np.float16, np.float32), (np.int16, np.float32), (np.int64, np.float64)):
        other = npz(save(tmp_path, features=features.astype(dtype), labels=[1, 0, 1, 0]))
        assert other.inputs.dtype == kept
    plain = npz(save(tmp_path, features=features, labels=["x", "y", "x", "10"]))
    assert plain.class_names == ("10", "x", "y")
    assert plain.splits is None
    numbers = npz(save(tmp_path, features=features, labels=[10.0, 2.0, 10.0, 2.0]))
    assert numbers.class_names == ("2", "10")


def test_features_may_have_views(tmp_path):
    features = np.random.default_rng(0).normal(size=(4, 3, 2))
    listing = npz(save(tmp_path, features=features, labels=[1, 0, 1, 0]))
    np.testing.assert_array_equal(listing.inputs, features)
    features[2, 1, 0] = np.nan
    with pytest.raises(UserError, match="2 has a feature that is NaN"):
        npz(save(tmp_path, features=features, labels=[1, 0, 1, 0]))


def folds(tmp_path):
    """Four examples; in the first column the last one tests, in the second the first."""
    splits = np.asarray([["train", "test"], ["train", "Train"], ["val", "train"], ["test", "val"]])
    return save(tmp_path, features=np.eye(4), labels=[0, 1, 0, 1], splits=splits)


def test_the_fold_chooses_a_column_of_several_splits(tmp_path, capsys):
    path = folds(tmp_path)
    assert npz(path, fold=1).splits.tolist() == ["train", "train", "validation", "test"]
    assert npz(path, fold=2).splits.tolist() == ["test", "train", "train", "validation"]
    assert capsys.readouterr().out == ""
    assert npz(path).splits is None
    line = "not used: the 2 splits of set.npz: `fold`, 1..2, chooses one\n"
    assert capsys.readouterr().out == line
    np.testing.assert_array_equal(npz(path, fold=2).inputs, np.eye(4))
    with pytest.raises(UserError, match=r"set.npz: `fold` is 3: choose one of its splits, 1\.\.2"):
        npz(path, fold=3)


@pytest.mark.parametrize("splits", [["train", "test"], [["train"], ["test"]]])
def test_one_split_is_the_first_fold_and_no_other(tmp_path, splits):
    path = save(tmp_path, features=np.eye(2), labels=[0, 1], splits=splits)
    for fold in (0, 1):
        assert npz(path, fold=fold).splits.tolist() == ["train", "test"]
    with pytest.raises(UserError, match=r"set.npz: `fold` is 2: choose one of its splits, 1\.\.1"):
        npz(path, fold=2)


@pytest.mark.parametrize("arrays", [medmnist(), keras(), {"features": np.eye(2), "labels": [0, 1]}])
def test_a_fold_that_the_file_has_not_is_refused(tmp_path, arrays):
    path = save(tmp_path, **arrays)
    npz(path, fold=0)
    with pytest.raises(UserError, match=r"^`fold` is set, but .*set.npz holds no .* leave it out$"):
        npz(path, fold=1)


@pytest.mark.parametrize("labels", [[False, True], [b"a", b"b"], [0.0, 1.0]])
def test_labels_of_other_types_are_taken(tmp_path, labels):
    found = npz(save(tmp_path, features=np.eye(2), labels=labels))
    assert found.labels.tolist() == [0, 1]
    assert found.class_names in (("0", "1"), ("a", "b"))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": np.zeros(3)}, "has keys a; wanted"),
        (medmnist(train_labels=None), "has no train_labels"),
        (medmnist(test_images=None), "has no test_images"),
        (medmnist(train_labels=np.zeros((6, 14))), "train_labels must be .* one label each"),
        (medmnist(train_labels=np.zeros((5, 1), int)), "6 train_images but 5 train_labels"),
        (medmnist(test_images=images(4, 6, 5)), "test_images are"),
        (
            medmnist(test_images=medmnist()["test_images"].astype(np.uint16)),
            "test_images are uint16, but train_images uint8: save all parts in one type",
        ),
        (keras(x_train=np.zeros((6, 5, 4, 3), np.float32)), "x_train must be uint8"),
        (keras(x_train=images(6, 5, 4, 7)), "x_train must be"),
        (keras(y_train=np.linspace(0, 1, 6)), "y_train must be integers"),
        ({"features": np.zeros((3, 2))}, "no labels"),
        ({"features": images(3, 2, 2), "labels": [0, 1, 0]}, r"features must be \[N, F\]"),
        ({"features": np.zeros((3, 2)), "labels": [0, 1]}, "2 labels for 3 examples"),
        ({"features": [[0.0], [np.nan]], "labels": [0, 1]}, "1 has a feature that is NaN"),
        ({"features": np.zeros((2, 2)), "labels": [0, 2], "classes": ["a", "b"]}, "label 2 is"),
        ({"features": np.zeros((2, 2)), "labels": [0, -1], "classes": ["a", "b"]}, "label -1"),
        ({"features": np.zeros((2, 2)), "labels": [0, 1], "names": ["a", "a"]}, "a is listed"),
        ({"features": np.zeros((2, 2)), "labels": [0, 1], "splits": ["train", "x"]}, "split 'x'"),
        ({"features": np.zeros((0, 2)), "labels": np.zeros(0, int)}, "no examples"),
        ({"features": np.asarray([{}, {}]), "labels": [0, 1]}, "features holds Python objects"),
        ({**TWO, "names": np.int64(3)}, r"names must be \[N\], not \[\]"),
        ({**TWO, "classes": np.asarray("ab")}, r"classes must be \[N\], not \[\]"),
        ({**TWO, "groups": np.zeros((2, 2))}, r"groups must be \[N\], not \[2, 2\]"),
        ({**TWO, "splits": np.full((2, 2, 2), "train")}, r"splits must be \[N\] or \[N, S\]"),
        # As int32 they would be 0 and 1.
        (
            {**TWO, "labels": [2**32, 2**32 + 1], "classes": ["a", "b"]},
            "label 4294967296 is outside",
        ),
    ],
)
def test_what_is_refused(tmp_path, arrays, words):
    with pytest.raises(UserError, match=words):
        npz(save(tmp_path, **arrays))


def test_names_of_bytes_are_names(tmp_path):
    listing = npz(save(tmp_path, **TWO, names=np.asarray([b"p1", b"p2"])))
    assert listing.names == ("p1", "p2")


def test_arrays_larger_than_the_memory_are_one_line(tmp_path, monkeypatch):
    def none_left(path):
        raise MemoryError

    monkeypatch.setattr(sources_arrays, "read_npz", none_left)
    with pytest.raises(UserError, match=r"set\.npz: its arrays .* want more memory than there is"):
        npz(save(tmp_path, **TWO))


def test_features_have_no_use_for_a_range(tmp_path):
    path = save(tmp_path, features=np.zeros((2, 2)), labels=[0, 1])
    with pytest.raises(UserError, match="feature vectors, which have no use for `value_range`"):
        npz(path, value_range=(0, 1))


def test_files_that_are_no_npz(tmp_path):
    with pytest.raises(UserError, match=r"gone.npz: no such file; set `folder` to an .npz"):
        npz(tmp_path / "gone.npz")
    with pytest.raises(UserError, match=r"no \.npz file given: set `folder`"):
        npz("")
    path = save(tmp_path, **keras())
    whole = path.read_bytes()
    for broken in (b"", b"text", whole[: len(whole) // 2], whole[:300] + b"\0" * 50 + whole[350:]):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"set.npz: is not a sound .npz file"):
            npz(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match=r"set.npz: is not a sound .npz file"):
        npz(path)


@pytest.mark.data
def test_the_real_files(data_root):
    listing = npz(data_root / "pneumoniamnist" / "pneumoniamnist.npz")
    parts = [int((listing.splits == part).sum()) for part in ("train", "validation", "test")]
    assert parts == [4708, 524, 624]
    assert listing.inputs.shape == (5856, 28, 28, 1)
    assert listing.class_names == ("0", "1")
    listing = npz(data_root / "mnist" / "mnist.npz")
    assert [int((listing.splits == part).sum()) for part in ("train", "test")] == [60000, 10000]
    assert listing.inputs.shape == (70000, 28, 28, 1)
    assert len(listing.class_names) == 10
