"""The linear map: what it computes, where it starts, and what NCA makes of it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deepknn_jax import models
from deepknn_jax.knn.neighbors import nearest_neighbors
from deepknn_jax.losses.nca import nca_loss
from deepknn_jax.models.linear import LinearMap


def start(width, shape=(9, 7), **options):
    x = jax.random.normal(jax.random.key(0), shape)
    model = LinearMap(embedding_size=width, **options)
    return model, model.init(jax.random.key(1), x), x


def squared_distances(x):
    return np.sum((x[:, None] - x[None]) ** 2, axis=2)


@pytest.mark.parametrize("shape", [(9, 7), (5, 2, 3, 1)])
def test_it_starts_at_the_identity(shape):
    model, variables, x = start(None, shape)
    assert jax.tree.map(jnp.shape, variables) == {
        "params": {"Dense_0": {"kernel": (x[0].size, x[0].size)}}
    }
    np.testing.assert_array_equal(model.apply(variables, x), x.reshape(shape[0], -1))


def test_a_wider_start_keeps_all_distances():
    model, variables, x = start(12)
    found = squared_distances(np.asarray(model.apply(variables, x)))
    np.testing.assert_allclose(found, squared_distances(np.asarray(x)), rtol=1e-4, atol=1e-5)


def test_a_narrower_start_is_a_projection():
    """Onto D directions at right angles, each of length 1, drawn by the key."""
    model, variables, x = start(3)
    kernel = variables["params"]["Dense_0"]["kernel"]
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(3), atol=1e-6)
    other = model.init(jax.random.key(2), x)["params"]["Dense_0"]["kernel"]
    assert not np.allclose(kernel, other)


def test_another_start_can_be_chosen():
    model, variables, x = start(4, kernel_init=jax.nn.initializers.constant(2.0))
    expected = np.repeat(2 * np.sum(x, axis=1, keepdims=True), 4, axis=1)
    np.testing.assert_allclose(model.apply(variables, x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("train", [False, True])
def test_it_is_the_product_with_its_kernel(train):
    model, variables, x = start(4)
    kernel = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    variables = {"params": {"Dense_0": {"kernel": kernel}}}
    np.testing.assert_allclose(model.apply(variables, x, train), x @ kernel, rtol=1e-4, atol=1e-5)
    half = LinearMap(embedding_size=4, dtype=jnp.bfloat16).apply(variables, x, train)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), x @ kernel, atol=0.1)


def test_nca_shrinks_the_axis_that_says_nothing():
    """Through the registry: one useful axis beside one of much noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(40, dtype=np.int32) % 2
    x = np.stack([labels + 0.3 * rng.normal(size=40), 20 * rng.normal(size=40)], axis=1)
    x = x.astype(np.float32)
    model, optimizer = models.build("linear"), optax.adam(0.05)
    params = model.init(jax.random.key(0), x)

    @jax.jit
    def step(params, state):
        gradient = jax.grad(lambda p: nca_loss(model.apply(p, x, True), labels, log=True))(params)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(100):
        params, state = step(params, state)
    kernel = params["params"]["Dense_0"]["kernel"]

    def wrong(embeddings):
        ids = np.arange(40)
        _, nearest = nearest_neighbors(embeddings, embeddings, k=1, query_ids=ids, gallery_ids=ids)
        return np.sum(labels[nearest[:, 0]] != labels)

    assert wrong(x) >= 10
    assert wrong(x @ kernel) <= 5
    assert np.linalg.norm(kernel[0]) > 5 * np.linalg.norm(kernel[1])
