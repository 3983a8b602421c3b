"""Survival from embeddings: concordance, Cox's model and the network, beside lifelines."""

import numpy as np
import pandas
import pytest
import reference
from flax import linen as nn
from lifelines import CoxPHFitter
from lifelines.utils import concordance_index
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from support.patients import embedded_patients, patients

from deepknn_jax.data.sources.survival_csv import survival_csv
from deepknn_jax.data.survival import of_names, read_survival
from deepknn_jax.errors import UserError
from deepknn_jax.transfer.cox import (
    c_index,
    cox_c_index,
    cox_log_hazards,
    fit_cox_network,
    network_log_hazards,
)


@pytest.mark.parametrize("ties", [False, True])
def test_concordance_is_the_loops(ties):
    x, times, events = patients(60, seed=3, ties=ties)
    hazards = np.round(x[:, 0], 1)  # some are equal
    expected = reference.concordance_loop(hazards, times, events)
    assert c_index(hazards, times, events) == pytest.approx(expected, abs=1e-12)
    assert c_index(-hazards, times, events) == pytest.approx(1 - expected, abs=1e-12)
    assert expected > 0.6


def test_concordance_without_a_pair_is_told():
    with pytest.raises(UserError, match="no pair can be compared"):
        c_index([1.0, 2.0], [5.0, 9.0], [0, 1])


def test_a_linear_network_trained_long_is_coxs_model():
    x, times, events = patients(100)
    frame = pandas.DataFrame(x, columns=list("abc")).assign(time=times, event=events)
    fitted = CoxPHFitter().fit(frame, "time", "event")
    trained = fit_cox_network(
        x.astype(np.float32), times, events, model=nn.Dense(1), steps=2000, learning_rate=0.01
    )
    new = np.random.default_rng(5).normal(size=(20, 3))
    hazards = trained.log_hazards(new)
    assert hazards.shape == (20,)
    expected = new @ fitted.params_.to_numpy()
    np.testing.assert_allclose(hazards - hazards.mean(), expected - expected.mean(), atol=2e-3)
    assert trained.losses.shape == (2000,)
    best = -fitted.log_likelihood_ / events.sum()
    assert best - 1e-5 <= trained.losses[-1] < best + 1e-5


def test_the_papers_network_learns_what_a_line_cannot():
    """The hazard is high far from the centre: on new patients Cox's model guesses."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2)).astype(np.float32)
    times = rng.exponential(np.exp(-2 * (x**2).sum(1))) + 1e-3
    events = rng.random(400) < 0.8
    train, test = slice(0, 250), slice(250, 400)
    run = fit_cox_network(x[train], times[train], events[train], steps=60, learning_rate=1e-3)
    assert c_index(run.log_hazards(x[test]), times[test], events[test]) > 0.8
    linear = fit_cox_network(
        x[train], times[train], events[train], model=nn.Dense(1), steps=500, learning_rate=0.01
    )
    assert c_index(linear.log_hazards(x[test]), times[test], events[test]) < 0.65


def test_only_the_seed_is_random():
    x, times, events = patients(30)
    runs = [
        fit_cox_network(x, times, events, model=nn.Dense(1), steps=3, seed=seed).log_hazards(x)
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 0.1


def test_it_is_not_trained_on_bad_survival():
    with pytest.raises(UserError, match="all 3 are censored"):
        fit_cox_network(np.ones((3, 2)), [1.0, 2.0, 3.0], [0, 0, 0])


def test_the_network_tells_times_apart_that_float32_does_not():
    """Seconds since 1970; by ranks the losses are those of the small times to the bit."""
    x, times, events = patients(30)
    order = np.argsort(np.argsort(times))
    small, large = (
        fit_cox_network(x, 1 + offset + order, events, model=nn.Dense(1), steps=3).losses
        for offset in (0, 1.7e9)
    )
    np.testing.assert_array_equal(small, large)


@pytest.mark.parametrize(
    ("hazards", "message"),
    [
        (np.ones((4, 1)), r"log_hazards \[4\], got shape \(4, 1\); say .*reshape"),
        (np.array([1, np.nan, 0, 2]), "log_hazards has NaN or infinity in row 1"),
        (np.ones(3), r"log_hazards \[4\], got shape \(3,\)"),
    ],
)
def test_hazards_that_are_none_are_refused(hazards, message):
    with pytest.raises(UserError, match=message):
        c_index(hazards, [1.0, 2.0, 3.0, 4.0], [1, 0, 1, 1])


def test_inputs_that_do_not_fit_the_survival_are_refused():
    times, events = np.arange(1.0, 5.0), np.ones(4)
    with pytest.raises(UserError, match=r"inputs \[4, F\], got shape \(3, 2\)"):
        fit_cox_network(np.ones((3, 2)), times, events)
    with pytest.raises(UserError, match="inputs has NaN or infinity in row 2"):
        fit_cox_network(np.array([[0.0], [1], [np.nan], [3]]), times, events)
    with pytest.raises(UserError, match=r"train_x \[4, D\], got shape \(3, 2\)"):
        cox_log_hazards(np.ones((3, 2)), times, events, np.ones((2, 2)))


def test_cox_is_lifelines_on_the_components():
    x, times, events = embedded_patients()
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
    x, times, events = embedded_patients(40)
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
    x, times, _ = embedded_patients(14)
    events = np.arange(14) < 2
    with pytest.raises(UserError, match="no optimum on 12 components and 2 deaths: take"):
        cox_log_hazards(x, times, events, x, pca=12)


def test_the_end_to_end_baseline_standardises():
    """Features at an offset and scale that would stop an MLP's training."""
    x, times, events = embedded_patients()
    train, test = slice(0, 120), slice(120, 200)
    known = (times[train], events[train])
    options = {"steps": 60, "learning_rate": 1e-3}
    hazards = network_log_hazards(x[train] * 1e4, *known, x[test] * 1e4, seed=1, **options)
    assert c_index(hazards, times[test], events[test]) > 0.7


def test_embeddings_of_a_collapsed_network_are_told_or_fitted():
    """Of rank 2 in 30 dimensions: Cox's model takes two components. All equal: none."""
    x, times, events = embedded_patients(80, D=2)
    wide = (x @ np.random.default_rng(1).normal(size=(2, 30))).astype(np.float32)
    part = (times[:50], events[:50])
    hazards = cox_log_hazards(wide[:50], *part, wide[50:], pca=8)
    assert c_index(hazards, times[50:], events[50:]) > 0.75
    same = np.full((50, 30), 0.1, np.float32)
    with pytest.raises(UserError, match="embeddings are all equal"):
        cox_log_hazards(same, *part, same)


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
