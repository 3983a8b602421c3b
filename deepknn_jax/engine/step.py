"""The pure training step of one device, many of them in one call, and the embedding of a batch.

These functions see the other devices only through `Collectives`; with one device those are the
identity. All randomness is fold_in(seed, step) and, per image, fold_in(that, id).
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import Array, lax

from deepknn_jax.engine.norm import masked_batch_norm
from deepknn_jax.knn.neighbors import Examples
from deepknn_jax.losses.base import LossFn, Sums, mean
from deepknn_jax.mining.batches import Mined
from deepknn_jax.models.network import l2_normalize

Tree = Any


class TrainState(NamedTuple):
    """All that changes in training, and the `key` uint32 [2] that all its randomness comes from.

    `step` int32 counts the updates made. The key is data, not part of the program: trainings that
    differ in their seed share one.
    """

    step: Array
    key: Array
    params: Tree
    batch_stats: Tree
    opt_state: Tree


class Recipe(NamedTuple):
    """What stays fixed in a training: functions of arrays, and the seed.

    `augment(inputs_b, ids_b, key)` and `prepare(inputs_b)` turn stored inputs (uint8 images or
    features) into what the network takes, in training and in evaluation. With several `views` the
    embedding is their average; `prepare(inputs_b, view)` then gives one of them, 0 as it is.
    """

    network: nn.Module
    optimizer: optax.GradientTransformation
    loss: LossFn
    augment: Callable[[Array, Array, Array], Array]
    prepare: Callable[..., Array]
    seed: int
    views: int = 1


def embedding_recipe(
    network: nn.Module,
    augment: Callable[[Array, Array, Array], Array],
    prepare: Callable[..., Array],
    views: int,
    *,
    seed: int,
) -> Recipe:
    """The recipe of a network to embed with: it has no loss, and is not trained."""

    def no_loss(*examples: Any, **mined: Any) -> Sums:
        raise TypeError("a recipe to embed with has no loss")

    return Recipe(network, optax.identity(), no_loss, augment, prepare, seed, views)


class Collectives(NamedTuple):
    """How a device sees the others: `gather` [b, ...] -> [B, ...]; `total` sums over devices."""

    gather: Callable[[Array], Array]
    total: Callable[[Array], Array]


class Call(NamedTuple):
    """What one call of `train_steps` brings: T steps of B examples each, this device's b of them.

    `pool`: stored inputs [P, ...] on this device, of the whole data set or of this call alone;
    `labels` [N] of the whole data set, by id; `rows` [T, b]: where in the pool each example is;
    `ids` [T, b]: which example of the data set it is, -1 for padding; `mined` [T, a, ...], by name:
    what was mined for the first a of the b examples; `steps`: how many of the T to make (a short
    call runs the same program).
    """

    pool: Array
    labels: Array
    rows: Array | np.ndarray
    ids: Array | np.ndarray
    mined: Mined
    steps: Array | int


class StepLog(NamedTuple):
    """Scalars of one step: the loss, the share of terms that push, the gradient's L2 norm.

    `means` are those of losses.base.Sums: further means over the batch, by name.
    """

    loss: Array
    active: Array
    gradient_norm: Array
    means: dict[str, Array]


def init_state(recipe: Recipe, inputs_b: Array) -> TrainState:
    """The state before the first step; of the stored inputs `inputs_b` only the shape matters."""
    key = jax.random.key(recipe.seed)
    variables = _drawing(recipe.network, recipe.prepare)(key, inputs_b)
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(key),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=recipe.optimizer.init(params),
    )


@functools.lru_cache(maxsize=2)
def _drawing(network: nn.Module, prepare: Callable[..., Array]) -> Callable[[Array, Array], Any]:
    """The network's variables from a key and inputs; one program for a run, which draws twice.

    Compiled: run operation by operation, a ResNet's initialisation takes ten seconds.
    """
    return jax.jit(lambda key, inputs: network.init(key, prepare(inputs)))


def loss_and_gradients(
    params: Tree,
    batch_stats: Tree,
    x_b: Array,
    labels_b: Array,
    ids_b: Array,
    mined_a: Mined,
    key: Array,
    *,
    network: nn.Module,
    loss: LossFn,
    collectives: Collectives,
) -> tuple[Tree, Tree, StepLog]:
    """Gradients of the global batch's loss, the same on every device.

    This device's loss is its own anchors' sum over the weight of all devices. Its derivative
    reaches, through the gathered embeddings, the other devices' parameters' copies; the sum over
    devices of all such derivatives is the gradient of the whole loss. A mean of each device's mean
    would be another loss, as devices count different numbers of triplets.

    Returns:
        Gradients like `params`, the new batch statistics, and the log.
    """

    def objective(params: Tree) -> tuple[Array, tuple[Sums, Tree]]:
        present_b = ids_b >= 0
        with _without_padding(present_b if mined_a else None, collectives):
            (embeddings_bxD, logits_bxC), updates = network.apply(
                {"params": params, "batch_stats": batch_stats},
                x_b,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
        anchors = Examples(embeddings_bxD, labels_b, ids_b, present_b)
        gallery = jax.tree.map(collectives.gather, anchors)
        anchors = anchors._replace(logits=logits_bxC)
        if mined_a:
            count = len(next(iter(mined_a.values())))
            anchors = jax.tree.map(lambda x: x[:count], anchors)
        sums = loss(anchors, gallery, **mined_a)
        everywhere = sums._replace(weight=collectives.total(sums.weight))
        return mean(everywhere), (sums, updates)

    (own_loss, (sums, updates)), gradients = jax.value_and_grad(objective, has_aux=True)(params)
    gradients = jax.tree.map(collectives.total, gradients)
    active, terms = collectives.total(sums.active), collectives.total(sums.terms)
    log = StepLog(
        loss=collectives.total(own_loss),
        active=active / jnp.maximum(terms, 1.0),
        gradient_norm=optax.tree.norm(gradients),
        means=jax.tree.map(collectives.total, sums.means),
    )
    return gradients, updates.get("batch_stats", {}), log


@contextlib.contextmanager
def _without_padding(present_b: Array | None, collectives: Collectives) -> Iterator[None]:
    """In the block BatchNorm's statistics leave out rows that are not present; None: all are."""
    if present_b is None:
        yield
        return

    def masked(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        norm = context.module
        if not isinstance(norm, nn.BatchNorm) or context.method_name != "__call__":
            return call(*args, **kwargs)
        (x,) = args
        mask = present_b.reshape(-1, *(1,) * (x.ndim - 1))
        if norm.axis_name is None:  # one device
            return call(x, mask=mask, **kwargs)
        return masked_batch_norm(norm, x, mask, collectives.total)

    with nn.intercept_methods(masked):
        yield


def train_step(
    state: TrainState,
    inputs_b: Array,
    labels_b: Array,
    ids_b: Array,
    mined_a: Mined,
    *,
    recipe: Recipe,
    collectives: Collectives,
) -> tuple[TrainState, StepLog]:
    """One update from this device's share of the batch: b stored inputs, their labels and ids.

    Without anything mined all b are anchors; otherwise the first a, to which `mined_a` belongs, and
    an id of -1 is padding.
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    x_b = recipe.augment(inputs_b, ids_b, key)
    gradients, batch_stats, log = loss_and_gradients(
        state.params,
        state.batch_stats,
        x_b,
        labels_b,
        ids_b,
        mined_a,
        key,
        network=recipe.network,
        loss=recipe.loss,
        collectives=collectives,
    )
    updates, opt_state = recipe.optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, state.key, params, batch_stats, opt_state), log


def train_steps(
    state: TrainState, call: Call, *, recipe: Recipe, collectives: Collectives
) -> tuple[TrainState, StepLog]:
    """Up to T updates of the state, which is the same on every device, in one call.

    Returns:
        The new state, and logs [T] of which the first `call.steps` count.
    """

    def step(t: Array | int, state: TrainState) -> tuple[TrainState, StepLog]:
        ids_b = call.ids[t]
        return train_step(
            state,
            call.pool[call.rows[t]],
            call.labels[ids_b],
            ids_b,
            {name: values[t] for name, values in call.mined.items()},
            recipe=recipe,
            collectives=collectives,
        )

    def body(t: Array, carry: tuple[TrainState, StepLog]) -> tuple[TrainState, StepLog]:
        state, log = step(t, carry[0])
        return state, jax.tree.map(lambda all_T, one: all_T.at[t].set(one), carry[1], log)

    call = jax.tree.map(jnp.asarray, call)  # without jit they come as numpy's
    _, log = jax.eval_shape(step, 0, state)
    logs = jax.tree.map(lambda one: jnp.zeros(call.rows.shape[0], one.dtype), log)
    return lax.fori_loop(0, call.steps, body, (state, logs))


def embed(
    params: Tree, batch_stats: Tree, pool: Array, rows_b: Array, *, recipe: Recipe
) -> tuple[Array, Array | None]:
    """Embeddings [b, D] and logits [b, C] or None of pool rows, the network in evaluation mode.

    With several views both are means over them; embeddings that have length 1 have it again. A
    head is linear, so that the mean of its logits is what it says of the mean embedding.
    """
    embeddings, logits_b = embed_views(params, batch_stats, pool, rows_b, recipe=recipe)
    if recipe.views == 1:
        return embeddings, logits_b
    wide = jnp.promote_types(embeddings.dtype, jnp.float32)
    embeddings_bxD = jnp.mean(embeddings.astype(wide), axis=1)
    if getattr(recipe.network, "normalize", False):
        embeddings_bxD = l2_normalize(embeddings_bxD)
    return embeddings_bxD, logits_b


def embed_views(
    params: Tree, batch_stats: Tree, pool: Array, rows_b: Array, *, recipe: Recipe
) -> tuple[Array, Array | None]:
    """As `embed`, with the embeddings [b, V, D] of each view; of one view [b, D]."""
    inputs_b = pool[rows_b]

    def of_view(*view: Array) -> Any:
        variables = {"params": params, "batch_stats": batch_stats}
        return recipe.network.apply(variables, recipe.prepare(inputs_b, *view), train=False)

    if recipe.views == 1:
        out: Any = of_view()
        return out
    # One after the other: the network's activations are as large as of one view.
    embeddings_VxbxD, logits_VxbxC = lax.map(of_view, jnp.arange(recipe.views))
    logits_bxC = None if logits_VxbxC is None else jnp.mean(logits_VxbxC, axis=0)
    return jnp.swapaxes(embeddings_VxbxD, 0, 1), logits_bxC


def flat_inputs(
    params: Tree, batch_stats: Tree, pool: Array, rows_b: Array, *, recipe: Recipe
) -> tuple[Array, None]:
    """What `embed` is compared with: the prepared inputs themselves, flat [b, F]. No network.

    Of features with several views their average; of images the image as it is.
    """
    del params, batch_stats
    inputs_b = pool[rows_b]
    if inputs_b.ndim == 3 and recipe.views > 1:
        return jnp.mean(inputs_b, axis=1), None
    x_b = recipe.prepare(inputs_b)
    return x_b.reshape(x_b.shape[0], -1), None
