"""What is made of data at hand: no test image where options are chosen, no group on two sides."""

import csv
import zipfile

import numpy as np
import pytest
from PIL import Image
from support.reproduced import options, tiny_root  # noqa: F401  (fixtures)
from support.runs import ROOT

from deepknn_jax.errors import UserError
from deepknn_jax.reproduce import prepare
from deepknn_jax.reproduce.catalog import SETS
from deepknn_jax.reproduce.sets import listing
from deepknn_jax.trainer.check import check


def made(name, root, out):
    """The arrays that `make` writes."""
    prepare.make(name, root, out)
    assert prepare.unmade(name, out) is None
    with np.load(out / SETS[name].made) as archive:
        return dict(archive)


def held_out(root, fold):
    with (root / f"skin7/folds/split_data_{fold}_fold_test.csv").open() as file:
        return {row["image_test"] for row in csv.DictReader(file)}


def test_folds_are_the_published_and_five_by_lesion(options):  # noqa: F811
    arrays = made("skin7_features", options.data_root, options.out)
    names, splits = arrays["names"].tolist(), arrays["splits"]
    assert splits.shape == (165, 10)
    for fold in range(5):
        test = {names[i] for i in np.flatnonzero(splits[:, fold] == "test")}
        assert test == held_out(options.data_root, fold + 1)
    lesion = np.asarray([int(name[5:12]) // 2 for name in names])
    for column in splits[:, 5:].T:
        test, rest = lesion[column == "test"], lesion[column == "train"]
        assert set(test).isdisjoint(rest)
        assert 0.15 < len(test) / 165 < 0.25
    assert len({column.tobytes() for column in splits.T}) == 10


def test_the_search_never_sees_the_test_part(options):  # noqa: F811
    arrays = made("skin7_tuning", options.data_root, options.out)
    names, splits = arrays["names"], arrays["splits"]
    assert len(arrays["features"]) == len(arrays["labels"]) == 132
    assert held_out(options.data_root, 1).isdisjoint(names.tolist())
    lesion = np.asarray([int(name[5:12]) // 2 for name in names])
    assert set(lesion[splits == "test"]).isdisjoint(lesion[splits == "train"])
    assert 0.15 < np.mean(splits == "test") < 0.25


def test_nor_does_that_from_images(options):  # noqa: F811
    """A folder in Skin-7's layout, which its own source reads."""
    prepare.make("skin7_images_tuning", options.data_root, options.out)
    assert prepare.unmade("skin7_images_tuning", options.out) is None
    path = options.out / SETS["skin7_images_tuning"].made
    whole = listing("skin7", options.data_root / "skin7", fold=1)
    part = listing("skin7_images_tuning", path, fold=1)
    assert len(part.names) == 132
    assert held_out(options.data_root, 1).isdisjoint(part.names)
    assert 0.15 < np.mean(part.splits == "test") < 0.25
    groups = [set(part.groups[part.splits == which]) for which in ("train", "test")]
    assert set.isdisjoint(*groups)
    place = {name: i for i, name in enumerate(whole.names)}
    rows = [place[name] for name in part.names]
    np.testing.assert_array_equal(part.labels, whole.labels[rows])
    pairs = set(zip(part.groups.tolist(), whole.groups[rows].tolist(), strict=True))
    assert len(pairs) == len(set(part.groups.tolist())) == len({other for _, other in pairs})
    for name, file in zip(part.names, part.files, strict=True):
        assert file.read_bytes() == whole.files[place[name]].read_bytes()


def test_features_of_other_images_are_refused(options):  # noqa: F811
    path = options.out / "features/skin7/features.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **arrays | {"names": np.char.replace(arrays["names"], "ISIC", "SCAN")})
    with pytest.raises(UserError, match="not the 165 here"):
        prepare.make("skin7_features", options.data_root, options.out)
    np.savez(path, **arrays | {"labels": arrays["labels"][::-1]})
    with pytest.raises(UserError, match="labels are not those of"):
        prepare.make("skin7_features", options.data_root, options.out)
    assert prepare.unmade("skin7_features", options.out) == options.out / "features/skin7/folds.npz"


def test_features_are_computed_from_the_images():
    config = prepare.feature_config("skin7", ROOT)
    check(config)
    assert (config.model.name, config.augment.crop) == ("efficientnet_lite0", 224)
    assert config.data.dir == str(ROOT / "skin7")
    assert config.augment.views == ()
    small = prepare.feature_config("pneumoniamnist", ROOT)  # 28 px as they are published
    check(small)
    assert (small.data.size, small.augment.crop) == (config.data.size, config.augment.crop)
    views = SETS["skin7_views"].views
    assert prepare.feature_config("skin7", ROOT, views).augment.views == ("flip_lr", "flip_ud")


def write_omniglot_zip(root, grey=lambda character, drawer: 255 * character):
    """Two characters by twenty drawers, of one grey each."""
    path = root / SETS["omniglot"].path
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as files:
        for character in range(2):
            for drawer in range(1, 21):
                name = f"set/Greek/character{character:02d}/{character:04d}_{drawer:02d}.png"
                with files.open(name, "w") as file:
                    Image.new("L", (5, 5), grey(character, drawer)).save(file, "PNG")


def test_omniglot_from_its_zip(tmp_path):
    write_omniglot_zip(tmp_path)
    arrays = made("omniglot", tmp_path, tmp_path / "out")
    assert arrays["x_train"].shape == (30, 5, 5)
    assert arrays["y_test"].tolist() == ["Greek/character00"] * 5 + ["Greek/character01"] * 5
    assert np.unique(arrays["x_test"][:5]).tolist() == [0]
    assert np.unique(arrays["x_test"][5:]).tolist() == [255]


def test_a_zip_of_other_files_is_refused(tmp_path):
    path = tmp_path / SETS["omniglot"].path
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as files:
        files.writestr("readme.txt", "nothing")
    with pytest.raises(UserError, match=r"holds no alphabet/character/"):
        prepare.make("omniglot", tmp_path, tmp_path / "out")


def test_the_search_on_omniglot_does_not_see_the_drawn_test_part(tmp_path):
    """Each image's grey is its own: the tuning set's are all among the training part's."""
    out = tmp_path / "out"
    write_omniglot_zip(tmp_path, grey=lambda character, drawer: 100 * character + drawer)
    arrays = made("omniglot_tuning", tmp_path, out)
    train_part, test_part = (arrays[f"x_{part}"][:, 0, 0, 0] for part in ("train", "test"))
    assert arrays["y_test"].tolist() == [0] * 3 + [1] * 3
    drawn = listing("omniglot", out / SETS["omniglot"].made)
    of_training = drawn.inputs[drawn.splits == "train"][:, 0, 0, 0]
    assert sorted([*train_part, *test_part]) == sorted(of_training)


def test_a_part_of_mnist_has_as_many_of_each_class(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "PART", 20)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (100, 4, 4), np.uint8)
    labels = np.repeat([3, 7], [70, 30])
    (tmp_path / "mnist").mkdir()
    np.savez(tmp_path / "mnist/mnist.npz", x_train=images, y_train=labels, x_test=images[:9],
             y_test=labels[:9])  # fmt: skip
    part = made("mnist_part", tmp_path, tmp_path / "out")
    assert np.bincount(part["y_train"])[[3, 7]].tolist() == [20, 20]
    where = [np.flatnonzero((images == x).all((1, 2)))[0] for x in part["x_train"]]
    assert (labels[where] == part["y_train"]).all()
    assert len(set(where)) == 40
    assert len(part["x_test"]) == 9
    assert (part["y_test"] == labels[:9]).all()


def test_the_search_on_medmnist_does_not_see_the_test_part(tmp_path):
    arrays = {}
    for value, part in enumerate(("train", "val", "test")):
        arrays[f"{part}_images"] = np.full((5, 4, 4), value, np.uint8)
        arrays[f"{part}_labels"] = np.full((5, 1), value)
    path = tmp_path / SETS["pneumoniamnist"].path
    path.parent.mkdir()
    np.savez(path, **arrays)
    tuning = made("pneumoniamnist_tuning", tmp_path, tmp_path / "out")
    assert set(tuning) == {"x_train", "y_train", "x_test", "y_test"}
    assert (tuning["x_test"] == 1).all()
    assert tuning["y_test"].tolist() == [1] * 5
    assert (tuning["x_train"] == 0).all()


def test_features_of_a_published_split_and_what_they_are_tuned_on(tmp_path):
    """Each feature is its image's number; the network is not run, as its file is there."""
    root, out = tmp_path / "data", tmp_path / "out"
    path = root / SETS["pneumoniamnist"].path
    path.parent.mkdir(parents=True)
    arrays = {}
    for first, part in ((0, "train"), (6, "val"), (9, "test")):
        count = {"train": 6, "val": 3, "test": 4}[part]
        arrays[f"{part}_images"] = np.arange(first, first + count, dtype=np.uint8)[:, None, None]
        arrays[f"{part}_labels"] = np.arange(count)[:, None] % 2
    np.savez(path, **arrays)
    listed = listing("pneumoniamnist", path)
    file = out / "features/pneumoniamnist/features.npz"
    file.parent.mkdir(parents=True)
    np.savez(file, features=np.arange(13.0, dtype=np.float32)[:, None], labels=listed.labels,
             names=np.asarray(listed.names), classes=np.asarray(listed.class_names))  # fmt: skip
    whole = made("pneumoniamnist_features", root, out)
    assert whole["splits"][:, 0].tolist() == ["train"] * 6 + ["validation"] * 3 + ["test"] * 4
    tuning = made("pneumoniamnist_features_tuning", root, out)
    assert tuning["features"].ravel().tolist() == list(range(9))
    assert tuning["splits"].tolist() == ["train"] * 6 + ["test"] * 3


def test_draws_of_a_set_that_a_library_brings(tmp_path):
    drawn = made("breast_features", tmp_path, tmp_path / "out")
    assert drawn["features"].shape == (569, 30)
    assert drawn["splits"].shape == (569, 5)
    assert len({column.tobytes() for column in drawn["splits"].T}) == 5
    for column in drawn["splits"].T:
        for label in (0, 1):
            assert np.mean(column[drawn["labels"] == label] == "test") == pytest.approx(
                0.2, abs=0.01
            )
    tuning = made("breast_tuning", tmp_path, tmp_path / "out")
    of_training = drawn["names"][drawn["splits"][:, 0] == "train"]
    assert sorted(tuning["names"]) == sorted(of_training)
    assert np.mean(tuning["splits"] == "test") == pytest.approx(0.2, abs=0.01)
