"""Several processes with devices of their own against one process with as many devices."""

import json

import jax
import numpy as np
import pytest
from support.processes import METHODS, ROOT, launched, outcomes, three_steps, whole_run

SAME = ("method", "test", "train", "reported", "epochs", "references")
SCRIPT = ROOT / "tests" / "support" / "processes.py"


@pytest.mark.parametrize(("count", "devices"), [(2, 2), pytest.param(4, 1, marks=pytest.mark.slow)])
def test_three_steps_are_those_of_one_process(tmp_path, count, devices):
    """Losses, gradients and momenta, BatchNorm's statistics, parameters; neighbours and votes.

    And a whole run: its results, written by one of the processes.
    """
    arguments = [SCRIPT, tmp_path], count, devices, tmp_path
    with launched(*arguments) as processes:
        with jax.enable_x64(True):
            expected = {method: three_steps(method) for method in METHODS}
        run = whole_run(tmp_path / "one")
        ended = outcomes(processes)
    assert [code for code, *_ in ended] == [0] * count, ended
    assert f"processes: {count} (JAX's variables), {devices} device(s) each" in ended[0][1]
    assert ended[0][1].count("processes:") == ended[0][1].count("written to") == 1
    assert not [out for _, out, _ in ended[1:] if "processes:" in out or "written to" in out]
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert folders == {"one", "run", "disk0"}
    turns = (tmp_path / "turns").read_text().split()
    assert turns[0] == "0"
    assert sorted(turns) == [str(number) for number in range(count)]
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {key: found[key] for key in SAME} == {key: run[key] for key in SAME}
    assert found.keys() == run.keys()
    files = [{path.name for path in (tmp_path / name).iterdir()} for name in ("one", "run")]
    assert files[0] == files[1]
    for method in METHODS:
        found = np.load(tmp_path / f"{method}.npz")
        assert set(found.files) == set(expected[method])
        for name, value in expected[method].items():
            if name in ("rows", "votes"):
                np.testing.assert_array_equal(found[name], value, err_msg=f"{method} {name}")
            else:
                np.testing.assert_allclose(
                    found[name], value, rtol=1e-9, atol=1e-12, err_msg=f"{method} {name}"
                )
