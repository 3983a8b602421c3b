"""Compiled programs kept in a folder: taken again, whole or absent, bounded, never in the way."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import compilation_cache
from support.runs import ROOT

from deepknn_jax.engine import compiled
from deepknn_jax.engine.compiled import Entries, keep, prune


@pytest.fixture
def settings():
    """JAX's options, and what holds its entries, as they were before."""
    names = (
        "jax_enable_compilation_cache", "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs", "jax_persistent_cache_min_entry_size_bytes",
    )  # fmt: skip
    before = {name: getattr(jax.config, name) for name in names}
    holder = compilation_cache.get_file_cache
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.get_file_cache = holder
    compilation_cache.reset_cache()


def entries(folder):
    return sorted(folder.rglob("*.program"))


def program(x):
    return jnp.sin(x) * 3 + jnp.cumsum(x)


def test_a_program_is_taken_from_the_folder_and_gives_the_same_bits(settings, tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=7).astype(np.float32)
    keep("off")
    without = np.asarray(jax.jit(lambda x: program(x))(x))
    jax.config.update("jax_enable_compilation_cache", True)
    keep(str(tmp_path / "new" / "kept"))
    events = []
    jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
    first = np.asarray(jax.jit(lambda x: program(x))(x))
    made = entries(tmp_path)
    assert made
    jax.clear_caches()
    events.clear()
    second = np.asarray(jax.jit(lambda x: program(x))(x))
    assert "/jax/compilation_cache/cache_hits" in events
    assert entries(tmp_path) == made
    assert without.tobytes() == first.tobytes() == second.tobytes()
    assert capsys.readouterr().out == ""
    for path in made:  # a disk that lost half of each: compiled again, without a word
        path.write_bytes(path.read_bytes()[:-3])
    jax.clear_caches()
    assert np.asarray(jax.jit(lambda x: program(x))(x)).tobytes() == first.tobytes()
    assert entries(tmp_path) == made


def test_a_damaged_entry_counts_as_absent_and_is_removed(tmp_path):
    store = Entries(tmp_path)
    assert store.get("jit_<lambda>-1") is None
    store.put("jit_<lambda>-1", b"program")
    assert store.get("jit_<lambda>-1") == b"program"
    (path,) = entries(tmp_path)
    whole = path.read_bytes()
    for damaged in (whole[:-1], b"", whole[:-1] + b"?"):
        path.write_bytes(damaged)
        assert store.get("jit_<lambda>-1") is None
        assert not path.exists()
    store.put("jit_<lambda>-1", b"program")
    assert store.get("jit_<lambda>-1") == b"program"


def test_what_was_longest_not_used_goes_first(tmp_path):
    store = Entries(tmp_path)
    for age, key in enumerate("abc"):
        store.put(key, bytes(100))
        os.utime(store._file(key), (1e9 - age * 1e5,) * 2)
    assert store.get("c") == bytes(100)  # used now
    left = tmp_path / ".left.tmp.program"
    left.write_bytes(bytes(1000))
    prune(tmp_path, 2 * 132)
    assert [store.get(key) is not None for key in "abc"] == [True, False, True]
    assert left.exists()  # another process may be writing it
    os.utime(left, (1e9, 1e9))
    prune(tmp_path, 2 * 132)
    assert not left.exists()
    store.clear()
    assert not entries(tmp_path)


def test_a_folder_that_cannot_be_made_or_written_is_told_in_one_line(settings, tmp_path, capsys):
    (tmp_path / "file").touch()
    keep(str(tmp_path / "file"))
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert str(tmp_path / "file") in out
    assert jax.config.jax_compilation_cache_dir is None
    store = Entries(tmp_path / "gone")
    for key in "ab":
        store.put(key, b"program")
    assert capsys.readouterr().out.count("\n") == 1
    assert store.get("a") is None


def test_where_the_folder_is(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    keep()
    keep()
    own = compiled._machine()
    assert jax.config.jax_compilation_cache_dir == str(
        tmp_path / "xdg" / "deepknn_jax" / "compiled" / own
    )
    assert (tmp_path / "xdg" / "deepknn_jax" / "compiled" / own).stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "given"))
    keep()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "given" / own)
    keep("gs://bucket/folder")
    assert jax.config.jax_compilation_cache_dir == "gs://bucket/folder"
    keep("off")
    assert not jax.config.jax_enable_compilation_cache


WRITE = """
import sys
from pathlib import Path
from deepknn_jax.engine.compiled import Entries
store = Entries(Path(sys.argv[1]))
for i in range(300):
    found = store.get(str(i % 7))
    assert found in (None, bytes([i % 7]) * 50_000), i
    store.put(str(i % 7), bytes([i % 7]) * 50_000)
    if i % 11 == 0:
        store.clear()
"""


def test_processes_that_write_and_remove_at_once_read_only_whole_entries(tmp_path):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE, str(tmp_path)],
            env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert [(writer.communicate()[1], writer.returncode) for writer in writers] == [("", 0)] * 2
