"""The head and the normalisation around a backbone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepknn_jax import models
from deepknn_jax.models.network import Network, l2_normalize


def network_and_inputs(**options):
    network = Network(models.build("mlp", embedding_size=6), **options)
    x = jax.random.normal(jax.random.key(0), (5, 7))
    return network, network.init(jax.random.key(1), x), x


def test_without_classes_there_is_no_head():
    network, variables, x = network_and_inputs(num_classes=None)
    embeddings, logits = network.apply(variables, x)
    assert logits is None
    assert set(variables["params"]) == {"backbone"}
    backbone = {name: tree["backbone"] for name, tree in variables.items()}
    np.testing.assert_array_equal(embeddings, network.backbone.apply(backbone, x))


@pytest.mark.parametrize("normalize", [False, True])
def test_head_is_linear_in_the_embedding_before_normalisation(normalize):
    network, variables, x = network_and_inputs(num_classes=3, normalize=normalize)
    embeddings, logits = network.apply(variables, x)
    plain = network.clone(normalize=False).apply(variables, x)[0]
    head = variables["params"]["head"]
    np.testing.assert_allclose(
        logits, plain @ head["kernel"] + head["bias"][None], rtol=1e-5, atol=1e-6
    )
    expected = plain / jnp.linalg.norm(plain, axis=1, keepdims=True) if normalize else plain
    np.testing.assert_allclose(embeddings, expected, rtol=1e-6)


def test_bfloat16_embeddings_leave_as_bfloat16_and_logits_as_float32():
    backbone = models.build("mlp", dtype=jnp.bfloat16)
    x = jnp.ones((2, 7))
    network = Network(backbone, num_classes=3, normalize=True)
    variables = network.init(jax.random.key(0), x)
    embeddings, logits = network.apply(variables, x)
    assert (embeddings.dtype, logits.dtype) == (jnp.bfloat16, jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_normalising_zero_gives_zero_and_a_finite_gradient():
    x = jnp.array([[0.0, 0.0], [3.0, -4.0], [1e-30, 0.0]])
    np.testing.assert_allclose(l2_normalize(x)[:2], [[0, 0], [0.6, -0.8]], rtol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(l2_normalize(x) * jnp.array([[1.0, 2.0]])))(x)
    # d(u.w)/dx = (w - (u.w) u) / |x| with u = (0.6, -0.8), w = (1, 2)
    np.testing.assert_allclose(gradient, [[1, 2], [0.32, 0.24], [1, 2]], rtol=1e-6)
