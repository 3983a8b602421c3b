"""A finished run without a model folder gets the one that it would have left."""

import json
import shutil

import numpy as np
import pytest
from support.runs import small_config

import deepknn_jax
from deepknn_jax.errors import UserError
from deepknn_jax.trainer import afterwards, loop

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled_once):
    """A finished run on an .npz with a validation part, and its model folder."""
    folder = tmp_path_factory.mktemp("whole")
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(120) % 3)
    features = 5 + rng.normal(size=(120, 6)) + labels[:, None]
    np.savez(folder / "f.npz", features=features, labels=labels)
    config = small_config(
        data__source="npz", data__dir=str(folder / "f.npz"), data__validation=0.3, epochs=1,
        batch__size=16, evaluate__k_p=(1, 3), model_folder__names=False,
    )  # fmt: skip
    loop.run(config, folder / "run")
    return folder


def before(whole, tmp_path):
    """The run as a version without model folders left it: no such key or inputs.npz either."""
    workdir = shutil.copytree(whole / "run", tmp_path / "run")
    shutil.rmtree(workdir / "model")
    (workdir / "inputs.npz").unlink()
    results = json.loads((workdir / "results.json").read_text())
    del results["model_folder"], results["reported"]
    (workdir / "results.json").write_text(json.dumps(results))
    return workdir


def test_it_is_the_same_to_the_bit(whole, tmp_path, capsys):
    workdir = before(whole, tmp_path)
    with pytest.raises(UserError, match=r"predict --run=.*make_model"):
        deepknn_jax.open_run(workdir)
    stamp = (workdir / "checkpoints").stat().st_mtime_ns
    afterwards.make_model(workdir)
    told = capsys.readouterr().out
    assert "nothing is trained" in told
    assert "epoch 1" not in told
    ours, theirs = (deepknn_jax.open_run(each).model for each in (workdir, whole / "run"))
    np.testing.assert_array_equal(ours.gallery.embeddings, theirs.gallery.embeddings)
    np.testing.assert_array_equal(ours.calibrated.scores.scores, theirs.calibrated.scores.scores)
    assert ours.about == theirs.about
    assert ours.gallery.names == ()
    assert (workdir / "checkpoints").stat().st_mtime_ns == stamp
    assert not (workdir / "lock").exists()


def test_data_that_are_gone_or_others_end_in_one_line(whole, tmp_path):
    workdir = before(whole, tmp_path)
    data = whole / "f.npz"
    kept = data.rename(whole / "moved.npz")
    with pytest.raises(UserError, match=r"wants the data .*f\.npz: no such file"):
        afterwards.make_model(workdir)
    with np.load(kept) as arrays:
        np.savez(data, features=arrays["features"] + 1, labels=arrays["labels"])
    with pytest.raises(UserError, match=r"on other data \(inputs differs\)"):
        afterwards.make_model(workdir)
    kept.rename(data)
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(UserError, match="checkpoints are gone"):
        afterwards.make_model(workdir)
    assert not (workdir / "model").exists()
    with pytest.raises(UserError, match="no finished run"):
        afterwards.make_model(tmp_path)
