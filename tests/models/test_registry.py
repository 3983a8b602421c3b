"""What holds for every backbone in the registry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepknn_jax import models
from deepknn_jax.errors import UserError

SHAPES = {
    "mlp": ((12, 30), 128),
    "linear": ((12, 30), 30),
    "cnn": ((12, 8, 8, 1), 64),
    "resnet18": ((12, 33, 33, 3), 512),
    "resnet34": ((12, 33, 33, 3), 512),
    "resnet101": ((12, 33, 33, 3), 2048),
    "resnet50": ((12, 33, 33, 3), 2048),
    "seresnet50": ((12, 33, 33, 3), 2048),
    "legacy_seresnet50": ((12, 33, 33, 3), 2048),
    "vgg19": ((12, 33, 33, 3), 512),
    "densenet121": ((12, 33, 33, 3), 1024),
    "efficientnet_lite0": ((12, 33, 33, 3), 1280),
    "inception_resnet_v2": ((12, 75, 75, 3), 1536),
    "mnist_cnn": ((12, 9, 9, 1), 128),
    "feed_forward": ((12, 30), 128),
    "epid_cnn": ((12, 33, 33, 1), 128),
    "sarcoma_cnn": ((12, 17, 17, 17, 1), 128),
}


# Of a backbone that is not listed, by what it takes.
INPUTS = {"images": (12, 33, 33, 3), "feature vectors": (12, 30), "volumes": (12, 17, 17, 17, 1)}


def shape_of(name):
    """The shape of a batch for the backbone, and its width where that is listed."""
    return SHAPES.get(name, (INPUTS[models.INPUTS.get(name, "images")], None))


@pytest.fixture(scope="module", params=["mlp", "cnn", "resnet18"])
def trained(request):
    """A backbone whose BatchNorm statistics are of data.

    Its name, compiled `apply`, variables, those before, inputs.
    """
    name = request.param
    model = models.build(name)
    x = jax.random.normal(jax.random.key(0), SHAPES[name][0])
    variables = jax.jit(model.init)(jax.random.key(1), x)
    step = jax.jit(lambda variables: model.apply(variables, x, train=True, mutable=["batch_stats"]))
    _, changed = step(variables)
    apply = jax.jit(model.apply)
    return name, apply, {"params": variables["params"], **changed}, variables, x


def test_embedding_shape_and_dtypes(trained):
    name, apply, variables, _, x = trained
    embeddings = apply(variables, x)
    assert embeddings.shape == (12, SHAPES[name][1])
    assert embeddings.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_training_moves_every_running_statistic(trained):
    _, _, after, before, _ = trained
    for new, old in zip(
        jax.tree.leaves(after["batch_stats"]), jax.tree.leaves(before["batch_stats"]), strict=True
    ):
        assert np.all(np.isfinite(new))
        assert not np.allclose(new, old)


def test_evaluation_of_an_image_does_not_depend_on_its_batch(trained):
    _, apply, variables, _, x = trained
    whole = apply(variables, x)
    scale = np.abs(whole).max()
    np.testing.assert_allclose(apply(variables, x[:5]), whole[:5], atol=1e-5 * scale, rtol=0)
    others = apply(variables, x.at[1:].multiply(100.0))
    np.testing.assert_allclose(others[0], whole[0], atol=1e-5 * scale, rtol=0)


def test_bfloat16_stays_near_float32(trained):
    name, apply, variables, _, x = trained
    half = jax.jit(models.build(name, dtype=jnp.bfloat16).apply)(variables, x)
    full = apply(variables, x)
    assert half.dtype == jnp.bfloat16
    error = np.abs(half.astype(jnp.float32) - full).max() / np.abs(full).max()
    assert 0 < error < 0.05


def test_batch_statistics_are_those_of_all_devices():
    """The axis of vmap stands for the devices: one batch in 3 parts equals the batch in one."""
    x = jax.random.normal(jax.random.key(0), (12, 9)) * jnp.arange(1, 13)[:, None]
    whole, parts = models.build("mlp"), models.build("mlp", bn_axis="devices")
    variables = parts.init(jax.random.key(1), x)

    def embed(model, x):
        return model.apply(variables, x, train=True, mutable=["batch_stats"])

    expected, statistics = embed(whole, x)
    embeddings, each = jax.vmap(lambda x: embed(parts, x), axis_name="devices")(x.reshape(3, 4, 9))
    np.testing.assert_allclose(embeddings.reshape(12, -1), expected, rtol=1e-4, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[2], b, rtol=1e-4), each, statistics)


@pytest.mark.parametrize("name", models.BACKBONES)
def test_the_width_is_the_one_that_is_told(name):
    shape, width = shape_of(name)
    model = models.build(name)
    embeddings, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones(shape))
    assert embeddings.shape == (12, width or embeddings.shape[1])


@pytest.mark.parametrize("name", models.BACKBONES)
def test_embedding_size_is_the_width(name):
    model = models.build(name, embedding_size=10)
    x = jnp.ones(shape_of(name)[0])
    embeddings, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    assert embeddings.shape == (12, 10)


def test_an_unknown_name_is_answered_with_the_near_ones():
    with pytest.raises(UserError, match=r"'resnet05'.*did you mean resnet50.*mlp"):
        models.build("resnet05")
    with pytest.raises(UserError, match=r"'zzz': choose from cnn, .*mlp, .*resnet18, .*resnet50"):
        models.build("zzz")
