"""Markdown and figures from known numbers; tables 1 and S1 against counting by hand."""

import csv
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from support import tiny_sets
from support.reproduced import entry, recorded, tiny_skin7

from deepknn_jax.reproduce import counts, figures, tables
from deepknn_jax.reproduce.cells import Cell, Row, Section, Table
from deepknn_jax.reproduce.tables import Spread, leader, spread


def test_spread_is_the_mean_and_the_sample_deviation_in_per_cent():
    assert spread([0.7, 0.8, 0.9]) == pytest.approx(Spread(80.0, 10.0))
    assert spread([0.5]) == Spread(50.0, None)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([Spread(80, 1), Spread(78, 1)], 0),
        ([Spread(80, 1), Spread(78, 2)], None),  # by 2, which is not more than 2
        ([Spread(70, 1), Spread(80, 1), Spread(78.5, 1.4)], 1),
        ([Spread(70, 11), Spread(80, 1), Spread(75, 1)], None),  # the third best may be wide
        ([Spread(80, None), Spread(70, 1)], None),
        ([Spread(80, 1), None], None),
        ([Spread(80, 1), None, Spread(70, 1)], 0),
        ([Spread(80, 0), Spread(80, 0)], None),
        ([], None),
    ],
)
def test_the_best_leads_by_more_than_the_spread(rows, expected):
    assert leader(rows) == expected


def test_the_table_of_known_numbers(tmp_path):
    ours = [
        recorded(tmp_path, f"set/a-seed{i}", {"5": entry(0.8 + i / 100, 0.6, 0.25, 0.5)}, seconds=i)
        for i in (1, 2, 3)
    ]
    theirs = [
        recorded(tmp_path, f"set/b-seed{i}", {"5": entry(0.7, 0.61), "head": entry(0.9)})
        for i in (1, 2)
    ]
    gone = Cell("set/c-seed0", "skin7_features", {}, 200.0)
    rows = [
        Row("deep kNN", ours, "5", {"acc": 85.09, "mcr": 66.08, "rs": 67.3}),
        Row("CE", [*theirs, gone], "5"),
        Row("LMNN", [gone], "5", {"acc": 81.85}),
    ]
    table = Table("Table 3", [Section("Skin-7", rows, beside="vasc")], ["SD-198: no such folder"])
    text = tables.markdown(table, tmp_path, [gone], "the command", ["extra", ""])
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
    lines = tables.section_lines(Section("", rows), tmp_path)
    assert [line.split(" | ")[1] for line in lines[2:]] == ["50.0", "70.0", "90.0"]
    assert "paper" not in lines[0]


def by_hand(path, column):
    with path.open(newline="", encoding="utf-8") as file:
        return Counter(row[column] for row in csv.DictReader(file))


def lines_of(text, title):
    """{paper or here: cells} of a set's lines."""
    found = [line.strip("| ").split(" | ") for line in text.splitlines() if title in line]
    return {cells[1].strip(): [cell.strip() for cell in cells[2:]] for cells in found}


def test_table_1_of_tiny_sets(tmp_path):
    tiny_skin7(tmp_path / "skin7")
    tiny_sets.sd198(tmp_path / "sd198", classes=10, train=10, test=2)
    tiny_sets.pneumonia(tmp_path / "pneumonia", n=150)
    text = counts.markdown("1", tmp_path, tmp_path / "out")
    skin7 = lines_of(text, "Skin-7")
    assert skin7["here"] == ["7", "132", "33", "8 × 6", "10", "60", "6.0"]
    assert skin7["paper"][:6] == ["7", "8005", "2005", "600 × 450", "115", "6705"]
    # The image that is on neither list is not counted.
    assert lines_of(text, "SD-198")["here"] == ["10", "100", "20", "14 × 12", "12", "12", "1.0"]
    pneumonia = lines_of(text, "Pneumonia |")["here"]
    assert pneumonia == ["3", "120", "30", "16 × 16", "50", "50", "1.0"]
    assert "- absent: chest X-rays (Kermany)" in text


def test_image_sizes_of_different_sides(tmp_path):
    tiny_skin7(tmp_path / "skin7")
    for number, size in enumerate([(30, 20), (9, 40)]):
        Image.new("RGB", size).save(tmp_path / f"skin7/HAM10000_images/ISIC_{number:07d}.jpg")
    text = counts.markdown("1", tmp_path, tmp_path / "out")
    assert lines_of(text, "Skin-7")["here"][3] == "[6, 40]"


def test_table_s1_counts_classes_in_the_training_part(tmp_path):
    tiny_sets.cub200(tmp_path / "cub200", classes=10, each=12)
    tiny_sets.stl10(tmp_path / "stl10", train=100, test=20)
    tiny_sets.tiny_imagenet(tmp_path / "tiny_imagenet", classes=10, each=10)
    text = counts.markdown("s1", tmp_path, tmp_path / "out")
    assert lines_of(text, "CUB200")["here"] == ["10", "100", "20", "14 × 12", "10", "10", "1.0"]
    assert lines_of(text, "STL10")["here"] == ["10", "100", "20", "96 × 96", "10", "10", "1.0"]
    assert lines_of(text, "Tiny-")["here"] == ["10", "100", "10", "14 × 12", "10", "10", "1.0"]


def test_table_1_of_the_real_skin7(data_root, tmp_path):
    """Counted from the csv files alone."""
    folder = data_root / "skin7"
    sizes = by_hand(folder / "HAM10000_metadata.csv", "dx")
    parts = [
        str(by_hand(folder / f"folds/split_data_1_fold_{part}.csv", f"label_{part}").total())
        for part in ("train", "test")
    ]
    (tmp_path / "skin7").symlink_to(folder)
    here = lines_of(counts.markdown("1", tmp_path, tmp_path / "out"), "Skin-7")["here"]
    assert here[:3] == ["7", *parts]
    assert here[4:6] == [str(min(sizes.values())), str(max(sizes.values()))] == ["115", "6705"]


CURVES = {
    "deep kNN": [[(1, 0.6), (2, 0.8), (3, 0.80)], [(1, 0.77), (2, 0.7), (3, 0.8)]],
    "triplet": [[(1, 0.1), (2, 0.2), (3, 0.4)], []][:1],
}


def test_convergence_is_the_first_epoch_at_95_per_cent_of_the_end():
    assert figures.epochs_to(CURVES["deep kNN"][0], 0.95 * 0.8) == 2
    assert figures.epochs_to(CURVES["deep kNN"][1], 0.95 * 0.8) == 1
    assert figures.epochs_to(CURVES["triplet"][0], 0.9) is None
    lines = figures.convergence(CURVES)
    assert "38.0 %, 95 % of the lower final Acc" in lines[0]
    assert lines[2] == "| deep kNN | 80.0 ± 0.0 | 1.5 ± 0.7 | 1.0 ± 0.0 | 2 |"
    assert lines[3] == "| triplet | 40.0 | 3.0 | 3.0 | 1 |"


def test_figure_2_is_drawn_from_the_cells_curves(tmp_path):
    cells = [
        recorded(tmp_path, f"set/{i}", {"5": entry(0.5)}, curve=curve)
        for i, curve in enumerate(CURVES["deep kNN"])
    ]
    rows = [Row("deep kNN", cells, "5"), Row("triplet", [Cell("set/x", "mnist", {}, 1.0)], "5")]
    table = Table("Figure 2", [Section("Skin-7", rows)])
    lines = figures.write_figure2(table, tmp_path)
    assert lines[0] == "![training accuracy against epochs](fig2.png)"
    assert any(line.startswith("| deep kNN | 80.0") for line in lines)
    with Image.open(tmp_path / "fig2.png") as image:
        assert min(image.size) > 300
    empty = Table("Figure 2", [Section("Skin-7", rows[1:])])
    assert figures.write_figure2(empty, tmp_path) == []


def test_figure_s1_is_drawn_from_the_embeddings_of_one_part(tmp_path, monkeypatch):
    cell = recorded(tmp_path, "mnist/triplet", {"5": entry(0.5)})._replace(set="mnist")
    folder = tmp_path / "cells" / "mnist" / "triplet"
    folder.mkdir()
    np.savez(
        folder / "embeddings.npz", embeddings=np.eye(6), labels=[0, 1, 0, 1, 0, 1],
        splits=["train"] * 4 + ["test"] * 2, classes=["a", "b"],
    )  # fmt: skip
    drawn = []
    monkeypatch.setattr(
        figures.pictures, "tsne", lambda path, x, labels, classes, splits: drawn.append((path, x))
    )
    rows = [Row("triplet", [cell], "5"), Row("deep kNN", [cell._replace(name="mnist/no")], "5")]
    lines = figures.write_figure_s1(Table("S1", [Section("MNIST", rows)]), tmp_path)
    assert lines == ["![MNIST, triplet](figs1_mnist_triplet.png)", ""]
    ((path, embeddings),) = drawn
    assert path == tmp_path / "figs1_mnist_triplet.png"
    np.testing.assert_array_equal(embeddings, np.eye(6)[:4])
