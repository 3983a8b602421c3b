"""The tests in scikit-learn's wheel that fit a KNeighborsClassifier or an NCA, fitting ours.

scikit_learn_tests.txt names them, by the release that .ci/constraints.txt pins. To make it anew:

    SKLEARN_RUN_FLOAT32_TESTS=1 DEEPKNN_TOUCHED=tests/estimators/scikit_learn_tests.txt \
        PYTHONPATH=tests pytest -c /dev/null --rootdir=. -p support.scikit_learn \
        --pyargs sklearn.neighbors.tests.test_neighbors sklearn.neighbors.tests.test_nca
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.runs import ROOT

LISTED = Path(__file__).with_name("scikit_learn_tests.txt")
MODULES = ("sklearn.neighbors.tests.test_neighbors", "sklearn.neighbors.tests.test_nca")


@pytest.mark.scikit_learn
def test_scikit_learns_own_tests_pass_with_ours(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    listed = LISTED.read_text(encoding="utf-8").splitlines()
    environment = os.environ | {
        "SKLEARN_RUN_FLOAT32_TESTS": "1",
        "DEEPKNN_ONLY": str(LISTED),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        # Hundreds of small programs: they compile in half the time.
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    command = [sys.executable, "-m", "pytest", "-c", "pytest.ini", "-q", "-p", "no:cacheprovider",
               "-p", "support.scikit_learn", "--pyargs", *MODULES]  # fmt: skip
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-1000:]
    assert int(re.findall(r"(\d+) passed", ran.stdout)[-1]) == len(listed) > 200
