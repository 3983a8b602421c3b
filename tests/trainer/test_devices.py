"""Mining on numbers of devices that are no power of two, in a process of its own with 16."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from support.runs import ROOT

SCRIPT = """
import json, sys
from support.runs import small_config, setup_of
from deepknn_jax.trainer import loop
from deepknn_jax.trainer.setup import first_state

found = {}
for name in sys.argv[1].split(","):
    for devices in (1, 3, 6, 16):
        changes = {"neighbors": "dataset"} if name == "deep_knn" else {}
        config = small_config(
            loss__name=name, devices=devices, epochs=1, batch__size=96, steps_per_call=1, **changes
        )
        setup = setup_of(config)
        calls = loop.train(config, setup, first_state(setup), setup.mining.empty, {})
        *_, first = next(calls)
        found[f"{name} {devices}"] = [first["loss"], first["gradient_norm"]]
print(json.dumps(found))
"""


@pytest.mark.parametrize("names", ["deep_knn,lmnn", "local_margin,max_margin"])
def test_any_number_of_devices_that_divides_the_batch_mines(names):
    """The loss and the gradient of the first step are those of one device, BatchNorm and all."""
    flags = "--xla_force_host_platform_device_count=16"
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, names],
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    losses = json.loads(ran.stdout.splitlines()[-1])
    assert len(losses) == 8
    for name in names.split(","):
        for devices in (3, 6, 16):
            np.testing.assert_allclose(
                losses[f"{name} {devices}"], losses[f"{name} 1"], rtol=1e-4, err_msg=name
            )
