"""The source survival_csv: its two classes, its five folds, and what is refused."""

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold
from support.tiny_sets import SURVIVAL_COLUMNS as COLUMNS
from support.tiny_sets import survival_csv as write
from support.tiny_sets import survival_rows as patients

from deepknn_jax.data.load import load_dataset
from deepknn_jax.data.sources.survival_csv import survival_csv
from deepknn_jax.data.survival import read_survival_csv
from deepknn_jax.errors import UserError


def test_censored_before_1096_days_counts_as_alive(tmp_path):
    """The rule of the paper, day by day, in a made-up csv."""
    rows = [
        ("dies after", 1097, 1, "f", 1, 2),
        ("dies that day", 1096, 1, "f", 1, 2),
        ("dies before", 12, 1, "m", 1, 2),
        ("lost before", 12, 0, "m", 1, 2),
        ("lost that day", 1096, 0, "m", 1, 2),
        ("lost after", 3000.5, 0, "m", 1, 2),
    ]
    folder = write(tmp_path, rows).parent
    options = {"csv": "set.csv", "feature_prefixes": ("ct_",), **COLUMNS}
    listing = survival_csv(folder, **options)
    assert listing.class_names == ("died", "survived")
    assert dict(zip(listing.names, listing.labels.tolist(), strict=True)) == {
        "dies after": 1, "dies that day": 0, "dies before": 0,
        "lost before": 1, "lost that day": 1, "lost after": 1,
    }  # fmt: skip
    without = survival_csv(folder, **options, leave_out_censored=True)
    assert without.names == ("dies after", "dies that day", "dies before", "lost after")
    assert without.labels.tolist() == [1, 0, 0, 1]
    assert len(without.inputs) == 4
    assert listing.account.lines == ()
    assert without.account.lines == (
        "left out: 2 patients, censored before 1,096 days (`leave_out_censored`)",
    )


def test_five_stratified_folds_test_on_everybody_once(tmp_path):
    folder = write(tmp_path, patients(40)).parent
    tested = []
    for fold in range(1, 6):
        dataset = load_dataset(
            "survival_csv", folder=folder, split="published", csv="set.csv", fold=fold,
            feature_prefixes=("ct_",), **COLUMNS,
        )  # fmt: skip
        rows = dataset.rows("test")
        assert np.bincount(dataset.labels[rows]).tolist() == [2, 6]
        assert len(dataset.rows("train")) == 32
        tested += rows.tolist()
    assert sorted(tested) == list(range(40))
    labels = dataset.labels
    drawn = StratifiedKFold(5, shuffle=True, random_state=0).split(labels, labels)
    assert rows.tolist() == list(drawn)[4][1].tolist()


def test_without_a_fold_the_split_is_drawn(tmp_path):
    folder = write(tmp_path, patients(40)).parent
    options = {"folder": folder, "csv": "set.csv", "feature_prefixes": ("ct_",), **COLUMNS}
    dataset = load_dataset("survival_csv", split="stratified", test_share=0.25, **options)
    assert len(dataset.rows("test")) == 10
    with pytest.raises(UserError, match="publishes none"):
        load_dataset("survival_csv", split="published", **options)
    with pytest.raises(UserError, match=r"^`fold` is 6: choose one of 1\.\.5, or 0"):
        load_dataset("survival_csv", split="published", fold=6, **options)


def test_folds_need_five_of_each_class(tmp_path):
    folder = write(tmp_path, patients(16)).parent
    with pytest.raises(UserError, match="4 died and 12 survived: 5 folds need 5 of each"):
        survival_csv(folder, csv="set.csv", fold=1, feature_prefixes=("ct_",), **COLUMNS)


@pytest.mark.data
def test_lung1_is_as_its_description_says(data_root):
    columns = {
        "name_column": "PatientID",
        "time_column": "Survival.time",
        "event_column": "deadstatus.event",
        "feature_prefixes": ("original_", "log-", "wavelet-"),
    }
    folder, csv = data_root / "lung1_survival", "lung1_radiomics_survival.csv"
    found = read_survival_csv(folder / csv, **columns)
    assert found.features.shape == (145, 1218)
    assert (~found.events).sum() == 16
    assert found.times[~found.events].min() > 1096
    listing = survival_csv(folder, csv=csv, fold=1, **columns)
    assert np.bincount(listing.labels).tolist() == [109, 36]
    assert (listing.splits == "test").sum() == 29


def test_no_folder_and_no_table(tmp_path):
    words = r"no such folder \(`folder`\); it should hold a.csv, a table of names"
    with pytest.raises(UserError, match=words):
        survival_csv(tmp_path / "gone", csv="a.csv", **COLUMNS)
    with pytest.raises(UserError, match="no table given: set `csv`"):
        survival_csv(tmp_path, csv="", **COLUMNS)
