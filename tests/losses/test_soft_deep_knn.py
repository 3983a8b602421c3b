"""Deep kNN's soft form: against a loop, and its limits: NCA, and the hinge."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from support.batches import batch
from support.metric_losses import SOFT, EveryMetricLoss, check_rotation, check_shards

from deepknn_jax.knn.neighbors import Examples
from deepknn_jax.losses.nca import nca_loss
from deepknn_jax.losses.soft_deep_knn import (
    listed_soft_deep_knn_sums,
    soft_deep_knn_loss,
    soft_deep_knn_sums,
    soft_minimum,
)

pytestmark = pytest.mark.usefixtures("strict_dtypes")
COMPILED = jax.jit(
    jax.value_and_grad(soft_deep_knn_loss), static_argnames=("k", "m", "each_positive")
)
TINY = [1e-9, 1e-37, 1e-44]  # the last two divide to what float32 cannot hold


@pytest.mark.parametrize("name", SOFT)
class TestSoftDeepKnn(EveryMetricLoss):
    pass


@pytest.mark.parametrize("name", SOFT)
def test_shards_of_the_anchors_add_up_to_the_batch(name):
    check_shards(name)


@pytest.mark.parametrize("name", SOFT)
def test_a_rotation_and_a_shift_change_nothing(name):
    check_rotation(5, name)


@pytest.mark.parametrize("temperature", [0.2, 3.0])
def test_of_all_neighbours_it_is_nca(temperature):
    x, labels = batch()
    labels[4] = 9  # alone in its class
    found = COMPILED(jnp.asarray(x), labels, k=0, m=0, temperature=temperature)
    expected = jax.jit(
        jax.value_and_grad(
            lambda x: temperature * nca_loss(x, labels, temperature=temperature, log=True)
        )
    )(jnp.asarray(x))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def hinge_loop(x, labels, k, margin):
    """Mean over anchors of the hinge of each of k nearest positives and the nearest negative."""
    terms = []
    for i in range(len(x)):
        same = [j for j in range(len(x)) if labels[j] == labels[i] and j != i]
        other = [j for j in range(len(x)) if labels[j] != labels[i]]
        (c,) = reference.nearest(x, i, other, 1)
        near = [reference.distance(x[i], x[b]) ** 2 for b in reference.nearest(x, i, same, k)]
        far = reference.distance(x[i], x[c]) ** 2
        terms.append(np.mean([max(0.0, s - far + margin) for s in near]))
    return np.mean(terms)


@pytest.mark.parametrize("temperature", TINY)
@pytest.mark.parametrize("each_positive", [False, True])
def test_at_a_small_temperature_it_is_the_hinge(temperature, each_positive):
    x, labels = batch()
    options = {"k": 3, "m": 0, "margin": 0.5, "each_positive": each_positive}
    value, slope = COMPILED(jnp.asarray(x), labels, temperature=temperature, **options)
    expected = hinge_loop(np.float64(x), labels, 3 if each_positive else 1, 0.5)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    _, same = COMPILED(jnp.asarray(x), labels, temperature=1e-6, **options)
    np.testing.assert_allclose(slope, same, rtol=1e-4, atol=1e-6)
    assert np.abs(slope).max() > 0.01


def test_a_small_temperature_among_copies_is_finite():
    """All distances 0, and ties of different classes."""
    x, labels = batch()
    for same in (x * 0, np.repeat(x[:12], 2, axis=0)):
        for temperature in TINY:
            value, slope = COMPILED(
                jnp.asarray(same), labels, k=3, m=0, temperature=temperature, margin=0.5
            )
            assert np.isfinite(value)
            assert np.isfinite(slope).all()


def test_listed_neighbours_are_those_that_it_would_find():
    x, labels = batch()
    everyone = Examples(jnp.asarray(x), labels, 100 + np.arange(24), np.ones(24, bool))
    lists = []
    for k, alike in ((3, True), (4, False)):
        lists.append(np.full((24, k), -1, np.int32))
        for i in range(24):
            allowed = [j for j in range(24) if (labels[j] == labels[i]) == alike and j != i]
            found = 100 + np.array(reference.nearest(np.float64(x), i, allowed, k))
            lists[-1][i, : len(found)] = found
    options = {"temperature": 0.7, "margin": 0.2}
    sums = listed_soft_deep_knn_sums(
        everyone, everyone, positives=lists[0], negatives=lists[1], **options
    )
    expected = soft_deep_knn_sums(everyone, everyone, k=3, m=4, **options)
    np.testing.assert_allclose(sums[:4], expected[:4], rtol=1e-6)


def test_counts():
    """Two pairs of a class each; one anchor has the other class nearer, one example is alone."""
    x = np.array([[0.0], [1.0], [1.5], [4.0], [20.0]], np.float32)
    labels = np.array([0, 0, 1, 1, 2], np.int32)
    everyone = Examples(x, labels, np.arange(5), np.ones(5, bool))
    sums = soft_deep_knn_sums(everyone, everyone, k=1, m=1, temperature=0.01, margin=0.0)
    assert (sums.weight, sums.terms, sums.active) == (4, 4, 2)
    np.testing.assert_allclose(sums.loss, (1 - 0.25) + (6.25 - 0.25), rtol=1e-5)


def test_soft_minimum_by_hand():
    values = np.array([[1.0, 2.0, 9.0], [5.0, 1.0, 3.0]], np.float32)
    valid = np.array([[True, True, False], [False, False, False]])
    expected = [-0.5 * np.log(np.exp(-2) + np.exp(-4)), 0.0]
    np.testing.assert_allclose(soft_minimum(values, valid, 0.5), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": -1}, "k must be at least 0"),
        ({"m": 1.5}, "m must be"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"temperature": np.nan}, "temperature must be above 0"),
        ({"margin": np.inf}, "margin must be"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        soft_deep_knn_loss(*batch(), **options)
