"""Pictures: whole PNG files that show what they were given; no display, nothing left behind."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import CensoredData, logrank
from support.patients import patients
from support.png import count, pixels_of

from deepknn_jax.errors import UserError
from deepknn_jax.evaluation import pictures
from deepknn_jax.evaluation.metrics import confusion_matrix

NAMES = ("nevus", "a class of the longest name that anybody has thought of", "$5 or $6 & 50 %")


def near(pixels, color, within=40):
    return int(np.sum(np.abs(pixels.astype(int) - color).max(-1) < within))


def test_curves_have_a_panel_for_each_thing_recorded(tmp_path):
    records = [
        {"step": s, "loss": 1 / s, "lr": 0.01, "active": 0.5, "train_acc": None}
        for s in range(1, 60)
    ]
    pictures.training_curves(tmp_path / "two.png", [{"step": 1, "loss": 2.0, "lr": 0.1}], 5)
    pictures.training_curves(tmp_path / "three.png", records, 5)
    pictures.training_curves(tmp_path / "none.png", [], 5)
    records[10] |= {"train_acc": 0.5, "validation_acc": 0.4, "validation_mcr": 0.3}
    records[11] |= {"train_acc": 0.6, "validation_acc": 0.5, "validation_mcr": 0.4, "loss": np.nan}
    records[12] |= {"examples_per_s": 9000.0}
    pictures.training_curves(tmp_path / "five.png", records, 5)
    shape = {name: pixels_of(tmp_path / f"{name}.png").shape for name in ("none", "two", "three")}
    assert shape["none"][1] < shape["two"][1] < shape["three"][1]
    assert pixels_of(tmp_path / "five.png").shape[0] > 1.8 * shape["three"][0]


@pytest.mark.parametrize("classes", [2, 20, 21, 198])
def test_confusion_shades_the_share_of_the_row(tmp_path, classes):
    matrix = np.diag(np.arange(1, classes + 1) * 50)
    matrix[1] = 0  # a class without images
    path = tmp_path / "confusion.png"
    names = [NAMES[c % 3] for c in range(classes)]
    pictures.confusion(path, matrix, names)
    pixels = pixels_of(path)
    full, absent = count(pixels, (8, 48, 107)), count(pixels, (0xD9, 0xD9, 0xD9))
    side = 150 * (max(0.55, 2.6 / classes) if classes <= 20 else 0.13)  # of a cell, pixels
    cell = side**2  # numbers and lines cover some
    assert full > 0.6 * cell * (classes - 1)  # every occurring class, however small, is full
    assert absent > 0.6 * cell * classes
    assert max(pixels.shape) < 5000


def test_confusion_of_real_counts_differs_with_the_counts(tmp_path):
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 3, (2, 50))
    for name, matrix in (
        ("one", confusion_matrix(labels, predictions, 3)),
        ("same", confusion_matrix(labels, predictions, 3)),
        ("doubled", 2 * confusion_matrix(labels, predictions, 3)),
    ):
        pictures.confusion(tmp_path / name, matrix, NAMES)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "same").read_bytes()
    assert (tmp_path / "one").read_bytes() != (tmp_path / "doubled").read_bytes()  # the numbers


@pytest.mark.parametrize(("n", "D"), [(1, 5), (2, 1), (3, 2), (4, 3), (5, 1), (9, 64), (40, 128)])
def test_tsne_of_few_examples(tmp_path, n, D):
    rng = np.random.default_rng(n)
    splits = np.where(np.arange(n) % 3 == 2, "test", "train")
    x, labels = rng.normal(size=(n, D)), np.arange(n) % 3
    pictures.tsne(tmp_path / "tsne.png", x, labels, NAMES, splits)
    assert np.unique(pixels_of(tmp_path / "tsne.png").reshape(-1, 3), axis=0).shape[0] > 2


def test_tsne_of_equal_embeddings_and_of_many_classes(tmp_path):
    splits = np.full(60, "train")
    pictures.tsne(tmp_path / "equal.png", np.ones((60, 8)), np.arange(60) % 3, NAMES, splits)
    x = np.random.default_rng(0).normal(size=(60, 8))
    pictures.tsne(tmp_path / "many.png", x, np.arange(60), list(map(str, range(198))), splits)
    assert len(np.unique(pixels_of(tmp_path / "many.png").reshape(-1, 3), axis=0)) > 60


def test_kaplan_meier_and_its_log_rank(tmp_path):
    x, times, events = patients(50, slope=(2.0,))
    hazards, times = x[:, 0], times**0.2  # closer together, in the same order
    p_value = pictures.kaplan_meier(tmp_path / "km.png", hazards, times, events)
    high = hazards > np.median(hazards)
    halves = [
        CensoredData(uncensored=times[of & (events == 1)], right=times[of & (events == 0)])
        for of in (high, ~high)
    ]
    assert p_value == pytest.approx(logrank(*halves).pvalue, rel=1e-6)
    assert p_value < 1e-3
    pixels = pixels_of(tmp_path / "km.png")
    blue, red = (0x01, 0x73, 0xB2), (0xD5, 0x5E, 0x00)
    assert near(pixels, blue) > 500 < near(pixels, red)
    # Below the legend: the low half lives longer.
    curves = pixels[len(pixels) // 3 :]
    ends = [np.nonzero(np.abs(curves.astype(int) - c).max(-1) < 40)[1].max() for c in (blue, red)]
    assert ends[0] > ends[1] + 50
    with pytest.raises(UserError, match="no halves to compare"):
        pictures.kaplan_meier(tmp_path / "no.png", np.zeros(50), times, events)
    assert not (tmp_path / "no.png").exists()


@pytest.mark.parametrize(("classes", "D"), [(2, 1), (10, 8), (60, 4)])
def test_the_scatter_is_of_the_test_part(tmp_path, classes, D):
    rng = np.random.default_rng(0)
    labels = np.arange(240) % classes
    x = (rng.normal(size=(classes, D))[labels] * 5 + rng.normal(size=(240, D))).astype(np.float32)
    names = [f"class ${c}" for c in range(classes)]
    pictures.scatter(tmp_path / "all.png", x[:120], x[120:], labels[120:], names)
    pictures.scatter(tmp_path / "few.png", x[:120], x[120:130], labels[120:130], names)
    every, few = (pixels_of(tmp_path / f"{name}.png") for name in ("all", "few"))
    ink = [int((np.ptp(pixels, axis=-1) > 40).sum()) for pixels in (every, few)]
    assert ink[0] > 2 * ink[1] > 0
    if D > 1:
        assert len(np.unique(every.reshape(-1, 3) // 32, axis=0)) > min(classes, 8)


def test_a_scatter_of_equal_embeddings_is_refused(tmp_path):
    same = np.full((50, 30), 0.1, np.float32)
    with pytest.raises(UserError, match="embeddings are all equal"):
        pictures.scatter(tmp_path / "no.png", same, same, np.zeros(50, int), ["a"])
    assert not (tmp_path / "no.png").exists()


def test_a_picture_that_fails_leaves_the_old_one_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    pictures.training_curves(path, [{"step": 1, "loss": 1.0}], 5)
    before = path.read_bytes()

    def full(figure, temporary, **_):
        temporary.write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(OSError, match="No space"):
        pictures.training_curves(path, [{"step": 1, "loss": 2.0}], 5)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_importing_pictures_imports_neither_matplotlib_nor_sklearn():
    code = (
        "import sys, deepknn_jax.evaluation.pictures; "
        "sys.exit(bool({'matplotlib', 'sklearn', 'PIL'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
