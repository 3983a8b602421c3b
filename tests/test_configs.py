"""Each file in configs/: it loads, passes, and builds on its data or on a few like them."""

import csv
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from support import tiny_sets
from support.runs import ROOT, config_module, file_config
from support.tiny_tfds import TinyImages

from deepknn_jax import config as config_lib
from deepknn_jax.engine.step import init_state
from deepknn_jax.errors import UserError
from deepknn_jax.trainer import loop
from deepknn_jax.trainer.check import check
from deepknn_jax.trainer.setup import build, load
from deepknn_jax.trainer.sizes import with_sizes

FILES = sorted((ROOT / "configs").glob("[!_]*.py"))
PUBLISHED = "HAM10000_metadata.csv"


def check_builds(config, *, train, test):
    """The data load, everything is built, and the network takes the data's shape."""
    check(config)
    dataset = load(config)
    assert (len(dataset.rows("train")), len(dataset.rows("test"))) == (train, test)
    setup = build(config, dataset)
    inputs = jnp.asarray(dataset.inputs[:1])
    state = jax.eval_shape(lambda inputs: init_state(setup.recipe, inputs), inputs)
    assert jax.tree.leaves(state.params)
    assert setup.steps_per_epoch == train // with_sizes(config, train).batch.size
    return dataset


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_loads_passes_and_tells_its_command(path):
    found = config_module(path.stem)
    check(found.get_config())
    assert config_lib.differences(found.get_config(), config_lib.default().to_dict())
    if path.stem != "digits":  # which is the default
        assert f"--config=configs/{path.name}" in found.__doc__
    assert "python -m deepknn_jax.main" in found.__doc__
    assert re.search(r"^Time: ", found.__doc__, re.M)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_options_in_its_words_exist(path):
    known = config_lib.flatten(config_lib.default())
    named = re.findall(r"--config\.([a-z_.0-9]+)=", config_module(path.stem).__doc__)
    assert set(named) <= set(known)


@pytest.mark.parametrize(
    ("name", "train", "test"), [("digits", 1438, 359), ("breast_cancer", 456, 113)]
)
def test_scikit_learn_s_sets_build(name, train, test):
    check_builds(file_config(name), train=train, test=test)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        ("mnist", 54000, 10000),
        ("nw_mnist", 54000, 10000),
        ("pneumoniamnist", 4708, 624),
        ("nw_pneumoniamnist", 4708, 624),
    ],
)
def test_published_arrays_build(name, train, test, data_root):
    config = file_config(name)
    name = name.removeprefix("nw_")
    config.data.dir = str(data_root / name / f"{name}.npz")
    check_builds(config, train=train, test=test)


@pytest.mark.data
def test_skin7_builds_on_a_part_of_it(tmp_path, data_root):
    """Real images, rows and folds: 15 training and 3 test images of each class of fold 1."""
    source, target = data_root / "skin7", tmp_path / "skin7"
    (target / "folds").mkdir(parents=True)
    (target / "HAM10000_images").symlink_to(source / "HAM10000_images")
    kept = set()
    for part, each in (("train", 15), ("test", 3)):
        name = f"folds/split_data_1_fold_{part}.csv"
        header, *rows = (source / name).read_text().splitlines()
        seen, chosen = Counter(), []
        for row in rows:
            image, label = row.split(",")
            if seen[label] < each:
                seen[label] += 1
                chosen.append(row)
                kept.add(image.removesuffix(".jpg"))
        (target / name).write_text("\n".join([header, *chosen]) + "\n")
    with (source / PUBLISHED).open(newline="") as file:
        header, *rows = csv.reader(file)
    with (target / PUBLISHED).open("w", newline="") as file:
        csv.writer(file).writerows([header, *(row for row in rows if row[1] in kept)])
    config = file_config("skin7")
    config.data.dir, config.data.cache_dir = str(target), str(tmp_path / "cache")
    dataset = check_builds(config, train=105, test=21)
    assert dataset.inputs.shape == (126, 256, 256, 3)


@pytest.mark.data
def test_chest_xray_builds_on_a_part_of_it(tmp_path, data_root):
    for folder in (data_root / "chest_xray").iterdir():
        (tmp_path / "set" / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:50]:
            (tmp_path / "set" / folder.name / file.name).symlink_to(file)
    config = file_config("chest_xray")
    config.data.dir, config.data.cache_dir = str(tmp_path / "set"), str(tmp_path / "cache")
    config.data.size, config.augment.crop = 64, 56
    config.model.name = "cnn"
    dataset = load(config)
    sizes = len(dataset.rows("train")), len(dataset.rows("test"))
    assert sum(sizes) == 150
    assert 20 <= sizes[1] <= 40
    patient = re.compile(config.data.group_pattern)
    sides = [
        {patient.search(dataset.names[i].split("/")[1]).group() for i in dataset.rows(part)}
        for part in ("train", "test")
    ]
    assert sides[0].isdisjoint(sides[1])
    check_builds(config, train=sizes[0], test=sizes[1])


# Sets that cannot be had here: images or volumes to train on, validate and test in the tiny one.
PAPERS = {
    "sd198": (100, 0, 20),
    "pneumonia": (120, 0, 30),
    "stl10": (100, 0, 20),
    "cub200": (100, 0, 20),
    "tiny_imagenet": (100, 0, 10),
    "cifar10": (180, 20, 20),
    "epid": (36, 3, 39),
    "sarcoma": (36, 4, 8),
    "nw_epid": (36, 3, 39),
    "nw_sarcoma": (36, 4, 8),
}


def tiny_config(name, tmp_path):
    """The config `name` on its tiny set."""
    getattr(tiny_sets, name.removeprefix("nw_"))(tmp_path / "set")
    config = file_config(name)
    config.data.dir, config.data.cache_dir = str(tmp_path / "set"), str(tmp_path / "cache")
    config.devices = 1  # batches of 30 and 90 do not divide by the tests' four
    return config


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_sets_build_in_their_layouts(name, tmp_path):
    sizes = PAPERS[name]
    dataset = check_builds(tiny_config(name, tmp_path), train=sizes[0], test=sizes[2])
    assert len(dataset.rows("validation")) == sizes[1]


@pytest.mark.parametrize("name", [*PAPERS, "mnist", "skin7", "chest_xray", "csv_images"])
def test_a_missing_folder_is_one_line_with_the_layout(name, tmp_path):
    config = file_config(name)
    config.data.dir = str(tmp_path / "gone")
    with pytest.raises(UserError, match=r"gone: no such folder \(config.data.dir\); it should"):
        load(config)


def test_epid_by_beam_and_by_image(tmp_path):
    """The published parts; drawn by beam, a beam on one side; drawn by image, some on two."""
    config = tiny_config("epid", tmp_path)
    published = load(config)
    config.data.split_column, config.data.split = "", "grouped"
    config.data.test_share = 0.457  # as the config's words tell
    by_beam = load(config)
    config.data.split = "stratified"
    by_image = load(config)

    def sides(dataset):
        """Of each beam, how many parts it is in."""
        parts = {}
        for name, part in zip(dataset.names, dataset.splits, strict=True):
            parts.setdefault(name[:3], set()).add(part)
        return [len(found) for found in parts.values()]

    assert set(sides(published)) == {1}
    assert set(sides(by_beam)) == {1}
    assert len(by_beam.rows("test")) == 36  # 255 of 558: 12 of 26 beams
    assert max(sides(by_image)) > 1


@pytest.mark.parametrize("name", ["sd198", "sarcoma", "nw_sarcoma"])
def test_a_short_training_on_a_tiny_set(name, tmp_path, compiled_once):
    """With the config's own batches, losses and model (a small CNN for ResNet-50)."""
    config = tiny_config(name, tmp_path)
    config.epochs, config.evaluate.every_epochs, config.evaluate.k_p = 3, 0, (5,)
    config.evaluate.pictures, config.evaluate.references = False, ()
    if name == "sd198":
        config.model.name, config.data.size, config.augment.crop = "cnn", 16, 14
    else:
        config.data.size = 16
    results = loop.run(config, tmp_path / "run")
    if name != "sd198":
        assert results["test"]["5"]["acc"] >= 7 / 8
        return
    # Ten classes of four brightnesses: of the right one is what can be learnt.
    with (tmp_path / "run" / "neighbors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = [(int(row["label"][-1]) - int(row["prediction"][-1])) % 4 == 0 for row in rows]
    assert len(right) == 20
    assert np.mean(right) >= 0.9


def test_csv_images_builds_by_its_command(tmp_path):
    rows = [("file", "diagnosis", "patient", "part")]
    for i in range(120):
        Image.new("RGB", (12, 10), (i, 2 * i, 0)).save(tmp_path / f"{i}.png")
        rows.append((f"{i}.png", "ab"[i % 2], f"p{i // 3}", "test" if i % 5 == 0 else "train"))
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    config = file_config("csv_images")
    config.data.dir, config.data.cache_dir = str(tmp_path), str(tmp_path / "cache")
    config.data.image_column, config.data.label_column = "file", "diagnosis"
    config.data.size, config.augment.crop = 32, 28
    check_builds(config, train=96, test=24)
    config.data.split_column, config.data.split = "part", "published"
    check_builds(config, train=96, test=24)


def test_features_builds_on_what_a_run_leaves(finished):
    """The embeddings.npz of a run is a set of features."""
    workdir, _, _ = finished
    config = file_config("features")
    config.data.dir = str(workdir / "embeddings.npz")
    config.data.split = "published"
    dataset = check_builds(config, train=320, test=137)
    assert len(dataset.rows("validation")) == 80
    with np.load(workdir / "embeddings.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(dataset.inputs, archive["embeddings"])
        np.testing.assert_array_equal(dataset.labels, archive["labels"])


def test_tfds_builds(tmp_path):
    class Hundred(TinyImages, skip_registration=True):
        name = "hundred"
        SPLITS = {"train": range(8), "test": range(8, 12)}  # noqa: RUF012

    Hundred(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    config = file_config("tfds")
    config.data.dir, config.data.tfds_name = str(tmp_path), "hundred"
    config.data.cache_dir = str(tmp_path / "cache")
    config.data.size, config.augment.crop, config.batch.size = 32, 28, 4
    config.evaluate.k_p = (1,)
    check_builds(config, train=8, test=4)
