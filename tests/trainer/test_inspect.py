"""--mode=inspect and the first lines of a run: the account, and what a run would take."""

import re

import numpy as np
import pytest
from PIL import Image
from support.runs import digits_file, file_config, small_config
from support.tiny_sets import save_image

from deepknn_jax.data.options import ALWAYS, DRAWN, FILES
from deepknn_jax.data.sources import SOURCES, options_of
from deepknn_jax.errors import UserError
from deepknn_jax.trainer import inspect, loop, setup

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture
def forty(tmp_path):
    """configs/class_folders.py, without any other option but data.dir, on 40 images."""
    for i in range(40):
        save_image(tmp_path / "set" / "ab"[i % 2] / f"{i}.png", i % 2)
    (tmp_path / "set" / "a" / "notes.txt").write_text("")
    config = file_config("class_folders")
    config.data.dir = str(tmp_path / "set")
    config.data.cache_dir = str(tmp_path / "cache")
    return config


ACCOUNT = [
    "classes: 2: a 20, b 20",
    "files: .png 40; of 20 opened: PNG, colour 20; 14 x 12 pixels",
    "left out: 1 file (.txt 1)",
    "split: stratified, as the source gives neither parts nor groups: 32 train + 8 test",
]


def test_inspect_tells_what_is_there_and_writes_nothing_but_the_cache(forty, tmp_path, capsys):
    inspect.run(forty)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"source: class_folders {tmp_path / 'set'}"
    assert lines[1:5] == ACCOUNT
    assert lines[5] == "data: 40 examples of 64 x 64 x 3, 0.5 MB"
    assert re.match(r"decoding: done here, in \d+:\d\d with .* cache, 0.5 MB on the disk", lines[6])
    assert lines[7] == "model: cnn, 249,440 parameters, 1.0 MB"
    known = "parameters 1.0 MB, gradients 1.0 MB, optimizer 1.0 MB, activations"
    found = re.fullmatch(rf"memory: about (.+) MB a device: {known} (.+) MB, (.+) 0.5 MB", lines[8])
    assert found[3] == "examples, all of them"
    assert float(found[1]) == pytest.approx(3.5 + float(found[2]), abs=0.2)
    assert float(found[2]) > 16 * 56 * 56 * 32 * 4 / 1e6 / 4  # of the first map, after pooling
    assert re.match(r"training: 60 epochs of 2 steps, 120 steps of 16; about \d+:\d\d by", lines[9])
    assert len(lines) == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "set"]


def test_inspect_tells_grey_levels_and_what_stops_the_decoding(forty, tmp_path, capsys):
    for i, path in enumerate(sorted((tmp_path / "set").glob("*/*.png"))):
        Image.fromarray(np.full((12, 14), 100 * (i % 3), np.uint16)).save(path)
    inspect.run(forty)
    out = capsys.readouterr().out
    assert "grey levels: 16-bit images scaled from 0..200 of the training part" in out
    assert "warning: the images have only 3 grey levels; set config.data.value_range" in out
    forty.data.value_range = (0.0, 400.0)
    inspect.run(forty)
    assert "scaled from" not in capsys.readouterr().out
    for path in (tmp_path / "set").glob("*/*.png"):
        path.write_bytes(b"none")
    with pytest.raises(UserError, match=r"png: cannot be decoded .*config\.data\.on_error=skip"):
        inspect.run(forty)


def test_inspect_tells_grey_levels_of_arrays(tmp_path, capsys):
    images = np.arange(200 * 64, dtype=np.uint16).reshape(200, 8, 8)
    labels = np.arange(200) % 2
    np.savez(
        tmp_path / "a.npz", x_train=images[:150], y_train=labels[:150], x_test=images[150:],
        y_test=labels[150:],
    )  # fmt: skip
    config = small_config(model__name="cnn", data__source="npz", data__dir=str(tmp_path / "a.npz"))
    inspect.run(config)
    assert "16-bit images scaled from 0..9599 of the training part" in capsys.readouterr().out


def test_forty_images_train_and_the_account_comes_first(forty, tmp_path, capsys):
    forty.epochs = 4
    forty.evaluate.references, forty.evaluate.pictures = (), False
    results = loop.run(forty, tmp_path / "run")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:5] == ACCOUNT
    assert lines[5] == "data: 32 train + 8 test examples of 64 x 64 x 3, 2 classes"
    assert results["test"]["5"]["n"] == 8


def test_class_folders_with_parts_are_split_by_them(forty, tmp_path):
    for part in ("train", "test"):
        for path in sorted((tmp_path / "set").glob("[ab]/*.png"))[:: 1 + (part == "train")]:
            target = tmp_path / "parts" / part / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    forty.data.dir = str(tmp_path / "parts")
    dataset = setup.load(forty)
    assert [name.split("/")[0] for name in dataset.names] == dataset.splits.tolist()
    assert len(dataset.rows("train")) == len(dataset.rows("test")) == 20
    setup.build(forty, dataset)


@pytest.mark.parametrize(
    ("source", "crop", "shape"), [("digits", 7, "8 x 8 x 1"), ("npz", 0, "16 x 16 x 3")]
)
def test_arrays(tmp_path, capsys, source, crop, shape):
    config = small_config(model__name="cnn", data__source=source, augment__crop=crop)
    if source == "npz":
        config.data.dir, config.data.size, config.data.channels = str(digits_file(tmp_path)), 16, 3
    inspect.run(config)
    out = capsys.readouterr().out
    assert f"examples of {shape}" in out
    assert ("split: published" in out) == (source == "npz")


def test_features(capsys):
    inspect.run(small_config(first_stage="cross_entropy"))
    assert "569 examples of 30, 0.1 MB" in capsys.readouterr().out


def test_what_would_stop_a_run_stops_after_the_account(capsys):
    with pytest.raises(UserError, match=r"^config.batch.size is 500: choose 1 to the 456"):
        inspect.run(small_config(batch__size=500))
    assert "split: stratified" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"but config.model.name=cnn takes images"):
        inspect.run(small_config(model__name="cnn"))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("data.csv", "t.csv", r"config.data.csv is set, but config.data.source breast_cancer does"),
        ("data.dir", "x", r"config.data.dir is set, .*would\); leave it out"),
        ("data.size", 8, r"config.data.size is set, .*gives feature vectors, .*images does"),
        ("data.resize_rule", "short_side", r"config.data.resize_rule is set, "),
        ("data.on_error", "skip", r"config.data.on_error is set, .*that of image files does"),
        ("data.value_range", (0.0, 1.0), r"config.data.value_range is set, "),
        ("data.ignore", ("*_mask.*",), r"config.data.ignore is set, .*class_folders would"),
    ],
)
def test_an_option_that_nothing_reads_is_named_by_its_key(key, value, words):
    config = small_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=f"^{words}"):
        setup.load(config)


def test_what_only_a_machine_cares_for_is_never_refused():
    config = small_config(data__cache_dir="x", data__placement="device", data__validation=0.1)
    config.data.resize_rule = "square"  # what `resolve` writes in its place
    setup.load(setup.resolve(config, None)[0])


def test_a_split_option_goes_with_a_split_that_draws(tmp_path):
    published = {"data__source": "npz", "data__dir": str(digits_file(tmp_path))}
    with pytest.raises(UserError, match=r"^config.data.test_share is set, but config.data.split"):
        setup.load(small_config(**published, data__test_share=0.3))
    drawn = setup.load(small_config(**published, data__test_share=0.3, data__split="stratified"))
    assert len(drawn.rows("test")) == pytest.approx(0.3 * 537, abs=5)
    setup.load(small_config(**published, data__split_seed=2, data__validation=0.2))
    with pytest.raises(UserError, match=r"^config.data.split_seed is set"):
        setup.load(small_config(**published, data__split_seed=2))


def test_a_run_of_the_former_default_goes_on():
    """ "stratified" was written where the config left the split open."""
    stored = small_config(data__split="stratified").to_dict()
    assert setup.resolve(small_config(), stored)[0].data.split == "stratified"
    assert setup.resolve(small_config(), None)[0].data.split == ""
    grouped = setup.resolve(small_config(data__split="grouped"), stored)[0]
    assert grouped.data.split == "grouped"  # and is then refused as another config


def test_every_option_is_read_by_some_source_or_by_all():
    """No option of config.data is dead."""
    named = set().union(*(options_of(source) for source in SOURCES))
    others = ALWAYS | DRAWN | FILES | {"placement", "source", "dir"}
    assert set(small_config().data) == (named - {"folder"}) | others
