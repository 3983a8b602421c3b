"""What joins, what trains, the figures by hand; and the command's runs on a tiny Skin-7."""

import numpy as np
import pytest
from support.reproduced import options, tiny_root  # noqa: F401  (fixtures)

from deepknn_jax.answers import gallery
from deepknn_jax.data.dataset import TEST, TRAIN, VALIDATION, Listing
from deepknn_jax.reproduce import new_class, store

CLASSES = ("a", "b", "new", "other new")


@pytest.fixture
def parts():
    rng = np.random.default_rng(4)
    labels = rng.permutation(np.repeat(np.arange(4), (20, 18, 16, 17))).astype(np.int32)
    splits = rng.choice([TRAIN, VALIDATION, TEST], len(labels), p=(0.6, 0.2, 0.2))
    names = tuple(f"{i}.png" for i in range(len(labels)))
    features = rng.normal(size=(len(labels), 3)).astype(np.float32)
    return new_class.Parts(Listing(names, labels, CLASSES, features), splits, CLASSES[2:])


def test_what_joins_is_of_the_training_part_and_a_larger_draw_goes_on(parts):
    small, large = (new_class.joining(parts, 1, 2, size) for size in (2, 5))
    assert large[:4].tolist() == small.tolist()
    assert set(parts.splits[large]) == {TRAIN}
    assert np.unique(large).size == 10
    for rows, size in ((small, 2), (large, 5)):
        assert sorted(parts.labels[rows]) == ["new"] * size + ["other new"] * size
    assert new_class.joining(parts, 1, 3, 5).tolist() != large.tolist()
    assert new_class.joining(parts, 2, 2, 5).tolist() != large.tolist()


def test_a_training_has_no_more_of_the_new_classes_than_joined(parts):
    joined = new_class.joining(parts, 0, 0, 3)
    arrays = new_class.training_file(parts, joined)
    is_new = np.isin(arrays["labels"], parts.new)
    assert sorted(arrays["names"][is_new]) == sorted(f"{row}.png" for row in joined)
    assert set(arrays["splits"][is_new]) == {TRAIN}
    assert (~is_new).sum() == 38
    rows = [int(name.removesuffix(".png")) for name in arrays["names"]]
    np.testing.assert_array_equal(arrays["features"], parts.listed.inputs[rows])
    np.testing.assert_array_equal(arrays["splits"], parts.splits[rows])

    images = np.arange(71, dtype=np.uint8)[:, None, None, None]
    pictured = parts._replace(listed=parts.listed._replace(inputs=images))
    arrays = new_class.training_file(pictured, joined)
    assert {*arrays} == {f"{x}_{part}" for x in "xy" for part in ("train", "val", "test")}
    assert arrays["x_train"][-6:].ravel().tolist() == joined.tolist()
    for part in ("train", "val", "test"):
        found = arrays[f"x_{part}"].ravel()
        np.testing.assert_array_equal(arrays[f"y_{part}"], parts.labels[found])


def test_the_figures_are_those_counted_by_hand():
    truth = np.array(["a", "a", "a", "b", "b", "new", "new", "new", "other new"])
    before = ["a", "a", "b", "b", "a", "a", "b", "a", "a"]
    now = np.array(["a", "new", "a", "new", "other new", "new", "a", "other new", "other new"])
    nearest = np.array(["a", "a", "b", "b", "", "new", "new", "new", "b"])
    sets = np.zeros((9, 4), bool)
    sets[[0, 1, 3, 5, 8], [0, 2, 1, 2, 3]] = True
    sets[0, 3] = True
    found = new_class.told({1: nearest, 5: now}, sets, CLASSES, truth, CLASSES[2:], before)
    assert found["figures"]["5"] == {
        "new": 2 / 4, "acc": 2 / 5, "mcr": (2 / 3 + 0) / 2, "taken": {"a": 1, "b": 2}
    }  # fmt: skip
    assert found["figures"]["1"] == {
        "new": 3 / 4, "acc": 3 / 5, "mcr": (2 / 3 + 1 / 2) / 2, "taken": {"a": 0, "b": 0}
    }  # fmt: skip
    assert found["lost"] == found["lost_to_new"] == {"a": 1, "b": 1}
    assert found["gained"] == {"a": 1, "b": 0}
    assert found["sets"] == {
        "covered": {"a": 1 / 3, "b": 1 / 2, "new": 1 / 3, "other new": 1.0},
        "others": 2 / 5, "size": 6 / 9, "with_new": 2 / 5,
    }  # fmt: skip


def test_the_command_trains_without_and_with_the_class(options, monkeypatch, capsys):  # noqa: F811
    case = new_class.CASES["skin7"]
    changes = case.changes | {"batch.size": 16, "epochs": 1, "evaluate.every_epochs": 1}
    tiny = case._replace(leave=("vasc", "bkl"), sizes=(2,), changes=changes)
    monkeypatch.setattr(new_class, "CASES", {"tiny": tiny})
    monkeypatch.setattr(new_class, "DRAWS", 1)
    options = options._replace(seeds=1)
    added, add = [], gallery.add
    monkeypatch.setattr(gallery, "add", lambda *a, **k: added.append(add(*a, **k).line))
    text = new_class.run(options)
    assert (options.out / "new_class.md").read_text() == text
    parts = new_class.parts_of(tiny, 0, options)
    part = dict(zip(parts.listed.names, parts.splits, strict=True))
    assert [line.votes for line in added] == [True, False]
    for line in added:
        wanted = TRAIN if line.votes else VALIDATION
        assert {part[name.removeprefix("new/").split(" (")[0]] for name in line.names} == {wanted}
        assert set(line.labels) == {"vasc", "bkl"}
    cells = new_class.cells_of("tiny", options)
    without, with_two = (store.read(options.out, cells[n][0])["new_class"] for n in (0, 2))
    assert without["trained"]["figures"]["5"]["new"] == 0.0
    assert [stage["calibrating"] > 0 for stage in without["draws"][0]] == [False, True]
    assert "vasc" not in without["trained"]["sets"]["covered"]
    assert without["draws"][0][0]["sets"]["covered"]["vasc"] == 1.0  # in every set
    assert without["draws"][0][0]["sets"]["with_new"] == 1.0
    assert len(with_two["trained"]["answers"]) == sum(with_two["test"].values())
    assert "| trained anew with 2 | 1 |" in text
    assert "| 2 added | 1 |" in text
    left = {store.path_of(options.out, cells[n][0]) for n in (0, 2)}
    assert {*options.out.glob("cells/*/new_class*")} == left
    capsys.readouterr()
    assert new_class.run(options) == text
    assert capsys.readouterr().out == ""
