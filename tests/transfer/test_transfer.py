"""Frozen embeddings in other models: beside scikit-learn's pipelines, lifelines and scipy."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pandas
import pytest
from lifelines import CoxPHFitter
from lifelines.utils import concordance_index
from PIL import Image
from scipy.stats import CensoredData, logrank
from sklearn.datasets import load_wine
from sklearn.decomposition import PCA
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from support.runs import ROOT

from deepknn_jax.data.sources.survival_csv import survival_csv
from deepknn_jax.data.survival import alive_beyond, of_names, read_survival
from deepknn_jax.errors import UserError
from deepknn_jax.evaluation.pictures import kaplan_meier, scatter
from deepknn_jax.mining.local_triplets import neighborhood_size
from deepknn_jax.transfer.__main__ import read_embeddings
from deepknn_jax.transfer.classifiers import classify_all, reduce
from deepknn_jax.transfer.cox import c_index, cox_c_index, cox_log_hazards, network_log_hazards


def wine():
    """178 wines of 3 classes, 13 features of very different scales: 118 train, 60 test."""
    x, y = load_wine(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:118], order[118:]
    return x[train].astype(np.float32), y[train], x[test].astype(np.float32), y[test]


def patients(n=200, D=12, seed=0):
    """Embeddings float32 [n, D] whose first direction sets the hazard; some are censored."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, D))
    x[:, 0] *= 3
    times = rng.exponential(np.exp(-0.7 * x[:, 0])) * 500 + 1
    turned = x @ np.linalg.qr(rng.normal(size=(D, D)))[0] * 7 + 5
    return turned.astype(np.float32), times, (rng.random(n) < 0.7).astype(int)


@pytest.mark.parametrize(("pca", "k"), [(2, 0), (5, 7), (32, 1)])
def test_the_classifiers_are_scikit_learns_pipelines(pca, k):
    train_x, train_y, test_x, test_y = wine()
    found = classify_all(train_x, train_y, test_x, test_y, pca=pca, k=k, seed=3)
    models = {
        "kNN": KNeighborsClassifier(k or 11),  # 11^2 >= 118
        "SVM": SVC(kernel="linear"),
        "DT": DecisionTreeClassifier(random_state=3),
        "MLP": MLPClassifier((24,), max_iter=1000, random_state=3),
    }
    assert list(found) == list(models)
    for name, model in models.items():
        # In float64, as scaling and PCA run here.
        steps = make_pipeline(StandardScaler(), PCA(min(pca, 13), svd_solver="full"), model)
        predicted = steps.fit(np.float64(train_x), train_y).predict(np.float64(test_x))
        assert found[name]["acc"] == pytest.approx(accuracy_score(test_y, predicted))
        assert found[name]["mcr"] == pytest.approx(balanced_accuracy_score(test_y, predicted))
        assert found[name]["acc"] > 0.8


def test_scaling_and_components_are_the_training_parts():
    train_x, _, test_x, _ = wine()
    train, test = reduce(train_x, test_x, 4)
    other_train, other = reduce(train_x, test_x[:10] * 3 + 100, 4)
    np.testing.assert_array_equal(train, other_train)
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(train.T @ train, np.diag(np.diag(train.T @ train)), atol=1e-6)
    assert np.all(np.diff(train.std(0)) < 0)
    np.testing.assert_allclose(reduce(train_x, test_x[:3], 4)[1], test[:3], atol=1e-9)
    assert np.abs(other).max() > np.abs(test).max()


def test_components_that_are_rounding_are_left_out():
    """Embeddings of rank 2, as a collapsing network gives; Cox's model stands that."""
    x, times, events = patients(80, D=2)
    wide = (x @ np.random.default_rng(1).normal(size=(2, 30))).astype(np.float32)
    train, test = reduce(wide[:50], wide[50:], 8)
    assert (train.shape, test.shape) == ((50, 2), (30, 2))
    part = (times[:50], events[:50])
    hazards = cox_log_hazards(wide[:50], *part, wide[50:], pca=8)
    assert c_index(hazards, times[50:], events[50:]) > 0.75
    for call in (
        lambda same: reduce(same, same, 8),
        lambda same: cox_log_hazards(same, *part, same),
        lambda same: scatter(None, same, same, np.zeros(50, int), ["a"]),
    ):
        with pytest.raises(UserError, match="embeddings are all equal"):
            call(np.full((50, 30), 0.1, np.float32))


def test_what_cannot_be_classified_is_told():
    train_x, train_y, test_x, test_y = wine()
    with pytest.raises(UserError, match="k is 119, but there are 118 training examples"):
        classify_all(train_x, train_y, test_x, test_y, k=119)
    with pytest.raises(UserError, match="one class"):
        classify_all(train_x, np.zeros_like(train_y), test_x, test_y)


@pytest.mark.parametrize(
    ("n", "k"), [(54000, 233), (45000, 213), (273, 17), (200, 15), (1, 1), (4, 2), (5, 3)]
)
def test_k_is_the_papers(n, k):
    assert neighborhood_size(0, n) == k


def test_cox_is_lifelines_on_the_components():
    x, times, events = patients()
    train, test = slice(0, 120), slice(120, 200)
    found = cox_c_index(
        *(x[train], times[train], events[train]),
        *(x[test], times[test], events[test]),
        pca=3,
    )
    steps = make_pipeline(StandardScaler(), PCA(3)).fit(np.float64(x[train]))
    frame = pandas.DataFrame(steps.transform(np.float64(x[train])), columns=list("abc"))
    fitted = CoxPHFitter().fit(
        frame.assign(time=times[train], event=events[train]), "time", "event"
    )
    hazards = steps.transform(np.float64(x[test])) @ fitted.params_.to_numpy()
    assert found == pytest.approx(concordance_index(times[test], -hazards, events[test]), abs=1e-6)
    assert found > 0.75
    shuffled = np.random.default_rng(0).permutation(120)
    lost = cox_log_hazards(x[train][shuffled], times[train], events[train], x[test])
    assert abs(c_index(lost, times[test], events[test]) - 0.5) < 0.15


def test_bad_survival_is_one_line():
    x, times, events = patients(40)
    for bad_times, bad_events, message in (
        (times, events * 0, "training part: all 40 are censored"),
        (times * 0, events, "training part: row 0 has time 0"),
        (np.where(times > 500, np.nan, times), events, "training part: row .* has no time"),
        (times[1:], events, "training part: times are"),
    ):
        with pytest.raises(UserError, match=message):
            cox_log_hazards(x, bad_times, bad_events, x)


def test_cox_that_does_not_converge_is_told():
    """12 components of 14 patients, two deaths."""
    x, times, _ = patients(14)
    events = np.arange(14) < 2
    with pytest.raises(UserError, match="no optimum on 12 components and 2 deaths: take"):
        cox_log_hazards(x, times, events, x, pca=12)


def test_the_end_to_end_baseline_standardises():
    """Features at an offset and scale that would stop an MLP's training."""
    x, times, events = patients()
    train, test = slice(0, 120), slice(120, 200)
    known = (times[train], events[train])
    options = {"steps": 60, "learning_rate": 1e-3}
    hazards = network_log_hazards(x[train] * 1e4, *known, x[test] * 1e4, seed=1, **options)
    assert c_index(hazards, times[test], events[test]) > 0.7


def pixels_of(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def near(pixels, color, within=40):
    return int(np.sum(np.abs(pixels - color).max(-1) < within))


def test_kaplan_meier_and_its_log_rank(tmp_path):
    x, times, events = patients(100)
    part = slice(0, 50)
    hazards = cox_log_hazards(x[part], times[part], events[part], x[50:])
    times, events = times[50:] ** 0.2, events[50:]  # closer together, in the same order
    p_value = kaplan_meier(tmp_path / "km.png", hazards, times, events)
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
    ends = [np.nonzero(np.abs(curves - c).max(-1) < 40)[1].max() for c in (blue, red)]
    assert ends[0] > ends[1] + 50
    with pytest.raises(UserError, match="no halves to compare"):
        kaplan_meier(tmp_path / "no.png", np.zeros(50), times, events)
    assert not (tmp_path / "no.png").exists()


@pytest.mark.parametrize(("classes", "D"), [(2, 1), (10, 8), (60, 4)])
def test_the_scatter_is_of_the_test_part(tmp_path, classes, D):
    rng = np.random.default_rng(0)
    labels = np.arange(240) % classes
    x = (rng.normal(size=(classes, D))[labels] * 5 + rng.normal(size=(240, D))).astype(np.float32)
    names = [f"class ${c}" for c in range(classes)]
    scatter(tmp_path / "all.png", x[:120], x[120:], labels[120:], names)
    scatter(tmp_path / "few.png", x[:120], x[120:130], labels[120:130], names)
    pictures = [pixels_of(tmp_path / f"{name}.png") for name in ("all", "few")]
    ink = [int((np.ptp(pixels, axis=-1) > 40).sum()) for pixels in pictures]
    assert ink[0] > 2 * ink[1] > 0
    if D > 1:
        assert len(np.unique(pictures[0].reshape(-1, 3) // 32, axis=0)) > min(classes, 8)


def save(path, **changes):
    x, times, _ = patients(120)
    arrays = {
        "embeddings": x,
        "labels": alive_beyond(times, np.ones(120), 500),
        "names": np.asarray([f"p{i}" for i in range(120)]),
        "splits": np.asarray(["train"] * 70 + ["validation"] * 10 + ["test"] * 40),
        "classes": np.asarray(["died", "survived"]),
    } | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def test_embeddings_that_cannot_be_read_are_told(tmp_path):
    path = tmp_path / "set.npz"
    listing = read_embeddings(save(path))
    assert listing.inputs.shape == (120, 12)
    for changes, message in (
        ({"splits": None}, "names no train part"),
        ({"splits": np.asarray(["train"] * 120)}, "names no test part"),
        ({"labels": None}, "has embeddings but no labels"),
        ({"embeddings": np.full((120, 3), np.nan)}, "p0 has a feature that is NaN"),
    ):
        with pytest.raises(UserError, match=message):
            read_embeddings(save(path, **changes))
    np.savez(path, x_train=np.zeros((2, 4, 4), np.uint8), y_train=[0, 1])
    with pytest.raises(UserError, match="has no x_test"):
        read_embeddings(path)
    with pytest.raises(UserError, match=r"gone.npz: no such file; --embeddings is"):
        read_embeddings(tmp_path / "gone.npz")


def command(*args):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "deepknn_jax.transfer", *map(str, args)],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip


def write_survival(path, rows=120):
    _, times, events = patients(120)
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["who", "days", "died"])
        order = np.random.default_rng(0).permutation(rows)  # joined by name, not by place
        lines.writerows((f"p{i}", times[i], events[i]) for i in order)
    return path


def test_the_command_writes_figures_and_pictures(tmp_path):
    ran = command(
        f"--embeddings={save(tmp_path / 'embeddings.npz')}", "--k=5", "--pca=6", "--cox_pca=4",
        f"--survival={write_survival(tmp_path / 's.csv')}", f"--out={tmp_path / 'out'}",
        *("--name_column=who", "--time_column=days", "--event_column=died"),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "km.png", "scatter.png", "transfer.json",
    ]  # fmt: skip
    results = json.loads((tmp_path / "out" / "transfer.json").read_text())
    assert (results["train"], results["test"], results["k"], results["pca"]) == (70, 40, 5, 6)
    x, times, events = patients(120)
    y = alive_beyond(times, np.ones(120), 500)
    assert results["classifiers"] == classify_all(x[:70], y[:70], x[80:], y[80:], pca=6, k=5)
    expected = cox_c_index(
        *(x[:70], times[:70], events[:70]), *(x[80:], times[80:], events[80:]), pca=4
    )
    assert results["survival"]["c_index"] == pytest.approx(expected)
    assert f"C-index {expected:.4f}" in ran.stdout
    assert "kNN, k = 5" in ran.stdout
    for name in ("SVM", "DT", "MLP"):
        assert name in ran.stdout


def test_a_wrong_command_is_one_line(tmp_path):
    path = save(tmp_path / "embeddings.npz")
    for args, message in (
        ([], "error: say --embeddings=FILE.npz"),
        ([f"--embeddings={path}", "--pca=0"], "error: flag --pca=0"),
        (
            [f"--embeddings={path}", f"--survival={write_survival(tmp_path / 's.csv', 80)}",
             "--name_column=who", "--time_column=days", "--event_column=died"],
            "error: --survival has no row for p80 (40 of 120 embeddings have none)",
        ),
    ):  # fmt: skip
        ran = command(*args)
        assert ran.returncode == 1
        assert ran.stderr.strip().splitlines()[-1].startswith(message)
        assert "Traceback" not in ran.stderr


@pytest.mark.data
def test_lung1_raw_components_beat_chance(data_root):
    """Cox on PCA-8 of the radiomic features: published C-indices of this set are 0.6 to 0.65."""
    found = []
    for fold in range(1, 6):
        listing, times, events = lung1(data_root, fold)
        train, test = (np.flatnonzero(listing.splits == part) for part in ("train", "test"))
        found.append(
            cox_c_index(
                *(listing.inputs[train], times[train], events[train]),
                *(listing.inputs[test], times[test], events[test]),
            )
        )
    assert 0.5 < np.mean(found) < 0.75, found


def lung1(data_root, fold):
    columns = {
        "name_column": "PatientID",
        "time_column": "Survival.time",
        "event_column": "deadstatus.event",
    }
    folder, name = data_root / "lung1_survival", "lung1_radiomics_survival.csv"
    listing = survival_csv(
        folder, csv=name, fold=fold, feature_prefixes=("original_", "log-", "wavelet-"), **columns
    )
    return listing, *of_names(read_survival(folder / name, **columns), listing.names)
