"""The network of a model folder: scaled, cropped, a batch at a time."""

import jax
import numpy as np
import pytest
from support.answering import FEATURES, IMAGES, examples, model_of

from deepknn_jax import models
from deepknn_jax.answers.network import embedder, form_of
from deepknn_jax.errors import UserError


@pytest.mark.parametrize("form", [FEATURES, IMAGES])
def test_it_is_the_backbone_on_prepared_inputs(form):
    model = model_of(form, validates=False)
    inputs = examples(form, np.arange(19) % 3, np.random.default_rng(1))
    found = embedder(model)(inputs)
    x = inputs.astype(np.float64)
    if form is IMAGES:
        x = x[:, 1:11, 1:11] / 255
    x = ((x - np.asarray(form.mean)) / np.asarray(form.std)).astype(np.float32)
    net = models.build(model.about["backbone"])
    own = {name: tree["backbone"] for name, tree in model.variables.items()}
    np.testing.assert_allclose(found, jax.jit(net.apply)(own, x), rtol=1e-4, atol=1e-4)
    assert found.dtype == np.float32


def test_no_batch_no_embedding_and_another_shape_is_named():
    model = model_of(validates=False)
    embed = embedder(model)
    assert embed(np.zeros((0, 5), np.float32)).shape == (0, 128)
    with pytest.raises(UserError, match="examples of 6, but the run was trained on feature"):
        embed(np.zeros((2, 6), np.float32))


def test_a_form_is_as_json_gives_it():
    assert form_of({"inputs": FEATURES._asdict() | {"shape": [5]}}) == FEATURES
