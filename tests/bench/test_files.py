"""Epochs and features from files, beside their peers' on a few made-up pictures."""

import pytest
from support.interop import import_vision

from deepknn_jax.bench import files, peers
from deepknn_jax.bench.gpu.images import make_folders
from deepknn_jax.bench.timing import BUSY

TASKS = [
    "first epoch of 40 jpeg files",
    "a later epoch of 40 jpeg files",
    "features of 40 jpeg files",
]


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A folder of 40 pictures; programs are kept where the tests keep them."""
    monkeypatch.setattr(files.compiled, "keep", lambda folder: None)
    make_folders(tmp_path / "images", count=40, classes=2, width=60, height=45)
    return str(tmp_path / "images")


def test_without_peers_xla_is_measured_alone(pictures, monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda module: None)
    rows = list(files.measure(pictures, repeats=1, tasks=("first", "later")))
    assert [set(row.milliseconds) for row in rows] == [{"xla"}] * 2


@pytest.mark.interop
def test_the_sides_read_the_same_pictures_and_give_the_same_features(pictures):
    import_vision("timm")
    rows = list(files.measure(pictures, repeats=1))
    assert [row.task.split(" at ")[0].split(",")[0] for row in rows] == TASKS
    assert [set(row.milliseconds) for row in rows] == [{"xla", "torch"}] * 3
    assert rows[2].off["torch"] < 0.01


@pytest.mark.interop
def test_what_the_peers_process_takes_is_its_own(pictures, tmp_path):
    """Not other programs': the features keep its threads busy for longer than BUSY."""
    import_vision("timm")
    with files._peer(pictures, tmp_path / "peer.pth") as ask:
        side = files._side(ask, "features")
        side.run()
        before = side.seconds()
        side.run()
        assert side.seconds() - before > BUSY
