"""Winograd's filtering against torch's convolution and XLA's, with their gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from support.optional import require

from deepknn_jax.models.layers import winograd as module
from deepknn_jax.models.layers.winograd import winograd

ONE = ((1, 1), (1, 1))


def native(x, kernel, padding):
    return lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def arrays(batch, height, width, padding, dtype=np.float32, channels=(5, 7)):
    """x, a kernel and a cotangent of the output."""
    rng = np.random.default_rng(height * 100 + width)
    inputs, outputs = channels
    (top, bottom), (left, right) = padding
    shape = (batch, height + top + bottom - 2, width + left + right - 2, outputs)
    return tuple(
        jnp.asarray(rng.normal(size=s), dtype)
        for s in ((batch, height, width, inputs), (3, 3, inputs, outputs), shape)
    )


@partial(jax.jit, static_argnums=(0, 4))
def with_gradients(convolution, x, kernel, dy, padding):
    y, pull = jax.vjp(lambda x, kernel: convolution(x, kernel, padding), x, kernel)
    return y, *pull(dy)


@partial(jax.jit, static_argnums=3)
def both_forms(x, kernel, dy, padding):
    """Winograd's and XLA's, in one program."""
    return [with_gradients(form, x, kernel, dy, padding) for form in (winograd, native)]


def agree(actual, expected, tolerance):
    """Largest difference against the largest value."""
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        assert np.max(np.abs(a - e), initial=0) <= tolerance * np.max(np.abs(e), initial=1e-30)


@pytest.mark.parametrize("padding", [ONE, ((0, 0), (0, 0)), ((0, 1), (2, 0)), ((3, 2), (1, 3))])
@pytest.mark.parametrize(("batch", "height", "width"), [(2, 6, 9), (1, 7, 4), (3, 3, 5)])
def test_equals_xlas_convolution_in_float64(batch, height, width, padding):
    with jax.enable_x64(True):
        given = arrays(batch, height, width, padding, np.float64)
        agree(*both_forms(*given, padding), 1e-13)


@pytest.mark.interop
@pytest.mark.parametrize("pixels", [13, 14])
def test_equals_torch_at_a_networks_size(pixels):
    """Rounding errors grow with the channels: 256 are among the most that a backbone has."""
    torch = require("torch")
    x, kernel, dy = arrays(2, pixels, pixels, ONE, channels=(256, 128))
    tensors = [
        torch.from_numpy(np.array(array.transpose(order))).requires_grad_()
        for array, order in ((x, (0, 3, 1, 2)), (kernel, (3, 2, 0, 1)))
    ]
    theirs = torch.nn.functional.conv2d(*tensors, padding=1)
    theirs.backward(torch.from_numpy(np.array(dy.transpose(0, 3, 1, 2))))
    expected = (
        theirs.detach().numpy().transpose(0, 2, 3, 1),
        tensors[0].grad.numpy().transpose(0, 2, 3, 1),
        tensors[1].grad.numpy().transpose(2, 3, 1, 0),
    )
    agree(with_gradients(winograd, x, kernel, dy, ONE), expected, 1e-5)


def test_images_taken_singly_give_the_same(monkeypatch):
    given = arrays(3, 6, 7, ONE)
    together = with_gradients(winograd, *given, ONE)
    monkeypatch.setattr(module, "_MOST", 0)
    with_gradients.clear_cache()
    traced = with_gradients.trace(winograd, *given, ONE)
    assert str(traced.jaxpr).count("scan[") == 3  # forward, for x, for the kernel
    agree(with_gradients(winograd, *given, ONE), together, 1e-6)


def test_bfloat16_is_summed_in_float32():
    x, kernel, dy = arrays(2, 9, 9, ONE, channels=(64, 32))
    halves = [array.astype(jnp.bfloat16) for array in (x, kernel, dy)]
    exact = with_gradients(native, *[array.astype(jnp.float32) for array in halves], ONE)
    actual = with_gradients(winograd, *halves, ONE)
    assert all(array.dtype == jnp.bfloat16 for array in actual)
    # The last rounding, half a unit in the eighth bit, is all that differs.
    agree([array.astype(jnp.float32) for array in actual], exact, 2**-8)


def test_maps_over_kernels_and_images():
    x, kernel, _ = arrays(2, 5, 6, ONE)
    images, kernels = jnp.stack([x, -x, x + 1]), jnp.stack([kernel, kernel + 1, 2 * kernel])

    def gradient(x, kernel):
        return jax.grad(lambda x, w: jnp.sum(winograd(x, w, ONE) ** 2), argnums=(0, 1))(x, kernel)

    mapped, single = jax.jit(jax.vmap(gradient))(images, kernels), jax.jit(gradient)
    for i in range(3):
        agree([array[i] for array in mapped], single(images[i], kernels[i]), 1e-5)
