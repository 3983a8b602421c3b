"""--mode=embed: the features of a data set, and that what a run learnt can be used again."""

import json

import numpy as np
import pytest
from PIL import Image
from support.runs import file_config, start
from support.tiny_sets import save_image

from deepknn_jax import config as config_lib
from deepknn_jax.data.images import read_image
from deepknn_jax.errors import UserError
from deepknn_jax.evaluation import report
from deepknn_jax.trainer import embed, loop
from deepknn_jax.trainer.setup import build, load

pytestmark = pytest.mark.usefixtures("compiled_once")


def of_run(finished, **changes):
    """The config of the finished run, its weights those that the run found."""
    workdir, config, _ = finished
    config = config.copy_and_resolve_references()
    config.model.weights = str(workdir)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def test_features_of_a_runs_weights_are_the_runs_embeddings(finished, tmp_path, capsys):
    path = embed.run(of_run(finished), tmp_path / "out")
    assert path == tmp_path / "out" / "features.npz"
    with np.load(path) as ours, np.load(finished[0] / "embeddings.npz") as theirs:
        described = {"labels", "names", "splits", "classes", "contents", "trained"}
        assert set(ours) == {"features", "thumbnails", "network", *described}
        np.testing.assert_allclose(ours["features"], theirs["embeddings"], rtol=1e-5, atol=1e-5)
        for key in described:
            np.testing.assert_array_equal(ours[key], theirs[key])
    assert "537 x 64 features written to" in capsys.readouterr().out


def test_they_are_a_data_set(finished, tmp_path):
    path = embed.run(of_run(finished), tmp_path / "out")
    config = file_config("features")
    config.data.dir, config.data.split = str(path), "published"
    dataset = load(config)
    assert dataset.inputs.shape == (537, 64)
    assert [len(dataset.rows(part)) for part in ("train", "validation", "test")] == [320, 80, 137]
    build(config, dataset)


def test_the_second_time_they_are_there(finished, tmp_path, capsys):
    path = embed.run(of_run(finished), tmp_path / "out")
    stamp = path.stat().st_mtime_ns
    capsys.readouterr()
    embed.run(of_run(finished), tmp_path / "out")
    assert path.stat().st_mtime_ns == stamp
    assert "written before" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"another config .*data\.test_share"):
        embed.run(of_run(finished, data__test_share=0.3), tmp_path / "out")


def test_the_workdirs_config_shows_the_preprocessing(finished, tmp_path):
    embed.run(of_run(finished), tmp_path / "out")
    ours, theirs = (
        json.loads((folder / "config.json").read_text())
        for folder in (tmp_path / "out", finished[0])
    )
    assert ours["augment"]["mean"] == theirs["augment"]["mean"]
    with np.load(finished[0] / "embeddings.npz") as archive:
        names = archive["names"][archive["splits"] == "train"]
    with np.load(finished[1].data.dir) as archive:
        pixels = archive["x_train"][[int(name.split("/")[1]) for name in names]] / 255
    np.testing.assert_allclose(ours["augment"]["mean"], [pixels.mean()], rtol=1e-5)
    np.testing.assert_allclose(ours["augment"]["std"], [pixels.std()], rtol=1e-5)
    assert ours["data"]["resize_rule"] == "square"


def test_a_random_networks_features_are_called_so(tmp_path, capsys):
    config = config_lib.default()
    config.evaluate.batch_size = 1000
    embed.run(config, tmp_path / "out")
    assert "features of a random network" in capsys.readouterr().out


def test_the_command(finished, tmp_path):
    workdir, config, _ = finished
    args = [
        "--mode=embed", "--config=configs/mnist.py", f"--config.data.dir={config.data.dir}",
        "--config.data.validation=0.2", "--config.augment.crop=7", "--config.augment.flip=True",
        f"--config.model.weights={workdir}", "--config.devices=1",
    ]  # fmt: skip
    process = start(args, tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "written to runs/mnist_features/features.npz" in out
    with np.load(tmp_path / "runs/mnist_features/features.npz") as archive:
        assert archive["features"].shape == (537, 64)


def test_features_keep_the_groups(tmp_path):
    """So that a split by patient can be drawn on them, too."""
    folder = tmp_path / "set"
    for i in range(40):
        path = folder / "ab"[i % 2] / f"p{i // 4}_{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    config = config_lib.default()
    config.data.update(
        source="class_folders", dir=str(folder), group_pattern=r"(p\d+)_", size=8,
        cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    path = embed.run(config, tmp_path / "out")
    with np.load(path) as found:
        patients = [name.split("/")[1].split("_")[0] for name in found["names"].tolist()]
        pairs = set(zip(patients, found["groups"].tolist(), strict=True))
    assert len(pairs) == len(set(patients)) == 10
    features = file_config("features")
    features.data.dir, features.data.split, features.batch.size = str(path), "grouped", 8
    dataset = load(features)
    test = {patients[i] for i in dataset.rows("test")}
    assert test
    assert test.isdisjoint(patients[i] for i in dataset.rows("train"))


def folders(folder, count):
    """So many images of 14 x 12 pixels in two class folders."""
    for i in range(count):
        save_image(folder / "ab"[i % 2] / f"{i}.png", i % 2)
    config = config_lib.default()
    config.data.update(source="class_folders", dir=str(folder), size=8)
    config.data.cache_dir, config.devices = str(folder.parent / "cache"), 1
    return config


def test_nothing_is_asked_of_a_training(tmp_path):
    """Five images: fewer than batches of 96, and than neighbours that vote."""
    with np.load(embed.run(folders(tmp_path / "set", 5), tmp_path / "out")) as found:
        assert found["features"].shape == (5, 64)


def test_a_run_on_features_shows_the_images(tmp_path, capsys):
    path = embed.run(folders(tmp_path / "set", 30), tmp_path / "out")
    config = file_config("features")
    config.data.dir, config.epochs, config.devices = str(path), 1, 1
    config.batch.size, config.evaluate.references = 8, ()
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report.pictures, "tsne", lambda *_: None)
        patch.setattr(report.neighbors, "draw", lambda _, *arrays, **_k: shown.append(arrays))
        results = loop.run(config, tmp_path / "run")
    assert results["pictures"]["neighbors.png"] == "drawn"
    queries, _, _, beside, *_ = shown[0]
    kinds = {"channels": 3, "size": 8, "resize_rule": "square"}
    images = [read_image(file, **kinds) for file in sorted((tmp_path / "set").glob("*/*.png"))]
    for image in [*queries, *beside.reshape(-1, 8, 8, 3)]:
        assert any(np.array_equal(image, each) for each in images)

    for file in (tmp_path / "set").glob("*/*.png"):
        file.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report.pictures, "tsne", lambda *_: None)
        results = loop.run(config, tmp_path / "later")
    assert "cannot be shown (No such file" in results["pictures"]["neighbors.png"]
    assert capsys.readouterr().out.count("neighbors.png is not drawn") == 1
