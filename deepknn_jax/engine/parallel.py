"""The one place that maps the per-device functions over devices: jit, shard_map or pmap."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from deepknn_jax.engine.step import Collectives, Recipe, StepLog, TrainState, embed, train_steps
from deepknn_jax.errors import UserError

AXIS = "batch"


class Devices(NamedTuple):
    """The devices of a run, and how functions are mapped over them: "shard_map" or "pmap"."""

    mesh: Mesh
    mode: str

    @property
    def size(self) -> int:
        """Number of devices, over which a batch is cut."""
        return self.mesh.size

    @property
    def axis(self) -> str | None:
        """Name of the mapped axis for collectives; None on one device, which needs none."""
        return AXIS if self.size > 1 else None


def get_devices(count: int, mode: str) -> Devices:
    """The first `count` devices (0: all).

    Raises:
        UserError: there are fewer.
    """
    found = jax.devices()
    if count > len(found):
        raise UserError(f"config.devices is {count}, but this machine shows {len(found)} device(s)")
    return Devices(Mesh(np.array(found[: count or len(found)]), (AXIS,)), mode)


def replicate(devices: Devices, tree: Any) -> Any:
    """A copy of each array on every device."""
    return jax.device_put(tree, NamedSharding(devices.mesh, P()))


def spread(devices: Devices, array: np.ndarray) -> Array:
    """The array cut along its first axis, a part on each device."""
    return jax.device_put(array, NamedSharding(devices.mesh, P(AXIS)))


def collectives(axis: str | None) -> Collectives:
    """Collectives along a mapped axis, or the identity."""
    if axis is None:
        return Collectives(gather=lambda x: x, total=lambda x: x)
    return Collectives(
        gather=functools.partial(lax.all_gather, axis_name=axis, tiled=True),
        total=functools.partial(lax.psum, axis_name=axis),
    )


def map_train_steps(
    devices: Devices, recipe: Recipe, *, pool_is_spread: bool
) -> Callable[..., tuple[TrainState, StepLog]]:
    """`train_steps` over all devices: (state, pool, labels_N, rows_TxB, ids_TxB, mined, steps).

    The state is donated. `pool_is_spread`: each device holds its own part of the pool, and rows
    count within it; otherwise each holds the whole.
    """
    run = functools.partial(train_steps, recipe=recipe, collectives=collectives(devices.axis))
    pool = P(AXIS) if pool_is_spread else P()
    specs = (P(), pool, P(), P(None, AXIS), P(None, AXIS), P(None, AXIS), P())
    return _map(devices, run, specs, P(), donate=(0,))


def map_embed(
    devices: Devices, recipe: Recipe, *, pool_is_spread: bool, function: Callable = embed
) -> Callable[..., tuple[Array, Array | None]]:
    """`embed` over all devices: (params, batch_stats, pool, rows_B) -> [B, D], [B, C] or None.

    `function` may be `flat_inputs` instead.
    """
    run = functools.partial(function, recipe=recipe)
    pool = P(AXIS) if pool_is_spread else P()
    return _map(devices, run, (P(), P(), pool, P(AXIS)), P(AXIS), donate=())


def map_queries(devices: Devices, search: Callable[..., tuple]) -> Callable[..., tuple]:
    """A search over all devices: three arrays [Q, ...] of queries are cut, the others are whole.

    Q need not be even: the queries are filled up with copies of the last.
    """
    queries, whole = P(AXIS), P()
    mapped = _map(devices, search, (*(queries,) * 3, *(whole,) * 3), queries, donate=())

    def call(*arguments: np.ndarray) -> tuple:
        count = len(arguments[0])
        missing = -count % devices.size
        filled = (
            np.pad(x, ((0, missing), *((0, 0),) * (x.ndim - 1)), mode="edge") for x in arguments[:3]
        )
        return jax.tree.map(lambda x: x[:count], mapped(*filled, *arguments[3:]))

    return call


def _map(devices: Devices, run: Callable, in_specs: tuple, out_spec: P, donate: tuple) -> Callable:
    if devices.size == 1:
        return jax.jit(run, donate_argnums=donate)
    if devices.mode == "pmap":
        return _pmap(devices, run, in_specs, out_spec, donate)
    # check_vma=False gives psum the transpose that it has under pmap (a psum), which the sum over
    # devices in step.loss_and_gradients counts on: one body serves both.
    mapped = jax.shard_map(
        run, mesh=devices.mesh, in_specs=in_specs, out_specs=out_spec, check_vma=False
    )
    return jax.jit(mapped, donate_argnums=donate)


def _pmap(devices: Devices, run: Callable, in_specs: tuple, out_spec: P, donate: tuple) -> Callable:
    """The same mapping by pmap, whose mapped arguments carry the devices as their first axis."""
    axes = tuple(spec.index(AXIS) if AXIS in spec else None for spec in in_specs)
    mapped = jax.pmap(
        run,
        axis_name=AXIS,
        in_axes=axes,
        out_axes=0 if AXIS in out_spec else None,
        devices=list(devices.mesh.devices.flat),
        donate_argnums=donate,
    )

    def split(x: Array, axis: int | None) -> Array:
        if axis is None:
            return x
        shape = x.shape
        return x.reshape(
            *shape[:axis], devices.size, shape[axis] // devices.size, *shape[axis + 1 :]
        )

    def call(*arguments: Any) -> Any:
        out = mapped(
            *(
                jax.tree.map(functools.partial(split, axis=axis), argument)
                for argument, axis in zip(arguments, axes, strict=True)
            )
        )
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out) if AXIS in out_spec else out

    return call
