"""From jpeg files: epochs beside torch's DataLoader, features beside timm's."""

import contextlib
import functools
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from deepknn_jax import config
from deepknn_jax.bench import peers
from deepknn_jax.bench.gpu.images import make_folders
from deepknn_jax.bench.timing import Row, Side, compare
from deepknn_jax.bench.torch_files import BATCH, CROP, MEAN, SIZE, STD
from deepknn_jax.engine import compiled
from deepknn_jax.engine.feed import plan_calls, train_calls
from deepknn_jax.trainer import embed
from deepknn_jax.trainer.setup import Setup, build, load

# Bilinear and the crops drawn differ: of normalised pixels some hundredths of a deviation.
_ALIKE = 0.1
_JPEG = (".jpg", ".jpeg")
_TASKS = {
    "first": f"first epoch of {{files}} jpeg files at {CROP} px, B {BATCH}",
    "later": f"a later epoch of {{files}} jpeg files at {CROP} px, B {BATCH}",
    "features": f"features of {{files}} jpeg files, EfficientNet-Lite0, {CROP} px",
}


def measure(
    folder: str = "", *, count: int = 600, repeats: int = 3, tasks: Sequence[str] = tuple(_TASKS)
) -> Iterator[Row]:
    """Rows of `folder`'s class folders, or of made-up pictures: first and later epochs, features.

    An epoch is what brings its batches to the device, cropped, mirrored and normalised; the first
    one begins with the list of files, and ours keeps what it decodes. Features start from nothing.
    """
    with contextlib.ExitStack() as stack:
        own = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not folder:
            make_folders(own / "images", count=count, classes=5)
        pictures, weights = Path(folder or own / "images"), own / "peer.pth"
        compiled.keep(str(own / "programs"))
        stack.callback(compiled.keep, compiled.OFF)
        ask = None
        if all(peers.load(name) for name in ("torch", "torchvision", "timm")):
            ask = stack.enter_context(_peer(pictures, weights))
        kept: list[Setup] = []
        ours: dict[str, Callable[[], float]] = {
            "first": functools.partial(_first, pictures, own, kept),
            "later": lambda: _epoch(kept[0]) if kept else _first(pictures, own, kept),
            "features": functools.partial(_features, pictures, own, weights if ask else None),
        }
        found = [path for path in pictures.rglob("*") if path.suffix.lower() in _JPEG]
        for task in tasks:
            sides = {"xla": Side(ours[task], np.atleast_1d)}
            if ask is not None:
                sides["torch"] = _side(ask, task)
            named = _TASKS[task].format(files=len(found))
            yield compare(named, sides, repeats=repeats, tolerance=_ALIKE)


@contextlib.contextmanager
def _peer(pictures: Path, weights: Path) -> Iterator[Callable[[str], dict[str, float]]]:
    """The peers' process; call what is given with a task for its answer."""
    command = [sys.executable, "-m", "deepknn_jax.bench.torch_files", str(pictures), str(weights)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        sent, answered = process.stdin, process.stdout

        def ask(task: str) -> dict[str, float]:
            sent.write(task + "\n")
            found: dict[str, float] = json.loads(answered.readline())
            return found

        try:
            yield ask
        finally:
            sent.close()


def _side(ask: Callable[[str], dict[str, float]], task: str) -> Side:
    had = [0.0]

    def run() -> float:
        answer = ask(task)
        had[0] = answer["seconds"]
        return answer["mean"]

    return Side(run, np.atleast_1d, seconds=lambda: had[0])


def _options(pictures: Path, own: Path) -> config.ConfigDict:
    options = config.default()
    options.update_from_flattened_dict(
        {
            "data.source": "class_folders",
            "data.dir": str(pictures),
            "data.size": SIZE,
            "data.channels": 3,
            "data.split": "stratified",
            "data.cache_dir": tempfile.mkdtemp(dir=own),  # nothing was decoded before
            "augment.crop": CROP,
            "augment.flip": True,
            "batch.size": BATCH,
            "batch.kind": "shuffled",
            "loss.name": "cross_entropy",
            "devices": 1,
        }
    )
    return options


def _first(pictures: Path, own: Path, kept: list[Setup]) -> float:
    """The mean of an epoch's pixels; all files train, as with the peer."""
    options = _options(pictures, own)
    options.augment.mean, options.augment.std = MEAN, STD
    dataset = load(options)
    kept[:] = [build(options, dataset._replace(splits=np.full(len(dataset.labels), "train")))]
    return _epoch(kept[0])


def _epoch(setup: Setup) -> float:
    calls = plan_calls(0, setup.steps_per_epoch, intervals=(setup.steps_per_epoch,), most=1)
    feed = train_calls(setup.store, setup.devices, calls, setup.sampler(0, {}), most=1)
    augment = setup.recipe.augment
    means = [_augmented_mean(augment, call.pool, call.rows[0], call.ids[0]) for call in feed]
    return float(np.mean([np.asarray(mean) for mean in means]))


@functools.partial(jax.jit, static_argnums=0)
def _augmented_mean(
    augment: Callable[..., jax.Array], pool: jax.Array, rows: jax.Array, ids: jax.Array
) -> jax.Array:
    return jnp.mean(augment(pool[rows], ids, jax.random.key(0)))


def _features(pictures: Path, own: Path, weights: Path | None) -> float:
    """The mean of the features' squares, by the command's function."""
    options = _options(pictures, own)
    options.model.name = "efficientnet_lite0"
    if weights is None:
        options.augment.mean, options.augment.std = MEAN, STD
    else:
        options.model.weights = str(weights)
    workdir = Path(tempfile.mkdtemp(dir=own))  # nothing was written before
    with contextlib.redirect_stdout(io.StringIO()):
        path = embed.run(options, workdir)
    with np.load(path, allow_pickle=False) as file:
        return float(np.mean(np.square(file["features"])))
