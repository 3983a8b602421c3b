"""A run's folder as weights: its network, its preprocessing, and folders that are none."""

import json

import pytest
from support.runs import fit, last_checkpoint, same_bits, small_config

from deepknn_jax import config as config_lib
from deepknn_jax.errors import UserError
from deepknn_jax.trainer.run_folder import open_weights, run_preprocessing


def test_a_runs_best_variables(finished):
    workdir, config, _ = finished
    (_, (params, batch_stats), _), _, _ = last_checkpoint(workdir, config)
    expected = {"params": params["backbone"], "batch_stats": batch_stats["backbone"]}
    for folder in (workdir, workdir / "checkpoints"):
        variables = open_weights("cnn", folder, embedding_size=0).variables
        same_bits(variables, expected)


@pytest.mark.usefixtures("compiled_once")
def test_a_runs_last_variables_without_a_validation_part(tmp_path):
    config = small_config(model__embedding_size=16, epochs=1, loss__name="cross_entropy")
    fit(config, tmp_path)
    (tmp_path / "config.json").write_text(config_lib.to_json(config))
    (state, *_), _, _ = last_checkpoint(tmp_path, config)
    assert "head" in state.params
    variables = open_weights("mlp", tmp_path, embedding_size=16).variables
    same_bits(variables["params"], state.params["backbone"])
    same_bits(variables["batch_stats"], state.batch_stats["backbone"])
    with pytest.raises(UserError, match=r"mlp with config.model.embedding_size=16, not mlp with 8"):
        open_weights("mlp", tmp_path, embedding_size=8)


def test_a_run_of_another_model(finished):
    workdir, _, _ = finished
    with pytest.raises(UserError, match=r"its model is cnn with .*embedding_size=0, not resnet18$"):
        open_weights("resnet18", workdir)


def test_preprocessing_of_a_run(finished, tmp_path):
    workdir, _, _ = finished
    stored = json.loads((workdir / "config.json").read_text())
    for mean, std, rule in (([0.1, 0.2, 0.3], [1, 2, 3], "short_side"), ([], [], "")):
        stored["augment"] |= {"mean": mean, "std": std}
        stored["data"]["resize_rule"] = rule
        (tmp_path / "config.json").write_text(json.dumps(stored))
        how = run_preprocessing(tmp_path)
        assert how == (tuple(mean), tuple(std), rule or "square")


def test_folders_that_are_no_run(tmp_path, finished):
    workdir, _, _ = finished
    with pytest.raises(UserError, match=r"has no config\.json"):
        open_weights("cnn", tmp_path)
    for text in ("{", "[]", "3", '{"model": {}}', '{"model": 3}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match=r"config.json: is damaged, or not of a run"):
            open_weights("cnn", tmp_path)
        with pytest.raises(UserError, match=r"config.json: is damaged, or not of a run"):
            run_preprocessing(tmp_path)
    (tmp_path / "config.json").write_text((workdir / "config.json").read_text())
    with pytest.raises(UserError, match="checkpoints: holds no checkpoint"):
        open_weights("cnn", tmp_path)
