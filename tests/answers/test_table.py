"""The rows of predictions.csv."""

import io

import numpy as np
from support.answering import CLASSES, model_of

from deepknn_jax.answers import table
from deepknn_jax.answers.judge import judge


def test_each_row_has_what_the_header_says():
    model = model_of()
    names = ("a, b.png", "c.png")
    found = judge(model.gallery.embeddings[[3, 25]], names, model, k=2, level=0.9,
                  abstain_error=0.1)  # fmt: skip
    header, rows = table.header(CLASSES, 2), list(table.rows_of(found, model))
    assert [len(row) for row in rows] == [len(header)] * 2
    first, second = (dict(zip(header, row, strict=True)) for row in rows)
    assert first["name"] == "a, b.png"
    assert first["prediction"] == CLASSES[found.labels[0]]
    assert first["neighbor_1"] == "case <3>.png"  # a training image finds itself
    assert (first["label_1"], first["distance_1"]) == ("akiec", "0")
    assert first["nearest_akiec"] == "0"
    assert float(second["share_bcc"]) == found.shares[1, 1]
    np.testing.assert_allclose(float(first["p_nevus; benign"]), found.p_values[0, 2], rtol=1e-5)
    assert first["set"].split(";")[0] == CLASSES[np.flatnonzero(found.sets[0])[0]]
    assert header[:6] == ["name", "prediction", "credibility", "set", "abstain", "error"]


def test_without_calibration_the_columns_are_there_and_empty():
    model = model_of(validates=False, shown=False)
    found = judge(model.gallery.embeddings[:1], ("a",), model, k=1, level=0.9, abstain_error=0.1)
    (row,) = table.rows_of(found, model)
    cells = dict(zip(table.header(CLASSES, 1), row, strict=True))
    assert cells["credibility"] == cells["set"] == cells["p_bcc"] == cells["abstain"] == ""
    assert cells["neighbor_1"] == "training image 0"


def test_an_unreadable_image_is_a_row_of_the_same_width():
    row = table.error_row("a.png", "no image", 12)
    assert row == ["a.png", "", "", "", "", "no image", *[""] * 6]
    file = io.StringIO()
    table.writer(file).writerow(["a, b", 'c"'])
    assert file.getvalue() == '"a, b","c"""\r\n'
