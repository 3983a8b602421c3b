"""The runner: that each cell runs once, in which order, and what a stop or an error leaves."""

import json

import pytest
from support.reproduced import counted, entry, options, tiny_root  # noqa: F401  (fixtures)

from deepknn_jax.errors import UserError
from deepknn_jax.reproduce import markdown, runs, store
from deepknn_jax.reproduce.cells import Cell
from deepknn_jax.reproduce.plan import make_table
from deepknn_jax.trainer import loop


def soft_cells(options, count):  # noqa: F811
    return [cell for cell in make_table("3", options).cells if cell.method == "soft"][:count]


def test_a_finished_cell_is_not_run_again(options, counted):  # noqa: F811
    wanted = soft_cells(options, 12)
    run = {"data_root": options.data_root, "out": options.out}
    runs.run_cells(wanted[:3], **run)
    assert len(counted) == 3
    runs.run_cells(wanted, **run)
    assert len(counted) == len(wanted) == 12
    runs.run_cells(wanted, **run)
    assert len(counted) == 12
    store.path_of(options.out, wanted[5]).unlink()
    assert [cell.name for cell in runs.unfinished(wanted, options.out)] == [wanted[5].name]
    runs.run_cells(wanted, **run)
    assert len(counted) == 13
    assert not any(workdir.exists() for _, workdir in counted)  # small, and removed
    record = json.loads(store.path_of(options.out, wanted[5]).read_text())
    assert record["config"]["loss"]["name"] == "nca"
    assert record["commit"] == store.commit()
    assert record["seconds"] >= 0
    assert record["results"]["test"]["5"]["rs_class"] == "df"


def test_the_cheapest_runs_first_and_a_second_stage_after_its_first(tmp_path):
    dear, first = (
        Cell(f"s/{n}", "skin7", n, {}, seconds) for n, seconds in (("a", 9.0), ("b", 5.0))
    )
    second, cheap = (
        Cell("s/c", "skin7", "c", {}, 1.0, start=first),
        Cell("s/d", "skin7", "d", {}, 2.0),
    )
    todo = runs.unfinished([dear, second, cheap], tmp_path)
    assert [cell.method for cell in todo] == ["d", "b", "c", "a"]


def test_the_time_left_is_told(options, counted, capsys):  # noqa: F811
    runs.run_cells(soft_cells(options, 2), data_root=options.data_root, out=options.out)
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"making {options.out}/features/skin7/folds.npz"
    first, last = [line for line in told if line.startswith("[")]
    assert first.startswith("[1/2] skin7_features/soft-fold1-seed0")
    assert first.endswith(" left")
    assert last.startswith("[2/2] skin7_features/soft-fold1-seed1")
    assert last.endswith(" 0:00 left")


def test_what_was_stopped_keeps_its_place_and_its_folder(options, counted, monkeypatch):  # noqa: F811
    wanted = soft_cells(options, 2)
    first = loop.run

    def stopped(config, workdir):
        first(config, workdir)
        if len(counted) == 2:
            raise SystemExit(143)
        return {"test": {"5": entry(0.5)}}

    monkeypatch.setattr(loop, "run", stopped)
    with pytest.raises(SystemExit):
        runs.run_cells(wanted, data_root=options.data_root, out=options.out)
    assert [store.read(options.out, cell) is None for cell in wanted] == [False, True]
    assert store.workdir_of(options.out, wanted[1]).exists()  # its checkpoints


def test_the_second_stage_trains_the_first_again_only_without_its_folder(options, counted):  # noqa: F811
    """train.run is asked both times."""
    cells = {cell.method: cell for cell in make_table("2", options).cells}
    star = cells["deep_knn_star"]
    runs.run_cells([star], data_root=options.data_root, out=options.out)
    first, again, second = counted
    assert first == again
    assert first[0].loss.name == "weighted_cross_entropy"
    assert first[1].exists()
    assert second[0].loss.name == "deep_knn"
    assert second[0].model.weights == str(first[1])


def test_an_error_ends_the_table_and_not_the_search(options, counted, monkeypatch):  # noqa: F811
    wanted = soft_cells(options, 3)
    run = loop.run

    def fails(config, workdir):
        if len(counted) == 1:
            counted.append(None)
            raise UserError("loss or gradient is not finite")
        return run(config, workdir)

    monkeypatch.setattr(loop, "run", fails)
    with pytest.raises(UserError, match="not finite"):
        runs.run_cells(wanted, data_root=options.data_root, out=options.out)
    assert len(counted) == 2
    counted.pop()
    runs.run_cells(wanted, data_root=options.data_root, out=options.out, go_on=True)
    assert [store.read(options.out, cell) is None for cell in wanted] == [False, True, False]


def test_the_table_of_real_runs(options, compiled_once):  # noqa: F811
    """kNN-basic and deep kNN, one step an epoch."""
    table = make_table("3", options._replace(seeds=1, untuned=True))
    wanted = [
        cell._replace(changes=cell.changes | {"epochs": 6})
        for cell in table.cells
        if cell.method in ("knn", "deep_knn") and cell.changes["data.fold"] == 2
    ]
    runs.run_cells(wanted, data_root=options.data_root, out=options.out)
    lines = markdown.section_lines(table.sections[0], options.out)
    figures = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in lines[2:]}
    for method in ("kNN-basic", "MLP+deep-kNN"):
        assert figures[method][-2] == "1 of 5"
        assert 50 < float(figures[method][0]) <= 100
    assert figures["MLP+CE"][0] == "–"
    record = store.read(options.out, wanted[0])
    assert record["results"]["test"]["5"]["n"] == 33
    log = (options.out / "log.txt").read_text()
    assert "epoch 6/6" in log
