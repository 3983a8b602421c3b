"""The papers' figures from known numbers."""

import numpy as np
from PIL import Image
from support.reproduced import entry, point, recorded

from deepknn_jax.reproduce import figures, store
from deepknn_jax.reproduce.cells import Cell, Row, Section, Table

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
    rows = [
        Row("deep kNN", cells, "5"),
        Row("triplet", [Cell("set/x", "mnist", "triplet", {}, 60.0)], "5"),
    ]
    table = Table("Figure 2", [Section("Skin-7", rows)])
    lines = figures.write_figure2(table, tmp_path)
    assert lines[0] == "![training accuracy against epochs](fig2.png)"
    assert any(line.startswith("| deep kNN | 80.0") for line in lines)
    with Image.open(tmp_path / "fig2.png") as image:
        assert min(image.size) > 300
    empty = Table("Figure 2", [Section("Skin-7", rows[1:])])
    assert figures.write_figure2(empty, tmp_path) == []


def test_the_operating_points_are_drawn_from_the_cells_curves(tmp_path):
    curves = (
        {"50": [point(0.0, 0.8, 0.4), point(0.1, 0.6, 0.7)]},
        {"50": [point(0.0, 0.6, 0.2), point(0.1, 0.5, 0.8)]},
    )
    cells = [
        recorded(
            tmp_path, f"set/{i}", {},
            results={"test": {"50": entry(0.8), "head": entry(0.7)},
                     "operating_points": {"test": curve}},
        )
        for i, curve in enumerate(curves)
    ]  # fmt: skip
    by_tau = Row("soft, K_p = 50, tau = 0.1", cells, "50, tau = 0.1", title="soft")
    found = figures.curve_over_tau(by_tau, [store.read(tmp_path, cell) for cell in cells])
    np.testing.assert_allclose(found, [[70, 55], [30, 75]])
    gone = Row("gone", [cells[0]._replace(name="set/gone")], "head", title="gone")
    rows = [by_tau, Row("its head", cells, "head", title="soft"), gone]
    table = Table("Ours", [Section("Skin-7", rows), Section("not run", [gone])])
    lines = figures.write_operating_points(table, tmp_path, "ours.png")
    assert lines == ["![MCR against Acc, a curve over tau for each method](ours.png)", ""]
    with Image.open(tmp_path / "ours.png") as image:
        assert min(image.size) > 300
    empty = Table("Ours", [Section("not run", [gone])])
    assert figures.write_operating_points(empty, tmp_path, "ours.png") == []


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
    lines = figures.write_figure_s1(Table("S1", [Section("MNIST", rows, part="train")]), tmp_path)
    assert lines == ["![MNIST, triplet](figs1_mnist_triplet.png)", ""]
    ((path, embeddings),) = drawn
    assert path == tmp_path / "figs1_mnist_triplet.png"
    np.testing.assert_array_equal(embeddings, np.eye(6)[:4])
