"""The runner: which cells a table has, that each runs once, and what is made of data at hand."""

import csv
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.reproduced import entry, tiny_root, write_features  # noqa: F401  (a fixture)
from support.runs import ROOT

from deepknn_jax.errors import UserError
from deepknn_jax.reproduce import cells as cells_lib
from deepknn_jax.reproduce import paper, plan_images, prepare, runs, store, tables, tune
from deepknn_jax.reproduce.cells import Options, on_features, on_images
from deepknn_jax.reproduce.methods import ON_FEATURES, TRIALS, chosen, trials
from deepknn_jax.reproduce.plan import PLANS
from deepknn_jax.reproduce.sets import SETS, config_of, listing
from deepknn_jax.trainer import loop
from deepknn_jax.trainer.check import check


@pytest.fixture
def options(tiny_root, tmp_path):  # noqa: F811
    write_features(tiny_root, tmp_path / "out")
    return Options(tiny_root, tmp_path / "out", seeds=2)


@pytest.fixture
def counted(monkeypatch):
    """Trainings are counted, not made: the list of (config, workdir) of each."""
    calls = []

    def run(config, workdir):
        calls.append((config, workdir))
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "results.json").write_text("{}")
        # Decided by the config, as a training is: the larger rate is better.
        figures = entry(min(1.0, 0.5 + config.optimizer.learning_rate))
        return {"test": dict.fromkeys(("1", "3", "5", "7", "9", "head"), figures)}

    monkeypatch.setattr(loop, "run", run)
    return calls


def test_table_3_has_each_method_on_each_fold_and_seed(options):
    table = PLANS["3"](options)
    methods = len(ON_FEATURES)
    assert set(ON_FEATURES) == {"deep_knn", "triplet", "ce", "weighted_ce", "nca", "lmnn", "soft"}
    # Five folds, and by lesion a draw for each of the two seeds; kNN has no seeds.
    assert len(table.cells) == (5 + methods * 5 * 2) + (2 + methods * 2)
    assert table.absent == ()
    for cell in table.cells:
        check(runs.config_for(cell, options.out))
    printed = {row.label: row.paper for row in table.sections[0].rows if row.paper}
    assert list(printed.values()) == list(paper.TABLE3.values())


@pytest.mark.parametrize("name", PLANS)
def test_without_data_every_table_names_what_it_lacks(name, tmp_path):
    table = PLANS[name](Options(tmp_path / "nothing", tmp_path / "out", seeds=3))
    assert table.cells == []
    layouts = {
        "2": "stage_2_detailed_class_info.csv", "3": "skin7: not below", "4": "images/<class>/",
        "s2": "train_X.bin", "s3": "skin7: not below", "s4": "skin7: not below",
        "fig2": "images/<class>/*.jpg", "figs1": "mnist.npz: no such", "nw1": "data_batch_{1..5}",
        "nw2": "EPID: epid", "nw3": "survival.csv", "nw_fig4": "mnist.npz: no such",
        "nw_fig5": "data_batch_{1..5}",
    }  # fmt: skip
    words = "\n".join(table.absent)
    assert layouts[name] in words
    assert str(tmp_path) not in words


def test_equal_runs_of_several_tables_are_one_cell(options):
    names = {name: {cell.name for cell in PLANS[name](options).cells} for name in ("3", "s3", "s4")}
    own = {cell for cell in names["3"] if "/deep_knn-fold1-" in cell}
    assert len(own) == 2
    assert own < names["s3"]  # K = M = 5
    assert own < names["s4"]  # every K_p, and each variant that changes nothing
    assert len(names["s3"]) == 9 * 2


def test_another_config_is_another_cell_and_another_place_is_not(options, tmp_path):
    def name(options, **changes):
        return on_features(options, "deep_knn", fold=1, seed=0, extra=changes).name

    here = name(options)
    assert name(options._replace(out=tmp_path / "elsewhere", data_root=tmp_path)) == here
    assert name(options, **{"loss.margin": 1.0}) == here
    assert name(options, **{"loss.margin": 2.0}) != here
    assert name(options._replace(tuned={"deep_knn": {"loss.margin": 2.0}})) != here


def test_a_finished_cell_is_not_run_again(options, counted):
    wanted = [cell for cell in PLANS["3"](options).cells if "/soft-" in cell.name]
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


def test_what_was_stopped_keeps_its_place_and_its_folder(options, counted, monkeypatch):
    wanted = [cell for cell in PLANS["3"](options).cells if "/soft-" in cell.name][:2]
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


def test_the_second_stage_starts_from_the_first(options, counted):
    """And trains the first again only where its folder is gone: train.run is asked both times."""
    star = on_images(options, "skin7", "deep_knn_star", seed=1)
    weighted = on_images(options, "skin7", "weighted_ce", seed=1)
    assert star.start == weighted
    assert star.name != on_images(options, "skin7", "deep_knn", seed=1).name
    runs.run_cells([star], data_root=options.data_root, out=options.out)
    first, again, second = counted
    assert first == again
    assert first[0].loss.name == "weighted_cross_entropy"
    assert first[1].exists()
    assert second[0].loss.name == "deep_knn"
    assert second[0].model.weights == str(first[1])


def test_an_error_ends_the_table_and_not_the_search(options, counted, monkeypatch):
    wanted = [cell for cell in PLANS["3"](options).cells if "/soft-" in cell.name][:3]
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


def test_the_table_of_real_runs(options, compiled_once):
    """kNN-basic and deep kNN, one step an epoch."""
    table = PLANS["3"](options._replace(seeds=1))
    wanted = [
        cell
        for cell in table.cells
        if cell.name.split("/")[1].startswith(("knn-fold2", "deep_knn-fold2"))
    ]
    runs.run_cells(wanted, data_root=options.data_root, out=options.out)
    lines = tables.section_lines(table.sections[0], options.out)
    figures = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in lines[2:]}
    for method in ("kNN-basic", "MLP+deep-kNN"):
        assert figures[method][-2] == "1 of 5"
        assert 50 < float(figures[method][0]) <= 100
    assert figures["MLP+CE"][0] == "–"
    record = store.read(options.out, wanted[0])
    assert record["results"]["test"]["5"]["n"] == 33
    log = (options.out / "log.txt").read_text()
    assert "epoch 30/30" in log


def test_folds_are_the_published_and_five_by_lesion(options):
    prepare.make("skin7_features", options.data_root, options.out)
    with np.load(options.out / "features/skin7/folds.npz") as archive:
        names, splits = archive["names"].tolist(), archive["splits"]
    assert splits.shape == (165, 10)
    for fold in range(5):
        path = options.data_root / "skin7/folds" / f"split_data_{fold + 1}_fold_test.csv"
        with path.open() as file:
            listed = {row["image_test"] for row in csv.DictReader(file)}
        assert {names[i] for i in np.flatnonzero(splits[:, fold] == "test")} == listed
    lesion = np.asarray([int(name[5:12]) // 2 for name in names])
    for column in splits[:, 5:].T:
        test, rest = lesion[column == "test"], lesion[column == "train"]
        assert set(test).isdisjoint(rest)
        assert 0.15 < len(test) / 165 < 0.25
    assert len({column.tobytes() for column in splits.T}) == 10


def test_the_search_never_sees_the_test_part(options):
    prepare.make("skin7_tuning", options.data_root, options.out)
    with (options.data_root / "skin7/folds/split_data_1_fold_test.csv").open() as file:
        held_out = {row["image_test"] for row in csv.DictReader(file)}
    with np.load(options.out / "features/skin7/tuning.npz") as archive:
        names, splits = archive["names"], archive["splits"]
        assert len(archive["features"]) == len(archive["labels"]) == 132
    assert held_out.isdisjoint(names.tolist())
    lesion = np.asarray([int(name[5:12]) // 2 for name in names])
    assert set(lesion[splits == "test"]).isdisjoint(lesion[splits == "train"])
    assert 0.15 < np.mean(splits == "test") < 0.25


def test_features_of_other_images_are_refused(options):
    path = options.out / "features/skin7/features.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **arrays | {"names": np.char.replace(arrays["names"], "ISIC", "SCAN")})
    with pytest.raises(UserError, match="not the 165 here"):
        prepare.make("skin7_features", options.data_root, options.out)
    np.savez(path, **arrays | {"labels": arrays["labels"][::-1]})
    with pytest.raises(UserError, match="labels are not those of"):
        prepare.make("skin7_features", options.data_root, options.out)


def test_features_are_computed_from_the_images():
    config = prepare.feature_config("skin7", ROOT)
    check(config)
    assert (config.model.name, config.augment.crop) == ("efficientnet_lite0", 224)
    assert config.data.dir == str(ROOT / "skin7")


def test_each_method_has_as_many_trials():
    assert {len(trials(method)) for method in ON_FEATURES} == {TRIALS}
    for method, base in ON_FEATURES.items():
        for changes in trials(method):
            config = config_of("skin7_features", base | changes)
            check(config)
            assert config.loss.name == base["loss.name"]


def test_the_search_keeps_the_best_trial_and_the_table_takes_it(options, counted):
    path = tune.tune(options)
    assert len(counted) == TRIALS * len(ON_FEATURES)
    tune.tune(options)
    assert len(counted) == TRIALS * len(ON_FEATURES)
    assert all(config.data.dir.endswith("tuning.npz") for config, _ in counted)
    found = json.loads(path.read_text())["methods"]
    best = chosen(options.out)
    for method in ON_FEATURES:
        rates = {changes["optimizer.learning_rate"] for changes in trials(method)}
        assert best[method]["optimizer.learning_rate"] == max(rates)
        scores = [trial["score"] for trial in found[method]["trials"]]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] == pytest.approx(50 * (0.5 + max(rates) + 0.5))
    cell = on_features(options._replace(tuned=best), "triplet", fold=2, seed=1)
    config = runs.config_for(cell, options.out)
    assert (config.optimizer.learning_rate, config.data.fold, config.seed) == (0.05, 2, 1)


def write_omniglot_zip(path, grey=lambda character, drawer: 255 * character):
    """Two characters by twenty drawers, of one grey each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as files:
        for character in range(2):
            for drawer in range(1, 21):
                name = f"set/Greek/character{character:02d}/{character:04d}_{drawer:02d}.png"
                with files.open(name, "w") as file:
                    Image.new("L", (5, 5), grey(character, drawer)).save(file, "PNG")


def test_omniglot_from_its_zip(tmp_path):
    write_omniglot_zip(tmp_path / "small.zip")
    prepare.write_omniglot(tmp_path / "small.zip", tmp_path / "made.npz")
    with np.load(tmp_path / "made.npz") as archive:
        assert archive["x_train"].shape == (30, 5, 5)
        assert archive["y_test"].tolist() == ["Greek/character00"] * 5 + ["Greek/character01"] * 5
        assert np.unique(archive["x_test"][:5]).tolist() == [0]
        assert np.unique(archive["x_test"][5:]).tolist() == [255]


def test_the_search_on_omniglot_does_not_see_the_drawn_test_part(tmp_path, monkeypatch):
    """Each image's grey is its own: the tuning set's are all among the training part's."""
    root, out = tmp_path / "data", tmp_path / "out"
    path = SETS["omniglot_tuning"].path
    write_omniglot_zip(root / path, grey=lambda character, drawer: 100 * character + drawer)
    seen = []

    def run(config, workdir):
        seen.append(config)
        rate = config.optimizer.learning_rate
        return {"test": {"5": entry(0.9 - abs(rate - 0.05))}}

    monkeypatch.setattr(loop, "run", run)
    options = Options(root, out, seeds=1)
    found = json.loads(plan_images.tune_images(options).read_text())["methods"]["omniglot"]
    assert set(found) == {"ce", "triplet", "deep_knn"}
    assert len(seen) == sum(len(best["trials"]) for best in found.values()) == 9
    assert {best["changes"]["optimizer.learning_rate"] for best in found.values()} == {0.05}
    with np.load(seen[0].data.dir) as made:
        train_part, test_part = (made[f"x_{part}"][:, 0, 0, 0] for part in ("train", "test"))
        assert made["y_test"].tolist() == [0] * 3 + [1] * 3
    drawn = listing("omniglot", out / SETS["omniglot"].made)
    of_training = drawn.inputs[drawn.splits == "train"][:, 0, 0, 0]
    assert sorted([*train_part, *test_part]) == sorted(of_training)
    (section,) = plan_images.table2(options).sections
    rates = [runs.config_for(row.cells[0], out).optimizer.learning_rate for row in section.rows]
    assert rates == [0.2] * 2 + [0.05] * 6  # the first two are not trained
    assert all(config.data.split == "published" for config in seen)


def test_the_rates_that_come_with_the_package_are_of_the_search():
    found = json.loads((Path(plan_images.__file__).parent / plan_images.TUNED_IMAGES).read_text())
    methods = found["methods"]["omniglot"]
    assert set(methods) == {"ce", "triplet", "deep_knn"}
    for best in methods.values():
        tried = [trial["changes"]["optimizer.learning_rate"] for trial in best["trials"]]
        assert sorted(tried) == [0.01, 0.05, 0.2]
        assert best["changes"] == best["trials"][0]["changes"]
        assert best["trials"][0]["score"] == max(trial["score"] for trial in best["trials"])


def test_weights_at_hand_choose_the_papers_backbone(options, tmp_path):
    assert cells_lib.backbone(options)[0] == "efficientnet_lite0"
    (tmp_path / "resnet50.pth").touch()
    with_weights = options._replace(weights=tmp_path)
    assert cells_lib.backbone(with_weights) == ("resnet50", str(tmp_path / "resnet50.pth"))
    assert cells_lib.backbone(with_weights, "vgg19")[0] == "efficientnet_lite0"


def command(*args):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "deepknn_jax.reproduce", *map(str, args)],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip


def test_the_command_tells_what_it_would_run(options):
    ran = command(
        "--table=2", f"--data_root={options.data_root}", f"--out={options.out}", "--dry_run"
    )
    assert ran.returncode == 0, ran.stderr
    assert "absent: SD-198" in ran.stdout
    assert "not run: skin7/deep_knn, 3 of about" in ran.stdout
    assert "(--all runs them)" in ran.stdout
    assert not (options.out / "cells").exists()


def test_a_wrong_command_is_one_line(tmp_path):
    for args, words in (
        (["--table=7", "--data_root=x"], "table"),
        (["--table=3"], "--data_root=DIR"),
        (["--table=3", f"--data_root={tmp_path}/gone"], "gone: no such folder"),
    ):
        ran = command(*args, f"--out={tmp_path}")
        assert ran.returncode == 1
        assert ran.stderr.startswith("error: ")
        assert words in ran.stderr
        assert ran.stderr.count("\n") == 1
