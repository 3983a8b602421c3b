"""Published models of other libraries beside ours: random twins, and the two sides compared."""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from support.optional import require

LEAVES = {
    "weight": {"kernel", "scale"},
    "bias": {"bias"},
    "running_mean": {"mean"},
    "running_var": {"var"},
}


def shaken(model, seed):
    """The torch model with BatchNorm statistics and affine terms drawn away from 0 and 1."""
    torch = require("torch")
    torch.manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in (
                (layer.weight, 0.5, 1.5),
                (layer.bias, -0.5, 0.5),
                (layer.running_mean, -0.5, 0.5),
                (layer.running_var, 0.5, 2.0),
            ):
                torch.nn.init.uniform_(tensor, low, high)
    return model


def converted(tensors, like):
    """Named tensors of torch in the places of `like` (shapes), by the rule of names.

    A path joined with "_" is the torch key with "_" for ".", up to the leaf. Every leaf of `like`
    finds one tensor and every tensor one leaf, or it is an AssertionError.
    """
    arrays = {}
    for key, tensor in tensors.items():
        module, _, leaf = key.rpartition(".")
        if leaf != "num_batches_tracked":
            for name in LEAVES[leaf]:
                arrays[module.replace(".", "_"), name] = tensor.detach().numpy().copy()
    used = set()

    def find(path, leaf):
        names = [part.key for part in path][1:]
        module = "_".join(names[:-1])
        used.add(module)
        array = arrays[module, names[-1]]
        if array.ndim > 1:  # O I ... -> ... I O
            array = np.moveaxis(array, (0, 1), (-1, -2))
        assert array.shape == leaf.shape, (names, array.shape, leaf.shape)
        return array

    variables = jax.tree_util.tree_map_with_path(find, like)
    assert used == {module for module, _ in arrays}
    return variables


def shapes(model, size, channels=3):
    """The shapes of a flax model's variables for square images."""
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, channels)))


def count(variables):
    """Numbers in the parameters of variables, or of their shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def images(seed, size, batch=2, channels=3):
    """Normal noise [batch, size, size, channels], float32."""
    shape = (batch, size, size, channels)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def to_torch(x_bxhxwxc):
    return require("torch").from_numpy(x_bxhxwxc.transpose(0, 3, 1, 2).copy())


def embeddings_agree(model, theirs, sizes, *, tolerance=1e-4):
    """Evaluation-mode embeddings of both equal, within `tolerance` of the largest, at each size."""
    theirs = theirs.eval()
    variables = converted(theirs.state_dict(), shapes(model, max(sizes)))
    apply = jax.jit(model.apply)
    for size in sizes:
        x = images(size, size)
        with require("torch").no_grad():
            expected = theirs(to_torch(x)).numpy()
        embeddings = apply(variables, x)
        assert embeddings.shape == expected.shape
        assert embeddings.dtype == jnp.float32
        scale = np.abs(expected).max()
        assert scale > 0
        _record(size, np.abs(embeddings - expected).max() / scale)
        np.testing.assert_allclose(embeddings, expected, atol=tolerance * scale, rtol=0)


def _record(size, error):
    """Adds a line to the file DEEPKNN_EXACTNESS, where one is named: how docs/exactness.jsonl came.

    DEEPKNN_EXACTNESS=docs/exactness.jsonl pytest -m slow -k "equal and 224"
    """
    if path := os.environ.get("DEEPKNN_EXACTNESS"):
        test = os.environ["PYTEST_CURRENT_TEST"].split(" ")[0].removeprefix("tests/")
        torch = require("torch").__version__
        line = {"test": test, "pixels": size, "largest difference": f"{error:.2g}"}
        line |= {"jax": jax.__version__, "torch": torch}
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def gradients_agree(build, theirs, size, *, batch=3, tolerance=1e-8):
    """Training-mode gradients of a random sum of embeddings equal, in float64, and statistics.

    `build(dtype)` gives the flax model. In float32 the order of sums alone moves a deep network's
    gradients by 1e-2. torch's running variance is of the unbiased kind, linen's of the biased;
    both keep 0.9 of the old.
    """
    torch = require("torch")
    theirs = theirs.double().train()
    before = {key: tensor.clone() for key, tensor in theirs.state_dict().items()}
    counts = {}
    for name, layer in theirs.named_modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.register_forward_pre_hook(
                lambda _, inputs, name=name: counts.update({name: inputs[0][:, 0].numel()})
            )
    x = images(3, size, batch).astype(np.float64)
    out = theirs(to_torch(x))
    weights = np.random.default_rng(4).normal(size=tuple(out.shape))
    (out * torch.from_numpy(weights)).sum().backward()

    with jax.enable_x64(True):
        model = build(jnp.float64)
        like = shapes(model, size)
        start = converted(before, like)

        def objective(params):
            variables = start | {"params": params}
            y, changed = model.apply(variables, x, train=True, mutable=["batch_stats"])
            return jnp.sum(y * weights), changed

        gradients, changed = jax.jit(jax.grad(objective, has_aux=True))(start["params"])

    def close(ours, reference):
        # A bias that BatchNorm takes out again has gradient 0 and rounding: hence a least scale.
        np.testing.assert_allclose(
            ours, reference, atol=tolerance * max(np.abs(reference).max(), 1e-3), rtol=0
        )

    after = dict(theirs.state_dict())
    for layer, n in counts.items():
        key = f"{layer}.running_var"
        after[key] = 0.9 * before[key] + (after[key] - 0.9 * before[key]) * (n - 1) / n
    # Parameters' gradients and buffers have names of their own, so one tree holds both.
    after.update({key: value.grad for key, value in theirs.named_parameters()})
    expected = converted(after, like)
    jax.tree.map(close, gradients, expected["params"])
    if counts:
        jax.tree.map(close, changed["batch_stats"], expected["batch_stats"])
