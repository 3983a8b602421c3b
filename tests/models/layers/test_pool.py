"""Max-pooling against torch's, and its two forms against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from support.optional import require

from deepknn_jax.models.layers.pool import max_pool

CASES = [(2, 2, 0, False), (3, 2, 1, False), (3, 2, 0, False), (3, 2, 0, True)]


@pytest.mark.interop
@pytest.mark.parametrize(("size", "stride", "pad", "ceil"), CASES)
@pytest.mark.parametrize("pixels", [8, 9])
def test_values_and_gradient_equal_torchs(size, stride, pad, ceil, pixels):
    """Ceil mode is a padding of one at the end."""
    torch = require("torch")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, pixels, pixels + 3, 5)).astype(np.float32)
    y, pull = jax.vjp(jax.jit(lambda x: max_pool(x, size, stride, (pad, pad or int(ceil)))), x)
    tensor = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    expected = torch.nn.functional.max_pool2d(tensor, size, stride, pad, ceil_mode=ceil)
    np.testing.assert_array_equal(y, expected.detach().numpy().transpose(0, 2, 3, 1))
    weights = rng.normal(size=y.shape).astype(np.float32)
    expected.backward(torch.from_numpy(weights.transpose(0, 3, 1, 2).copy()))
    gradient = tensor.grad.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(pull(weights)[0], gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 7, 3), (2, 6, 5, 3), (2, 4, 7, 5, 3)])
def test_vectors_images_and_volumes_are_pooled_as_by_linen(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    window = (2,) * (len(shape) - 2)
    np.testing.assert_array_equal(max_pool(x, 2, stride=2), nn.max_pool(x, window, window))


def test_nan_stays():
    x = jnp.zeros((1, 4, 4, 1)).at[0, 1, 2, 0].set(jnp.nan)
    assert np.isnan(max_pool(x, 2, 2)[0, 0, 1, 0])
    assert np.sum(np.isnan(max_pool(x, 2, 2))) == 1


def test_only_a_cpu_gets_maxima_of_slices():
    traced = jax.jit(lambda x: max_pool(x, 3, 2, (1, 1))).trace(jnp.ones((1, 8, 8, 3)))
    for platform, native in (("cpu", False), ("cuda", True)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("reduce_window" in text) == native


def test_gradient_is_of_each_device_under_shard_map():
    mesh = jax.make_mesh((4,), ("devices",), axis_types=(AxisType.Auto,))
    x = jax.random.normal(jax.random.key(0), (8, 9, 9, 3))

    def gradient(x):
        return jax.grad(lambda x: jnp.sum(max_pool(x, 3, 2, (1, 1)) ** 2))(x)

    mapped = jax.shard_map(gradient, mesh=mesh, in_specs=P("devices"), out_specs=P("devices"))
    np.testing.assert_allclose(jax.jit(mapped)(x), jax.jit(gradient)(x), rtol=1e-6)
