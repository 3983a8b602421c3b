"""Views: the group that symmetries make, and what is drawn of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.batches import images

from deepknn_jax.engine.inputs import input_functions
from deepknn_jax.engine.step import embed, embed_views, embedding_recipe, flat_inputs
from deepknn_jax.engine.views import SYMMETRIES, draw_views, in_view, random_views, views_of
from deepknn_jax.errors import UserError
from deepknn_jax.models.mlp import MLP
from deepknn_jax.models.network import Network

IMAGE = np.arange(9, dtype=np.uint8).reshape(3, 3, 1)  # no two of its eight views are alike
BY_NUMPY = {
    "flip_lr": lambda x: x[:, ::-1],
    "flip_ud": lambda x: x[::-1],
    "rot180": lambda x: np.rot90(x, 2),
    "rot90": np.rot90,
}


def shown(names):
    """The image in each view, as bytes."""
    views = views_of(names)
    return [np.asarray(in_view(jnp.asarray(IMAGE), views, i)).tobytes() for i in range(len(views))]


@given(st.permutations(sorted(SYMMETRIES)), st.integers(0, 4))
def test_views_are_all_that_the_symmetries_make_each_once(order, count):
    names = order[:count]
    found = shown(names)
    assert found[0] == IMAGE.tobytes()
    closed, fresh = set(), [IMAGE]
    while fresh:  # by numpy's own flips, whatever the order in which they are done
        image = fresh.pop()
        if (key := np.ascontiguousarray(image).tobytes()) not in closed:
            closed.add(key)
            fresh += [BY_NUMPY[name](image) for name in names]
    assert len(found) == len(closed)
    assert set(found) == closed


def test_there_are_four_of_both_flips_and_eight_with_rotations():
    counts = {(): 1, ("flip_lr",): 2, ("flip_lr", "flip_ud"): 4, ("rot90",): 4, ("rot180",): 2}
    assert {names: len(views_of(names)) for names in counts} == counts
    assert len(views_of(("flip_ud", "rot90"))) == 8


@pytest.mark.parametrize("names", [("mirror",), ("flip_lr", "flip_lr")])
def test_what_is_no_symmetry_is_named(names):
    with pytest.raises(UserError, match=f"`views` has '{names[0]}': choose of flip_lr"):
        views_of(names)


def test_each_view_is_drawn_as_often_and_by_the_example_alone():
    ids, key = jnp.arange(1600), jax.random.key(3)
    drawn = np.asarray(draw_views(key, ids, 8))
    counts = np.bincount(drawn, minlength=8)
    # 1,600 draws of 8: mean 200, deviation 13; the seed is fixed.
    assert counts.min() > 150
    assert counts.max() < 250
    np.testing.assert_array_equal(draw_views(key, ids[700:900], 8), drawn[700:900])
    other = np.asarray(draw_views(jax.random.fold_in(key, 1), ids, 8))
    assert 0.08 < (other == drawn).mean() < 0.18


def test_images_and_volumes_are_turned_in_their_planes():
    views = views_of(("flip_lr", "rot90"))
    for shape in ((40, 3, 3, 2), (40, 2, 3, 3, 1)):
        x = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
        ids, key = jnp.arange(40), jax.random.key(0)
        found = np.asarray(random_views(jnp.asarray(x), key, ids, views))
        drawn = np.asarray(draw_views(key, ids, 8))
        for i, (transposed, up_down, left_right) in enumerate(views[v] for v in drawn):
            image = np.swapaxes(x[i], -3, -2) if transposed else x[i]
            image = np.flip(image, -3) if up_down else image
            np.testing.assert_array_equal(found[i], np.flip(image, -2) if left_right else image)


def functions(dataset, model="cnn", views=(), **options):
    plain = {"crop": 0, "flip": False, "mean": (), "std": ()}
    return input_functions(dataset, model, views=views, **plain | options)


def test_training_draws_a_view_of_a_crop_and_evaluation_has_each():
    dataset = images(n=30, shape=(8, 6, 1))
    scale = {"mean": (0.0,), "std": (1.0,)}
    names = ("flip_lr", "flip_ud", "rot90")
    augment, prepare, count = functions(dataset, views=names, crop=5, **scale)
    plain = functions(dataset, crop=5, **scale)
    ids, key = jnp.arange(30), jax.random.key(1)
    assert count == 8
    cropped, views = plain.augment(dataset.inputs, ids, key), views_of(names)
    np.testing.assert_array_equal(
        augment(dataset.inputs, ids, key), random_views(cropped, key, ids, views)
    )
    middle = plain.prepare(dataset.inputs)
    for v in range(8):
        np.testing.assert_array_equal(prepare(dataset.inputs, v), in_view(middle, views, v))
    assert functions(dataset, views=names, crop=5, all_views=False, **scale).views == 1
    with pytest.raises(UserError, match=r"`views` has rot90, but the network takes 8 x 6"):
        functions(dataset, views=names, **scale)
    assert functions(dataset, views=("rot180",), **scale).views == 2


def of_features(n=7, v=3, f=5):
    inputs = np.random.default_rng(2).normal(size=(n, v, f)).astype(np.float32)
    return images(n)._replace(inputs=inputs)


def test_features_bring_their_views():
    dataset = of_features(n=600, v=3)
    augment, prepare, count = functions(dataset, "mlp")
    ids, key = jnp.arange(600), jax.random.key(0)
    drawn = np.asarray(draw_views(key, ids, 3))
    assert count == 3
    found = augment(jnp.asarray(dataset.inputs), ids, key)
    np.testing.assert_array_equal(found, dataset.inputs[np.arange(600), drawn])
    np.testing.assert_array_equal(prepare(dataset.inputs, 2), dataset.inputs[:, 2])
    for options in ({"views": ("flip_lr",)}, {"all_views": False}):
        with pytest.raises(UserError, match=r"images; .*features"):
            functions(dataset, "mlp", **options)


@pytest.mark.parametrize("normalize", [False, True])
def test_the_embedding_is_the_average_over_views(normalize):
    dataset = of_features()
    net = Network(MLP(embedding_size=4), 3, normalize=normalize)
    recipe = embedding_recipe(net, *functions(dataset, "mlp"), seed=0)
    pool, rows = jnp.asarray(dataset.inputs), np.asarray([4, 0, 6])
    variables = jax.jit(net.init)(jax.random.key(0), pool[:, 0])
    apply = jax.jit(lambda x: net.apply(variables, x, train=False))
    state = variables["params"], variables.get("batch_stats", {})
    found, logits = embed(*state, pool, rows, recipe=recipe)
    each, _ = embed_views(*state, pool, rows, recipe=recipe)
    for i, row in enumerate(rows):
        by_view = [apply(pool[row : row + 1, v]) for v in range(3)]
        np.testing.assert_allclose(each[i], [e[0] for e, _ in by_view], rtol=1e-5, atol=1e-6)
        mean = np.mean([np.asarray(e[0], np.float64) for e, _ in by_view], axis=0)
        wanted = mean / np.linalg.norm(mean) if normalize else mean
        np.testing.assert_allclose(found[i], wanted, rtol=1e-4, atol=1e-6)
        heads = np.mean([np.asarray(h[0]) for _, h in by_view], axis=0)
        np.testing.assert_allclose(logits[i], heads, rtol=1e-4, atol=1e-6)
    flat, _ = flat_inputs(*state, pool, rows, recipe=recipe)
    np.testing.assert_allclose(flat, dataset.inputs[rows].mean(1), rtol=1e-5, atol=1e-6)
