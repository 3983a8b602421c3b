"""LMNN's loss and its targets: against loops, by hand, and beside metric-learn's LMNN."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from support.batches import batch
from support.metric_losses import (
    BUNCHES,
    EveryMetricLoss,
    K,
    check_rotation,
    check_shards,
    descend,
    run,
    standardised,
    targets_of,
)

from deepknn_jax.knn.neighbors import Examples
from deepknn_jax.losses.lmnn import lmnn_loss, lmnn_sums, target_neighbors

pytestmark = pytest.mark.usefixtures("strict_dtypes")
PUBLISHED = json.loads(Path(__file__).with_name("metric_learn_lmnn.json").read_text())


@pytest.mark.parametrize("name", ["lmnn"])
class TestLmnn(EveryMetricLoss):
    pass


def test_shards_of_the_anchors_add_up_to_the_batch():
    check_shards("lmnn")


def test_counts_of_lmnn():
    """Anchors 0 and 1 have each other and both impostors; the far one pushes nobody."""
    x = np.array([[0.0], [1.0], [1.5], [9.0]], np.float32)
    everyone = Examples(x, np.array([0, 0, 1, 2], np.int32), np.arange(4), np.ones(4, bool))
    targets = np.array([[1, -1], [0, -1], [-1, -1], [-1, -1]], np.int32)
    sums = jax.jit(lambda everyone: lmnn_sums(everyone, everyone, targets))(everyone)
    assert (sums.weight, sums.terms, sums.active) == (1, 4, 1)
    np.testing.assert_allclose(sums.loss, 0.5 * 2 + 0.5 * (1 + 1 - 0.25), rtol=1e-6)


def test_a_target_that_is_no_positive_is_left_out():
    x, labels = batch()
    of_others = np.argmax(labels[None] != labels[:, None], axis=1)[:, None].astype(np.int32)
    own = np.arange(24, dtype=np.int32)[:, None]
    targets = np.concatenate([of_others, own, own + 24], axis=1)
    assert run("lmnn", x, labels, targets)[0] == 0


@pytest.mark.parametrize(("mu", "margin"), [(0.0, 1.0), (1.0, 0.5)])
def test_mu_weighs_pull_against_push(mu, margin):
    x, labels = batch()
    targets = targets_of(x, labels)
    expected, _ = reference.lmnn_loop(x, labels, targets, mu=mu, margin=margin)
    np.testing.assert_allclose(
        lmnn_loss(x, labels, targets, mu=mu, margin=margin), expected, rtol=1e-5
    )


def test_wrong_options_are_refused():
    x, labels = batch()
    with pytest.raises(ValueError, match=r"mu must be in 0..1, got 1.5"):
        lmnn_loss(x, labels, targets_of(x, labels), mu=1.5)
    with pytest.raises(ValueError, match=r"targets \[24, K\], got shape \(5, 3\)"):
        lmnn_loss(x, labels, targets_of(x, labels)[:5])
    with pytest.raises(ValueError, match=r"k must be at least 1, got 0"):
        target_neighbors(x, labels, k=0)
    with pytest.raises(ValueError, match=r"expected labels \[24\], got shape \(5,\)"):
        target_neighbors(x, labels[:5], k=1)


@settings(max_examples=20)
@given(st.integers(0, 2**31))
def test_a_rotation_and_a_shift_change_nothing(seed):
    check_rotation(seed, "lmnn")


@pytest.mark.parametrize("k", [1, 3, 30])
def test_targets_are_the_nearest_of_the_class(k):
    x, labels = batch()
    x[9] = x[2]  # equal rows are each other's targets, not their own
    labels[[2, 9]] = 0
    labels[:2] = [7, 8]
    labels[3:6] = 9  # classes of one and of three: of exactly k
    found = target_neighbors(x, labels, k=k)
    _, expected = reference.neighbors(x, x, k, skip=lambda i, j: i == j or labels[i] != labels[j])
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == jnp.int32
    assert (np.asarray(found) != np.arange(24)[:, None]).all()
    assert (found[:2] == -1).all()
    assert found[2, 0] == 9


@pytest.mark.parametrize("name", BUNCHES)
def test_lmnn_reaches_what_metric_learn_reaches(name):
    """By one definition, the loop's: it first confirms the figures in the file."""
    x, labels = standardised(name)
    published = PUBLISHED[name]
    with jax.enable_x64(True):
        targets = np.asarray(target_neighbors(x, labels, k=K))
        ours = descend(
            lambda components: lmnn_loss(x @ components.T, labels, targets),
            x.shape[1],
            options={"maxiter": 500},
        )

    def objective(components):
        return reference.lmnn_loop(x @ components.T, labels, targets)[0]

    np.testing.assert_allclose(objective(np.eye(x.shape[1])), published["at_identity"], rtol=1e-9)
    best = min(published["defaults"]["objective"], published["converged"]["objective"])
    theirs = np.array(published["converged"]["components"])
    # Iris lies on a grid: rounding breaks ties between targets differently there.
    np.testing.assert_allclose(objective(theirs), published["converged"]["objective"], rtol=5e-3)
    assert best < 0.5 * published["at_identity"]
    assert objective(ours) <= 1.01 * best
