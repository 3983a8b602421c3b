"""The run's vote: chosen on validation, told, and the same in all that the run leaves."""

import csv
import json

import numpy as np
import pytest
from support.runs import small_config

import deepknn_jax
from deepknn_jax.data.sources.arrays import breast_cancer
from deepknn_jax.errors import UserError
from deepknn_jax.evaluation import report
from deepknn_jax.evaluation.operating_point import Point, score
from deepknn_jax.trainer import loop

AUTO = {"evaluate__vote__class_size_power": "auto", "evaluate__vote__k_p": "auto"}


def config_of(**changes):
    return small_config(data__validation=0.2, epochs=1, evaluate__k_p=(1, 30), **changes)


@pytest.fixture(scope="module")
def left(tmp_path_factory, compiled_once):
    """Workdir, results of a run whose tau and K_p validation chose."""
    workdir = tmp_path_factory.mktemp("vote") / "run"
    return workdir, loop.run(config_of(**AUTO, evaluate__vote__choose_by="mcr"), workdir)


def point_of(results, part):
    vote = results["vote"]
    points = [Point(**each) for each in results["operating_points"][part][str(vote["k_p"])]]
    return next(each for each in points if each.class_size_power == vote["class_size_power"])


def test_validation_chooses_and_the_figures_are_of_what_it_chose(left):
    _, results = left
    vote = results["vote"]
    assert vote["chosen"] == ["class_size_power", "k_p"]
    points = results["operating_points"]["validation"]
    scores = [score(each, "mcr") for of_k in points.values() for each in of_k]
    assert len(scores) == 22
    assert point_of(results, "validation").mcr == max(scores) > min(scores)
    entry = results["test"][str(vote["k_p"])]
    assert point_of(results, "test")[1:] == (entry["acc"], entry["mcr"], entry["rs"])
    last = report.table(results).splitlines()[-1]
    assert f"K_p = {vote['k_p']}, a vote weighs " in last
    assert "chosen on validation by mcr" in last


def test_the_model_answers_as_the_run(left):
    workdir, results = left
    run, vote = deepknn_jax.open_run(workdir), results["vote"]
    with (workdir / "neighbors.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert f"neighbor_{vote['k_p']}" in lines[0]
    assert f"neighbor_{vote['k_p'] + 1}" not in lines[0]
    listing = breast_cancer()
    found = run.predict(listing.inputs[[listing.names.index(line["name"]) for line in lines]])
    assert [run.class_names[c] for c in found.labels] == [line["prediction"] for line in lines]
    assert found.indices.shape[1] == vote["k_p"]
    np.testing.assert_allclose(found.shares.sum(1), 1, rtol=1e-6)


def test_a_given_rule_is_a_new_evaluation_of_the_same_run(left, capsys, monkeypatch):
    workdir, before = left
    monkeypatch.setattr(report, "draw", lambda *_: {})  # the other pictures take their time
    rule = {"evaluate__vote__class_size_power": "0.85", "evaluate__vote__temperature": 3.0}
    results = loop.run(config_of(**rule, evaluate__pictures=True), workdir)
    assert "evaluated anew for config.evaluate.vote" in capsys.readouterr().out
    assert results["vote"]["k_p"] == 30
    assert results["vote"]["chosen"] == []
    assert results["pictures"][report.OPERATING_POINT] == "drawn"
    entry = results["test"]["30"]
    assert point_of(results, "test")[1:] == (entry["acc"], entry["mcr"], entry["rs"])
    assert results["reported"] == before["reported"]
    about = json.loads((workdir / "model" / "model.json").read_text())
    assert about["vote"] == {"class_size_power": 0.85, "temperature": 3.0}
    words = "weighs n_c^-0.85 exp(-d^2 / 3)"
    assert words in report.table(results).splitlines()[-1]
    assert words in (workdir / "model" / "README.md").read_text()
    assert words in (workdir / report.REPORT).read_text()
    run = deepknn_jax.open_run(workdir)
    found = run.predict(breast_cancer().inputs[:60])
    sizes = np.bincount(run.model.gallery.labels)
    for i, row in enumerate(found.indices):
        near = np.exp(-(found.distances[i].astype(float) ** 2) / 3)
        near = near * sizes[run.model.gallery.labels[row]] ** -0.85
        votes = np.bincount(run.model.gallery.labels[row], near, minlength=2)
        np.testing.assert_allclose(found.shares[i], votes / votes.sum(), atol=1e-4)
        assert found.labels[i] == np.argmax(votes)


def test_nothing_to_choose_on_is_one_line_before_training(tmp_path):
    config = small_config(evaluate__vote__class_size_power="auto")
    with pytest.raises(UserError, match=r"class_size_power is auto.*config\.data\.validation=0\.2"):
        loop.run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert not (tmp_path / "run" / "config.json").exists()
