"""The terms of a distance add up to it, position by position."""

import io

import jax
import numpy as np
import pytest
from PIL import Image
from support.answering import FEATURES, IMAGES, examples, model_of

from deepknn_jax import models
from deepknn_jax.answers import heat
from deepknn_jax.answers.heat import Tail, pictures, split_distance, splitter
from deepknn_jax.answers.network import embedder


@pytest.mark.parametrize("normalized", [False, True])
def test_terms_are_those_of_slow_loops_and_add_up(normalized):
    rng = np.random.default_rng(0)
    maps, kernel, bias = rng.normal(size=(3, 2, 5)), rng.normal(size=(5, 4)), rng.normal(size=4)
    near = rng.normal(size=4)
    terms = split_distance(maps, Tail(kernel, bias, normalized), near)
    whole = sum(kernel.T @ maps[i, j] + bias for i in range(3) for j in range(2)) / 6
    scale = 1 / np.sqrt(np.sum(whole**2)) if normalized else 1.0
    for i in range(3):
        for j in range(2):
            own = scale * (kernel.T @ maps[i, j] + bias) - near
            assert terms[i, j] == pytest.approx(own @ (scale * whole - near) / 6, rel=1e-12)
    assert terms.sum() == pytest.approx(np.sum((scale * whole - near) ** 2), rel=1e-12)


@pytest.mark.parametrize("normalize", [False, True])
def test_of_a_model_they_are_its_squared_distances(normalize, monkeypatch):
    monkeypatch.setattr(heat, "_MOST", 4)  # several batches, the last one not full
    model = model_of(IMAGES)
    model = model._replace(about=dict(model.about) | {"normalize": normalize})
    inputs = examples(IMAGES, np.arange(6) % 3, np.random.default_rng(3))
    near = model.gallery.embeddings[[3, 0, 7, 20, 1, 40]]
    terms = splitter(model)(inputs, near)
    assert terms.shape == (6, 3, 3)  # 10 pixels after two strides of 2
    squares = ((embedder(model)(inputs).astype(np.float64) - near) ** 2).sum(axis=1)
    np.testing.assert_allclose(terms.sum(axis=(1, 2)), squares, rtol=1e-5)


def test_each_image_has_its_picture_and_one_without_a_neighbour_none():
    model = model_of(IMAGES)
    inputs = examples(IMAGES, np.arange(2), np.random.default_rng(3))
    made = pictures(splitter(model), model, inputs, np.array([5, -1]), side=90)
    assert made[1] == b""
    with Image.open(io.BytesIO(made[0])) as image:
        assert image.size == (90, 90)
        pixels = np.asarray(image, int)
    assert np.ptp(pixels, axis=2).max() > 40  # it is coloured


def test_where_the_network_does_not_end_so_there_is_none():
    assert splitter(model_of(FEATURES)) is None
    model = model_of(IMAGES)
    assert splitter(model._replace(about=dict(model.about) | {"p": 1.0})) is None
    backbone = dict(model.variables["params"]["backbone"])
    backbone["Dense_0"] = {"kernel": backbone["Dense_0"]["kernel"]}  # a bias that is not known
    assert heat._tail(model, np.ones((1, 2, 2, 128)), np.ones((1, 64))) is None


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_published_backbones_leave_the_map_that_they_are_the_mean_of(name):
    network = models.build(name)
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), np.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    assert "intermediates" not in variables
    out, state = jax.eval_shape(
        lambda variables, x: network.apply(variables, x, mutable=["intermediates"]),
        variables, images,
    )  # fmt: skip
    (kept,) = state["intermediates"]["map"]
    assert kept.shape[:1] + kept.shape[3:] == out.shape
