"""Anchors weighted by their class: each loss as if its anchors stood there several times."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.batches import ALL, batch

from deepknn_jax.knn.neighbors import Examples
from deepknn_jax.losses import cross_entropy, lmnn, local_margin, nca, soft_deep_knn, triplet
from deepknn_jax.losses.base import class_weights, mean, with_class_weights

pytestmark = pytest.mark.usefixtures("strict_dtypes")

COUNTS = np.array([40, 9, 4])
WEIGHTS = np.array([1, 3, 2])  # of the three classes: whole, so that an anchor can be repeated
RNG = np.random.default_rng(3)
LISTED = np.where(RNG.random((24, 2)) < 0.8, RNG.integers(0, 24, (24, 2)), -1).astype(np.int32)
OTHERS = RNG.integers(0, 24, (24, 3)).astype(np.int32)
WATCH = {"weights": ALL, "reduction": "mean", "squared": False}
PUSHED, KTH = RNG.random(24) < 0.7, RNG.gamma(2, 0.2, 24)
SOFT = {"temperature": 0.5, "margin": 0.3}

# name -> (the loss, what is mined for the anchors)
LOSSES = {
    "deep kNN": (functools.partial(triplet.deep_knn_sums, k=2, m=3, margin=1.0), {}),
    "soft": (functools.partial(soft_deep_knn.soft_deep_knn_sums, k=2, m=0, **SOFT), {}),
    "soft, listed": (
        functools.partial(soft_deep_knn.listed_soft_deep_knn_sums, each_positive=True, **SOFT),
        {"positives": LISTED, "negatives": OTHERS},
    ),
    "log nca": (functools.partial(nca.nca_sums, log=True), {}),
    "lmnn": (functools.partial(lmnn.lmnn_anchor_sums, mu=0.3, margin=2.0), {"targets": LISTED}),
    "logit-adjusted": (
        functools.partial(
            cross_entropy.logit_adjusted_cross_entropy_sums, class_counts=COUNTS, tau=0.7
        ),
        {},
    ),
    "local margin": (
        functools.partial(local_margin.local_margin_sums, c_b=3.0, eps=0.1, **WATCH),
        {
            "positives": LISTED, "negatives": OTHERS, "outside": PUSHED, "pushed": PUSHED,
            "kth_positive": KTH,
        },
    ),
    "max margin": (
        functools.partial(
            local_margin.max_margin_hard_sums, margin=1.0, hard_positives=True, **WATCH
        ),
        {},
    ),
}  # fmt: skip


def embedded(x, logits, labels, where):
    return Examples(x, labels, jnp.arange(24, dtype=np.int32), where, logits)


@pytest.mark.parametrize("name", LOSSES)
def test_a_weight_is_as_many_anchors(name):
    """Value and gradient by embeddings and logits; one anchor is removed, one is alone."""
    loss, mined = LOSSES[name]
    x, labels = batch()
    where = np.arange(24) != 7
    with jax.enable_x64(True):
        labels = labels.astype(np.int64)  # as argmax is there
        x, logits = x.astype(np.float64), np.random.default_rng(1).normal(size=(24, 3))
        mined = {key: np.float64(v) if v.dtype == float else v for key, v in mined.items()}
        several = np.repeat(np.arange(24), WEIGHTS[labels])

        def weighted(x, logits):
            batch = embedded(x, logits, labels, where)
            sums = with_class_weights(loss, np.float64(WEIGHTS))(batch, batch, **mined)
            return mean(sums), sums

        def repeated(x, logits):
            gallery = embedded(x, logits, labels, where)
            anchors = jax.tree.map(lambda of: of[several], gallery)
            return mean(loss(anchors, gallery, **{k: v[several] for k, v in mined.items()}))

        def alike(x, logits):
            everyone = embedded(x, logits, labels, where)
            return loss(everyone, everyone, **mined)

        both = {"argnums": (0, 1)}
        ((value, sums), slopes), (expected, expected_slopes), untouched = jax.jit(
            lambda *given: (
                jax.value_and_grad(weighted, has_aux=True, **both)(*given),
                jax.value_and_grad(repeated, **both)(*given),
                alike(*given),
            )
        )(x, logits)
        unweighted = float(mean(untouched))
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    for found, slope in zip(slopes, expected_slopes, strict=True):
        np.testing.assert_allclose(found, slope, rtol=1e-9, atol=1e-12)
    assert max(np.abs(slope).max() for slope in slopes) > 1e-3
    assert abs(unweighted - float(value)) > 1e-6
    for told in ("terms", "active"):  # they are not weighted
        assert float(getattr(sums, told)) == float(getattr(untouched, told))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_class_weights_are_1_on_average_over_the_examples(power):
    counts = np.array([50, 3, 0, 20])
    weights = np.asarray(class_weights(counts, power))
    expected = np.where(counts > 0, np.maximum(counts, 1) ** -power, 0.0)
    expected *= 73 / np.sum(expected * counts)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert weights @ counts == pytest.approx(73)
    if power == 1:
        np.testing.assert_allclose(weights[[0, 1, 3]] * counts[[0, 1, 3]], 73 / 3, rtol=1e-6)
