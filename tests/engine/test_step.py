import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from flax import linen as nn

from deepknn_jax.engine.augment import center_crop, normalize, random_crop_flip
from deepknn_jax.engine.parallel import collectives
from deepknn_jax.engine.step import Call, Recipe, embed, init_state, train_step, train_steps
from deepknn_jax.losses import triplet
from deepknn_jax.models.cnn import SmallCNN
from deepknn_jax.models.network import Network

ALONE = collectives(None)
RATE, MOMENTUM, MARGIN = 0.1, 0.9, 0.8


class Linear(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3, use_bias=False)(x)


def linear_recipe():
    return Recipe(
        network=Network(Linear()),
        optimizer=optax.sgd(RATE, MOMENTUM),
        loss=functools.partial(triplet.deep_knn_sums, k=2, m=3, margin=MARGIN),
        augment=lambda x, ids, key: x,
        prepare=lambda x: x,
        seed=0,
    )


def image_recipe(seed=0):
    def augment(x, ids, key):
        return normalize(random_crop_flip(x, key, ids, crop=6, flip=True), mean=(0.5,), std=(0.2,))

    return Recipe(
        network=Network(SmallCNN(embedding_size=4)),
        optimizer=optax.sgd(RATE),
        loss=functools.partial(triplet.deep_knn_sums, k=2, m=2, margin=MARGIN),
        augment=augment,
        prepare=lambda x: normalize(center_crop(x, crop=6), mean=(0.5,), std=(0.2,)),
        seed=seed,
    )


def images(n=20):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.integers(0, 256, (n, 8, 8, 1)), jnp.uint8), jnp.asarray(
        rng.integers(0, 3, n), jnp.int32
    )


def test_two_steps_are_those_of_the_equations_and_of_sgd():
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(16, 5)).astype(np.float32), rng.integers(0, 3, 16)
    recipe = linear_recipe()
    state = init_state(recipe, jnp.asarray(x[:1]))
    kernel = np.asarray(state.params["backbone"]["Dense_0"]["kernel"], np.float64)
    velocity = np.zeros_like(kernel)
    for number in range(2):
        expected, gradient = reference.triplet_loss(x @ kernel, labels, k=2, m=3, margin=MARGIN)
        gradient = x.astype(np.float64).T @ gradient
        velocity = MOMENTUM * velocity + gradient
        kernel = kernel - RATE * velocity
        ids = jnp.arange(16)
        state, log = train_step(
            state, jnp.asarray(x), jnp.asarray(labels), ids, {}, recipe=recipe, collectives=ALONE
        )
        np.testing.assert_allclose(log.loss, expected, rtol=1e-5)
        np.testing.assert_allclose(log.gradient_norm, np.linalg.norm(gradient), rtol=1e-5)
        found = state.params["backbone"]["Dense_0"]["kernel"]
        np.testing.assert_allclose(found, kernel, rtol=1e-4, atol=1e-6)
        assert int(state.step) == number + 1


@functools.cache
def started():
    """The images' recipe with its first state, and its steps compiled."""
    recipe = image_recipe()
    call = jax.jit(functools.partial(train_steps, recipe=recipe, collectives=ALONE))
    return recipe, init_state(recipe, images()[0][:1]), call


def run(state, rows, steps):
    """Of room for five steps some are made."""
    pool, labels = images()
    rows = np.pad(rows, ((0, 5 - len(rows)), (0, 0)), mode="edge")
    return started()[2](state, Call(pool, labels, rows, rows, {}, steps))


@pytest.fixture(scope="module")
def rows():
    return np.stack([np.random.default_rng(s).permutation(20)[:12] for s in range(5)])


def test_without_jit_the_steps_are_the_same():
    """JAX_DISABLE_JIT=1, by which people look for faults; a call's arrays then stay numpy's."""
    recipe, rng = linear_recipe(), np.random.default_rng(5)
    pool, rows = rng.normal(size=(9, 4)).astype(np.float32), np.int32([[0, 3, 8, 5, 1], [7] * 5])
    call = Call(pool, rng.permutation(9).astype(np.int32) % 2, rows, rows, {}, 1)
    steps = functools.partial(train_steps, recipe=recipe, collectives=ALONE)
    first = init_state(recipe, pool[:1])
    compiled, log = jax.jit(steps)(first, call)
    with jax.disable_jit():
        plain, plain_log = steps(first, call)
    np.testing.assert_allclose(plain_log.loss, log.loss, rtol=1e-5)
    for one, other in zip(*map(jax.tree.leaves, (plain.params, compiled.params)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_any_cut_into_calls_gives_the_same_bits(rows):
    _, start, _ = started()
    whole, log = run(start, rows, 5)
    part, first = run(start, rows[:2], 2)
    parts, rest = run(part, rows[2:], 3)
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    cut = np.concatenate([first.loss[:2], rest.loss[:3]])
    np.testing.assert_array_equal(log.loss, cut)
    assert int(part.step) == 2
    assert not np.asarray(first.loss[2:]).any()  # a short call makes no more steps than asked


def test_randomness_depends_on_seed_and_step_alone(rows):
    _, start, _ = started()
    _, log = run(start, rows[[0, 0, 0]], 3)
    assert len(set(np.asarray(log.loss[:3]).tolist())) == 3  # other crops at other steps
    _, again = run(start, rows[[0, 0, 0]], 3)
    np.testing.assert_array_equal(log.loss, again.loss)
    reseeded = start._replace(key=jax.random.key_data(jax.random.key(1)))
    _, other = run(reseeded, rows[[0]], 1)
    assert other.loss[0] != log.loss[0]


def test_embedding_leaves_the_statistics_and_knows_no_batch():
    recipe, state, _ = started()
    pool, _ = images()
    all_at_once, logits = embed(
        state.params, state.batch_stats, pool, jnp.arange(20), recipe=recipe
    )
    one, _ = embed(state.params, state.batch_stats, pool, jnp.asarray([7]), recipe=recipe)
    np.testing.assert_allclose(one[0], all_at_once[7], rtol=1e-5, atol=1e-6)
    assert logits is None


def test_a_mined_step_is_that_of_the_lists_by_hand():
    """Each anchor against the listed, wherever they stand; what is only listed is no anchor."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(12, 5)).astype(np.float32)
    ids = np.array([7, 2, 9, 0, 1, 3, 4, -1, 5, -1], np.int32)  # three anchors, five more, padding
    mined = {
        "positives": np.array([[2, 0], [9, -1], [1, 3]], np.int32),
        "negatives": np.array([[4, 5, 1], [3, 4, -1], [5, 11, 0]], np.int32),  # 11 is not here
    }
    recipe = linear_recipe()._replace(
        loss=functools.partial(triplet.listed_triplet_sums, margin=MARGIN)
    )
    state = init_state(recipe, jnp.asarray(x[:1]))
    kernel = np.asarray(state.params["backbone"]["Dense_0"]["kernel"], np.float64)

    def objective(kernel):
        y = {i: x[i].astype(np.float64) @ kernel for i in ids if i >= 0}
        terms = [
            max(0.0, np.linalg.norm(y[a] - y[i]) - np.linalg.norm(y[a] - y[j]) + MARGIN)
            for a, near, far in zip(ids, mined["positives"], mined["negatives"], strict=False)
            for i in near
            for j in far
            if i in y and j in y
        ]
        assert len(terms) == 6 + 2 + 4
        return np.mean(terms)

    new, log = train_step(
        state, jnp.asarray(x[ids]), jnp.arange(10) % 3, jnp.asarray(ids), mined,
        recipe=recipe, collectives=ALONE,
    )  # fmt: skip
    np.testing.assert_allclose(log.loss, objective(kernel), rtol=1e-5)
    step = 1e-6
    gradient = np.zeros_like(kernel)
    for place in np.ndindex(*kernel.shape):
        shift = np.zeros_like(kernel)
        shift[place] = step
        gradient[place] = (objective(kernel + shift) - objective(kernel - shift)) / (2 * step)
    found = new.params["backbone"]["Dense_0"]["kernel"]
    np.testing.assert_allclose(found, kernel - RATE * gradient, rtol=1e-4, atol=1e-5)


def test_padding_stays_out_of_batch_norm():
    recipe = image_recipe()._replace(
        loss=functools.partial(triplet.listed_triplet_sums, margin=MARGIN)
    )
    pool, labels = images()
    _, state, _ = started()
    ids = np.array([3, 8, 11, 0, 5, 19, 2, 7])
    mined = {"positives": np.array([[0], [5], [7]]), "negatives": np.array([[19], [2], [0]])}

    step = jax.jit(functools.partial(train_step, recipe=recipe, collectives=ALONE))

    def after(ids):
        ids = jnp.asarray(ids)
        new, log = step(state, pool[ids], labels[ids], ids, mined)
        return {"stats": new.batch_stats, "params": new.params, "loss": log.loss}

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        after(np.append(ids, [-1] * 5)),
        after(ids),
    )
