"""The search: the same budget for each method, what it keeps, and who takes it."""

import json

import pytest
from support.reproduced import (  # noqa: F401  (fixtures)
    counted,
    empty_root,
    entry,
    options,
    point,
    recorded,
    tiny_root,
)
from support.runs import ROOT

from deepknn_jax.errors import UserError
from deepknn_jax.reproduce import runs, search
from deepknn_jax.reproduce.catalog import CHOSEN, KINDS, SEARCHES
from deepknn_jax.reproduce.cells import Options
from deepknn_jax.reproduce.plan import make_table
from deepknn_jax.reproduce.sets import config_of
from deepknn_jax.trainer import loop
from deepknn_jax.trainer.check import check

EACH = [(name, each) for name, found in SEARCHES.items() for each in found.sets]
# Files of docs/searches.
OURS = {name: name for name in ("ours", "nw1", "skin7_images")} | {"2": "table2", "3": "table3"}


@pytest.mark.parametrize(("name", "each"), EACH)
def test_each_method_has_as_many_trials(name, each):
    methods = KINDS[SEARCHES[name].kind].methods
    budgets = {"skin7_features": 20, "omniglot": 3, "nw_pneumoniamnist": 4, "nw_skin7": 8,
               "chest_features": 8, "skin7_views": 3, "chest_frozen": 3,
               "pneumoniamnist_features": 3, "breast_features": 3, "skin7": 8}  # fmt: skip
    for method in SEARCHES[name].methods:
        tried = search.trials(name, each, method)
        assert len(tried) == each.trials == budgets[each.set]
        assert len({json.dumps(changes, sort_keys=True) for changes in tried}) == len(tried)
        for changes in tried:
            config = config_of(each.tuning, methods[method].changes | changes | each.changes)
            check(config)
            assert config.loss.name == methods[method].changes["loss.name"]


def test_the_search_keeps_the_best_trial_and_the_table_takes_it(options, counted):  # noqa: F811
    (each,) = SEARCHES["3"].sets
    methods = SEARCHES["3"].methods
    path = search.run_search("3", options)
    assert len(counted) == each.trials * len(methods)
    search.run_search("3", options)
    assert len(counted) == each.trials * len(methods)
    assert all(config.data.dir.endswith("tuning.npz") for config, _ in counted)
    found = json.loads(path.read_text())["methods"]
    best = search.chosen(options.out, "3")["skin7_features"]
    for method in methods:
        tried = search.trials("3", each, method)
        rates = {changes["optimizer.learning_rate"] for changes in tried}
        assert best[method]["changes"]["optimizer.learning_rate"] == max(rates)
        assert best[method]["vote"] == ("head" if method == "weighted_ce" else "5")
        scores = [trial["score"] for trial in found[method]["trials"]]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] == pytest.approx(50 * (0.5 + max(rates) + 0.5))
    cells = make_table("3", options).cells
    (cell,) = [cell for cell in cells if "/triplet-fold2-seed1-" in cell.name]
    config = runs.config_for(cell, options.out)
    assert (config.optimizer.learning_rate, config.data.fold, config.seed) == (0.05, 2, 1)


def test_the_search_chooses_the_vote_with_the_options(options, monkeypatch):  # noqa: F811
    calls = []

    def run(config, workdir):
        calls.append(config)
        workdir.mkdir(parents=True, exist_ok=True)
        rate = config.optimizer.learning_rate
        votes = {"1": entry(0.3), "5": entry(0.5 + rate), "90": entry(0.5 + 2 * rate)}
        return {"test": votes}

    monkeypatch.setattr(loop, "run", run)
    methods = SEARCHES["nw1"].methods
    path = search.run_search("nw1", options)
    assert len(calls) == 8 * len(methods)
    assert {config.data.dir.rsplit("/", 1)[1] for config in calls} == {"tuning.npz"}
    found = json.loads(path.read_text())["methods"]
    assert set(found) == {"nw_skin7"}
    for best in found["nw_skin7"].values():
        assert best["vote"] == "90"
        assert best["changes"]["optimizer.learning_rate"] == 1e-3
        assert len(best["trials"]) == 3 * 8
    (section,) = make_table("nw1", options).sections
    assert [row.vote for row in section.rows] == ["90"] * len(methods)
    assert all(row.label == f"{row.title}, K_p = 90" for row in section.rows)
    config = runs.config_for(section.rows[0].cells[1], options.out)
    assert (config.data.fold, config.seed, config.optimizer.learning_rate) == (1, 1, 1e-3)


def test_the_search_on_omniglot_trains_on_its_own_split(tmp_path, monkeypatch):
    seen = []

    def run(config, workdir):
        seen.append(config)
        return {"test": {"5": entry(0.9 - abs(config.optimizer.learning_rate - 0.05))}}

    monkeypatch.setattr(loop, "run", run)
    monkeypatch.setattr(runs, "unmade", lambda *args: None)
    here = Options(empty_root(tmp_path / "data"), tmp_path / "out", seeds=1)
    found = json.loads(search.run_search("2", here).read_text())["methods"]["omniglot"]
    soft = {"nca", "soft"}
    assert set(found) == {"ce", "triplet", "deep_knn", *soft}
    assert len(seen) == sum(len(best["trials"]) for best in found.values()) == 15
    for method, best in found.items():
        assert best["changes"]["optimizer.learning_rate"] == (0.1 if method in soft else 0.05)
    assert all(config.data.split == "published" for config in seen)
    assert all(config.data.dir.endswith("omniglot_tuning.npz") for config in seen)
    sections = make_table("2", here).sections
    (section,) = [section for section in sections if "Omniglot" in section.title]
    cells = [row.cells[0] for row in section.rows]
    rates = [runs.config_for(cell, here.out).optimizer.learning_rate for cell in cells]
    assert rates == [0.2] * 2 + [0.05] * 6 + [0.1] * 2  # the first two are not trained


def test_a_method_whose_trials_all_fail_is_named(options, monkeypatch):  # noqa: F811
    def run(config, workdir):
        raise UserError("loss or gradient is not finite")

    monkeypatch.setattr(loop, "run", run)
    with pytest.raises(UserError, match=r"deep_knn: every trial failed; .*log\.txt"):
        search.run_search("3", options)


@pytest.mark.parametrize(("name", "each"), EACH)
def test_what_comes_with_the_package_is_the_best_of_its_search(name, each):
    """docs/searches has every trial; each was one of the grid, for every method alike."""
    found = json.loads((ROOT / f"docs/searches/{OURS[name]}.json").read_text())["methods"]
    found = found[each.set] if SEARCHES[name].by_set else found
    chosen = CHOSEN[name][each.set]
    assert set(CHOSEN[name]) == {other.set for other in SEARCHES[name].sets}
    assert set(found) == set(chosen) == set(SEARCHES[name].methods)
    methods = KINDS[SEARCHES[name].kind].methods
    for method, best in chosen.items():
        trials, grid = found[method]["trials"], search.trials(name, each, method)
        votes = each.votes or (methods[method].vote,)
        assert len(trials) == each.trials * len(votes)
        assert all(trial["changes"] in grid for trial in trials)
        assert best["changes"] == found[method]["changes"] == trials[0]["changes"]
        assert best["vote"] == trials[0].get("vote", methods[method].vote)
        assert best["vote"] in votes
        assert best.get("point") == trials[0].get("point")
        assert SEARCHES[name].point == ("point" in best)
        assert trials[0]["score"] == max(trial["score"] for trial in trials)


def test_the_point_is_the_best_of_the_best_trial_s_curve(tmp_path):
    """The vote that trials are judged by is not chosen anew; K_p and tau beside it are."""
    better, worse = [point(0.0, 0.8, 0.5), point(0.3, 0.7, 0.7)], [point(0.0, 0.6, 0.8)]

    def trial(name, acc, curves):
        results = {"test": {"5": entry(acc)}, "operating_points": {"test": curves}}
        return recorded(tmp_path, f"set/{name}", {}, results=results)

    tried = [
        ({"seed": 1}, trial("a", 0.6, {"5": [point(0.0, 0.9, 0.9)]})),
        ({"seed": 2}, trial("b", 0.8, {"5": worse, "50": better})),
    ]
    found = search.best("ce", tried, tmp_path, ("5",), point=True)
    assert (found["changes"], found["vote"]) == ({"seed": 2}, "5")
    assert found["point"] == "50, tau = 0.3" == found["trials"][0]["point"]
    assert "point" not in search.best("ce", tried, tmp_path, ("5",))


@pytest.mark.parametrize("name", [name for name in SEARCHES if name != "ours"])
def test_nothing_to_search_on(name, tmp_path):
    """But for `ours`, one of whose sets comes with a library."""
    with pytest.raises(UserError, match=r"no set to search on: .*not below --data_root"):
        search.run_search(name, Options(tmp_path, tmp_path / "out", seeds=1))
