"""The one place that maps the per-device functions over devices: jit, shard_map or pmap.

The devices may be those of several processes. Each calls the same functions in the same order, and
brings to its own devices what they need.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array, lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from deepknn_jax.engine import hosts
from deepknn_jax.engine.step import (
    Call,
    Collectives,
    Recipe,
    StepLog,
    TrainState,
    embed,
    train_steps,
)
from deepknn_jax.errors import UserError

AXIS = "batch"
MAPPINGS = ("shard_map", "pmap")  # JAX wants new code to use the first, and keeps the second

TrainSteps = Callable[[TrainState, Call], tuple[TrainState, StepLog]]
# (params, batch_stats, pool, rows [B]) -> [B, D], and logits [B, C] or None
Embed = Callable[[Any, Any, Array, Any], tuple[Array, Array | None]]


class Devices(NamedTuple):
    """The devices of a run, and how functions are mapped over them: one of MAPPINGS."""

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

    @property
    def own(self) -> range:
        """The positions of this process's devices in the mesh, which stand together."""
        process = jax.process_index()
        found = [
            place
            for place, device in enumerate(self.mesh.devices.flat)
            if device.process_index == process
        ]
        return range(found[0], found[-1] + 1)


def present_devices() -> list[jax.Device]:
    """What JAX shows here.

    Raises:
        UserError: JAX_PLATFORMS asks for a kind of device that is not there.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:
        if not (wanted := os.environ.get("JAX_PLATFORMS")):
            raise
        reason = f" ({str(error).splitlines()[0]})" if str(error) else ""
        raise UserError(
            f"JAX_PLATFORMS={wanted}: JAX finds no such device here{reason}; unset it, or set "
            "JAX_PLATFORMS=cpu; for a GPU install jax[cuda12]"
        ) from error


def get_devices(count: int, mode: str) -> Devices:
    """The first `count` devices (0: all), process after process.

    Raises:
        UserError: there are fewer, or none of the kind that was asked for; or several processes,
            and not all their devices, or pmap.
    """
    found = sorted(present_devices(), key=lambda device: (device.process_index, device.id))
    if hosts.count() > 1 and count not in (0, len(found)):
        raise UserError(
            f"`devices` is {count}, but {hosts.count()} processes use all their devices, "
            f"{len(found)}: leave it at 0"
        )
    if hosts.count() > 1 and mode == "pmap":
        raise UserError("`parallel`=pmap is for one process; several want shard_map")
    if count > len(found):
        raise UserError(
            f"`devices` is {count}, but this machine shows {len(found)} device(s): choose "
            "fewer, or 0 for all"
        )
    return Devices(Mesh(np.array(found[: count or len(found)]), (AXIS,)), mode)


def replicate(devices: Devices, tree: Any) -> Any:
    """A copy of each array on every device; all processes bring the same."""
    sharding = NamedSharding(devices.mesh, P())
    if not devices.mesh.is_multi_process:
        return jax.device_put(tree, sharding)

    def put(x: Any) -> Array:
        array = np.asarray(x)
        return jax.make_array_from_process_local_data(sharding, array, array.shape)

    return jax.tree.map(put, tree)


def shard(devices: Devices, own_part: np.ndarray) -> Array:
    """An array cut evenly along its first axis, a part on each device.

    `own_part` is what this process's devices get: all of it where there is one process.
    """
    sharding = NamedSharding(devices.mesh, P(AXIS))
    return jax.make_array_from_process_local_data(sharding, own_part)


def fetch(array: Array) -> np.ndarray:
    """The whole array on the host of each process."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    found: np.ndarray = multihost_utils.process_allgather(array, tiled=True)
    return found


def collectives(axis: str | None) -> Collectives:
    """Collectives along a mapped axis, or the identity."""
    if axis is None:
        return Collectives(gather=lambda x: x, total=lambda x: x)
    return Collectives(
        gather=functools.partial(lax.all_gather, axis_name=axis, tiled=True),
        total=functools.partial(lax.psum, axis_name=axis),
    )


def map_train_steps(devices: Devices, recipe: Recipe, *, pool_is_cut: bool) -> TrainSteps:
    """`train_steps` over all devices, of calls whose b is the whole batch's B.

    The state is donated. `pool_is_cut`: each device holds its own part of the pool, and rows count
    within it; otherwise each holds the whole.
    """
    body = functools.partial(train_steps, recipe=recipe, collectives=collectives(devices.axis))
    each = P(None, AXIS)  # of rows, ids and what is mined; the labels and the count are whole
    parts: list[Any] = [_of_pool(pool_is_cut), P(), each, each, each, P()]
    return _map(devices, body, (P(), Call(*parts)), P(), donate=(0,))


def map_embed(
    devices: Devices, recipe: Recipe, *, pool_is_cut: bool, function: Callable = embed
) -> Embed:
    """`embed`, or `flat_inputs` as `function`, over all devices."""
    body = functools.partial(function, recipe=recipe)
    return _map(devices, body, (P(), P(), _of_pool(pool_is_cut), P(AXIS)), P(AXIS), donate=())


def _of_pool(is_cut: bool) -> P:
    return P(AXIS) if is_cut else P()


def _map(devices: Devices, body: Callable, in_specs: tuple, out_spec: P, donate: tuple) -> Callable:
    if devices.size == 1:
        return jax.jit(body, donate_argnums=donate)
    if devices.mode == "pmap":
        return _pmap(devices, body, in_specs, out_spec, donate)
    # check_vma=False gives psum the transpose that it has under pmap (a psum), which the sum over
    # devices in step.loss_and_gradients counts on: one `body` serves both.
    mapped = jax.shard_map(
        body, mesh=devices.mesh, in_specs=in_specs, out_specs=out_spec, check_vma=False
    )
    return jax.jit(mapped, donate_argnums=donate)


def _axis_of(spec: P) -> int | None:
    return spec.index(AXIS) if AXIS in spec else None


def _pmap(
    devices: Devices, body: Callable, in_specs: tuple, out_spec: P, donate: tuple
) -> Callable:
    """The same mapping by pmap, whose mapped arguments carry the devices as their first axis."""
    axes = jax.tree.map(_axis_of, in_specs, is_leaf=lambda x: isinstance(x, P))
    mapped = jax.pmap(
        body,
        axis_name=AXIS,
        in_axes=axes,
        out_axes=0 if AXIS in out_spec else None,
        devices=list(devices.mesh.devices.flat),
        donate_argnums=donate,
    )

    def split(axis: int | None, part: Any) -> Any:
        if axis is None:
            return part
        return jax.tree.map(
            lambda x: x.reshape(
                *x.shape[:axis], devices.size, x.shape[axis] // devices.size, *x.shape[axis + 1 :]
            ),
            part,
        )

    def call(*arguments: Any) -> Any:
        out = mapped(*jax.tree.map(split, axes, arguments, is_leaf=lambda x: x is None))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), out) if AXIS in out_spec else out

    return call
