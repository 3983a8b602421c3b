"""Markdown from known numbers."""

import pytest
from support.reproduced import entry, point, recorded

from deepknn_jax.reproduce import markdown
from deepknn_jax.reproduce.cells import Cell, Row, Section, Table
from deepknn_jax.reproduce.markdown import Mean, leader, mean_of, shown


def test_the_mean_and_the_sample_deviation():
    assert mean_of([70, 80, 90]) == pytest.approx(Mean(80.0, 10.0))
    assert mean_of([50]) == Mean(50.0, None)


def test_how_a_mean_is_shown():
    assert shown(Mean(78.649, 0.36)) == "78.6 ± 0.4"
    assert shown(Mean(78.649, 0.36), bold=True) == "**78.6 ± 0.4**"
    assert shown(Mean(0.5641, None), digits=3) == "0.564"
    assert shown(None) == "–"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([Mean(80, 1), Mean(78, 1)], 0),
        ([Mean(80, 1), Mean(78, 2)], None),  # by 2, which is not more than 2
        ([Mean(70, 1), Mean(80, 1), Mean(78.5, 1.4)], 1),
        ([Mean(70, 11), Mean(80, 1), Mean(75, 1)], None),  # the third best may be wide
        ([Mean(80, None), Mean(70, 1)], None),
        ([Mean(80, 1), None], None),
        ([Mean(80, 1), None, Mean(70, 1)], 0),
        ([Mean(80, 0), Mean(80, 0)], None),
        ([], None),
    ],
)
def test_the_best_leads_by_more_than_the_deviations(rows, expected):
    assert leader(rows) == expected


def test_figures_at_a_point_of_the_curve(tmp_path):
    curve = [point(0.0, 0.8, 0.4), point(0.3, 0.7, 0.6, 0.5)]
    cells = [
        recorded(
            tmp_path, f"set/{i}", {},
            results={"test": {"50": entry(0.8)}, "operating_points": {"test": {"50": curve}}},
        )
        for i in range(2)
    ]  # fmt: skip
    rows = [Row("soft", cells, "50"), Row("soft, balanced", cells, "50, tau = 0.3")]
    head, _, majority, balanced = markdown.section_lines(Section("Skin-7", rows), tmp_path)
    assert head.startswith("| method | Acc | MCR | RS (df) |")
    assert majority.startswith("| soft | **80.0 ± 0.0** | 50.0 ± 0.0 | 25.0 ± 0.0 |")
    assert balanced.startswith("| soft, balanced | 70.0 ± 0.0 | **60.0 ± 0.0** | **50.0 ± 0.0** |")


def test_the_table_of_known_numbers(tmp_path):
    ours = [
        recorded(tmp_path, f"set/a-seed{i}", {"5": entry(0.8 + i / 100, 0.6, 0.25, 0.5)}, seconds=i)
        for i in (1, 2, 3)
    ]
    theirs = [
        recorded(tmp_path, f"set/b-seed{i}", {"5": entry(0.7, 0.61), "head": entry(0.9)})
        for i in (1, 2)
    ]
    gone = Cell("set/c-seed0", "set", "c", {}, 12_000.0)
    rows = [
        Row("deep kNN", ours, "5", {"acc": 85.09, "mcr": 66.08, "rs": 67.3}),
        Row("CE", [*theirs, gone], "5"),
        Row("LMNN", [gone], "5", {"acc": 81.85}),
    ]
    table = Table("Table 3", [Section("Skin-7", rows, beside="vasc")], ["SD-198: no such folder"])
    text = markdown.document(table, tmp_path, [gone], "the command", ["extra", ""])
    assert text.splitlines() == [
        "# Table 3", "", "    the command", "", "extra", "", "## Skin-7", "",
        "| method | Acc | paper | MCR | paper | RS (df) | RS (vasc) | paper | runs | s a run |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| deep kNN | **82.0 ± 1.0** | 85.09 | 60.0 ± 0.0 | 66.08 | 25.0 ± 0.0 | **50.0 ± 0.0** "
        "| 67.3 | 3 | 2 |",
        "| CE | 70.0 ± 0.0 |  | **61.0 ± 0.0** |  | 25.0 ± 0.0 | 12.5 ± 0.0 |  | 2 of 3 | 2 |",
        "| LMNN | – | 81.85 | – |  | – | – |  | 0 of 1 |  |", "",
        "Per cent, mean ± standard deviation over the runs (folds and seeds). Bold: leads every "
        "other row by more than the larger of the two deviations. RS: recall of the class with "
        "the fewest training images.", "",
        "- absent: SD-198: no such folder",
        "- not run: set/c, 1 of about 3.3 h each (--all runs them)",
    ]  # fmt: skip


def test_rows_take_the_figures_of_their_vote(tmp_path):
    cell = recorded(tmp_path, "set/b", {"1": entry(0.5), "5": entry(0.7), "head": entry(0.9)})
    rows = [Row(vote, [cell], vote) for vote in ("1", "5", "head")]
    lines = markdown.section_lines(Section("", rows), tmp_path)
    assert [line.split(" | ")[1] for line in lines[2:]] == ["50.0", "70.0", "90.0"]
    assert "paper" not in lines[0]


def test_what_the_costly_take_is_told_by_set_and_method():
    cells = [
        Cell(f"{name}/{method}-{i}", name, method, {}, seconds)
        for name, method, seconds in (
            ("a", "lm", 5399.0),
            ("a", "lm_mining", 5400.0),
            ("b", "lm", 60.0),
        )
        for i in range(2)
    ]
    assert markdown.costs(cells) == [
        "a/lm, 2 of about 90 min each (--all runs them)",
        "a/lm_mining, 2 of about 1.5 h each (--all runs them)",
        "b/lm, 2 of about 1 min each (--all runs them)",
    ]
