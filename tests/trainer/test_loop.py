"""A run from start to end: killed, stopped, started again, refused."""

import itertools
import json
import signal
import time

import jax
import numpy as np
import pytest
from support.kills import terminated_at
from support.runs import (
    arguments,
    fit,
    last_checkpoint,
    same_bits,
    setup_of,
    small_config,
    start,
)  # fmt: skip

from deepknn_jax.errors import UserError
from deepknn_jax.logs import read_records
from deepknn_jax.trainer import assess, loop
from deepknn_jax.trainer.setup import first_state

pytestmark = pytest.mark.usefixtures("compiled_once")
KILLED = {"epochs": 3, "steps_per_call": 2, "data__validation": 0.1}


def steps_of(workdir):
    """The records of training, without those of evaluation."""
    return [record for record in read_records(workdir / "metrics.jsonl") if "loss" in record]


def wait_for(process, ready, seconds=120):
    end = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory, compiled_once):
    """(arrays of the last checkpoint, records, extra) of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("unkilled") / "run"
    config = small_config(**KILLED)
    loop.run(config, workdir)
    arrays, step, extra = last_checkpoint(workdir, config)
    assert step == 18
    return arrays, read_records(workdir / "metrics.jsonl"), extra


def assert_as_unkilled(workdir, unkilled):
    arrays, records, extra = unkilled
    found, step, found_extra = last_checkpoint(workdir, small_config(**KILLED))
    same_bits(found, arrays)
    assert step == 18
    assert {key: found_extra[key] for key in ("best_step", "best_figure")} == {
        key: extra[key] for key in ("best_step", "best_figure")
    }
    timeless = [
        [{key: value for key, value in record.items() if key != "examples_per_s"} for record in log]
        for log in (records, read_records(workdir / "metrics.jsonl"))
    ]
    assert timeless[0] == timeless[1]


def test_killed_again_and_again_it_ends_as_if_never_killed(tmp_path, unkilled, capsys):
    workdir = tmp_path / "run"
    args = [*arguments(small_config(**KILLED)), f"--workdir={workdir}"]
    # While it compiles, before any checkpoint; and twice right after steps, in or about a save.
    for moment in (0, 3, 7):
        process = start(args, tmp_path)
        wait_for(
            process, lambda: (workdir / "config.json").exists() and len(steps_of(workdir)) >= moment
        )
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (workdir / "results.json").exists()
    loop.run(small_config(**KILLED), workdir)
    assert "going on from step" in capsys.readouterr().out
    assert_as_unkilled(workdir, unkilled)


def test_sigterm_saves_at_once_and_the_same_command_goes_on(tmp_path, unkilled):
    workdir = tmp_path / "run"
    config = small_config(**KILLED, checkpoint_seconds=1e6)  # no checkpoint but by the signal
    process = start([*arguments(config), f"--workdir={workdir}"], tmp_path)
    wait_for(process, lambda: len(steps_of(workdir)) >= 2)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert (process.returncode, err) == (128 + signal.SIGTERM, "")
    stopped = steps_of(workdir)[-1]["step"]
    assert f"stopped at step {stopped} and saved" in out.splitlines()[-1]
    assert 0 < stopped < 18
    assert last_checkpoint(workdir, config)[1] == stopped
    loop.run(config, workdir)
    assert_as_unkilled(workdir, unkilled)


@pytest.fixture(scope="module")
def called_once(tmp_path_factory, compiled_once):
    """The arrays at the end of two epochs, each made in one call."""
    return trained(tmp_path_factory.mktemp("once") / "run", steps_per_call=100)


def trained(workdir, **changes):
    config = small_config(evaluate__every_epochs=0, checkpoint_seconds=1e6, **changes)
    fit(config, workdir)
    return last_checkpoint(workdir, config)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"steps_per_call": 1},
        {"steps_per_call": 3},
        {"steps_per_call": 3, "data__placement": "stream"},
    ],
)
def test_calls_and_placement_do_not_change_the_result(tmp_path, called_once, changes):
    same_bits(trained(tmp_path / "run", **changes), called_once)


def test_images_stream_as_they_are_on_the_device(tmp_path, finished):
    """With crops and flips, which depend on the image and the step alone; best ones too."""
    workdir, config, _ = finished
    streamed = config.copy_and_resolve_references()
    streamed.data.placement = "stream"
    fit(streamed, tmp_path / "run")
    same_bits(last_checkpoint(tmp_path / "run", config)[0], last_checkpoint(workdir, config)[0])


def test_a_finished_run_prints_its_table_and_trains_nothing(finished, capsys, monkeypatch):
    workdir, config, results = finished
    monkeypatch.setattr(loop, "tell_and_load", lambda config: pytest.fail("loads data"))
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    found = loop.run(config, workdir)
    assert found == json.loads(json.dumps(results))
    assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    out = capsys.readouterr().out
    assert "finished before" in out
    for words in ("kNN, pixels", "kNN, untrained", "deep kNN"):
        assert words in out


def test_another_config_in_the_workdir_is_refused_by_its_keys(finished):
    workdir, config, _ = finished
    other = config.copy_and_resolve_references()
    other.loss.k, other.optimizer.learning_rate = 3, 0.5
    other.checkpoint_seconds = 1.0  # of no matter
    with pytest.raises(UserError) as error:
        loop.run(other, workdir)
    message = str(error.value)
    assert "loss.k: 5 -> 3" in message
    assert "optimizer.learning_rate: 0.01 -> 0.5" in message
    assert "checkpoint_seconds" not in message
    assert "\n" not in message


@pytest.mark.parametrize("key", ["data.source", "seed", "data.split_seed", "batch.size"])
def test_what_changes_the_result_is_refused(finished, key):
    workdir, config, _ = finished
    other = config.copy_and_resolve_references()
    value = "tfds" if key == "data.source" else 77
    other.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=f"{key}: "):
        loop.check_workdir(other, workdir)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path):
    config = small_config(optimizer__learning_rate=1e30, steps_per_call=1, evaluate__every_epochs=0)
    with pytest.raises(UserError, match=r"^step (\d+): loss or gradient is not finite") as error:
        fit(config, tmp_path / "run")
    named = int(str(error.value).split(":")[0].removeprefix("step "))
    (state, *_), step, _ = last_checkpoint(tmp_path / "run", config)
    assert step == state.step == named - 1
    assert [record["step"] for record in steps_of(tmp_path / "run")] == list(range(1, named))


def test_a_step_inside_a_call_is_named(tmp_path):
    config = small_config(optimizer__learning_rate=1e30, steps_per_call=7, evaluate__every_epochs=0)
    with pytest.raises(UserError, match=r"^step 2: "):
        fit(config, tmp_path / "run")
    assert steps_of(tmp_path / "run") == []


def test_embeddings_that_are_not_finite_are_no_result(tmp_path):
    """The last update of all may blow up: no later loss tells."""
    config = small_config(optimizer__learning_rate=1e30, epochs=1, batch__size=456)
    with pytest.raises(UserError, match="embeddings are not finite"):
        loop.run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()


def test_the_best_on_validation_is_reported(finished):
    workdir, config, results = finished
    figures = {
        record["step"]: record["validation_mcr"]
        for record in read_records(workdir / "metrics.jsonl")
        if "validation_mcr" in record
    }
    assert len(figures) == config.epochs
    best = max(figures.values())
    first = min(step for step, figure in figures.items() if figure == best)
    assert results["reported"] == {"step": first, "validation": best}


def test_evaluation_leaves_the_state_alone():
    config = small_config()
    setup = setup_of(config)
    state = loop.first_state(setup)
    before = [np.array(leaf) for leaf in jax.tree.leaves(state)]
    assess.epoch_figures(config, setup, (state.params, state.batch_stats))
    same_bits([np.asarray(leaf) for leaf in jax.tree.leaves(state)], before)


def test_ctrl_c_and_sigterm_are_noted_in_the_block_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with loop.stop_signals() as stopped:
        assert stopped() == 0
        signal.raise_signal(signal.SIGTERM)
        assert stopped() == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):  # a second one is obeyed
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


MINED = {
    "neighbors": "dataset", "refresh_steps": 5, "epochs": 2, "steps_per_call": 2,
    "evaluate__every_epochs": 0,
}  # fmt: skip


def test_stopped_between_two_minings_it_ends_as_if_never_stopped(tmp_path):
    undisturbed, config = tmp_path / "undisturbed", small_config(**MINED)
    fit(config, undisturbed)
    arrays, step, _ = last_checkpoint(undisturbed, config)
    assert step == 14
    assert (arrays[2]["positives"][:4] >= 0).all()  # the steps 10..13, mined at 10
    workdir = tmp_path / "run"
    with terminated_at(7):
        fit(config, workdir)
    assert last_checkpoint(workdir, config)[1] == 7  # of 5 and 10, at which it mines
    fit(config, workdir)
    same_bits(last_checkpoint(workdir, config)[0], arrays)


def test_mined_neighbours_are_fed_alike_from_memory_and_by_stream(tmp_path):
    arrays = []
    for placement in ("device", "stream"):
        config = small_config(**MINED | {"data__placement": placement, "epochs": 1})
        fit(config, tmp_path / placement)
        arrays.append(last_checkpoint(tmp_path / placement, config)[0])
    same_bits(*arrays)


def test_the_first_mining_is_of_the_first_networks_neighbours(tmp_path):
    """And every later one of the network as it is then."""
    config = small_config(**MINED | {"refresh_steps": 1})
    setup = setup_of(config)
    seen = []

    def mine(bank, anchors, step):
        seen.append(bank)
        return setup.mining.mine(bank, anchors, step)

    watched = setup._replace(mining=setup.mining._replace(mine=mine))
    state = first_state(setup)
    first = assess.embed_split(config, setup, (state.params, state.batch_stats), "train")
    list(loop.train(config, watched, state, setup.mining.empty, {}))
    assert len(seen) == 14
    np.testing.assert_array_equal(seen[0], first.embeddings)
    changes = [np.abs(b - a).max() for a, b in itertools.pairwise(seen)]
    assert min(changes) > 1e-4


@pytest.mark.parametrize(("loss", "method", "rate"), [("nca", "NCA", 0.01), ("lmnn", "LMNN", 1e-4)])
def test_linear_metrics_are_trained_by_the_same_trainer(tmp_path, loss, method, rate):
    config = small_config(
        loss__name=loss, loss__targets=3, model__name="linear", model__embedding_size=5, epochs=3,
        optimizer__learning_rate=rate,
    )  # fmt: skip
    results = loop.run(config, tmp_path / "run")
    assert results["method"] == method
    losses = [record["loss"] for record in steps_of(tmp_path / "run")]
    assert losses[-1] < losses[0]
    assert results["test"]["5"]["acc"] > 0.9


def test_lmnn_s_batches_hold_the_nearest_of_the_class_in_the_input_space():
    config = small_config(loss__name="lmnn", loss__targets=2, model__name="linear")
    setup = setup_of(config)
    mined = setup.mining.mine(None, setup.positions(range(7)), 0)
    batches = setup.sampler(0, mined)(range(2, 3))
    dataset = setup.dataset
    rows = dataset.rows("train")
    x = dataset.inputs.astype(np.float64)
    x = (x - x[rows].mean(0)) / x[rows].std(0)
    anchors = rows[setup.positions(range(2, 3))[0]]
    for anchor, targets in zip(anchors, batches.mined["targets"][0], strict=True):
        others = rows[(dataset.labels[rows] == dataset.labels[anchor]) & (rows != anchor)]
        distances = np.linalg.norm(x[others] - x[anchor], axis=1)
        np.testing.assert_array_equal(targets, others[np.argsort(distances)[:2]])
    assert set(anchors) | set(batches.mined["targets"].ravel()) <= set(batches.ids[0])


@pytest.mark.parametrize(("by", "expected"), [("acc", 0.8), ("mcr", 0.4), ("mean", 0.6)])
def test_what_the_best_epoch_is_chosen_by(by, expected):
    config = small_config(evaluate__best_by=by)
    found = {"train_acc": 0.9, "validation_acc": 0.8, "validation_mcr": 0.4}
    assert assess.validation_score(config, found) == pytest.approx(expected)
    assert assess.validation_score(config, {"train_acc": 0.9}) is None
