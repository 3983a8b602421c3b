"""A csv of survival: what is read, what is refused, who is alive."""

import numpy as np
import pytest
from support.tiny_sets import SURVIVAL_COLUMNS as COLUMNS
from support.tiny_sets import survival_csv as write
from support.tiny_sets import survival_rows as patients

from deepknn_jax.data.survival import (
    alive_beyond,
    check_survival,
    of_names,
    read_survival,
    read_survival_csv,
)
from deepknn_jax.errors import UserError


def test_who_is_alive_is_told_day_by_day():
    """The paper's rule: who was censored counts as alive, whenever that was."""
    times = np.asarray([1097, 1096, 12, 12, 1096, 3000.5])
    died = np.asarray([True, True, True, False, False, False])
    assert alive_beyond(times, died).tolist() == [1, 0, 0, 1, 1, 1]
    assert alive_beyond(times, died, days=11).tolist() == [1] * 6
    assert alive_beyond(times, died).dtype == np.int32


def test_features_are_the_columns_of_the_prefixes(tmp_path):
    path = write(tmp_path, patients())
    found = read_survival_csv(path, **COLUMNS, feature_prefixes=("ct_b", "ct_a"))
    assert found.feature_names == ("ct_a", "ct_b")
    assert found.features.dtype == np.float64
    np.testing.assert_array_equal(found.features, [[i, -i / 2] for i in range(20)])
    assert found.times[:3].tolist() == [100, 2001, 102]
    assert found.events[:5].tolist() == [False, True, True, True, False]
    survival = read_survival(path, **COLUMNS)
    assert survival.names == found.names
    times, events = of_names(survival, ("p4", "p1"))
    assert (times.tolist(), events.tolist()) == ([104, 2001], [False, True])
    words = r"^`survival` has no row for q7 \(1 of 2 `names` .*like p0: see `name_column`"
    with pytest.raises(UserError, match=words):
        of_names(survival, ("p4", "q7"))


def test_semicolons_part_fields_too(tmp_path):
    path = write(tmp_path, patients())
    expected = read_survival_csv(path, **COLUMNS, feature_prefixes=("ct_",))
    path.write_text(path.read_text().replace(",", ";"))
    found = read_survival_csv(path, **COLUMNS, feature_prefixes=("ct_",))
    assert found.feature_names == expected.feature_names
    np.testing.assert_array_equal(found.features, expected.features)


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
        ({4: "1,5"}, "p3 has ct_a '1,5'"),
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
    with pytest.raises(
        UserError, match="no column begins with mri_; set `feature_prefixes`; it has: id, d"
    ):
        read_survival_csv(path, **COLUMNS, feature_prefixes=("mri_",))
    with pytest.raises(UserError, match=r"no\.csv: cannot be read as csv"):
        read_survival_csv(tmp_path / "no.csv", **COLUMNS)


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
