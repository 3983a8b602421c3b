import numpy as np
import pytest

from deepknn_jax.knn.sizes import filled_to, filled_up, rounded_up


def test_few_sizes_of_which_each_is_little_larger():
    sizes = [rounded_up(n) for n in range(1, 20_000)]
    assert all(n <= size for n, size in enumerate(sizes, 1))
    assert sizes == sorted(sizes)
    assert len(set(sizes)) < 80
    assert all(size <= n * 17 / 16 for n, size in enumerate(sizes, 1) if n >= 2048)
    assert (sizes[0], sizes[127], sizes[128]) == (128, 128, 256)
    assert rounded_up(100_000) == 102_400


@pytest.mark.parametrize("count", [1, 128, 130])
def test_what_is_added_stands_last(count):
    rows = np.arange(2.0 * count).reshape(count, 2)
    copies, marked = filled_up(rows), filled_up(rows, np.nan)
    assert len(copies) == len(marked) == rounded_up(count)
    np.testing.assert_array_equal(copies[:count], rows)
    np.testing.assert_array_equal(marked[:count], rows)
    assert (copies[count:] == rows[-1]).all()
    assert np.isnan(marked[count:]).all()


def test_any_size_is_filled_up_to():
    ids = np.arange(3)
    assert filled_to(ids, 5).tolist() == [0, 1, 2, 2, 2]
    assert filled_to(ids, 5, -1).tolist() == [0, 1, 2, -1, -1]
    assert filled_to(ids, 3) is ids
