"""Views through a run: written, trained on, averaged, and answered with as the run did."""

import jax
import numpy as np
import pytest
from support.runs import (
    digits_file,
    file_config,
    last_checkpoint,
    same_bits,
    setup_of,
    small_config,
)

import deepknn_jax
from deepknn_jax import config as config_lib
from deepknn_jax.data.dataset import Dataset
from deepknn_jax.engine.parallel import get_devices
from deepknn_jax.errors import UserError
from deepknn_jax.trainer import embed, loop, miners
from deepknn_jax.trainer.setup import first_state

pytestmark = pytest.mark.usefixtures("compiled_once")
FLIPS = ("flip_lr", "flip_ud")


def of_features(path, **changes):
    config = small_config(data__source="npz", data__dir=str(path), data__split="", **changes)
    config.evaluate.every_epochs = 0
    return config


@pytest.fixture(scope="module")
def seen(tmp_path_factory, compiled_once):
    """(workdir, config) of a run of one epoch on digits in the four views of both flips."""
    folder = tmp_path_factory.mktemp("seen")
    config = config_lib.default()
    config.data.update(source="npz", dir=str(digits_file(folder)), split="published")
    config.augment.update(crop=7, views=FLIPS)
    config.epochs, config.devices, config.evaluate.references = 1, 1, ()
    config.evaluate.pictures = False
    loop.run(config, folder / "run")
    return folder / "run", config


@pytest.fixture(scope="module")
def written(seen, tmp_path_factory):
    """features.npz [N, 4, F] of the digits, by that run's network."""
    workdir, config = seen
    config = config.copy_and_resolve_references()
    config.model.weights = str(workdir)
    return embed.run(config, tmp_path_factory.mktemp("written") / "out")


def test_a_run_and_its_model_folder_average_the_views_of_an_image(seen, written):
    workdir, config = seen
    run = deepknn_jax.open_run(workdir)
    with np.load(config.data.dir) as file, np.load(workdir / "embeddings.npz") as own:
        test = own["splits"] == "test"
        images = file["x_test"][..., None]
        np.testing.assert_array_equal(run.embed(images), own["embeddings"][test])
        with np.load(written) as features:
            assert features["features"].shape == (537, 4, 64)
            mean = features["features"].mean(axis=1, dtype=np.float64)
            np.testing.assert_allclose(own["embeddings"], mean, rtol=1e-4, atol=1e-5)


def test_features_in_views_are_trained_on_and_answered_with(seen, written, tmp_path):
    config = file_config("features")
    config.data.dir, config.epochs, config.devices = str(written), 1, 1
    config.model.normalize = True
    config.evaluate.update(references=("pixels",), pictures=False)
    results = loop.run(config, tmp_path / "run")
    run = deepknn_jax.open_run(tmp_path / "run")
    with np.load(written) as file, np.load(tmp_path / "run" / "embeddings.npz") as own:
        features = file["features"]
        own_embeddings = own["embeddings"]
        np.testing.assert_array_equal(run.embed(features), own_embeddings)
        np.testing.assert_allclose(np.linalg.norm(own["embeddings"], axis=1), 1, rtol=1e-5)
        one = [run.embed(features[:, v]) for v in range(4)]
        mean = np.mean(one, axis=0, dtype=np.float64)
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        np.testing.assert_allclose(own["embeddings"], mean, atol=1e-4)
    assert results["references"]["features"]["test"]["1"]["acc"] > 0.3
    with np.load(seen[1].data.dir) as file, np.load(written) as made:  # the network gives all views
        of_images = run.embed(file["x_test"][..., None])
        rows = made["splits"] == "test"
    np.testing.assert_allclose(of_images, own_embeddings[rows], atol=1e-5)
    with pytest.raises(UserError, match="trained on images of 8 bits"):
        run.embed(features[:, :, :5])


def features_file(folder, views=3):
    rng = np.random.default_rng(0)
    labels = np.arange(160) % 2
    features = rng.normal(size=(160, views, 6)) + labels[:, None, None]
    np.savez(folder / "views.npz", features=features.astype(np.float32), labels=labels)
    return folder / "views.npz"


def test_lmnn_takes_neighbours_by_the_average_of_views():
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(30, 3, 4)).astype(np.float32)
    labels = (np.arange(30) % 2).astype(np.int32)
    dataset = Dataset(inputs, labels, (), ("a", "b"), np.full(30, "train"))
    run = miners.Run(dataset, get_devices(1, "shard_map"), 30, 1, 1, 0)
    anchors = np.arange(30, dtype=np.int32)[None]
    found = miners.fixed_targets(run, targets=2).mine(None, anchors, 0)["targets"][0]
    means = inputs.mean(axis=1, dtype=np.float64)
    for i, targets in enumerate(found):
        distances = np.linalg.norm(means - means[i], axis=1)
        distances[(labels != labels[i]) | (anchors[0] == i)] = np.inf
        assert targets.tolist() == np.argsort(distances)[:2].tolist()


def first_call(path, devices):
    config = of_features(path, devices=devices, batch__size=64, steps_per_call=2)
    setup = setup_of(config)
    *_, log = next(loop.train(config, setup, first_state(setup), {}, {}))
    return [log["loss"], log["gradient_norm"]]


def test_any_number_of_devices_draws_the_same_views(tmp_path):
    path = features_file(tmp_path)
    np.testing.assert_allclose(first_call(path, 4), first_call(path, 1), rtol=1e-5)


def test_a_run_on_views_with_the_whole_recipe_goes_on_to_the_bit(tmp_path):
    """Views, cosine, warmup, Nesterov, decay of kernels alone, average weights."""
    recipe = {
        "schedule": "cosine", "warmup_epochs": 1.5, "nesterov": True, "decay_all": False,
        "weight_decay": 0.1, "average": 0.9,
    }  # fmt: skip
    path = features_file(tmp_path)
    changes = {f"optimizer__{key}": value for key, value in recipe.items()}
    config = of_features(path, epochs=4, batch__size=32, **changes)
    whole = loop.run(config, tmp_path / "whole")
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "end_epoch", stopping_after(2, loop.end_epoch))
        with pytest.raises(KeyboardInterrupt):
            loop.run(config, stopped)
    assert loop.run(config, stopped)["test"] == whole["test"]
    arrays, step, _ = last_checkpoint(stopped, config)
    wanted, last, _ = last_checkpoint(tmp_path / "whole", config)
    assert step == last
    same_bits(arrays, wanted)
    state = arrays[0]
    average = state.opt_state[-1].average_of_weights
    assert any((a != w).any() for a, w in zip(*map(jax.tree.leaves, (average, state.params)),
                                              strict=True))  # fmt: skip
    # The average is what answers, and what another run begins with.
    model = deepknn_jax.open_run(stopped).model
    same_bits(dict(model.variables["params"]["backbone"]), dict(average["backbone"]))
    config.model.weights = str(stopped)
    weights = loop.resolve(config, None)[1]
    same_bits(jax.tree.map(np.asarray, dict(weights["params"])), dict(average["backbone"]))
    config.model.weights, config.epochs = "", 5
    with pytest.raises(UserError, match="the learning rate's past depends on the number of epochs"):
        loop.run(config, stopped)


def stopping_after(epochs, end_epoch):
    count = iter(range(epochs))

    def end(*args, **options):
        if next(count, None) is None:
            raise KeyboardInterrupt
        return end_epoch(*args, **options)

    return end
