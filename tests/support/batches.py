"""Asymmetric batches and small data sets; a recipe to train them by."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from deepknn_jax.data.dataset import Dataset
from deepknn_jax.engine.step import Recipe
from deepknn_jax.losses import base, cross_entropy, nca, triplet
from deepknn_jax.losses.local_margin import TermWeights
from deepknn_jax.models.mlp import MLP
from deepknn_jax.models.network import Network

ALL = TermWeights(lm=3.0, ms=0.7, md=0.4, ss=0.3, sd=0.2)

BATCH, CLASSES = 32, 3


LOSSES = {
    "deep_knn": functools.partial(triplet.deep_knn_sums, k=3, m=4, margin=1.0),
    "triplet": functools.partial(triplet.batch_hard_triplet_sums, margin=1.0),
    "nca": functools.partial(nca.nca_sums, temperature=2.0, log=True),
    "weighted_cross_entropy": base.with_class_weights(
        cross_entropy.cross_entropy_sums, np.array([0.2, 1.0, 5.0], np.float32)
    ),
}


def make_recipe(loss, axis, dtype=jnp.float32):
    return Recipe(
        network=Network(MLP(embedding_size=8, dtype=dtype, bn_axis=axis), CLASSES),
        optimizer=optax.sgd(0.05, momentum=0.9),
        loss=LOSSES[loss],
        augment=lambda x, ids, key: x,
        prepare=lambda x: x,
        seed=0,
    )


def assert_close(found, expected, rtol):
    """Every array to `rtol` of its largest entry.

    Some gradients are 0 but for rounding (the last bias: a shift changes no distance), hence the
    floor, from the largest entry of all.
    """
    floor = 1e-3 * max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    for (path, a), b in zip(
        jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True
    ):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        worst = np.abs(a - b).max() / max(np.abs(b).max(), floor)
        assert worst <= rtol, f"{jax.tree_util.keystr(path)}: {worst}"


def batch(n=24, d=6, classes=3, *, seed=0, offset=0.0):
    """Asymmetric data: unequal scales of the axes, unequal classes."""
    rng = np.random.default_rng(seed)
    x = offset + rng.normal(size=(n, d)) * rng.uniform(0.2, 2, d)
    labels = np.minimum(rng.geometric(0.5, n) - 1, classes - 1)
    return x.astype(np.float32), labels.astype(np.int32)


def images(n=2500, shape=(9, 8, 3)):
    """Three quarters train; the classes have 4 : 2 : 1 of the examples."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, n, p=[4 / 7, 2 / 7, 1 / 7]).astype(np.int32)
    inputs = rng.integers(0, 256, (n, *shape), np.uint8)
    inputs[..., -1] //= 2
    splits = np.where(np.arange(n) % 4 == 3, "test", "train")
    names = tuple(map(str, range(n)))
    return Dataset(inputs, labels, names, ("a", "b", "c"), splits)
