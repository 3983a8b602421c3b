"""Several processes with devices of their own against one process with as many devices."""

import jax
import numpy as np
import pytest
from support.processes import METHODS, ROOT, launched, outcomes, three_steps

SCRIPT = ROOT / "tests" / "support" / "processes.py"


@pytest.mark.parametrize(("count", "devices"), [(2, 2), pytest.param(4, 1, marks=pytest.mark.slow)])
def test_three_steps_are_those_of_one_process(tmp_path, count, devices):
    """Losses, gradients and momenta, BatchNorm's statistics, parameters; neighbours and votes."""
    arguments = [SCRIPT, tmp_path], count, devices, tmp_path
    with launched(*arguments, JAX_ENABLE_X64="1") as processes, jax.enable_x64(True):
        expected = {method: three_steps(method) for method in METHODS}
        ended = outcomes(processes)
    assert [code for code, *_ in ended] == [0] * count, ended
    assert f"processes: {count} (JAX's variables), {devices} device(s) each" in ended[0][1]
    assert all(out == "" for _, out, _ in ended[1:])
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
