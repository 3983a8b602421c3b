"""What a training step and a search take on many devices: counted in the compiled program.

Nothing runs, and no array is made: the programs are compiled from shapes, for fake CPU devices. One
program is compiled per number of devices, each in a process of its own, since XLA makes the devices
when it starts: `python -m deepknn_jax.bench.scale '{"kind": "step", "devices": 8, ...}'`.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

DEVICES = (1, 8, 64, 512)
STEP = {"backbone": "resnet50", "batch": 96, "size": 224}
SEARCHES = tuple({"gallery": rows, "width": 128, "k": 5} for rows in (10**6, 10**8))
SEARCH_DEVICES = (8, 512)

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
_BYTES |= {"s64": 8, "u64": 8, "f64": 8, "token": 0}
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
# A line of a computation: name = its result, one array or a tuple, operation(operands).
_LINE = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (\(.*?\)|\S+) ([\w\-]+)\(")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_INNER = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")
_NO_BUFFER = {"bitcast", "conditional", "get-tuple-element", "parameter", "tuple", "while"}


class Counts(NamedTuple):
    """Of one device and one step, or one block of queries; bytes but for `flops`.

    `flops`: a loop's body counts once, so that a search, which loops over tiles, has too few;
    `gathered`: results of all-gathers; `scattered`: what goes into reduce-scatters; `reduced`:
    results of all-reduces; `largest`: the largest array that is stored, and `shape`, which it is;
    `planned`: what XLA reserves beside arguments and results.
    """

    flops: float
    gathered: int
    scattered: int
    reduced: int
    largest: int
    shape: str
    planned: int


def size_of(result: str) -> int:
    """The bytes of a result as HLO writes it: an array, or a tuple of arrays."""
    total = 0
    for kind, dimensions in _ARRAY.findall(result):
        count = 1
        for size in filter(None, dimensions.split(",")):
            count *= int(size)
        total += count * _BYTES[kind]
    return total


def operations(hlo: str) -> Iterator[tuple[str, str]]:
    """(operation, its result) of each line that stands for itself, in none that is fused."""
    inner, name = set(_INNER.findall(hlo)), ""
    for line in hlo.splitlines():
        if found := _COMPUTATION.match(line):
            name = found[1]
        elif name not in inner and (found := _LINE.match(line)):
            yield found[2].removesuffix("-start"), found[1]


def counts_of(compiled: Any, devices: int) -> Counts:
    """`Counts` of a program compiled for so many devices."""
    found = list(operations(compiled.as_text()))

    def bytes_of(operation: str) -> int:
        return sum(size_of(result) for name, result in found if name == operation)

    stored = [result for name, result in found if name not in _NO_BUFFER and result[0] != "("]
    largest = max(stored, key=size_of)
    cost = compiled.cost_analysis()
    return Counts(
        flops=float(cost["flops"]),
        gathered=bytes_of("all-gather"),
        scattered=devices * bytes_of("reduce-scatter"),
        reduced=bytes_of("all-reduce"),
        largest=size_of(largest),
        shape=largest.partition("{")[0],
        planned=compiled.memory_analysis().temp_size_in_bytes,
    )


def compile_step(backbone: str, batch: int, size: int) -> Any:
    """One training step by deep kNN, K = M = 5, of `batch` images on each of JAX's devices."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    from deepknn_jax import models
    from deepknn_jax.bench.training import sgd_recipe
    from deepknn_jax.engine.parallel import AXIS, get_devices, map_train_steps
    from deepknn_jax.engine.step import Call, init_state

    devices = get_devices(0, "shard_map")
    recipe = sgd_recipe(models.build(backbone))
    total = batch * devices.size

    def shaped(shape: tuple[int, ...], dtype: Any, *axes: str | None) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(devices.mesh, P(*axes)))

    image = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    state = jax.tree.map(
        lambda x: shaped(x.shape, x.dtype), jax.eval_shape(lambda x: init_state(recipe, x), image)
    )
    rows = shaped((1, total), jnp.int32, None, AXIS)
    pool = shaped((total, size, size, 3), jnp.float32, AXIS)
    call = Call(pool, shaped((total,), jnp.int32), rows, rows, {}, shaped((), jnp.int32))
    steps: Any = map_train_steps(devices, recipe, pool_is_cut=True)
    return steps.lower(state, call).compile()


def compile_search(gallery: int, width: int, k: int) -> Any:
    """The search for a block of queries in a gallery that is cut over all of JAX's devices."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    from deepknn_jax.engine.parallel import AXIS, get_devices
    from deepknn_jax.knn import sharded

    mesh = get_devices(0, "shard_map").mesh

    def cut(shape: tuple[int, ...], dtype: Any) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, P(AXIS)))

    places = -(-gallery // mesh.size) * mesh.size
    each = cut((mesh.size,), jnp.int32)
    shards = sharded._Gallery(cut((places, width), jnp.float32), None, None, each, each)
    whole = NamedSharding(mesh, P())
    queries = min(sharded._QUERIES, sharded._MERGED // (mesh.size * k))
    block = jax.ShapeDtypeStruct((queries, width), jnp.float32, sharding=whole)
    search: Any = sharded._search(mesh, k, 2.0, None, has_spare_places=places > gallery)
    return search.lower((block, None, None), shards).compile()


def measure(
    *,
    devices: tuple[int, ...] = DEVICES,
    step: Mapping[str, Any] = STEP,
    searches: tuple[Mapping[str, Any], ...] = SEARCHES,
    search_devices: tuple[int, ...] = SEARCH_DEVICES,
) -> Iterator[dict[str, Any]]:
    """What was asked, its `Counts`, and the seconds of compiling, for one program after another."""
    asked = [{"kind": "step", "devices": count, **step} for count in devices]
    asked += [
        {"kind": "search", "devices": count, **search}
        for search in searches
        for count in search_devices
    ]
    for one in asked:
        flags = f"--xla_force_host_platform_device_count={one['devices']}"
        ran = subprocess.run(
            [sys.executable, "-m", "deepknn_jax.bench.scale", json.dumps(one)],
            env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
            text=True,
            stdout=subprocess.PIPE,
            check=True,
        )
        yield one | json.loads(ran.stdout.splitlines()[-1])


def main(text: str) -> None:
    """Prints what `text`, an entry of `measure`, asks for: as JSON, on one line."""
    asked = json.loads(text)
    kind, devices = asked.pop("kind"), asked.pop("devices")
    start = time.perf_counter()
    compiled = (compile_step if kind == "step" else compile_search)(**asked)
    seconds = time.perf_counter() - start
    print(json.dumps(counts_of(compiled, devices)._asdict() | {"seconds": seconds}))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
