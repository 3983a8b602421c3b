"""The convolution against torch's, and its two forms against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import require
from jax import lax

from deepknn_jax.models.conv import Conv, convolve

CASES = [(1, 1, 0), (1, 2, 0), (1, 1, 1), (3, 1, 1), (3, 2, 1), (7, 2, 3)]


@pytest.mark.parametrize(("size", "stride", "pad"), CASES)
@pytest.mark.parametrize("pixels", [8, 9])
def test_equals_torch(size, stride, pad, pixels):
    torch = require("torch")
    rng = np.random.default_rng(size * 100 + stride)
    x = rng.normal(size=(2, pixels, pixels + 3, 5)).astype(np.float32)
    kernel = rng.normal(size=(size, size, 5, 4)).astype(np.float32)
    ours = Conv(4, size, stride=stride, padding=pad).apply({"params": {"kernel": kernel}}, x)
    theirs = torch.nn.functional.conv2d(
        torch.from_numpy(x.transpose(0, 3, 1, 2).copy()),
        torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()),
        stride=stride,
        padding=pad,
    )
    np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("pixels", [8, 9])
def test_gradients_of_1x1_equal_those_of_xlas_convolution(stride, pixels):
    keys = jax.random.split(jax.random.key(stride), 3)
    x = jax.random.normal(keys[0], (2, pixels, pixels + 3, 5))
    kernel = jax.random.normal(keys[1], (1, 1, 5, 4))

    def ours(x, kernel):
        return convolve(x, kernel, stride=stride, padding=((0, 0), (0, 0)))

    def native(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    expected, pull_native = jax.vjp(native, x, kernel)
    actual, pull = jax.vjp(jax.jit(ours), x, kernel)
    weights = jax.random.normal(keys[2], expected.shape)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        (actual, *pull(weights)),
        (expected, *pull_native(weights)),
    )


def test_only_the_cpu_has_the_product():
    """Lowered for a CPU there is no convolution left, for a GPU no product."""

    def lowered(platform):
        traced = jax.jit(lambda x, w: convolve(x, w, stride=1, padding=((0, 0), (0, 0)))).trace(
            jnp.ones((1, 4, 4, 3)), jnp.ones((1, 1, 3, 2))
        )
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert "dot_general" in lowered("cpu")
    assert "convolution" not in lowered("cpu")
    assert "stablehlo.convolution" in lowered("cuda")
    assert "dot_general" not in lowered("cuda")
