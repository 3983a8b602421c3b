"""The bench's sections for a GPU at the small sizes that a machine without one gets."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from support.interop import import_vision
from support.optional import require

from deepknn_jax.bench import backbones, peers
from deepknn_jax.bench.gpu import arrays, command, images, networks, record, render, runs
from deepknn_jax.bench.timing import Row


def entries_of(file, section):
    found = json.loads(file.read_text())["sections"][section]
    assert not found.get("error"), found
    assert not [entry for entry in found["entries"] if "error" in entry]
    return found["entries"]


def check_row(entry, names):
    assert set(entry["milliseconds"]) == set(names)
    for name in names:
        low, high = entry["quartiles"][name]
        assert 0 < low <= entry["milliseconds"][name] <= high < math.inf
        assert 0 <= entry["off"][name] < 0.2


def sides():
    return {"xla", "torch"} if peers.load("torch") else {"xla"}


def test_search_is_measured_and_is_exact(tmp_path):
    file = tmp_path / "gpu.json"
    command.measure("search", file)
    *rows, imprecise = entries_of(file, "search")
    assert [row["task"].split(",")[0] for row in rows] == ["3-NN", "7-NN"]
    for row in rows:
        check_row(row, sides())
        assert row["faults"]["xla"] == {"other": 0, "wrong": 0}
    assert imprecise["values"]["xla, plain product at its default precision: wrong of 60"] == 0


def test_faults_are_other_neighbours_and_wrong_ones():
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(7, 3)), rng.normal(size=(40, 3)) + 0.3
    gallery = np.concatenate([gallery, gallery * (1 + 1e-8)])  # near-ties, as 40 + i with i
    squared = np.sum((queries[:, None] - gallery[None]) ** 2, axis=2)
    order = np.argsort(squared, axis=1)
    truth = np.sort(squared, axis=1)[:, :6]

    def faults(indices):
        return arrays.faults_of(queries, gallery, truth, indices)

    assert faults(order[:, :5]) == {"other": 0, "wrong": 0}
    swapped = order[:, :5].copy()
    swapped[2, 4] = order[2, 5]  # the twin of the fifth is the sixth, or the other way round
    swapped[4, 1] = order[4, 60]
    assert faults(order[:, [1, 0, 2, 3, 4]]) == {"other": 0, "wrong": 0}
    assert faults(swapped)["wrong"] in (1, 2)
    near = order[:, :5].copy()
    pairs = [row for row in range(7) if abs(order[row, 4] - order[row, 5]) == 40]
    assert pairs
    near[pairs, 4] = order[pairs, 5]
    assert faults(near) == {"other": len(pairs), "wrong": 0}
    twice = order[:, :5].copy()
    twice[3, 4] = twice[3, 3]
    assert faults(twice)["wrong"] == 1


@pytest.mark.interop
@pytest.mark.parametrize("precision", ["bfloat16", "IEEE"])
def test_a_step_is_measured_beside_its_peer(precision, monkeypatch):
    """Beside another small network, which is quick to compile and of another loss."""
    torch = require("torch")
    nn = torch.nn
    other = nn.Sequential(nn.Conv2d(3, 4, 3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 8))
    monkeypatch.setattr(backbones, "peer", lambda name: (torch, other))
    monkeypatch.setattr(backbones, "variables_of", lambda *peer: None)
    monkeypatch.setattr(networks, "_TOLERANCE", math.inf)
    (entry,) = networks._measured([networks.Case("cnn", precision, 8, 33)], repeats=2)
    assert entry["task"] == f"cnn train step, {precision}, B 8, 33 px"
    for name in ("xla", "torch"):
        taken = entry["milliseconds"][name]
        assert 0 < taken < math.inf
        assert entry["images_per_s"][name] == pytest.approx(8e3 / taken)
        assert entry["mebibytes"][name] > 0
    assert entry["compile_seconds"]["xla"] > 0


def test_a_step_that_cannot_be_made_is_recorded_and_the_next_is_measured(monkeypatch):
    monkeypatch.setattr(backbones, "peer", lambda name: None)
    cases = [networks.Case(name, "TF32", 8, 33) for name in ("no_such", "cnn")]
    wrong, right = networks._measured(cases, repeats=1)
    assert wrong["task"] == cases[0].task
    assert "`model` is 'no_such'" in wrong["error"]
    check_row(right, {"xla"})


def test_command_writes_sections_and_renders_them(tmp_path):
    file = tmp_path / "new" / "gpu.json"
    bench = [sys.executable, "-m", "deepknn_jax.bench"]
    run = [*bench, "--gpu", f"--out={file}", "--sections=device,loss"]
    subprocess.run(run, check=True, capture_output=True)
    facts = {entry["task"]: entry.get("values") for entry in entries_of(file, "device")}
    assert facts["machine"]["jax"]
    assert facts["machine"]["small sizes, as JAX shows no GPU"]
    (errors,) = [values for task, values in facts.items() if task.startswith("error of a float32")]
    assert 0 < errors["xla, highest"] < 1e-5
    for row in entries_of(file, "loss"):
        check_row(row, sides())
    shown = subprocess.run([*bench, f"--render={file}"], check=True, capture_output=True, text=True)
    assert "## device" in shown.stdout
    assert "| loss + gradient, B 16, D 4 |" in shown.stdout


def test_what_goes_wrong_is_recorded_and_the_rest_goes_on(tmp_path, monkeypatch):
    def fails(small):
        yield record.figures("first", {"small": small})
        yield from record.attempt("second", lambda: iter([record.entry_of(1 / 0)]))
        yield record.figures("third", {})
        raise RuntimeError("the end")

    file = tmp_path / "gpu.json"
    record.append(file, "kept", record.figures("earlier", {"a": 1}))
    monkeypatch.setitem(command.SECTIONS, "fails", command.Section(fails, 9))
    command.measure("fails", file)
    found = json.loads(file.read_text())["sections"]
    first, second, third = found["fails"]["entries"]
    assert first["values"] == {"small": True}
    assert second["error"].startswith("ZeroDivisionError: division by zero (")
    assert third["task"] == "third"
    assert found["fails"]["error"].startswith("RuntimeError: the end (")
    assert found["kept"]["entries"] == [{"task": "earlier", "values": {"a": 1}}]


def test_a_section_ends_at_its_limit_and_with_its_status(tmp_path, monkeypatch):
    file = tmp_path / "gpu.json"
    monkeypatch.setattr(command, "_LEAST", 0.0)
    monkeypatch.setitem(command.SECTIONS, "device", command.Section(arrays.device, 0.2))
    monkeypatch.setenv("JAX_PLATFORMS", "none_such")  # the child of "search" dies of it
    command.run(["device", "search"], file, command.LIMIT)
    monkeypatch.setattr(command, "_LEAST", 15.0)
    command.run(["loss"], file, 1.0)
    found = json.loads(file.read_text())["sections"]
    assert found["device"]["error"] == "stopped at its limit of 0 s"
    assert found["search"]["error"].startswith("exit status 1: ")
    assert "none_such" in found["search"]["error"]
    assert found["loss"]["error"] == "not begun: the 1 s were spent"


def test_every_figure_is_rendered():
    row = Row("a", {"xla": 2.0, "torch": 3.0}, 0.5, quartiles={"xla": [1.0, 2.5]}, others=0.02)
    text = render.markdown(
        {
            "sections": {
                "one": {
                    "seconds": 3.2,
                    "entries": [
                        record.entry_of(row, faults={"xla": {"other": 1, "wrong": 0}}),
                        record.figures("words", {"speed": 12345.6, "same": True}),
                    ],
                },
                "two": {"error": "stopped", "entries": [{"task": "b", "error": "no room"}]},
            }
        }
    )
    assert "## one\n\nIn 3 s." in text
    assert "| a | 2 | 3 (1.50) | 0.02 |" in text
    assert "| a | xla 1 other, 0 wrong | xla 1 to 2.5 |" in text
    assert "| speed | 12,346 |\n| same | True |" in text
    assert "Not all: stopped\n\n**b**: no room" in text


def test_made_up_pictures_are_the_same_each_time(tmp_path):
    for name in ("a", "b"):
        images.make_folders(tmp_path / name, count=5, classes=2, width=40, height=30)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.jpg"))
    assert [path.parent.name for path in files] == ["class_0"] * 3 + ["class_1"] * 2
    contents = [(tmp_path / "a" / path).read_bytes() for path in files]
    assert contents == [(tmp_path / "b" / path).read_bytes() for path in files]
    assert len(set(contents)) == 5


def test_a_command_is_stopped_at_a_line_and_its_failure_told():
    code = "import time; print('one', flush=True); print('two', flush=True); time.sleep(60)"
    handled = "import signal, sys; signal.signal(15, lambda *_: sys.exit(143)); " + code
    told = runs.tell(["-c", handled], stop=lambda line: line.startswith("two"))
    assert told.status == 143
    assert [line for _, line in told.lines] == ["one", "two"]
    assert told.seconds < 50
    with pytest.raises(RuntimeError, match=r"exit status 3: words"):
        runs.tell(["-c", "import sys; print('words'); sys.exit(3)"])


def test_states_differ_by_bits():
    one = [np.zeros(3), np.arange(4, dtype=np.int32)]
    other = [np.array([0.0, -0.25, 0.0]), one[1]]
    assert runs._difference(one, [array.copy() for array in one]) is None
    assert runs._difference(one, other) == 0.25
    assert runs._difference(one, [-one[0], one[1]]) == 0.0  # -0.0: other bits


@pytest.mark.slow
@pytest.mark.interop
def test_published_backbones_and_whole_runs_are_measured(tmp_path):
    import_vision("torchvision")
    file = tmp_path / "gpu.json"
    for name in ("steps", "resume", "digits", "epochs"):
        command.measure(name, file)
    for row in entries_of(file, "steps"):
        check_row(row, {"xla", "torch"})
    for entry in entries_of(file, "resume"):
        assert entry["values"]["the same command twice: same bits"]
        assert entry["values"]["stopped and resumed: same bits"]
    first, second, mlp, start = entries_of(file, "digits")
    assert second["values"]["Acc, K_p = 5"] == first["values"]["Acc, K_p = 5"] > 90
    check_row(mlp, {"xla", "torch"})
    assert start["values"]["seconds, cache full"] < start["values"]["seconds, cache empty"]
    _, ours, theirs = entries_of(file, "epochs")
    for entry in (ours, theirs):
        assert all(value > 0 for name, value in entry["values"].items() if "epoch" in name)
