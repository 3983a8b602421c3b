"""NCA's loss, and its logarithm's: against a loop, by hand, and beside scikit-learn's NCA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, NeighborhoodComponentsAnalysis
from support.batches import batch
from support.metric_losses import (
    BUNCHES,
    EveryMetricLoss,
    K,
    check,
    check_rotation,
    check_shards,
    descend,
    run,
    standardised,
)

from deepknn_jax.knn.neighbors import Examples
from deepknn_jax.losses.nca import nca_loss, nca_sums

pytestmark = pytest.mark.usefixtures("strict_dtypes")
NAMES = ("nca", "log nca")


@pytest.mark.parametrize("name", NAMES)
class TestNca(EveryMetricLoss):
    pass


@pytest.mark.parametrize("name", NAMES)
def test_shards_of_the_anchors_add_up_to_the_batch(name):
    check_shards(name)


def test_log_of_a_p_that_underflows_still_pulls():
    """Positives at 40, others near: p_i is below exp(-800), 0 in any float; its log is not."""
    x, labels = batch()[0], np.arange(24, dtype=np.int32) % 2
    x[:, 0] += 40 * (np.arange(24) // 2)
    targets = np.full((24, K), -1, np.int32)
    check("log nca", x, labels, targets=targets, atol=1e-5)
    assert run("log nca", x, labels, targets)[0] > 800
    vanished, flat = run("nca", x, labels, targets)
    assert vanished == 0
    assert (flat == 0).all()


def test_counts_of_nca():
    """Two tight pairs of a class each, one pair whose nearer neighbour is of another class."""
    x = np.array([[0.0], [0.1], [9.0], [9.1], [20.0], [23.0], [20.2]], np.float32)
    labels = np.array([0, 0, 1, 1, 2, 2, 3], np.int32)
    everyone = Examples(x, labels, np.arange(7), np.ones(7, bool))
    counted, logs = jax.jit(
        lambda everyone: [nca_sums(everyone, everyone, log=log) for log in (False, True)]
    )(everyone)
    assert (counted.weight, counted.terms, counted.active) == (7, 7, 3)
    assert (logs.weight, logs.terms, logs.active) == (6, 6, 2)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_wrong_temperature_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be above 0"):
        nca_loss(*batch(), temperature=temperature)


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.floats(0.1, 5.0))
def test_nca_is_a_share_and_bounds_its_logarithm(seed, scale):
    """0 <= mean p_i <= 1, and by Jensen mean -log p_i >= -log mean p_i where all have positives."""
    x = np.float32(scale) * batch(seed=seed)[0]
    labels = np.arange(24, dtype=np.int32) % 3
    targets = np.full((24, K), -1, np.int32)
    share, log = -run("nca", x, labels, targets)[0], run("log nca", x, labels, targets)[0]
    assert 0 <= share <= 1 + 1e-6
    assert log >= -jnp.log(share) - 1e-4


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.sampled_from(NAMES))
def test_a_rotation_and_a_shift_change_nothing(seed, name):
    check_rotation(seed, name)


def accuracy_count(components, x, labels, x_test, labels_test):
    judge = KNeighborsClassifier(5).fit(x @ components.T, labels)
    return np.sum(judge.predict(x_test @ components.T) == labels_test)


@pytest.mark.parametrize("name", BUNCHES)
def test_nca_reaches_what_scikit_learn_reaches(name):
    x, labels = standardised(name)
    x, x_test, labels, labels_test = train_test_split(
        x, labels, test_size=0.3, random_state=0, stratify=labels
    )
    judge = NeighborhoodComponentsAnalysis(init="identity", max_iter=100, tol=1e-6)
    theirs = judge.fit(x, labels).components_
    with jax.enable_x64(True):
        ours = descend(
            lambda components: len(x) * nca_loss(x @ components.T, labels),
            x.shape[1],
            tol=1e-6,
            options={"maxiter": 100},
        )
    value, reached = (reference.nca_loop(x @ L.T, labels)[0] for L in (ours, theirs))
    start, _ = reference.nca_loop(x, labels)
    assert reached < start - 0.02
    np.testing.assert_allclose(value, reached, rtol=0.01)
    right, judged = (accuracy_count(L, x, labels, x_test, labels_test) for L in (ours, theirs))
    assert abs(right - judged) <= 1
