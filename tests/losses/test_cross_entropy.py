"""Cross entropy, plain and weighted by class: against a loop and torch's."""

import jax.numpy as jnp
import numpy as np
import pytest
import reference
from support.optional import require

from deepknn_jax.knn.neighbors import Examples
from deepknn_jax.losses.base import class_weights, mean, with_class_weights
from deepknn_jax.losses.cross_entropy import cross_entropy_sums, logit_adjusted_cross_entropy_sums

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def examples(logits, labels, where):
    n = len(labels)
    return Examples(jnp.zeros((n, 1)), jnp.asarray(labels), jnp.arange(n), where, logits)


def loss_and_expected_weights(weighted):
    """The loss of nine examples, their logits and labels, and each class's weight by hand."""
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(9, 4)).astype(np.float32) * 5, rng.integers(0, 4, 9)
    counts = np.array([50, 3, 20, 7])
    batch = examples(jnp.asarray(logits), labels, jnp.ones(9, bool))
    loss = cross_entropy_sums
    if weighted:
        loss = with_class_weights(loss, class_weights(counts, 1.0))
    value = mean(loss(batch, batch))
    return value, logits, labels, 80 / (4 * counts) if weighted else np.ones(4)


@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_loops(weighted):
    value, logits, labels, weights = loss_and_expected_weights(weighted)
    np.testing.assert_allclose(value, reference.cross_entropy(logits, labels, weights), rtol=1e-5)


@pytest.mark.interop
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_torchs(weighted):
    torch = require("torch")
    value, logits, labels, weights = loss_and_expected_weights(weighted)
    judge = torch.nn.CrossEntropyLoss(weight=torch.tensor(weights, dtype=torch.float32))
    np.testing.assert_allclose(value, judge(torch.tensor(logits), torch.tensor(labels)), rtol=1e-5)


def test_it_counts_present_rows_alone():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(6, 3)).astype(np.float32), rng.integers(0, 3, 6)
    where = np.array([True, False, True, True, False, True])
    logits[~where] = np.nan
    batch = examples(jnp.asarray(logits), labels, jnp.asarray(where))
    sums = cross_entropy_sums(batch, batch)
    expected = reference.cross_entropy(logits[where], labels[where], np.ones(3))
    np.testing.assert_allclose(mean(sums), expected, rtol=1e-5)
    assert float(sums.terms) == 4
    assert float(sums.active) == np.sum(logits[where].argmax(1) != labels[where])


@pytest.mark.parametrize("tau", [0.0, 0.7, 1.0])
def test_logit_adjusted_is_the_loops_of_shifted_logits(tau):
    """Menon et al., equation 10; a class without examples counts as one, so nothing is infinite."""
    rng = np.random.default_rng(2)
    logits, labels = rng.normal(size=(9, 4)).astype(np.float32) * 5, rng.integers(0, 3, 9)
    counts = np.array([50, 3, 20, 0])
    batch = examples(jnp.asarray(logits), labels, jnp.ones(9, bool))
    sums = logit_adjusted_cross_entropy_sums(batch, batch, class_counts=counts, tau=tau)
    shifted = logits + tau * np.log(np.array([50, 3, 20, 1]) / 74)
    expected = reference.cross_entropy(shifted, labels, np.ones(4))
    np.testing.assert_allclose(mean(sums), expected, rtol=1e-5)
