"""The tables' data: that its parts fit each other, the configs and what the papers print."""

import pytest
from support.reproduced import empty_root
from support.runs import ROOT

from deepknn_jax.reproduce.catalog import (
    COUNTS,
    KINDS,
    PRINTED,
    PRINTED_C_INDEX,
    PRINTED_CLASSIFIERS,
    PRINTED_COUNTS,
    SEARCHES,
    SETS,
    TABLES,
)
from deepknn_jax.reproduce.cells import Options
from deepknn_jax.reproduce.plan import backbone, make_table
from deepknn_jax.reproduce.prepare import FOLDERS, MAKERS


def test_each_set_has_its_config_and_its_maker():
    for found in SETS.values():
        assert (ROOT / "configs" / f"{found.config}.py").is_file()
        assert bool(found.made) == bool(found.maker)
        assert not found.maker or (found.maker in MAKERS) != (found.maker in FOLDERS)
        assert not found.of or found.of in SETS


def test_a_table_takes_what_its_own_search_chose():
    for plan in TABLES.values():
        assert {each.chosen for each in plan.sections} - {""} <= {plan.search}
    assert {plan.search for plan in (*TABLES.values(), *COUNTS.values())} == set(SEARCHES)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Every table, all sets and published weights being there: (name, plan, table)."""
    folder = tmp_path_factory.mktemp("all")
    root = empty_root(folder / "data")
    for name in TABLES["4"].backbones:
        (folder / f"{name}.pth").touch()
    options = Options(root, folder / "out", seeds=1, weights=folder)
    assert backbone(options, "seresnet50").weights == str(folder / "seresnet50.pth")
    return [(name, plan, make_table(name, options)) for name, plan in TABLES.items()]


def test_all_that_the_papers_print_of_the_sets_stands_beside_a_row(everything):
    beside = set()
    for name, _, table in everything:
        printed = {key: figures for key, figures in PRINTED.items() if key[0] == name}
        for section in table.sections:
            for row in section.rows:
                same = [k for k, v in printed.items() if k[2] == row.label and v == row.paper]
                assert same or not row.paper
                beside |= set(same)
            beside |= {
                key
                for key, figures in printed.items()
                if section.title.endswith(f"({key[2]}: {figures['acc']:g})")
            }
    # Of these sets no section is made; "best known" stands in a title.
    not_run = {key for key in PRINTED if key[:2] in (("s4", "sd198"), ("s4", "pneumonia"),
                                                     ("nw1", "cifar10"))}  # fmt: skip
    assert beside | not_run == set(PRINTED)


def test_what_each_cell_takes_is_known(everything):
    assert all(cell.seconds > 0 for *_, table in everything for cell in table.cells)


@pytest.mark.parametrize(
    ("key", "figures"),
    [
        (("2", "sd198", "deep kNN*, K_p = 5"), {"acc": 66.4, "mcr": 66.4, "rs": 51.5}),
        (("3", "skin7", "LMNN"), {"acc": 81.85, "mcr": 61.78, "rs": 62.07}),
        (("4", "sd198 vgg19", "strong kNN, K_p = 5"), {"acc": 59.16, "mcr": 56.33, "rs": 43.12}),
        (("s2", "cub200", "Weighted-CE, head"), {"acc": 79.3}),
        (("s3", "sd198", "K = 7, M = 9"), {"acc": 64.8, "mcr": 63.6}),
        (("s4", "skin7", "K_p = 5"), {"acc": 89.1, "mcr": 78.9}),
        (("nw1", "sarcoma", "LM"), {"acc": 72.22}),
    ],
)
def test_the_papers_figures(key, figures):
    assert PRINTED[key] == figures


def test_what_else_the_papers_print():
    titles = {method.title for method in KINDS["watch"].methods.values()}
    assert set(PRINTED_CLASSIFIERS) < titles
    assert set(PRINTED_C_INDEX) - titles == {"end to end (Cox network)"}
    assert PRINTED_CLASSIFIERS["LM"] == {
        "kNN": "65.1",
        "SVM": "65.1",
        "DT": "62.35",
        "MLP": "59.61",
    }
    assert PRINTED_C_INDEX["LM"] == "0.7624"
    for name, plan in COUNTS.items():
        assert {key[1] for key in PRINTED_COUNTS if key[0] == name} == set(plan.paper)
