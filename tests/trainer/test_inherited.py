"""What weights bring besides their arrays: taken, refused, kept, and used again."""

import json

import numpy as np
import pytest
from support.runs import small_config

from deepknn_jax.errors import UserError
from deepknn_jax.trainer import embed, inherited, loop
from deepknn_jax.trainer.setup import resolve

pytestmark = pytest.mark.usefixtures("compiled_once")


def on_digits(finished, **changes):
    """A config for the finished run's data that says nothing of how they are made."""
    workdir, config, _ = finished
    given = {
        "model__weights": str(workdir),
        "model__name": "cnn",
        "data__source": "npz",
        "data__dir": config.data.dir,
        "data__validation": 0.2,
        "data__split": "published",
    }
    return small_config(**given | changes)  # fmt: skip


def test_what_a_config_leaves_open_is_the_runs(finished, tmp_path, capsys):
    path = embed.run(on_digits(finished), tmp_path / "out")
    assert "was trained: data.size 8, augment.crop 7" in capsys.readouterr().out
    with np.load(path) as ours, np.load(finished[0] / "embeddings.npz") as theirs:
        np.testing.assert_allclose(ours["features"], theirs["embeddings"], rtol=1e-5, atol=1e-5)
    stored = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (stored["data"]["size"], stored["augment"]["crop"]) == (8, 7)
    assert embed.run(on_digits(finished), tmp_path / "out") == path  # that is no other config


def test_what_a_config_gives_otherwise_is_refused(finished):
    differs = on_digits(finished, augment__crop=5, model__normalize=True, data__size=9)
    words = (
        r"^config\.data\.size is 9, but .* with 8; config\.augment\.crop is 5, .* with 7; "
        r"config\.model\.normalize is True, .*: set .*config\.model\.weights=.*checkpoints$"
    )
    with pytest.raises(UserError, match=words):  # fmt: skip
        resolve(differs, None)
    differs.model.weights += "/checkpoints"
    config, _ = resolve(differs, None)
    assert (config.augment.crop, config.data.size, config.model.normalize) == (5, 9, True)
    open_, _ = resolve(on_digits(finished, model__weights=differs.model.weights), None)
    assert (open_.augment.crop, open_.data.size) == (7, 8)


def test_a_run_that_goes_on_keeps_what_it_began_with(finished):
    """Also one from before a run's weights brought their crop: it began without."""
    stored = on_digits(finished).to_dict()
    config, _ = resolve(on_digits(finished), stored)
    assert (config.augment.crop, config.data.channels, config.data.size) == (0, 0, 0)
    stored["data"]["channels"] = 1  # configs/chest_xray.py had it
    assert resolve(small_config(), stored)[0].data.channels == 1


def test_channels_are_those_of_the_weights(finished):
    cnn, three = small_config(model__name="cnn"), (0.5, 0.4, 0.3)
    assert inherited.channels(cnn, "w", three) == 3
    assert inherited.channels(small_config(), "w", three) == 0  # an MLP takes features
    assert inherited.channels(cnn, "w", ()) == 0
    cnn.data.channels = 1
    assert inherited.channels(cnn, "w", (0.5,)) == 1
    with pytest.raises(UserError, match=r"config\.data\.channels is 1, .* w take 3: set it to 3"):
        inherited.channels(cnn, "w", three)
    with pytest.raises(UserError, match=r"config\.data\.channels is 3, .* take 1: set it to 1, or"):
        resolve(on_digits(finished, data__channels=3), None)


def features(folder, rows, *, shift=0.0):
    """An .npz of two classes, that a value beside a large offset tells apart."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 2
    x = rng.normal(size=(120, 4)) * [1, 5, 2, 3]
    x[:, 1] += 1.7e9 + 60 * labels
    splits = np.where(np.arange(120) % 3 == 0, "test", "train")
    path = folder / f"{len(rows)}.npz"
    np.savez(path, features=x[rows] + shift, labels=labels[rows], splits=splits[rows],
             names=np.arange(120)[rows].astype(str))  # fmt: skip
    return path


@pytest.fixture(scope="module")
def of_features(tmp_path_factory, compiled_once):
    """(folder, workdir) of a run on features."""
    folder = tmp_path_factory.mktemp("features")
    path = features(folder, np.arange(120))
    loop.run(small_config(data__source="npz", data__dir=str(path), batch__size=16), folder / "run")
    return folder, folder / "run"


def test_new_features_are_standardised_by_the_run(of_features, tmp_path):
    folder, run = of_features
    with np.load(run / "embeddings.npz") as archive:
        wanted, labels = archive["embeddings"], archive["labels"]
    some = np.flatnonzero((np.arange(120) % 3 == 0) | (np.arange(120) % 11 == 1))
    config = small_config(data__source="npz", data__dir=str(features(folder, some)))
    config.model.weights = str(run)
    with np.load(embed.run(config, tmp_path / "out")) as found:
        np.testing.assert_allclose(found["features"], wanted[some], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found["labels"], labels[some])


def test_a_run_standardises_by_its_own_numbers_when_it_goes_on(of_features, tmp_path):
    folder, run = of_features
    config = small_config(data__source="npz", data__dir=str(folder / "120.npz"), batch__size=16)
    with np.load(folder / "120.npz") as archive:
        train = archive["features"][archive["splits"] == "train"]
    kept = inherited.read(run)
    np.testing.assert_allclose(kept.scale.mean, train.mean(0))
    np.testing.assert_allclose(kept.scale.std, train.std(0))
    assert (kept.shape, kept.set_range) == ((4,), ())
    _, setup = loop.prepare(*resolve(config, None), tmp_path)
    np.savez(tmp_path / "inputs.npz", shape=[4], mean=kept.scale.mean + 1, std=kept.scale.std)
    _, again = loop.prepare(*resolve(config, None), tmp_path)
    moved = setup.dataset.inputs - 1 / kept.scale.std
    np.testing.assert_allclose(again.dataset.inputs, moved, rtol=1e-4, atol=1e-5)


def test_runs_that_keep_nothing_or_other_features_are_told(of_features, tmp_path, capsys):
    _, run = of_features
    older = tmp_path / "older"
    older.mkdir()
    (older / "config.json").write_text((run / "config.json").read_text())
    config = small_config(model__weights=str(older))
    assert inherited.kept_for(config, tmp_path / "new") == inherited.Kept()
    assert "older is of a version that kept no inputs.npz" in capsys.readouterr().out
    (older / "inputs.npz").write_bytes(b"none")
    with pytest.raises(UserError, match=r"inputs\.npz: is damaged"):
        inherited.kept_for(config, tmp_path / "new")
    other = small_config(model__weights=str(run))  # of 30 features
    with pytest.raises(UserError, match=r"examples of 30, but those of .*were of 4"):
        embed.run(other, tmp_path / "out")


def test_wide_integers_are_scaled_by_the_range_of_the_run(tmp_path, capsys):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 1000, (60, 8, 8)).astype(np.uint16)
    for name, factor in (("first", 1), ("second", 4)):
        np.savez(
            tmp_path / f"{name}.npz", x_train=images[:40] * factor, y_train=np.arange(40) % 2,
            x_test=images[40:] * factor, y_test=np.arange(20) % 2,
        )  # fmt: skip
    given = {"model__name": "cnn", "data__source": "npz", "batch__size": 8, "epochs": 1}
    config = small_config(data__dir=str(tmp_path / "first.npz"), **given)
    loop.run(config, tmp_path / "run")
    assert inherited.read(tmp_path / "run").set_range == (0, images[:40].max())
    later = small_config(data__dir=str(tmp_path / "second.npz"), **given)
    later.model.weights = str(tmp_path / "run")
    capsys.readouterr()
    _, embedder = embed.prepare(*resolve(later, None), tmp_path / "out")
    wanted = np.rint(np.clip(images * 4.0 * 255 / images[:40].max(), 0, 255))
    np.testing.assert_array_equal(embedder.dataset.inputs[..., 0], wanted)
    assert f"scaled from 0..{images[:40].max()} of an earlier run" in capsys.readouterr().out
