"""Training steps of the backbones in float32 and bfloat16, beside torch's: time and memory."""

import contextlib
import functools
import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deepknn_jax import models
from deepknn_jax.bench import backbones, loss, peers
from deepknn_jax.bench.gpu.arrays import set_tf32
from deepknn_jax.bench.gpu.record import Entry, attempt, entry_of
from deepknn_jax.bench.timing import Side, compare
from deepknn_jax.bench.training import torch_side, xla_side

# Compiled together, then measured; the first matter most, as time may run out.
_WAVES: tuple[tuple[str, ...], ...] = (
    ("resnet50",),
    ("efficientnet_lite0", "densenet121", "resnet18"),
    ("vgg19", "seresnet50", "inception_resnet_v2"),
    ("resnet34", "resnet101", "legacy_seresnet50"),
)
_BATCH, _SIZE = 96, 224
_PRECISIONS = ("bfloat16", "TF32")
# What rounding may move the first step's loss by, as a share of it.
_TOLERANCE = 0.2


class Case(NamedTuple):
    """A backbone's step; `precision` is bfloat16, TF32 or IEEE (float32 in full) on both sides."""

    name: str
    precision: str
    batch: int
    size: int

    @property
    def task(self) -> str:
        """Words for it."""
        return f"{self.name} train step, {self.precision}, B {self.batch}, {self.size} px"


def steps(small: bool) -> Iterator[Entry]:
    """Each backbone's step in bfloat16 and in float32 with TF32, torch eager."""
    waves = (("resnet18",),) if small else _WAVES
    batch, size = (8, 33) if small else (_BATCH, _SIZE)
    for wave in waves:
        cases = [Case(name, precision, batch, size) for name in wave for precision in _PRECISIONS]
        yield from _measured(cases, repeats=2 if small else 7)


def compiled(small: bool) -> Iterator[Entry]:
    """ResNet-50's step and the loss beside torch.compile's, and ResNet-50 in full float32."""
    name, batch, size = ("resnet18", 8, 33) if small else ("resnet50", _BATCH, _SIZE)
    repeats = 2 if small else 7
    case = Case(name, "bfloat16", batch, size)
    yield from _measured([case], repeats=repeats, by_compiler=True)
    yield from attempt("loss + gradient", functools.partial(_compiled_losses, small))
    yield from _measured([case._replace(precision="IEEE")], repeats=repeats)
    yield from _measured([case._replace(precision="TF32")], repeats=repeats, by_compiler=True)


def _compiled_losses(small: bool) -> Iterator[Entry]:
    if (torch := peers.load("torch")) is None:
        return
    set_tf32(torch, False)
    for batch, width in ((16, 4),) if small else ((96, 128), (1024, 2048)):
        rng = np.random.default_rng(0)
        labels = rng.integers(7, size=batch)
        embeddings = rng.normal(size=(batch, width)).astype(np.float32)
        sides = {
            "xla": loss.xla_side(embeddings, labels),
            "torch": loss.torch_side(torch, embeddings, labels),
            "torch.compile": loss.torch_side(torch, embeddings, labels, compiled=True),
        }
        yield entry_of(compare(f"loss + gradient, B {batch}, D {width}", sides, repeats=10))


def _measured(cases: Sequence[Case], *, repeats: int, by_compiler: bool = False) -> Iterator[Entry]:
    """An entry a case: all are compiled at once in threads, and then measured one by one."""
    found = [backbones.peer(case.name) for case in cases]
    with ThreadPoolExecutor(max(len(cases), 1)) as pool:
        futures = [
            pool.submit(_ours, case, theirs) for case, theirs in zip(cases, found, strict=True)
        ]
    waiting = list(zip(cases, found, futures, strict=True))
    del found, futures  # what was measured is let go: a step takes gigabytes
    while waiting:
        case, theirs, future = waiting.pop(0)
        measure = functools.partial(_one, case, theirs, future, repeats, by_compiler)
        yield from attempt(case.task, measure)
        del theirs, future, measure
        _let_go()


class _Ours(NamedTuple):
    side: Side
    compile_seconds: float
    mebibytes: float | None


def _ours(case: Case, theirs: tuple[ModuleType, Any] | None) -> _Ours:
    """This project's side, compiled."""
    dtype = jnp.bfloat16 if case.precision == "bfloat16" else jnp.float32
    variables = None
    if theirs is not None:
        variables = backbones.variables_of(case.name, *theirs)
    images, labels, rows_1xB = backbones.batch_of(case.batch, case.size)
    began = time.monotonic()
    with _precision(case):
        model = models.build(case.name, dtype=dtype)
        side, params = xla_side(model, images, labels, rows_1xB, variables)
    parts = jax.tree.leaves(params)
    held = (2 * sum(part.nbytes for part in parts) + images.nbytes) / 2**20
    planned = None if side.mebibytes is None else side.mebibytes + held

    def run() -> Any:
        with _precision(case):  # part of what JAX compiles for
            return side.run()

    return _Ours(side._replace(run=run), time.monotonic() - began, planned)


@contextlib.contextmanager
def _precision(case: Case) -> Iterator[None]:
    """In the block JAX's products and convolutions are in full float32, where the case says so."""
    with jax.default_matmul_precision("highest" if case.precision == "IEEE" else "default"):
        yield


def _one(
    case: Case,
    theirs: tuple[ModuleType, Any] | None,
    future: "Future[_Ours]",
    repeats: int,
    by_compiler: bool,
) -> Iterator[Entry]:
    ours = future.result()
    sides, mebibytes = {"xla": ours.side}, {"xla": ours.mebibytes}
    seconds = {"xla": ours.compile_seconds}
    if theirs is not None:
        torch, network = theirs
        set_tf32(torch, case.precision != "IEEE")
        torch.backends.cudnn.benchmark = True
        images, labels, rows_1xB = backbones.batch_of(case.batch, case.size)
        arrays = images.transpose(0, 3, 1, 2), labels, rows_1xB
        narrow = case.precision == "bfloat16"
        name = "torch.compile" if by_compiler else "torch"
        peers.restart_peak(torch)
        sides[name] = torch_side(torch, network, *arrays, bfloat16=narrow, compiled=by_compiler)
    row = compare(case.task, sides, repeats=repeats, tolerance=_TOLERANCE)
    if theirs is not None:
        mebibytes[name] = peers.peak_mebibytes(torch)
    speeds = {side: 1e3 * case.batch / taken for side, taken in row.milliseconds.items()}
    yield entry_of(row._replace(mebibytes=mebibytes), images_per_s=speeds, compile_seconds=seconds)


def _let_go() -> None:
    gc.collect()
    if (torch := peers.load("torch")) is not None and peers.torch_device(torch) == "cuda":
        torch.cuda.empty_cache()


def first_step(name: str, batch: int, size: int) -> Mapping[str, float]:
    """Seconds from an initialised backend to the end of a backbone's first step in float32."""
    jax.block_until_ready(jnp.zeros(1))
    began = time.monotonic()
    ours = _ours(Case(name, "TF32", batch, size), None)
    ours.side.run()
    return {"seconds": time.monotonic() - began}


def first_step_command(name: str, batch: int, size: int) -> list[str]:
    """Python's arguments to print `first_step` in JSON."""
    code = (
        "import json; from deepknn_jax.bench.gpu.networks import first_step; "
        f"print(json.dumps(first_step({name!r}, {batch}, {size})))"
    )
    return ["-c", code]
