"""config.first_stage: deep kNN*, which starts from what cross entropy has learnt."""

import jax
import numpy as np
import pytest
from support.kills import killed_before_saving
from support.runs import last_checkpoint, same_bits, small_config

from deepknn_jax.evaluation import report
from deepknn_jax.trainer import loop
from deepknn_jax.trainer.check import check
from deepknn_jax.trainer.methods import METHODS
from deepknn_jax.trainer.setup import build, first_stage, first_state, load

pytestmark = pytest.mark.usefixtures("compiled_once")
TWO_STAGES = {
    "first_stage": "weighted_cross_entropy", "epochs": 2, "steps_per_call": 4,
    "evaluate__every_epochs": 0, "checkpoint_seconds": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def two_stages(tmp_path_factory, compiled_once):
    """(workdir, config, results) of cross entropy, then deep kNN."""
    workdir, config = tmp_path_factory.mktemp("stages") / "run", small_config(**TWO_STAGES)
    return workdir, config, loop.run(config, workdir)


def test_the_second_stage_starts_from_the_first_s_weights_without_its_head(two_stages, tmp_path):
    workdir, config, _ = two_stages
    start = workdir / "first_stage"
    (first, _, _), step, _ = last_checkpoint(start, first_stage(config))
    assert step == 14
    assert set(first.params) == {"backbone", "head"}
    resolved, weights = loop.check_workdir(config, tmp_path / "run", start)
    setup = build(resolved, load(resolved), weights)
    state = first_state(setup)
    assert set(state.params) == {"backbone"}
    same_bits(jax.device_get(state.params["backbone"]), first.params["backbone"])
    same_bits(jax.device_get(state.batch_stats["backbone"]), first.batch_stats["backbone"])
    assert int(state.step) == 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(jax.device_get(state.opt_state)))
    # And the run went on from just that.
    (tmp_path / "run").mkdir()
    loop.fit(resolved, setup, tmp_path / "run", {})
    same_bits(last_checkpoint(tmp_path / "run", config)[0], last_checkpoint(workdir, config)[0])


def test_both_stages_have_results(two_stages):
    workdir, _, results = two_stages
    first = report.read_results(workdir / "first_stage")
    assert first["method"] == METHODS["weighted_cross_entropy"].title
    assert results["method"] == METHODS["deep_knn"].title
    assert report.read_results(workdir)["test"] == results["test"]
    assert results["test"]["5"]["acc"] > 0.9


def test_a_second_stage_that_was_killed_goes_on(two_stages, tmp_path, capsys):
    whole, _, results = two_stages
    config, workdir = small_config(**TWO_STAGES), tmp_path / "run"

    with killed_before_saving(11):
        loop.run(config, workdir)
    assert report.read_results(workdir / "first_stage") is None
    assert last_checkpoint(workdir / "first_stage", first_stage(config))[1] == 7
    with killed_before_saving(11, times=2):  # the first stage's, then the second's
        loop.run(config, workdir)
    assert report.read_results(workdir / "first_stage") is not None
    assert last_checkpoint(workdir, config)[1] == 7
    found = loop.run(config, workdir)
    out = capsys.readouterr().out
    assert "going on from step 7 of 14" in out
    assert found["test"] == results["test"]
    same_bits(last_checkpoint(workdir, config)[0], last_checkpoint(whole, config)[0])
    again = loop.run(config, workdir)
    assert again["test"] == found["test"]
    assert "finished before" in capsys.readouterr().out


def test_local_margin_may_be_the_second_stage():
    """Its k = 0 is not the first stage's matter."""
    config = small_config(**TWO_STAGES, loss__name="local_margin", loss__neighborhood=0)
    check(config)
    check(first_stage(config))
