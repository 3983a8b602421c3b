"""Small runs that several tests look at, in this process and in processes of their own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from deepknn_jax import config as config_lib
from deepknn_jax.trainer import checkpoint, loop
from deepknn_jax.trainer.setup import build, first_state, load

ROOT = Path(__file__).resolve().parents[2]


def small_config(**changes):
    """An MLP on the breast cancer set, 7 steps an epoch; `changes` as loss__name="triplet"."""
    config = config_lib.default()
    config.data.source = "breast_cancer"
    config.model.name = "mlp"
    config.epochs = 2
    config.batch.size = 64
    config.devices = 1
    config.evaluate.pictures = False
    config.evaluate.references = ()
    config.checkpoint_seconds = 0.0
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def config_module(name):
    """The module configs/<name>.py."""
    path = ROOT / "configs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"configs_{name}", path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def file_config(name):
    return config_module(name).get_config()


def arguments(config):
    """The command-line arguments that make this config from configs/breast_cancer.py."""
    base, flat = config_lib.flatten(file_config("breast_cancer")), config_lib.flatten(config)
    changed = [f"--config.{key}={flat[key]}" for key in flat if flat[key] != base[key]]
    return ["--config=configs/breast_cancer.py", *changed]


def setup_of(config):
    return build(config, load(config))


def fit(config, workdir):
    """Trains, without the evaluation at the end; returns what `loop.fit` does."""
    workdir.mkdir(exist_ok=True)
    return loop.fit(config, setup_of(config), workdir, {})


def last_checkpoint(workdir, config):
    """(state, best variables, what was mined) of the newest checkpoint, its step, its extra."""
    manager = checkpoint.open_manager(workdir / "checkpoints", keep=2)
    setup = setup_of(config)
    state, mined = first_state(setup), setup.mining.empty if setup.mining else {}
    best = (state.params, state.batch_stats) if config.data.validation > 0 else ((), ())
    like = (state, best, jax.tree.map(jnp.asarray, mined))
    step, arrays, extra = checkpoint.restore_newest(manager, like)
    manager.close()
    return jax.tree.map(np.asarray, arrays), step, extra


def same_bits(left, right):
    """Asserts that two trees of arrays are equal to the bit."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()


def start(args, cwd, **options):
    """The command in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "deepknn_jax.main", *map(str, args)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


@pytest.fixture(scope="session")
def compiled_once():
    """Programs that one run compiled are there for the next, also in other processes."""
    assert jax.config.jax_compilation_cache_dir  # conftest.py


def digits_file(folder):
    """An .npz in Keras's keys of 400 + 137 of scikit-learn's digits."""
    digits = load_digits()
    images = np.rint(digits.images[:537] * (255 / 16)).astype(np.uint8)
    path = folder / "digits.npz"
    train, test = slice(400), slice(400, 537)
    np.savez(
        path, x_train=images[train], y_train=digits.target[train],
        x_test=images[test], y_test=digits.target[:537][test],
    )  # fmt: skip
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """(workdir, config, results) of a finished run: a CNN on digits, two epochs, with all."""
    folder = tmp_path_factory.mktemp("finished")
    config = config_lib.default()
    config.data.source = "npz"
    config.data.dir = str(digits_file(folder))
    config.data.split = "published"
    config.data.validation = 0.2
    config.augment.crop = 7
    config.augment.flip = True
    config.epochs = 2
    config.devices = 1
    config.evaluate.batch_size = 100  # divides no part evenly
    return folder / "run", config, loop.run(config, folder / "run")


def python_in(folder, code):
    """What the code prints in a process of its own, in `folder`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
