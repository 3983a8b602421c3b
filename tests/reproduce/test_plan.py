"""Which cells the tables have, and what they say of data and weights that are not there."""

import json

import pytest
from support.reproduced import empty_root, options, tiny_root  # noqa: F401  (fixtures)

from deepknn_jax.config import flatten
from deepknn_jax.reproduce import sets, store
from deepknn_jax.reproduce.catalog import CHOSEN, KINDS, PRINTED, SEARCHES, TABLES
from deepknn_jax.reproduce.cells import Options
from deepknn_jax.reproduce.plan import backbone, make_table
from deepknn_jax.reproduce.runs import config_for
from deepknn_jax.reproduce.sets import config_of
from deepknn_jax.trainer.check import check


def of_method(table, method):
    return [cell for cell in table.cells if cell.method == method]


def write_choice(out, name, methods):
    """OUT's file of a search that chose this."""
    out.mkdir(parents=True, exist_ok=True)
    (out / SEARCHES[name].file).write_text(json.dumps({"methods": methods}))


def test_table_3_has_each_method_on_each_fold_and_seed(options):  # noqa: F811
    table = make_table("3", options)
    methods = KINDS["features"].methods
    assert set(methods) == {"deep_knn", "triplet", "ce", "weighted_ce", "nca", "lmnn", "soft"}
    # Five folds, and by lesion a draw for each of the two seeds; kNN has no seeds.
    assert len(table.cells) == (5 + len(methods) * 5 * 2) + (2 + len(methods) * 2)
    assert table.absent == []
    for cell in table.cells:
        check(config_for(cell, options.out))
    published, drawn = table.sections
    figures = [figures for (name, *_), figures in PRINTED.items() if name == "3"]
    assert [row.paper for row in published.rows if row.paper] == figures
    assert not any(row.paper for row in drawn.rows)
    for cell in drawn.rows[1].cells:
        assert cell.changes["data.fold"] == 6 + cell.changes["seed"]
    heads = [row.label for row in published.rows if row.vote == "head"]
    assert heads == ["MLP+CE, its head", "MLP+Weighted-CE, its head"]


def test_ours_has_each_method_in_one_view_and_in_four(options):  # noqa: F811
    """Both by what was chosen in four, but for what is as in table 3 or the default."""
    best = CHOSEN["ours"]["skin7_views"]
    four, one, *_ = make_table("ours", options).sections
    for section, name in ((four, "skin7_views"), (one, "skin7_features")):
        assert {row.cells[0].method for row in section.rows} == {"knn", "table3", "default", *best}
        for row in section.rows:
            assert {cell.set for cell in row.cells} == {name}
            assert len(row.cells) == (5 if row.cells[0].reference else 10)
            method = row.cells[0].method
            if store.TAU in row.vote:
                assert row.vote == best[method]["point"]
                assert row.label == f"{row.title}, K_p = {row.vote}"
            config = config_for(row.cells[0], options.out)
            check(config)
            for key, value in best.get(method, {}).get("changes", {}).items():
                assert flatten(config)[key] == value


def test_the_default_in_ours_is_that_of_its_config():
    """All but what a table asks of each of its cells."""
    method = KINDS["ours"].methods["default"]
    own = flatten(config_of("skin7_features", KINDS["ours"].base | method.changes))
    default = flatten(sets.config_module("features").get_config())
    others = {key for key in own if own[key] != default[key]}
    assert {key for key in others if not key.startswith(("data.", "evaluate."))} == set()


def test_there_are_five_draws_of_the_lesions(tmp_path):
    here = Options(empty_root(tmp_path / "data"), tmp_path / "out", seeds=6)
    _, drawn = make_table("3", here).sections
    assert drawn.title.startswith("No lesion in both parts, 5 draws")
    assert {len(row.cells) for row in drawn.rows} == {5}


@pytest.mark.parametrize("name", TABLES)
def test_without_data_every_table_names_what_it_lacks(name, tmp_path):
    table = make_table(name, Options(tmp_path / "nothing", tmp_path / "out", seeds=3))
    assert {cell.set for cell in table.cells} <= {"breast_features"}  # a library brings it
    layouts = {
        "2": "stage_2_detailed_class_info.csv", "3": "skin7: not below", "4": "images/<class>/",
        "s2": "train_X.bin", "s3": "skin7: not below", "s4": "skin7: not below",
        "fig2": "images/<class>/*.jpg", "figs1": "mnist.npz: no such", "nw1": "data_batch_{1..5}",
        "nw2": "EPID: epid", "nw3": "survival.csv", "nw_fig4": "mnist.npz: no such",
        "nw_fig5": "data_batch_{1..5}", "ours": "skin7: not below",
        "skin7_images": "skin7: no such",
    }  # fmt: skip
    words = "\n".join(table.absent)
    assert layouts[name] in words
    assert str(tmp_path) not in words


def test_figure_5_lacks_weights_where_its_set_is_there(tmp_path):
    table = make_table("nw_fig5", Options(empty_root(tmp_path), tmp_path / "out", seeds=1))
    assert table.cells == []
    (words,) = table.absent
    assert words.startswith("CIFAR-10: its features of InceptionResNetV2 want")


def test_equal_runs_of_several_tables_are_one_cell(options):  # noqa: F811
    names = {
        name: {cell.name for cell in make_table(name, options).cells} for name in ("3", "s3", "s4")
    }
    own = {cell for cell in names["3"] if "/deep_knn-fold1-" in cell}
    assert len(own) == 2
    assert own < names["s3"]  # K = M = 5
    assert own < names["s4"]  # every K_p, and each variant that changes nothing
    assert len(names["s3"]) == 9 * 2


def test_table_3_takes_what_its_search_chose_unless_untuned(options):  # noqa: F811
    write_choice(options.out, "3", {"triplet": {"changes": {"optimizer.learning_rate": 0.125}}})

    def rates(untuned):
        table = make_table("3", options._replace(untuned=untuned))
        return {
            method: {
                config_for(cell, options.out).optimizer.learning_rate
                for cell in of_method(table, method)
            }
            for method in ("triplet", "deep_knn")
        }

    assert rates(untuned=False) == {"triplet": {0.125}, "deep_knn": {0.01}}
    assert rates(untuned=True) == {"triplet": {0.01}, "deep_knn": {0.01}}


def test_mnist_has_the_paper_s_rows_and_less_without_its_figures(tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist/mnist.npz").write_bytes(b"")
    table = make_table("nw1", Options(tmp_path, tmp_path / "out", seeds=2))
    part, short, whole = table.sections
    assert [row.paper["acc"] for row in whole.rows] == [99.24, 99.30, 98.63, 81.72, 98.64]
    assert [len(row.cells) for row in whole.rows] == [2, 2, 1, 1, 1]
    for less, vote, seeds in ((part, "78", 2), (short, "233", 1)):
        assert all(not row.paper and row.vote == vote for row in less.rows)
        assert all(len(row.cells) == seeds for row in less.rows)
        assert all(cell.changes["epochs"] == 20 for row in less.rows for cell in row.cells)
    for cell in table.cells:
        if cell.set == "nw_mnist":
            config = config_for(cell, tmp_path)
            assert config.loss.k in (0, 5)
            check(config)


def test_a_small_set_that_was_not_searched_is_told(options):  # noqa: F811
    write_choice(options.out, "nw1", {})
    table = make_table("nw1", options)
    assert not table.sections
    words = [words for words in table.absent if "no options were searched" in words]
    assert words == ["Skin-7, features: no options were searched yet: --tune --table=nw1"]


def test_draws_are_taken_in_turn(tmp_path):
    here = Options(empty_root(tmp_path / "data"), tmp_path / "out", seeds=4)
    (section,) = make_table("nw2", here).sections
    for row in section.rows:
        assert [cell.changes["data.fold"] for cell in row.cells] == [1, 2, 3, 1]
        assert [cell.changes["seed"] for cell in row.cells] == [0, 1, 2, 3]


def test_weights_at_hand_choose_the_papers_backbone(options, tmp_path):  # noqa: F811
    assert backbone(options, "resnet50").name == "efficientnet_lite0"
    (tmp_path / "resnet50.pth").touch()
    with_weights = options._replace(weights=tmp_path)
    assert backbone(with_weights, "resnet50") == ("resnet50", str(tmp_path / "resnet50.pth"))
    assert backbone(with_weights, "vgg19").name == "efficientnet_lite0"


def test_a_row_of_vgg19_is_there_with_its_weights(tmp_path):
    here = Options(empty_root(tmp_path / "data"), tmp_path / "out", seeds=1, weights=tmp_path)
    assert len(make_table("2", here).sections[0].rows) == 8
    (tmp_path / "vgg19.pth").touch()
    section = make_table("2", here).sections[0]
    assert len(section.rows) == 10
    assert section.title == "Skin-7: efficientnet_lite0, 224 px"
    row = section.rows[0]
    assert row.paper == {"acc": 71.4, "mcr": 42.0, "rs": 37.9}
    assert {config_for(cell, here.out).model.name for cell in row.cells} == {"vgg19"}


def test_backbones_without_weights_are_one_section_and_told(tmp_path):
    here = Options(
        empty_root(tmp_path / "data"), tmp_path / "out", seeds=1, weights=tmp_path, gpu=True
    )
    (tmp_path / "resnet50.pth").touch()
    table = make_table("4", here)
    assert [section.title for section in table.sections] == [
        f"{name}: {model}, 224 px"
        for name in ("SD-198", "Skin-7")
        for model in ("efficientnet_lite0", "resnet50")
    ]
    assert [words.split(":")[0] for words in table.absent] == ["vgg19", "densenet121", "seresnet50"]


def test_a_cpu_trains_at_a_small_size_as_well(options):  # noqa: F811
    """Metric losses alone with embeddings of length 1."""
    assert len(make_table("2", options._replace(gpu=True)).sections) == 1
    *_, unit = make_table("2", options).sections
    assert unit.title.endswith("64 px, 5 epochs, one seed, metric losses of length 1, at 0.1")
    for row in unit.rows:
        (cell,) = row.cells
        config = config_for(cell, options.out)
        assert (config.augment.crop, config.epochs) == (64, 5)
        assert config.model.normalize == (cell.method in ("triplet", "deep_knn", "deep_knn_star"))


def test_the_second_stage_starts_from_the_first(options):  # noqa: F811
    table = make_table("2", options)
    for star in of_method(table, "deep_knn_star"):
        assert star.start in of_method(table, "weighted_ce")
        config = config_for(star, options.out)
        assert config.loss.name == "deep_knn"
        assert config.model.weights.endswith(star.start.name)
    assert not {cell.name for cell in of_method(table, "deep_knn")} & {star.name}


def test_a_seed_draws_its_own_split_of_omniglot(tmp_path):
    here = Options(empty_root(tmp_path / "data"), tmp_path / "out", seeds=2)
    cells = [cell for cell in make_table("2", here).cells if cell.set == "omniglot"]
    trained = [cell for cell in cells if not cell.reference]
    assert len(trained) == 5 * 2
    assert all(cell.changes["data.split_seed"] == cell.changes["seed"] for cell in trained)
