"""ResNets against torchvision's own, and what holds for every ResNet here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import require
from interop import import_vision

from deepknn_jax import models
from deepknn_jax.models.resnet import ResNet

# torchvision's parameter counts, minus fc's (512 or 2048) * 1000 + 1000.
PARAMETERS = {"resnet18": 11_689_512 - 513_000, "resnet50": 25_557_032 - 2_049_000}


def twin(build, seed):
    """build() without fc, its BatchNorm statistics and affine drawn away from 0 and 1."""
    torch = require("torch")
    torch.manual_seed(seed)
    model = build()
    model.fc = torch.nn.Identity()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for tensor, low, high in (
                (layer.weight, 0.5, 1.5),
                (layer.bias, -0.5, 0.5),
                (layer.running_mean, -0.5, 0.5),
                (layer.running_var, 0.5, 2.0),
            ):
                torch.nn.init.uniform_(tensor, low, high)
    return model


def place(key):
    """Where a tensor of torch's belongs: key -> (collection, path in it)."""
    *modules, leaf = key.split(".")
    if modules[0].startswith("layer"):
        block, layer = "_".join(modules[:2]), "_".join(modules[2:])
        modules = [block, layer]
    if leaf.startswith("running"):
        return "batch_stats", (*modules, {"running_mean": "mean", "running_var": "var"}[leaf])
    is_norm = modules[-1].startswith("bn") or modules[-1] == "downsample_1"
    return "params", (*modules, {"bias": "bias", "weight": "scale" if is_norm else "kernel"}[leaf])


def converted(tensors):
    """Named tensors of torch as variables of ours; a convolution OIHW becomes HWIO."""
    variables = {}
    for key, tensor in tensors.items():
        if key.endswith("num_batches_tracked"):
            continue
        array = tensor.detach().numpy().copy()
        collection, path = place(key)
        node = variables.setdefault(collection, {})
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    return variables


def values_per_channel(model):
    """{BatchNorm layer: values it averages over}, filled while `model` runs."""
    counts = {}
    for name, layer in model.named_modules():
        if isinstance(layer, require("torch").nn.BatchNorm2d):
            layer.register_forward_pre_hook(
                lambda _, inputs, name=name: counts.update({name: inputs[0][:, 0].numel()})
            )
    return counts


def images(seed, size, batch=2):
    return np.random.default_rng(seed).normal(size=(batch, size, size, 3)).astype(np.float32)


def to_torch(x):
    return require("torch").from_numpy(x.transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count_is_torchvisions(name):
    variables = jax.eval_shape(
        models.build(name).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3))
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == PARAMETERS[name]


@pytest.mark.parametrize(("name", "width"), [("resnet18", 512), ("resnet50", 2048)])
def test_embeddings_equal_torchvisions(name, width):
    theirs = twin(getattr(import_vision("torchvision.models"), name), seed=1).eval()
    variables = converted(theirs.state_dict())
    apply = jax.jit(models.build(name).apply)
    for size in (64, 75):
        x = images(size, size)
        with require("torch").no_grad():
            expected = theirs(to_torch(x)).numpy()
        embeddings = apply(variables, x)
        assert embeddings.shape == (2, width)
        assert embeddings.dtype == jnp.float32
        np.testing.assert_allclose(embeddings, expected, atol=1e-4 * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_training_gradients_and_statistics_equal_torchvisions(bottleneck):
    """In float64: in float32 the order of sums alone moves a deep network's gradients by 1e-2."""
    torch, resnet = require("torch"), import_vision("torchvision.models.resnet")
    block = resnet.Bottleneck if bottleneck else resnet.BasicBlock
    theirs = twin(lambda: resnet.ResNet(block, [1, 2, 1, 1]), seed=2).double().train()
    before = {key: tensor.clone() for key, tensor in theirs.state_dict().items()}
    start = converted(before)
    counts = values_per_channel(theirs)
    x = images(3, 49, batch=3).astype(np.float64)
    weights = np.random.default_rng(4).normal(size=(3, 2048 if bottleneck else 512))
    (theirs(to_torch(x)) * torch.from_numpy(weights)).sum().backward()
    expected = converted({key: value.grad for key, value in theirs.named_parameters()})["params"]

    with jax.enable_x64(True):
        model = ResNet((1, 2, 1, 1), bottleneck, dtype=jnp.float64)

        def objective(params):
            variables = {"params": params, "batch_stats": start["batch_stats"]}
            y, changed = model.apply(variables, x, train=True, mutable=["batch_stats"])
            return jnp.sum(y * weights), changed["batch_stats"]

        gradients, statistics = jax.jit(jax.grad(objective, has_aux=True))(start["params"])

    def close(ours, reference):
        np.testing.assert_allclose(ours, reference, atol=1e-8 * np.abs(reference).max(), rtol=0)

    jax.tree.map(close, gradients, expected)
    # torch's running variance is of the unbiased kind, linen's of the biased; both keep 0.9.
    biased = theirs.state_dict()
    for layer, n in counts.items():
        key = f"{layer}.running_var"
        biased[key] = 0.9 * before[key] + (biased[key] - 0.9 * before[key]) * (n - 1) / n
    jax.tree.map(close, statistics, converted(biased)["batch_stats"])
