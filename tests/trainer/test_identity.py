"""What identifies a run: its config and data, lost, moved, changed, or of more epochs."""

import json
import shutil
import threading

import numpy as np
import optax
import pytest
from support.runs import fit, last_checkpoint, same_bits, small_config

from deepknn_jax import config as config_lib
from deepknn_jax.errors import UserError
from deepknn_jax.evaluation import report
from deepknn_jax.logs import read_records
from deepknn_jax.trainer import identity, loop

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture
def copy(finished, tmp_path, monkeypatch):
    """(workdir, config, results) of a finished run, to be changed; whoever trains fails."""
    workdir, config, results = finished
    shutil.copytree(workdir, tmp_path / "run")
    monkeypatch.setattr(loop, "end_epoch", lambda *_, **__: pytest.fail("trains"))
    return tmp_path / "run", config.copy_and_resolve_references(), json.loads(json.dumps(results))


@pytest.mark.parametrize("damage", [None, "", '{"seed": '])
def test_a_lost_config_comes_back_from_the_checkpoint(copy, capsys, damage):
    workdir, config, _ = copy
    before = (workdir / "config.json").read_text()
    (workdir / "config.json").unlink()
    if damage is not None:
        (workdir / "config.json").write_text(damage)
    other = config.copy_and_resolve_references()
    other.loss.name, other.seed = "triplet", 3
    with pytest.raises(UserError, match=r"loss.name: 'deep_knn' -> 'triplet'; seed: 0 -> 3"):
        loop.check_workdir(other, workdir)
    loop.check_workdir(config, workdir)
    assert "config.json: lost or damaged; restored from the checkpoint of step" in (
        capsys.readouterr().out
    )
    assert (workdir / "config.json").read_text() == before


def test_a_config_that_was_changed_by_hand_is_not_what_trained(copy):
    workdir, config, _ = copy
    stored = json.loads((workdir / "config.json").read_text())
    stored["seed"] = config.seed = 5
    (workdir / "config.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match="seed: 0 -> 5"):
        loop.check_workdir(config, workdir)


def older(workdir):
    """The run as one from before checkpoints held the config, the data and checksums."""
    for path in (workdir / "checkpoints").glob("*/extra/metadata"):
        extra = json.loads(path.read_text())
        for key in ("config", "data", "epoch", "version"):
            del extra[key]
        path.write_text(json.dumps(extra))
        (path.parents[1] / "checksums.json").unlink()
    results = json.loads((workdir / "results.json").read_text())
    del results["epochs"]
    report.write_results(workdir, results)


def test_a_run_from_before_is_evaluated_anew_and_goes_by_its_path(copy):
    workdir, config, results = copy
    older(workdir)
    config.evaluate.k_p, config.evaluate.pictures = (1,), False
    config.evaluate.references = ()
    found = loop.run(config, workdir)
    assert found["test"]["1"] == results["test"]["1"]
    config.data.dir = "elsewhere"
    with pytest.raises(UserError, match=r"data\.dir: .* -> 'elsewhere'"):
        loop.check_workdir(config, workdir)


def test_data_that_moved_are_the_same_data(copy, tmp_path, monkeypatch, capsys):
    workdir, config, results = copy
    shutil.copy(config.data.dir, tmp_path / "moved.npz")
    monkeypatch.chdir(tmp_path)
    config.data.dir = "moved.npz"
    assert loop.run(config, str(workdir)) == results
    out = capsys.readouterr().out
    assert "data: " in out  # they were looked at
    assert "finished before\n" in out
    assert json.loads((workdir / "config.json").read_text())["data"]["dir"] == "moved.npz"


@pytest.mark.parametrize("part", ["x_test", "y_train"])
def test_other_data_are_refused_wherever_they_lie(copy, tmp_path, part):
    workdir, config, _ = copy
    with np.load(config.data.dir) as archive:
        arrays = dict(archive)
    arrays[part][-2:] = arrays[part][:2] + 1 - part.startswith("y")
    config.data.dir = str(tmp_path / "other.npz")
    np.savez(config.data.dir, **arrays)
    before = (workdir / "config.json").read_text()
    differ = "inputs differs" if part == "x_test" else r"labels, splits differ|labels differs"
    with pytest.raises(UserError, match=rf"run holds a run on other data \(({differ})\): choose"):
        loop.run(config, workdir)
    assert (workdir / "config.json").read_text() == before
    assert not (workdir / "lock").exists()


def test_results_that_were_cut_short_are_made_again(copy, capsys):
    workdir, config, results = copy
    for text in ("", '{"test": {"1'):
        (workdir / "results.json").write_text(text)
        assert report.read_results(workdir) is None
    found = loop.run(config, workdir)
    assert "results.json: is damaged, so that the run" in capsys.readouterr().out
    assert found["test"] == results["test"]
    assert report.read_results(workdir)["test"] == results["test"]


LONGER = {
    "data__validation": 0.1, "data__resize_rule": "square", "neighbors": "dataset",
    "refresh_steps": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def short(tmp_path_factory, compiled_once):
    """A finished run of one epoch."""
    workdir = tmp_path_factory.mktemp("short") / "run"
    loop.run(small_config(**LONGER, epochs=1), workdir)
    return workdir


def test_more_epochs_end_as_if_they_had_been_asked_for_at_once(short, tmp_path, capsys):
    workdir, config = tmp_path / "run", small_config(**LONGER, epochs=3)
    shutil.copytree(short, workdir)
    results = loop.run(config, workdir)
    assert "finished before; goes on from 1 to 3 epochs" in capsys.readouterr().out
    fit(config, tmp_path / "at_once")
    grown, at_once = (last_checkpoint(path, config) for path in (workdir, tmp_path / "at_once"))
    same_bits(grown[0], at_once[0])
    for key in ("best_step", "best_figure", "data"):
        assert grown[2][key] == at_once[2][key]
    logs = [
        [record | {"examples_per_s": 0} for record in read_records(path / "metrics.jsonl")]
        for path in (workdir, tmp_path / "at_once")
    ]
    assert logs[0] == logs[1]
    assert results["epochs"] == 3
    assert json.loads((workdir / "results_of_1_epochs.json").read_text())["epochs"] == 1
    loop.run(config, workdir)
    assert "finished before\n" in capsys.readouterr().out
    with pytest.raises(UserError, match="epochs: 3 -> 2"):
        loop.run(small_config(**LONGER, epochs=2), workdir)


def cosine(config, per_epoch):
    return optax.cosine_decay_schedule(0.1, config.epochs * per_epoch)


def test_more_epochs_that_would_have_changed_the_past_are_refused_with_a_way(short, monkeypatch):
    config = small_config(**LONGER, epochs=3)
    loop.check_workdir(config, short)
    first = small_config(**LONGER, epochs=3, first_stage="cross_entropy")
    stored = identity.stored_run(short)
    then = dict(stored.config, first_stage="cross_entropy")
    with pytest.raises(UserError, match="the first stage would have been longer, too"):
        identity.check_config(first, stored._replace(config=then), short, finished=True)
    seldom = small_config(**LONGER, epochs=3, evaluate__every_epochs=2)
    then = json.loads(config_lib.to_json(seldom)) | {"epochs": 1}
    with pytest.raises(UserError, match="its best network is of its last epoch"):
        identity.check_config(seldom, stored._replace(config=then), short, finished=True)
    monkeypatch.setattr(identity, "learning_rate", cosine)
    with pytest.raises(UserError) as error:
        loop.check_workdir(config, short)
    assert str(error.value) == (
        f"{short}: config.epochs 1 -> 3 is not how it would have gone from the start (the learning "
        "rate's past depends on the number of epochs); train its network on in another --workdir "
        f"with --config.model.weights={short}"
    )


def test_what_only_the_validation_part_asks_for_is_free_without_one(tmp_path):
    config = small_config(epochs=1, data__resize_rule="square")
    (tmp_path / "config.json").write_text(config_lib.to_json(config))
    other = small_config(epochs=1, evaluate__k_p=(3,), evaluate__every_epochs=0)
    loop.check_workdir(other, tmp_path)
    other.data.validation = 0.2
    with pytest.raises(UserError, match=r"evaluate\.every_epochs: .* evaluate\.k_p: "):
        loop.check_workdir(other, tmp_path)


def test_a_run_in_a_thread_with_a_path_as_text(tmp_path):
    """As in a notebook or an application: signals are the main thread's."""
    found = []
    config = small_config(epochs=1)
    thread = threading.Thread(target=lambda: found.append(loop.run(config, str(tmp_path / "run"))))
    thread.start()
    thread.join()
    assert found[0]["epochs"] == report.read_results(tmp_path / "run")["epochs"] == 1
