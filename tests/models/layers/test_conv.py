"""The convolution against torch's, and its two forms against each other."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from support.optional import require

from deepknn_jax.models.layers.conv import Conv, convolve

CASES = [(1, 1, 0), (1, 2, 0), (1, 1, 1), (3, 1, 1), (3, 2, 1), (3, 3, 0), (7, 2, 3)]


ONE = ((1, 1), (1, 1))


def with_gradients(function, arguments, weights):
    """The output and the gradients of its sum by `weights`, for each argument; to be compiled."""
    y, pull = jax.vjp(function, *arguments)
    return y, *pull(weights)


@pytest.mark.interop
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


@pytest.mark.interop
@pytest.mark.parametrize(
    ("size", "stride", "pad", "groups"),
    [
        ((1, 7), 1, ((0, 0), (3, 3)), 1),
        ((7, 1), 1, ((3, 3), (0, 0)), 1),
        ((3, 3), 2, ((0, 1), (0, 1)), 1),
        ((3, 3), 1, ((1, 1), (1, 1)), 6),
        ((5, 5), 2, ((1, 2), (2, 2)), 6),
        ((3, 3), 2, ((0, 0), (0, 0)), 2),
        ((3, 3), 1, ((1, 1), (1, 1)), 12),
        ((3, 3), 2, ((0, 1), (0, 1)), 12),
        ((5, 5), 1, ((2, 2), (2, 2)), 12),
        ((5, 5), 2, ((1, 2), (2, 2)), 12),
    ],
)
@pytest.mark.parametrize("pixels", [9, 14])
def test_other_kernels_pads_and_groups_equal_torch(size, stride, pad, groups, pixels):
    torch = require("torch")
    rng = np.random.default_rng(stride)
    channels = max(groups, 6)
    x = rng.normal(size=(2, pixels, pixels + 3, channels)).astype(np.float32)
    kernel = rng.normal(size=(*size, channels // groups, 12)).astype(np.float32)
    bias = rng.normal(size=12).astype(np.float32)
    model = Conv(12, size, stride=stride, padding=pad, groups=groups, use_bias=True)

    def ours(kernel, bias, x):
        return model.apply({"params": {"kernel": kernel, "bias": bias}}, x)

    tensors = [
        torch.from_numpy(array.copy()).requires_grad_()
        for array in (kernel.transpose(3, 2, 0, 1), bias, x.transpose(0, 3, 1, 2))
    ]
    (top, bottom), (left, right) = pad
    padded = torch.nn.functional.pad(tensors[2], (left, right, top, bottom))
    theirs = torch.nn.functional.conv2d(padded, *tensors[:2], stride=stride, groups=groups)
    expected = theirs.detach().numpy().transpose(0, 2, 3, 1)
    weights = rng.normal(size=expected.shape).astype(np.float32)
    found, *gradients = jax.jit(functools.partial(with_gradients, ours))((kernel, bias, x), weights)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    theirs.backward(torch.from_numpy(weights.transpose(0, 3, 1, 2).copy()))
    dk, db, dx = (tensor.grad.numpy() for tensor in tensors)
    for mine, reference in zip(
        gradients, (dk.transpose(2, 3, 1, 0), db, dx.transpose(0, 2, 3, 1)), strict=True
    ):
        np.testing.assert_allclose(mine, reference, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("size", "stride", "pad"), CASES)
@pytest.mark.parametrize("pixels", [3, 8, 9])
def test_gradients_equal_those_of_xlas_convolution(size, stride, pad, pixels):
    """3 pixels: a small map, a product of patches; 8 and 9: an even and an odd size."""
    keys = jax.random.split(jax.random.key(stride), 3)
    x = jax.random.normal(keys[0], (2, pixels, pixels + 3, 5))
    kernel = jax.random.normal(keys[1], (size, size, 5, 4))

    def ours(x, kernel):
        return convolve(x, kernel, stride, ((pad, pad), (pad, pad)))

    def native(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(pad, pad)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    weights = jax.random.normal(keys[2], jax.eval_shape(native, x, kernel).shape)
    both = jax.jit(lambda *given: [with_gradients(form, *given) for form in (ours, native)])
    for actual, expected in zip(*both((x, kernel), weights), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def lowered(platform, size, channels=3, groups=1):
    x = jnp.ones((1, 8, 8, channels))
    kernel = jnp.ones((size, size, channels // groups, channels))

    def gradient(x, kernel):
        pad = (size // 2,) * 2
        return jnp.sum(convolve(x, kernel, 1, (pad, pad), groups) ** 2)

    traced = jax.jit(jax.grad(gradient, argnums=(0, 1))).trace(x, kernel)
    return traced.lower(lowering_platforms=(platform,)).as_text()


def test_only_a_cpu_gets_products():
    assert "convolution" in lowered("cpu", size=3)
    forms = {"size": 1}, {"size": 3, "channels": 32}, {"size": 5, "channels": 6, "groups": 6}
    for form in forms:
        assert "convolution" not in lowered("cpu", **form)
    for form in ({"size": 3}, *forms):
        assert "convolution" in lowered("cuda", **form)
        assert "dot_general" not in lowered("cuda", **form)


def test_kernel_gradient_is_in_the_order_that_is_fast_in_a_loop():
    """On a CPU every convolution, also of the gradients, reads NHWC and HWIO (jax issue 12868)."""

    def gradient(x, kernel):
        return jax.grad(lambda x, w: jnp.sum(convolve(x, w, 2, ONE) ** 2), argnums=(0, 1))(
            x, kernel
        )

    compiled = jax.jit(gradient).lower(jnp.ones((2, 16, 16, 3)), jnp.ones((3, 3, 3, 4))).as_text()
    orders = re.findall(r"dim_numbers = (\[[^>]*->\[[^]]*\])", compiled)
    assert orders == ["[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"] * 3


def test_initial_kernel_is_kaiming_fan_out():
    variables = Conv(512, 3).init(jax.random.key(0), jnp.ones((1, 4, 4, 128)))
    kernel = variables["params"]["kernel"]
    np.testing.assert_allclose(jnp.std(kernel), np.sqrt(2 / (9 * 512)), rtol=0.01)
    assert abs(jnp.mean(kernel)) < 1e-3


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize(
    ("pixels", "channels", "stride", "groups"),
    [(4, 3, 2, 1), (12, 3, 2, 1), (10, 32, 1, 1), (10, 4, 2, 4)],
)
def test_gradient_is_summed_over_devices_under_shard_map(
    pixels, channels, stride, groups, check_vma
):
    """A small map's product, XLA's convolution, Winograd's, a depthwise one."""
    mesh = jax.make_mesh((4,), ("devices",), axis_types=(AxisType.Auto,))
    x = jax.random.normal(jax.random.key(0), (8, pixels, pixels, channels))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, channels // groups, channels))

    def objective(kernel, x):
        return jnp.sum(convolve(x, kernel, stride, ONE, groups) ** 2)

    def of_all(kernel, x):
        if check_vma:
            return jax.grad(lambda kernel: lax.psum(objective(kernel, x), "devices"))(kernel)
        return lax.psum(jax.grad(objective)(kernel, x), "devices")

    specs = {"in_specs": (P(), P("devices")), "out_specs": P()}
    mapped = jax.shard_map(of_all, mesh=mesh, check_vma=check_vma, **specs)
    expected = jax.jit(jax.grad(objective))(kernel, x)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(jax.jit(mapped)(kernel, x), expected, rtol=0, atol=1e-5 * scale)
