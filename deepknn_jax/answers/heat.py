"""Where in an image the squared distance to its nearest neighbour comes from, exactly.

A network that ends in the mean over positions, and a linear layer if any, makes of the map f of P
positions the embedding e = s (1/P sum_i W f_i + b), where s is 1, or one over the length if
embeddings have length 1. With the neighbour's embedding e' and their difference D = e - e'

    |e - e'|^2 = 1/P sum_i < s (W f_i + b) - e', D >,

so each position has its own term, and the terms add up to the squared distance: nothing is left
over, and no gradient is taken. s is one number for the whole image. A term is below 0 where the
position alone would bring the two nearer.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from PIL import Image

from deepknn_jax.answers.judge import p_of
from deepknn_jax.answers.model import Model
from deepknn_jax.answers.network import Form, form_of, recipe_of
from deepknn_jax.answers.thumbnails import encode
from deepknn_jax.knn.sizes import filled_to
from deepknn_jax.models.layers.pool import MAP

_TOLERANCE = 1e-3  # relative: by more the network does not end as is assumed here
_MOST = 32  # images whose maps are made at a time
_RED, _BLUE = (214, 39, 40), (31, 80, 200)

Split = Callable[[np.ndarray, np.ndarray], "np.ndarray | None"]


class Tail(NamedTuple):
    """What comes after the mean over positions: z = `kernel`^T mean + `bias`, then its length."""

    kernel: np.ndarray
    bias: np.ndarray
    normalized: bool


def split_distance(maps_hxwxC: np.ndarray, tail: Tail, neighbor_D: np.ndarray) -> np.ndarray:
    """The terms float64 [h, w] of one image, whose sum is the squared distance to the neighbour."""
    values = np.asarray(maps_hxwxC, np.float64) @ tail.kernel + tail.bias
    whole = values.mean(axis=(0, 1))
    length = float(np.linalg.norm(whole))
    scale = 1 / length if tail.normalized and length > 1e-12 else 1.0
    difference = scale * whole - neighbor_D
    terms: np.ndarray = (scale * values - neighbor_D) @ difference
    return terms / terms.size


def splitter(model: Model) -> Split | None:
    """The function (inputs [n, ...], embeddings [n, D] of a neighbour of each) -> terms [n, h, w].

    It gives None where the network turns out not to end in a mean and a linear layer. There is no
    such function for other norms than the Euclidean, nor for what is no image.
    """
    if p_of(model) != 2 or form_of(model.about).kind != "images":
        return None
    recipe = recipe_of(model)
    variables: dict[str, Any] = dict(model.variables)

    @jax.jit
    def mapped(variables: Any, inputs: Array) -> Any:
        (embeddings, _), state = recipe.network.apply(
            variables, recipe.prepare(inputs), train=False, mutable=["intermediates"]
        )
        return embeddings, state.get("intermediates", {}).get("backbone", {}).get(MAP, ())

    def split(inputs: np.ndarray, neighbors_nxD: np.ndarray) -> np.ndarray | None:
        found = []
        for start in range(0, len(inputs), _MOST):
            batch = inputs[start : start + _MOST]
            filled = filled_to(batch, _MOST)
            embeddings, maps = mapped(variables, filled)
            if len(maps) != 1:
                return None
            kept = np.asarray(maps[0], np.float64)[: len(batch)]
            tail = _tail(model, kept, np.asarray(embeddings, np.float64)[: len(batch)])
            if tail is None:
                return None
            near = np.asarray(neighbors_nxD[start : start + _MOST], np.float64)
            found += [split_distance(each, tail, row) for each, row in zip(kept, near, strict=True)]
        return np.stack(found)

    return split


def _tail(model: Model, maps: np.ndarray, embeddings: np.ndarray) -> Tail | None:
    """The layer after the mean, found by its shape; None where it does not give the embeddings."""
    channels, size = maps.shape[-1], embeddings.shape[1]
    layers = model.variables.get("params", {}).get("backbone", {})
    tails = [
        Tail(np.asarray(layer["kernel"], np.float64),
             np.asarray(layer.get("bias", np.zeros(size)), np.float64), model.about["normalize"])
        for layer in layers.values()
        if "kernel" in layer and layer["kernel"].shape == (channels, size)
    ] or [Tail(np.eye(channels), np.zeros(channels), model.about["normalize"])]  # fmt: skip
    made = maps.mean(axis=(1, 2)) @ tails[0].kernel + tails[0].bias
    if len(tails) > 1 or made.shape != embeddings.shape:
        return None
    if tails[0].normalized:
        made /= np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-12)
    error = np.abs(made - embeddings).max()
    return tails[0] if error <= _TOLERANCE * np.abs(embeddings).max() else None


def pictures(
    split: Split, model: Model, inputs: np.ndarray, nearest_n: np.ndarray, *, side: int
) -> list[bytes]:
    """WebP files of n images as the network sees them, under the terms to their nearest neighbour.

    That is the row `nearest_n` int [n] of the gallery; -1: there is none, and no picture. Red adds
    to the squared distance, blue takes from it, the strongest position of each image as strongly.
    Where the network does not end as it should, all are empty.
    """
    there = np.flatnonzero(nearest_n >= 0)
    made = [b""] * len(inputs)
    terms = split(inputs[there], model.gallery.embeddings[nearest_n[there]])
    if terms is None:
        return made
    form = form_of(model.about)
    for row, own in zip(there.tolist(), terms, strict=True):
        made[row] = _drawn(inputs[row], own, form, side)
    return made


def _drawn(image_HxWxC: np.ndarray, terms_hxw: np.ndarray, form: Form, side: int) -> bytes:
    seen = image_HxWxC
    if form.crop:
        top, left = ((edge - form.crop) // 2 for edge in seen.shape[:2])
        seen = seen[top : top + form.crop, left : left + form.crop]
    resize = functools.partial(_resized, side=side, like=seen.shape[:2])
    grey = resize(Image.fromarray(seen[..., 0] if seen.shape[-1] == 1 else seen).convert("L"))
    strength = np.clip(np.abs(terms_hxw) / max(np.abs(terms_hxw).max(), 1e-30), 0, 1)
    colors = np.where((terms_hxw > 0)[..., None], _RED, _BLUE).astype(np.uint8)
    color = resize(Image.fromarray(colors))
    mask = resize(Image.fromarray((150 * strength).astype(np.uint8)))
    return encode(Image.composite(color, grey.convert("RGB"), mask), side)


def _resized(image: Image.Image, *, side: int, like: tuple[int, int]) -> Image.Image:
    """To `side` pixels at most, at the aspect [H, W] of `like`; each position stays a square."""
    scale = side / max(like)
    size = (round(like[1] * scale), round(like[0] * scale))
    return image.resize(size, Image.Resampling.NEAREST)
