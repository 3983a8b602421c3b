"""What the losses share: a mean of nothing, NaN that shows, arguments as Examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.batches import batch

from deepknn_jax.knn.neighbors import Examples
from deepknn_jax.losses.base import (
    Sums,
    as_examples,
    mean,
    present,
    squared_distances,
    with_nan_shown,
)

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def sums(loss, weight):
    return Sums(jnp.float32(loss), jnp.float32(weight), jnp.float32(0), jnp.float32(0))


def test_the_mean_is_by_weight_and_of_nothing_it_is_0():
    assert mean(sums(6.0, 4.0)) == 1.5
    value, slope = jax.value_and_grad(lambda x: mean(sums(0.0, 0.0)._replace(loss=0 * x)))(3.0)
    assert (value, slope) == (0, 0)
    assert np.isnan(mean(sums(np.nan, 0.0)))


def examples(where, spoilt):
    """Six rows of which `spoilt` has a NaN."""
    x, labels = batch(6)
    x[spoilt, 1] = np.nan
    return Examples(jnp.asarray(x), labels, np.arange(6), np.array(where))


def test_nan_shows_where_the_row_is_present_and_only_there():
    everyone, without_2 = [True] * 6, [i != 2 for i in range(6)]
    assert np.isnan(with_nan_shown(sums(1.0, 2.0), examples(everyone, 2)).loss)
    assert with_nan_shown(sums(1.0, 2.0), examples(without_2, 2)).loss == 1
    found = present(examples(without_2, 2))
    assert (found[2] == 0).all()
    np.testing.assert_array_equal(found[3], batch(6)[0][3])


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_squared_distances_are_the_loops_between_present_rows(offset):
    x, labels = batch(offset=offset)
    where = np.arange(24) % 2 == 0
    everyone = Examples(jnp.asarray(x), labels, np.arange(24), where)
    found = np.asarray(squared_distances(everyone, everyone))[where][:, where]
    wide = x[where].astype(np.float64)
    expected = np.square(wide[:, None] - wide[None]).sum(2)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_what_is_not_given_is_everyone_and_a_number_each():
    x, labels = batch(5)
    found = as_examples(x, labels, None, None)
    np.testing.assert_array_equal(found.ids, np.arange(5))
    assert found.where.all()
    assert found.where.shape == (5,)


def test_wrong_arguments_are_named():
    x, labels = batch(5)
    with pytest.raises(ValueError, match=r"embeddings \[B, D\], got shape \(5,\)"):
        as_examples(x[:, 0], labels, None, None)
    with pytest.raises(ValueError, match=r"ids \[5\], got shape \(4,\)"):
        as_examples(x, labels, np.arange(4), None)
    with pytest.raises(ValueError, match=r"where \[5\], got shape \(6,\)"):
        as_examples(x, labels, None, np.ones(6, bool))
