"""Checkpoints: whole or not at all, and clear words about damaged ones."""

import errno
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.runs import same_bits

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
    found = checkpoint.restore_newest(manager, (tree(size=size), ((), ())))
    manager.close()
    return found


def test_what_was_saved_comes_back_to_the_bit(folder):
    step, (arrays, best), extra = restored(folder)
    assert (step, best) == (7, ((), ()))
    assert extra == EXTRA | {"version": checkpoint.VERSION}
    assert checkpoint.newest_extra(folder) == (7, extra)
    same_bits(jax.tree.map(np.asarray, arrays), jax.tree.map(np.asarray, tree(7)))
    assert arrays["a"].sharding == tree()["a"].sharding


def test_no_checkpoint_is_none(tmp_path):
    manager = checkpoint.open_manager(tmp_path / "new", keep=2)
    assert checkpoint.restore_newest(manager, tree()) is None
    assert checkpoint.newest_extra(tmp_path / "new") is None


def test_only_the_newest_are_kept(folder):
    manager = checkpoint.open_manager(folder, keep=2)
    checkpoint.save(manager, 9, (tree(9), ((), ())), EXTRA)
    assert sorted(path.name for path in folder.iterdir()) == ["7", "9"]


def test_one_device_s_checkpoint_restores_on_four(folder):
    manager = checkpoint.open_manager(folder, keep=2)
    like = replicate(get_devices(4, "shard_map"), tree())
    _, (arrays, _), _ = checkpoint.restore_newest(manager, (like, ((), ())))
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
    for which in ("data", "manifest.ocdbt", "_METADATA", "extra/metadata", "checksums.json")
    for how in ("gone", "cut short", "flipped")
    if (which, how) not in [("checksums.json", "gone")]  # as in one of an earlier version
]


def spoil(folder, which, how):
    """Damages the newest of the checkpoints."""
    path = folder / "7" / (which if which.startswith(("extra", "check")) else f"state/{which}")
    if which == "data":
        path = max((folder / "7").rglob("d/*"), key=lambda path: path.stat().st_size)
    content = path.read_bytes()
    path.unlink()
    middle = len(content) // 2
    if how == "cut short":
        path.write_bytes(content[:middle])
    if how == "flipped":
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 64]) + content[middle + 1 :])


@pytest.mark.parametrize(("which", "how"), DAMAGED)
def test_a_damaged_checkpoint_is_told_and_kept_aside_and_the_earlier_one_taken(
    folder, capfd, which, how
):
    spoil(folder, which, how)
    before = sorted((folder / "7").rglob("*"))
    arrays, _ = checkpoint.newest_arrays(folder)  # which changes nothing
    same_bits(arrays, jax.tree.map(np.asarray, tree(3)))
    assert "that of 3 is taken" in capfd.readouterr().out
    assert sorted((folder / "7").rglob("*")) == before
    step, (arrays, _), _ = restored(folder)
    assert step == 3
    same_bits(jax.tree.map(np.asarray, arrays), jax.tree.map(np.asarray, tree(3)))
    out, err = capfd.readouterr()
    assert err == ""  # orbax's threads are not asked
    assert out.startswith(f"{folder}/7: checkpoint is damaged (")
    assert out.endswith("kept as 7.damaged-1, that of step 3 is taken\n")
    assert sorted(path.name for path in folder.iterdir()) == ["3", "7.damaged-1"]
    fill_one(folder, 7)
    spoil(folder, which, how)
    assert restored(folder)[0] == 3
    assert (folder / "7.damaged-2").is_dir()
    fill_one(folder, 9)
    assert restored(folder)[0] == 9


def fill_one(folder, step):
    manager = checkpoint.open_manager(folder, keep=2)
    checkpoint.save(manager, step, (tree(step), ((), ())), EXTRA)
    manager.close()


def test_where_none_is_sound_all_stay_and_are_named(folder):
    for step in (3, 7):
        (folder / str(step) / "state" / "_METADATA").write_text("")
    for read in (restored, checkpoint.newest_arrays):
        with pytest.raises(UserError, match=r"no checkpoint is sound \(7: .*_METADATA.*3: .*move"):
            read(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["3", "7"]


@pytest.mark.parametrize("checksums", [True, False])
def test_a_sound_checkpoint_that_does_not_fit_stays_where_it_is(folder, checksums):
    """Of another network: nobody is to delete it, and no earlier one is taken."""
    if not checksums:
        (folder / "7" / "checksums.json").unlink()
    with pytest.raises(UserError) as error:
        restored(folder, size=3)
    assert str(error.value) == (
        f"{folder}/7: checkpoint is sound, but does not fit this config or version (0/a is "
        "float32[2000] there and float32[3] here): go on with those that wrote it, or choose "
        "another --workdir"
    )
    assert sorted(path.name for path in folder.iterdir()) == ["3", "7"]


def test_another_version_is_named(folder, monkeypatch):
    monkeypatch.setattr(checkpoint, "VERSION", 2)
    with pytest.raises(UserError, match="7: checkpoint is of version 1, this program reads 2"):
        restored(folder)


def test_a_checkpoint_from_before_checksums_and_version_is_restored(folder):
    (folder / "7" / "checksums.json").unlink()
    path = folder / "7" / "extra" / "metadata"
    path.write_text(json.dumps(EXTRA))
    assert restored(folder)[0] == 7
    assert restored(folder)[2] == EXTRA


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
