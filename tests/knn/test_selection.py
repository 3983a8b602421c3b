"""The smallest of each row, in groups or not, and what is done in parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepknn_jax.knn import selection


def by_sorting(score_BxS, count):
    """Of each row its `count` least scores and their columns; of equals the lower column first."""
    columns = [sorted(range(len(row)), key=lambda s, row=row: (row[s], s)) for row in score_BxS]
    columns = np.asarray([each[:count] for each in columns])
    return np.take_along_axis(score_BxS, columns, axis=1), columns


@pytest.fixture(params=["whole", "in parts"])
def cut(request, monkeypatch):
    if request.param == "in parts":
        monkeypatch.setattr(selection, "_CUT", 1)
        monkeypatch.setattr(selection, "_PARTS", 3)


@pytest.mark.parametrize(("rows", "columns"), [(7, 96), (4, 80), (3, 33), (2, 70)])
@pytest.mark.parametrize("count", [1, 2, 5, 33])
@pytest.mark.usefixtures("cut")
def test_the_smallest_are_those_of_a_sort(rows, columns, count):
    """Few values, so that most are equal to others, within and across groups."""
    rng = np.random.default_rng(rows)
    scores = rng.integers(0, 9, (rows, columns)).astype(np.float32)
    least, found = selection.smallest(jnp.asarray(scores), count)
    expected, places = by_sorting(scores, count)
    np.testing.assert_array_equal(found, places)
    np.testing.assert_array_equal(least, expected)


@pytest.fixture(params=["heap", "halving"])
def halved(request, monkeypatch):
    if request.param == "halving":
        monkeypatch.setattr(selection, "_HALVED", 1)
        monkeypatch.setattr(selection, "_HALVED_OF", 2**20)


@pytest.mark.parametrize(("rows", "columns"), [(7, 96), (4, 80), (3, 33), (2, 70), (1, 1)])
@pytest.mark.parametrize("count", [1, 2, 5, 33])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("halved")
def test_the_smallest_in_any_order(rows, columns, count, dtype):
    """The same ones, also among many equal; equal ones by their columns."""
    rng = np.random.default_rng(rows)
    few = np.asarray([-3e38, -1.5, -1e-30, 0.0, 1e-30, 2.0, 3.4028235e38], dtype)
    with jax.enable_x64(dtype == np.float64):
        for scores in (rng.choice(few, (rows, columns)), rng.normal(size=(rows, columns))):
            scores, count = scores.astype(dtype), min(count, columns)
            least, found = map(
                np.asarray, selection.smallest(jnp.asarray(scores), count, ordered=False)
            )
            order = np.argsort(least, axis=1, kind="stable")
            expected, places = by_sorting(scores, count)
            np.testing.assert_array_equal(np.take_along_axis(found, order, axis=1), places)
            np.testing.assert_array_equal(np.take_along_axis(least, order, axis=1), expected)


@pytest.mark.parametrize("columns", [1, 2, 7, 60])
def test_in_order(columns, monkeypatch):
    """Few distances, so that many tie, and almost equal ones; `far` for some that are not there."""
    monkeypatch.setattr(selection, "_PACKED", 2)
    in_order, rng = jax.jit(lambda *given: selection.in_order(*given)), np.random.default_rng(0)
    rows = 4
    for start in np.asarray([0.0, 1e-20, 1.0, 1e20], np.float32):
        for kinds in (1, 2, 5, 200):
            values = start + rng.random(kinds).astype(np.float32)
            values = np.concatenate([values, np.nextafter(values, np.float32(9e37))])
            values = np.append(values, np.finfo(np.float32).max)
            distances = rng.choice(values, (rows, columns))
            numbers = np.tile(np.arange(columns, dtype=np.int32) * 3, (rows, 1))
            for indices in (numbers, rng.permuted(numbers, axis=1)):
                order = np.lexsort((indices, distances), axis=1)
                found = in_order(jnp.asarray(distances), jnp.asarray(indices))
                for array, expected in zip(found, (distances, indices), strict=True):
                    np.testing.assert_array_equal(array, np.take_along_axis(expected, order, 1))


def test_in_order_in_float64_and_with_places_that_hold_none(monkeypatch):
    """None, at `far`, stand among those that are there, more than are exchanged."""
    monkeypatch.setattr(selection, "_PACKED", 2)
    rng, none = np.random.default_rng(0), np.iinfo(np.int32).max
    for dtype in (np.float32, np.float64):
        distances = rng.random((3, 64)).astype(dtype)
        indices = rng.permuted(np.tile(np.arange(64, dtype=np.int32), (3, 1)), axis=1)
        distances[:, :30], indices[:, :30] = np.finfo(dtype).max, none
        order = np.lexsort((indices, distances), axis=1)
        with jax.enable_x64(dtype == np.float64):
            given = jnp.asarray(distances), jnp.asarray(indices)
            assert not np.any(selection._misplaced(*selection._almost_in_order(*given)))
            found = [np.asarray(each) for each in selection.in_order(*given)]
        assert found[0].dtype == dtype
        for array, expected in zip(found, (distances, indices), strict=True):
            np.testing.assert_array_equal(array, np.take_along_axis(expected, order, 1))


def test_distances_apart_are_in_order_without_a_second_sort():
    rng = np.random.default_rng(0)
    distances = np.abs(rng.normal(size=(40, 500))).astype(np.float32)
    distances[:, 7] = distances[:, 6]
    indices = np.tile(np.arange(500, dtype=np.int32), (40, 1))
    almost = selection._almost_in_order(jnp.asarray(distances), jnp.asarray(indices))
    assert not np.any(selection._misplaced(*almost))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_the_smallest_of_whole_groups(rows, count, seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(rows, selection.whole_groups(2 * count * 32 - 31))).astype(np.float32)
    least, found = selection.smallest(jnp.asarray(scores), count)
    expected, places = by_sorting(scores, count)
    np.testing.assert_array_equal(found, places)
    np.testing.assert_array_equal(least, expected)


@pytest.mark.usefixtures("cut")
def test_scores_are_made_of_numbers_and_columns():
    """Of all columns at once, and of those in the chosen groups: what is found is the same."""
    rng = np.random.default_rng(0)
    x, norms = (rng.normal(size=shape).astype(np.float32) for shape in ((5, 320), (320,)))
    least, found = selection.smallest(
        jnp.asarray(x), 4, lambda x, at: at(jnp.asarray(norms)) - 2.0 * x
    )
    expected, places = by_sorting(norms - 2 * x, 4)
    np.testing.assert_array_equal(found, places)
    np.testing.assert_array_equal(least, expected)


@pytest.mark.usefixtures("cut")
def test_rows_beside_each_other():
    """A tree of arrays, one of them absent; parts of unequal size."""
    rng = np.random.default_rng(1)
    x, y = (rng.normal(size=(7, width)).astype(np.float32) for width in (3, 2))
    tree = {"x": jnp.asarray(x), "nothing": None, "y": (jnp.asarray(y),)}
    sums, doubled = selection.beside(lambda t: (t["x"].sum(1) + t["y"][0].sum(1), 2 * t["x"]), tree)
    np.testing.assert_allclose(sums, x.sum(1) + y.sum(1), rtol=1e-5)
    np.testing.assert_array_equal(doubled, 2 * x)


def test_large_blocks_alone_are_cut_and_on_a_cpu_alone(monkeypatch):
    def parts(rows, columns):
        seen = []
        selection.beside(lambda x: seen.append(x.shape) or x, jnp.zeros((rows, columns)))
        return seen

    assert parts(64, 511) == [(64, 511)]
    assert parts(64, 512) == [(4, 512)] * 16
    assert parts(8, 2**14) == [(8, 2**14)]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert parts(64, 512) == [(64, 512)]


def test_whole_groups():
    assert [selection.whole_groups(n) for n in (0, 1, 31, 32, 33)] == [0, 32, 32, 32, 64]
