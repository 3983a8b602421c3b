"""Checkpoints: whole or not at all, and clear words about damaged ones."""

import ast
import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.runs import ROOT, same_bits

from deepknn_jax.engine.parallel import get_devices, replicate
from deepknn_jax.errors import UserError
from deepknn_jax.trainer import checkpoint

EXTRA = {"best_step": 3, "best_figure": None, "seconds": {"training": 0.1}}


def tree(offset=0.0, size=2000):
    """Awkward numbers, an empty subtree, an int and a bfloat16 leaf, on one device."""
    awkward = np.float32([np.nextafter(1, 2), 1e-45, -0.0, np.pi]) + np.float32(offset)
    leaves = {"a": np.resize(awkward, size), "b": {}, "step": np.int32(7)}
    leaves["c"] = jnp.asarray(awkward, jnp.bfloat16)
    return replicate(get_devices(1, "shard_map"), jax.tree.map(jnp.asarray, leaves))


def fill(folder):
    """Checkpoints of steps 3 and 7."""
    manager = checkpoint.open_manager(folder, keep=2)
    for step in (3, 7):
        checkpoint.save(manager, step, (tree(step), ((), ())), EXTRA)
    manager.close()


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def restored(folder, size=2000):
    """Step, arrays and extra of the newest checkpoint."""
    manager = checkpoint.open_manager(folder, keep=2)
    step = checkpoint.latest_step(manager)
    arrays, extra = checkpoint.restore(manager, step, (tree(size=size), ((), ())))
    manager.close()
    return step, arrays, extra


def test_what_was_saved_comes_back_to_the_bit(folder):
    step, (arrays, best), extra = restored(folder)
    assert (step, best, extra) == (7, ((), ()), EXTRA)
    same_bits(jax.tree.map(np.asarray, arrays), jax.tree.map(np.asarray, tree(7)))
    assert arrays["a"].sharding == tree()["a"].sharding


def test_no_checkpoint_is_none(tmp_path):
    manager = checkpoint.open_manager(tmp_path / "new", keep=2)
    assert checkpoint.latest_step(manager) is None


def test_only_the_newest_are_kept(folder):
    manager = checkpoint.open_manager(folder, keep=2)
    checkpoint.save(manager, 9, (tree(9), ((), ())), EXTRA)
    assert sorted(path.name for path in folder.iterdir()) == ["7", "9"]


def test_one_device_s_checkpoint_restores_on_four(folder):
    manager = checkpoint.open_manager(folder, keep=2)
    like = replicate(get_devices(4, "shard_map"), tree())
    (arrays, _), _ = checkpoint.restore(manager, 7, (like, ((), ())))
    assert len(arrays["a"].addressable_shards) == 4
    same_bits(jax.tree.map(np.asarray, arrays), jax.tree.map(np.asarray, tree(7)))


def test_the_newest_arrays_need_no_target(folder):
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    arrays, best = checkpoint.newest_arrays(folder)
    assert best == [(), ()]
    assert arrays["b"] == {}
    same_bits(arrays, jax.tree.map(np.asarray, tree(7)))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == files


def test_newest_arrays_of_nothing(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="holds no checkpoint"):
            checkpoint.newest_arrays(folder)


def test_a_save_that_was_killed_leaves_the_earlier_one_and_is_swept_away(folder):
    shutil.copytree(folder / "7", folder / "9.orbax-checkpoint-tmp")
    shutil.rmtree(folder / "9.orbax-checkpoint-tmp" / "state" / "d")
    assert restored(folder)[0] == 7
    manager = checkpoint.open_manager(folder, keep=2)
    checkpoint.save(manager, 8, (tree(8), ((), ())), EXTRA)
    assert sorted(path.name for path in folder.iterdir()) == ["7", "8"]


DAMAGED = [
    (which, how)
    for which in ("data", "manifest.ocdbt", "_METADATA", "extra/metadata")
    for how in ("gone", "cut short")
]
RESTORE = """
import sys
from pathlib import Path
from pathlib import Path

import test_checkpoint, deepknn_jax.errors
for folder in map(Path, sys.argv[1:]):
    size = 3 if "other" in str(folder) else 2000
    for read in (lambda: test_checkpoint.restored(folder, size=size),
                 lambda: test_checkpoint.checkpoint.newest_arrays(folder)):
        try:
            read()
            print(repr(""))
        except deepknn_jax.errors.UserError as error:
            print(repr(str(error)))
"""


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """{case: (folder, what restoring its newest checkpoint says, what newest_arrays says)}.

    In a process of its own: when a read fails, orbax leaves coroutines and callbacks behind that
    complain at some later time.
    """
    folders = {}
    for number, case in enumerate([*DAMAGED, "other network"]):
        name = f"{number}-{'other' if case == 'other network' else 'damaged'}"
        folders[case] = folder = tmp_path_factory.mktemp(name) / "checkpoints"
        fill(folder)
        if case == "other network":
            continue
        which, how = case
        path = folder / "7" / (which if "/" in which else f"state/{which}")
        if which == "data":
            path = max((folder / "7").rglob("d/*"), key=lambda path: path.stat().st_size)
        content = path.read_bytes()
        path.unlink()
        if how == "cut short":
            path.write_bytes(content[: len(content) // 2])
    paths = (ROOT, ROOT / "tests", Path(__file__).parent)
    out = subprocess.run(
        [sys.executable, "-c", RESTORE, *map(str, folders.values())],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    lines = list(map(ast.literal_eval, out.splitlines()))
    said = zip(folders, lines[::2], lines[1::2], strict=True)
    return {case: (folders[case], *messages) for case, *messages in said}


@pytest.mark.parametrize("case", [*DAMAGED, "other network"], ids=str)
def test_a_checkpoint_that_cannot_be_restored_is_named_and_the_earlier_one_is_left(refused, case):
    folder, message, newest = refused[case]
    assert message.startswith(f"{folder}/7: checkpoint cannot be restored (")
    assert "\n" not in message
    assert message.endswith("delete that folder to go on from an earlier one")
    if case == "other network" or case[0] == "extra/metadata":  # newest_arrays wants neither
        assert newest == ""
    else:
        assert newest.startswith(f"{folder}/7: checkpoint cannot be restored (")
        assert newest.endswith("delete that folder to take an earlier one")
    shutil.rmtree(folder / "7")  # as it says
    step, (arrays, _), _ = restored(folder)
    assert step == 3
    same_bits(jax.tree.map(np.asarray, arrays), jax.tree.map(np.asarray, tree(3)))


def test_a_disk_without_room_is_found_before_writing(folder, monkeypatch):
    usage = type("Usage", (), {"free": 2**20})
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage)
    manager = checkpoint.open_manager(folder, keep=2)
    with pytest.raises(UserError, match=r"step 9 not written \(it needs 1.0 MiB, .* 1.0 left\)"):
        checkpoint.save(manager, 9, (tree(), ((), ())), EXTRA)
    assert sorted(path.name for path in folder.iterdir()) == ["3", "7"]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left"), ValueError("x: No space left on device")]
)
def test_a_disk_that_fills_up_meanwhile_is_one_line(folder, monkeypatch, error):
    manager = checkpoint.open_manager(folder, keep=2)

    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr(manager, "save", fails)
    with pytest.raises(UserError, match=r"step 9 not written \(the disk is full\)"):
        checkpoint.save(manager, 9, (tree(), ((), ())), EXTRA)
    assert restored(folder)[0] == 7
