"""The bench's harness on tiny sizes; what needs no other library runs without one."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from support.interop import import_vision
from support.optional import require
from support.twins import shapes

from deepknn_jax import models
from deepknn_jax.bench import backbones, estimators, knn, loss, mlp, peers, refresh, timing
from deepknn_jax.bench.timing import Row, Side, compare, table
from deepknn_jax.models.weights.published import PUBLISHED

MEASURES = {
    "loss": lambda: loss.measure(((16, 4),), repeats=2),
    "knn": lambda: knn.measure(((6, 40, 4, 3),), repeats=2),
    "mlp": lambda: mlp.measure(features=5, batch=16, steps=2, repeats=2),
}


def side(value, units=1):
    return Side(lambda: value, np.asarray, units)


@pytest.mark.parametrize("name", ["loss", "knn", "mlp"])
def test_without_peers_xla_is_measured_alone(name, monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda module: None)
    (row,) = MEASURES[name]()
    assert set(row.milliseconds) == {"xla"}
    assert peers.machine()["torch"] == "absent"


def test_estimators_are_timed_beside_scikit_learns():
    rows = estimators.measure(((5, 140, 3, 2),), ((40, 5, 2, 3, 3),), repeats=2)
    found = {row.task.split(",")[0]: set(row.milliseconds) for row in rows}
    assert found == {"kneighbors": {"xla", "sklearn"}, "NCA fit": {"xla", "sklearn"}}


@pytest.mark.interop
@pytest.mark.parametrize("name", MEASURES)
def test_the_sides_agree_and_each_is_timed(name):
    require("torch")
    require("faiss")
    (row,) = MEASURES[name]()
    names = {"xla", "torch", "faiss", "sklearn"} if name == "knn" else {"xla", "torch"}
    assert set(row.milliseconds) == names


@pytest.mark.interop
def test_a_backbone_is_compared_with_its_peer_in_time_and_memory():
    import_vision("torchvision")
    rows = list(backbones.measure(names=("resnet18",), batch=8, size=33, repeats=1))
    assert [row.task.split(",")[0] for row in rows] == [
        "resnet18 evaluation step",
        "resnet18 train step",
    ]
    for row in rows:
        assert set(row.milliseconds) == set(row.mebibytes) == {"xla", "torch"}
    # A training step keeps what an evaluation step does not: activations and gradients.
    assert rows[1].mebibytes["xla"] > rows[0].mebibytes["xla"]
    assert rows[1].mebibytes["torch"] > 20  # a step's gradients alone are 43
    lines = table(rows).splitlines()
    assert lines[0] == "| ms (times XLA's) | xla | torch | MiB xla | MiB torch | others |"


def test_without_torch_a_backbone_is_measured_alone(monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda module: None)
    rows = list(backbones.measure(names=("resnet18",), batch=8, size=33, repeats=1))
    assert [set(row.milliseconds) for row in rows] == [{"xla"}, {"xla"}]


@pytest.mark.interop
@pytest.mark.parametrize("name", backbones.PEERS)
def test_every_published_backbone_has_a_peer(name):
    package, _ = backbones.PEERS[name]
    import_vision(package)
    _, model = backbones.peer(name)
    with_norm = "batch_stats" in shapes(models.build(name), 96)
    assert any("running_mean" in key for key in model.state_dict()) == with_norm
    assert set(backbones.PEERS) == set(PUBLISHED)


def test_a_refresh_is_measured_beside_the_steps():
    rows = list(refresh.measure(sizes=(700,), large=((20, 600, 7),), repeats=1))
    assert [row.task.split(",")[0] for row in rows] == [
        "embedding", "LM: search within 10 classes", "LM-Mining: both searches and draws",
        "an epoch's 5 steps", "7-NN of 20 anchors in 600 x 128",
    ]  # fmt: skip


def test_sides_that_disagree_are_not_timed():
    with pytest.raises(ValueError, match=r"task: torch is 1 off xla \(largest: 2\)"):
        compare("task", {"xla": side([1.0, 2.0]), "torch": side([1.0, 3.0])})
    with pytest.raises(ValueError, match="nan off xla"):
        compare("task", {"xla": side([1.0, 2.0]), "torch": side([1.0, float("nan")])})


def test_sides_take_turns_and_count_by_unit(monkeypatch):
    clock, order = [0.0], []

    def run(name, seconds):
        order.append(name)
        clock[0] += seconds
        return 1.0

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    sides = {
        "xla": Side(lambda: run("xla", 4.0), np.asarray, units=2),
        "torch": Side(lambda: run("torch", 3.0), np.asarray),
    }
    row = compare("task", sides, repeats=3)
    assert row.milliseconds == {"xla": 2000.0, "torch": 3000.0}
    assert order == ["xla", "torch"] * 5


def test_table_shows_ratios_and_leaves_the_absent_empty():
    rows = [
        Row("a", {"xla": 2.0, "torch": 3.0}, 0.5, others=0.02),
        Row("b", {"xla": 1.0}, 0.5, others=0.7),
        Row("c", {"xla": 1.0}, 0.5),
    ]
    lines = table(rows).splitlines()
    assert lines[0] == "| ms (times XLA's) | xla | torch | others |"
    assert lines[2:] == [
        "| a | 2 | 3 (1.50) | 0.02 |", "| b | 1 |  | 0.70 **not quiet** |", "| c | 1 |  | ? |"
    ]  # fmt: skip


@pytest.mark.skipif(not timing._STAT.exists(), reason="the system does not tell")
def test_what_other_programs_take_meanwhile_is_seen():
    """Whatever else runs beside this test has more than nothing, too."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            row = compare(
                "task", {"xla": Side(lambda: time.sleep(0.2), lambda _: np.zeros(1))}, repeats=4
            )
        finally:
            other.kill()
    assert row.others > timing.BUSY


def test_command_writes_json(tmp_path):
    command = [sys.executable, "-m", "deepknn_jax.bench", "--only=zzz"]
    wrong = subprocess.run(command, capture_output=True, text=True, check=False)
    assert wrong.returncode != 0
    assert "takes loss, knn, mlp, backbones" in wrong.stderr + wrong.stdout
    code = (
        "import sys; from absl import app; from deepknn_jax.bench import __main__ as bench, loss;"
        "bench.MEASUREMENTS['loss'] = lambda: loss.measure(((16, 4),), repeats=2);"
        f"app.run(bench.main, ['bench', '--only=loss', '--out={tmp_path}/out.json'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "| loss + gradient, B 16, D 4 |" in done.stdout
    record = json.loads((tmp_path / "out.json").read_text())
    assert f"| {record['rows'][0]['milliseconds']['xla']:.3g} |" in done.stdout
    assert record["machine"]["jax"]
