"""The network of a model folder, at work: stored inputs to embeddings, as in the run itself."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deepknn_jax import models
from deepknn_jax.answers.model import Model
from deepknn_jax.answers.source import Source
from deepknn_jax.data.dataset import TRAIN, Dataset
from deepknn_jax.engine.inputs import Scale, input_functions, standardized
from deepknn_jax.engine.step import Recipe, embed, embed_views, embedding_recipe
from deepknn_jax.errors import UserError
from deepknn_jax.knn.sizes import filled_to
from deepknn_jax.models.network import Network

Embed = Callable[[np.ndarray], np.ndarray]  # stored inputs [n, ...] -> float32 [n, D]


class Form(NamedTuple):
    """How an example gets from its file to the network; the `inputs` of model.json.

    `kind`: images, volumes or feature vectors; `shape` of one stored example; the others are the
    run's options of these names, `size` 0 where images are not square; mean and std per channel, of
    feature vectors per feature. `features`: the length of the feature vectors that can be given in
    the place of images; 0: none can. `views` are symmetries of images, in all of which an image is
    embedded for the average; features [F] or [V, F] bring theirs, so that any V will do.
    """

    kind: str
    shape: tuple[int, ...]
    size: int = 0
    channels: int = 0
    resize_rule: str = "square"
    value_range: tuple[float, ...] = ()
    set_range: tuple[float, ...] = ()
    frame: str = ""
    crop: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    features: int = 0
    views: tuple[str, ...] = ()


def form_of(about: Mapping[str, Any]) -> Form:
    """The form that a model.json gives."""
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in about["inputs"].items()
    }
    return Form(**given)


def form_asked(model: Model | Source) -> Form:
    """The form of what the model can be asked: of images, where it knows what made its features."""
    own = form_of(model.about)
    if model.source is None:
        return own
    return form_asked(model.source)._replace(features=own.shape[-1])


def recipe_of(model: Model | Source, shape: tuple[int, ...] = ()) -> Recipe:
    """The model's network and what goes before it, to `engine.step.embed` with.

    Of feature vectors it takes those that are standardised already, an example of `shape`: [F] or
    [V, F], by default as the run's.
    """
    form, about = form_of(model.about), model.about
    backbone = models.build(
        about["backbone"],
        embedding_size=about["embedding_size"] or None,
        dtype=jnp.dtype(about["dtype"]),
    )
    network = Network(backbone, None, normalize=about["normalize"])
    is_features = form.kind == "feature vectors"
    functions = input_functions(
        _as_dataset(np.zeros((1, *(shape or form.shape)), np.float32 if is_features else np.uint8)),
        about["backbone"],
        crop=form.crop,
        flip=False,
        mean=() if is_features else form.mean,
        std=() if is_features else form.std,
        views=form.views,
    )
    return embedding_recipe(network, *functions, seed=0)


def embedder(model: Model | Source, function: Callable[..., Any] = embed) -> Embed:
    """The function that embeds examples by the model, a batch at a time, on one device.

    What is not of the form of its own inputs goes through its source first, if it has one, which
    gives each view by itself (`function` is engine.step.embed_views).
    """
    form, about = form_of(model.about), model.about
    to_features = None if model.source is None else embedder(model.source, embed_views)
    is_features = form.kind == "feature vectors"

    @functools.cache
    def mapped_for(shape: tuple[int, ...]) -> Callable[..., Any]:
        return jax.jit(functools.partial(function, recipe=recipe_of(model, shape)))

    params, stats = (model.variables.get(key, {}) for key in ("params", "batch_stats"))
    on_device = jax.device_put((params, stats))
    size, rows = int(about["batch"]), np.arange(int(about["batch"]), dtype=np.int32)

    def embed_all(inputs: np.ndarray) -> np.ndarray:
        if not fits(inputs.shape[1:], form) and to_features is not None:
            inputs = to_features(inputs)
        if not fits(inputs.shape[1:], form):
            raise UserError(f"examples of {_words(inputs.shape[1:])}, but the run was trained on "
                            f"{form.kind} of {_words(form.shape)}")  # fmt: skip
        if is_features:
            scale = Scale(np.asarray(form.mean, np.float64), np.asarray(form.std, np.float64))
            inputs = standardized(_as_dataset(inputs), scale).inputs
        if not len(inputs):
            return embed_all(np.ones((1, *inputs.shape[1:]), inputs.dtype))[:0]
        parts, mapped = [], mapped_for(inputs.shape[1:])
        for start in range(0, len(inputs), size):
            batch = inputs[start : start + size]
            filled = filled_to(batch, size)
            parts.append(np.asarray(mapped(*on_device, filled, rows)[0][: len(batch)], np.float32))
        return np.concatenate(parts)

    return embed_all


def fits(shape: tuple[int, ...], form: Form) -> bool:
    """Whether examples of this shape are those of the run, of features in any number of views."""
    if form.kind != "feature vectors":
        return shape == form.shape
    return shape[-1:] == form.shape[-1:] and len(shape) in (1, 2) and 0 not in shape


def _words(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _as_dataset(inputs: np.ndarray) -> Dataset:
    n = len(inputs)
    return Dataset(inputs, np.zeros(n, np.int32), (), (), np.full(n, TRAIN))
