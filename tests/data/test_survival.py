"""A csv of features with survival: what is read, what is refused, classes and folds."""

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from deepknn_jax.data.load import load_dataset
from deepknn_jax.data.sources.survival_csv import survival_csv
from deepknn_jax.data.survival import (
    SURVIVAL_DAYS,
    alive_beyond,
    check_survival,
    of_names,
    read_survival,
    read_survival_csv,
)
from deepknn_jax.errors import UserError

COLUMNS = {"name_column": "id", "time_column": "days", "event_column": "died"}


def write(tmp_path, rows, header=("id", "days", "died", "sex", "ct_a", "ct_b")):
    path = tmp_path / "set.csv"
    path.write_text("\n".join(",".join(map(str, row)) for row in (header, *rows)) + "\n")
    return path


def patients(n=20):
    """Every second one died late, every fourth was censored early; the others died early."""
    late = [i % 2 for i in range(n)]
    censored = [i % 4 == 0 for i in range(n)]
    return [
        (f"p{i}", 2000 + i if late[i] else 100 + i, int(not censored[i]), "f", i, -i / 2)
        for i in range(n)
    ]


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
    assert alive_beyond(np.array([10.0, 20.0]), np.array([1, 1]), days=15).tolist() == [0, 1]
    assert SURVIVAL_DAYS == 1096


def test_features_are_the_columns_of_the_prefixes(tmp_path):
    path = write(tmp_path, patients())
    found = read_survival_csv(path, **COLUMNS, feature_prefixes=("ct_b", "ct_a"))
    assert found.feature_names == ("ct_a", "ct_b")
    assert found.features.dtype == np.float32
    np.testing.assert_array_equal(found.features, [[i, -i / 2] for i in range(20)])
    assert found.times[:3].tolist() == [100, 2001, 102]
    assert found.events[:5].tolist() == [False, True, True, True, False]
    survival = read_survival(path, **COLUMNS)
    assert survival.names == found.names
    times, events = of_names(survival, ("p4", "p1"))
    assert (times.tolist(), events.tolist()) == ([104, 2001], [False, True])
    with pytest.raises(UserError, match=r"no row for q7 \(1 of 2 .*like p0"):
        of_names(survival, ("p4", "q7"))


def test_without_prefixes_all_other_columns_are_features(tmp_path):
    rows = [(name, days, died, i, j) for name, days, died, _, i, j in patients()]
    path = write(tmp_path, rows, ("id", "days", "died", "ct_a", "other"))
    assert read_survival_csv(path, **COLUMNS).feature_names == ("ct_a", "other")
    path = write(tmp_path, patients())
    with pytest.raises(UserError, match="p0 has sex 'f', which is no finite number"):
        read_survival_csv(path, **COLUMNS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({1: 0}, "row 3 has time 0; times must be finite and above 0"),
        ({1: -4}, "row 3 has time -4"),
        ({1: "inf"}, "p3 has days 'inf', which is no finite number"),
        ({1: ""}, "line 5: days is empty"),
        ({1: "NA"}, "p3 has days 'NA'"),
        ({2: 2}, r"row 3 has event 2; events are 1 \(died\) and 0"),
        ({2: ""}, "line 5: died is empty"),
        ({2: "dead"}, "p3 has died 'dead'"),
        ({4: ""}, "line 5: ct_a is empty"),
        ({4: "nan"}, "p3 has ct_a 'nan', which is no finite number"),
        ({4: '"1,5"'}, "p3 has ct_a '1,5'"),
        ({0: "p2"}, "p2 is listed more than once"),
    ],
)
def test_a_bad_cell_is_named(tmp_path, change, message):
    rows = [list(row) for row in patients()]
    for column, value in change.items():
        rows[3][column] = value
    with pytest.raises(UserError, match=message) as error:
        read_survival_csv(write(tmp_path, rows), **COLUMNS, feature_prefixes=("ct_",))
    assert str(tmp_path / "set.csv") in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_column_or_file_is_named(tmp_path):
    path = write(tmp_path, patients())
    with pytest.raises(UserError, match="no column 'time'; it has: id, days"):
        read_survival_csv(path, **COLUMNS | {"time_column": "time"})
    with pytest.raises(UserError, match="no column begins with mri_"):
        read_survival_csv(path, **COLUMNS, feature_prefixes=("mri_",))
    with pytest.raises(UserError, match=r"no\.csv: cannot be read as csv"):
        read_survival_csv(tmp_path / "no.csv", **COLUMNS)
    with pytest.raises(UserError, match=r"no such folder.*should hold a.csv, a table of names"):
        survival_csv(tmp_path / "gone", csv="a.csv", **COLUMNS)
    with pytest.raises(UserError, match=r"data\.csv is empty"):
        survival_csv(tmp_path, csv="", **COLUMNS)


@pytest.mark.parametrize(
    ("times", "events", "message"),
    [
        ([1, 2], [0, 0], "all 2 are censored; a survival model needs deaths"),
        ([1, np.nan], [0, 1], "row 1 has no time"),
        ([1, None], [0, 1], "row 1 has no time"),
        ([1, 2], [np.nan, 1], "row 0 has no event"),
        ([1, np.inf], [0, 1], "row 1 has time inf"),
        ([0.0, 1], [1, 1], "row 0 has time 0"),
        ([1, 2], [1, -1], "row 1 has event -1"),
        ([1, 2, 3], [1, 1], r"times are \[3\] and events \[2\]"),
        ([[1], [2]], [[1], [1]], r"times are \[2, 1\]"),
        ([], [], r"times are \[0\]"),
        (["soon"], [1], "must be numbers"),
    ],
)
def test_survival_that_no_model_takes_is_refused(times, events, message):
    with pytest.raises(UserError, match=f"^here: .*{message}") as error:
        check_survival(times, events, "here")
    assert "\n" not in str(error.value)


def test_sound_survival_comes_back_as_arrays():
    times, events = check_survival([3, 1.5], [True, 0])
    assert (times.dtype, events.dtype) == (np.float64, bool)
    assert (times.tolist(), events.tolist()) == ([3.0, 1.5], [True, False])


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
    with pytest.raises(UserError, match=r"fold is 6: survival_csv has the folds 1\.\.5"):
        load_dataset("survival_csv", split="published", fold=6, **options)


def test_folds_need_five_of_each_class(tmp_path):
    folder = write(tmp_path, patients(16)).parent
    with pytest.raises(UserError, match="4 died and 12 survived: 5 folds need 5 of each"):
        survival_csv(folder, csv="set.csv", fold=1, feature_prefixes=("ct_",), **COLUMNS)


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
