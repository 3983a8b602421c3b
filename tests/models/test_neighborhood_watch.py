"""The extractors of Neighborhood Watch against plain layers of torch."""

from collections import OrderedDict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from support.optional import require
from support.twins import converted, count

from deepknn_jax import models
from deepknn_jax.errors import UserError
from deepknn_jax.models.neighborhood_watch import Conv3D, Extractor

# Name, its input, and the parameters counted by hand: kernels + biases of each layer.
CASES = {
    "mnist_cnn": ((2, 28, 28, 1), 9 * 32 + 32 + 9 * 32 * 64 + 64 + 7 * 7 * 64 * 128 + 128),
    "feed_forward": ((2, 1536), 1536 * 1024 + 1024 + 1024 * 128 + 128),
    "epid_cnn": (
        (2, 48, 33, 1),
        25 * 32 + 32 + 3 * (25 * 32 * 32 + 32) + 3 * 2 * 32 * 1024 + 1024 + 1024 * 128 + 128,
    ),
    "sarcoma_cnn": (
        (2, 16, 35, 16, 1),
        27 * (16 + 16 * 32 + 32 * 64 + 64 * 128)
        + (16 + 32 + 64 + 128)
        + 2 * 128 * 1024
        + 1024
        + 1024 * 128
        + 128,
    ),
}


def twin(channels, kernel, dense, shape):
    """The network of torch's layers, activation before pooling, for inputs of `shape` [B, ..., C].

    Its first dense layer reads the maps in torch's order, C first.
    """
    torch = require("torch")
    torch.manual_seed(0)
    dims = len(shape) - 2
    layers, width = OrderedDict(), shape[-1]
    for i, features in enumerate(channels, 1):
        conv = (torch.nn.Conv2d, torch.nn.Conv3d)[dims - 2]
        pool = (torch.nn.MaxPool2d, torch.nn.MaxPool3d)[dims - 2]
        layers[f"conv{i}"] = conv(width, features, kernel, padding=kernel // 2)
        layers[f"relu{i}"] = torch.nn.LeakyReLU(0.01)
        layers[f"pool{i}"] = pool(2, 2)
        width = features
    layers["flat"] = torch.nn.Flatten()
    for n in shape[1:-1]:
        width *= n // 2 ** len(channels)
    for i, features in enumerate(dense, 1):
        layers[f"dense{i}"] = torch.nn.Linear(width, features)
        layers[f"dense_relu{i}"] = torch.nn.LeakyReLU(0.01)
        width = features
    return torch.nn.Sequential(layers)


def placed(tensors, like, maps):
    """`converted`, the first dense kernel's rows (C, ...) put in our order (..., C)."""
    variables = converted(tensors, like)
    kernel = variables["params"]["dense1"]["kernel"]
    if maps:
        rows = np.moveaxis(kernel.reshape(maps[-1], *maps[:-1], -1), 0, -2)
        variables["params"]["dense1"]["kernel"] = rows.reshape(kernel.shape)
    return variables


def agree(options, shape, tolerance, dtype=np.float64):
    """Embeddings and the gradients of a random sum of them equal torch's."""
    channels, _, dense = options
    torch = require("torch")
    theirs = twin(*options, shape).to(torch.from_numpy(np.zeros(1, dtype)).dtype)
    rng = np.random.default_rng(1)
    x, weights = rng.normal(size=shape).astype(dtype), rng.normal(size=(shape[0], dense[-1]))
    out = theirs(torch.from_numpy(np.moveaxis(x, -1, 1).copy()))
    (out * torch.from_numpy(weights)).sum().backward()
    maps = tuple(n // 2 ** len(channels) for n in shape[1:-1]) + channels[-1:]
    maps = maps if channels else ()
    with jax.enable_x64(dtype == np.float64):
        model = Extractor(*options, dtype=dtype)
        like = jax.eval_shape(model.init, jax.random.key(0), x)
        variables = placed(theirs.state_dict(), like, maps)

        def objective(variables):
            y = model.apply(variables, x, train=True)
            return jnp.sum(y * weights), y

        gradients, embeddings = jax.jit(jax.grad(objective, has_aux=True))(variables)
        still = jax.jit(model.apply)(variables, x)
    expected = placed({k: v.grad for k, v in theirs.named_parameters()}, like, maps)

    def close(ours, reference):
        np.testing.assert_allclose(ours, reference, atol=tolerance * abs(reference).max(), rtol=0)

    close(embeddings, out.detach().numpy())
    np.testing.assert_array_equal(still, embeddings)
    jax.tree.map(close, gradients, expected)


@pytest.mark.interop
@pytest.mark.parametrize(
    ("options", "shape"),
    [
        (((4, 6), 3, (8,)), (3, 9, 11, 2)),
        (((), 0, (7, 5)), (3, 6)),
        (((3, 4), 5, (8, 5)), (3, 12, 9, 1)),
        (((3, 4), 3, (8, 5)), (2, 9, 6, 11, 2)),
    ],
)
def test_embeddings_and_gradients_equal_torchs(options, shape):
    agree(options, shape, 1e-12)


@pytest.mark.parametrize("name", CASES)
def test_networks_have_the_papers_widths(name):
    """The parameters are counted by hand."""
    shape, parameters = CASES[name]
    variables = jax.eval_shape(models.build(name).init, jax.random.key(0), jnp.zeros(shape))
    assert count(variables) == parameters
    assert set(variables) == {"params"}


@pytest.mark.interop
@pytest.mark.parametrize("name", CASES)
def test_networks_have_the_papers_layers(name):
    """In the order of the twin's."""
    model, shape = models.build(name), CASES[name][0]
    agree((model.channels, model.kernel, model.dense), shape, 1e-4, np.float32)


def test_the_last_layer_is_leaky_and_a_projection_is_not():
    x = jax.random.normal(jax.random.key(0), (50, 20))
    plain = models.build("feed_forward")
    variables = plain.init(jax.random.key(1), x)
    embeddings = plain.apply(variables, x)
    assert embeddings.min() < 0 < embeddings.max()
    assert -embeddings.min() < 0.05 * embeddings.max()
    projected = models.build("feed_forward", embedding_size=6)
    with_projection = projected.init(jax.random.key(1), x)["params"]
    projection = with_projection.pop("projection")
    assert jax.tree.structure(with_projection) == jax.tree.structure(variables["params"])
    params = variables["params"] | {"projection": projection}
    np.testing.assert_allclose(
        projected.apply({"params": params}, x),
        embeddings @ projection["kernel"],
        rtol=1e-5,
        atol=1e-5,
    )


def test_kernels_start_he_normal():
    variables = jax.jit(models.build("epid_cnn").init)(jax.random.key(1), jnp.zeros((1, 16, 16, 1)))
    for name, fan_in in (("conv1", 25), ("conv4", 25 * 32), ("dense1", 32), ("dense2", 1024)):
        kernel = variables["params"][name]["kernel"]
        np.testing.assert_allclose(kernel.std(), np.sqrt(2 / fan_in), rtol=0.1)


def test_images_that_pooling_leaves_nothing_of_are_refused():
    init = partial(jax.eval_shape, models.build("epid_cnn").init, jax.random.key(0))
    with pytest.raises(UserError, match=r"4 poolings.*15 x 20: .*16 pixels.* set `size`"):
        init(jnp.zeros((1, 15, 20, 1)))
    init(jnp.zeros((1, 16, 16, 1)))


def test_3d_convolution_is_linens_in_bfloat16_too():
    x = jax.random.normal(jax.random.key(0), (2, 5, 6, 7, 3))
    ours, linens = Conv3D(4, 3), nn.Conv(4, (3, 3, 3), padding=1)
    variables = ours.init(jax.random.key(1), x)
    expected = linens.apply(variables, x)
    np.testing.assert_allclose(ours.apply(variables, x), expected, rtol=1e-5, atol=1e-5)
    half = Conv3D(4, 3, jnp.bfloat16).apply(variables, x)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), expected, atol=0.05)
