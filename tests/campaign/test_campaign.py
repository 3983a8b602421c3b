"""The campaign itself: `pytest -m campaign`, hours; and that its judge sees each kind of fault."""

import json
import os
import subprocess
import sys

import pytest
from support.runs import ROOT

PARTS = ("hostile --count=1000", "kills --count=100", "disks --count=20", "soak --minutes=60")
JUDGED = """
import json, os, sys, time
from pathlib import Path
from campaign.children import attempt
from campaign.hostile import judged_after
from deepknn_jax.errors import UserError

def two_lines(): raise UserError("one\\ntwo")
def refused(): raise UserError("`size` is 0")
def gone(): open("gone")
def bug(): raise ValueError("bug")
def late(): time.sleep(60)
def large(): bytearray(3 * 2**30)
def died(): os.abort()
def command(): sys.exit("error: a line")
def half(): Path(".results.1.tmp.json").touch()
def sound(): pass
def code(): open("code_was_run", "w")

folder = Path(sys.argv[1])
found = {}
for work in (two_lines, refused, gone, bug, late, large, died, command, sound, half):
    outcome = judged_after(attempt(work, folder, seconds=2.0), folder)
    found[work.__name__] = [outcome.kind, outcome.words]
(folder / ".results.1.tmp.json").unlink()
found["code"] = list(judged_after(attempt(code, folder, seconds=2.0), folder)[:2])
print(json.dumps(found))
"""


def test_the_judge_sees_each_kind_of_fault(tmp_path):
    """In a process of its own, which forks: this one may have JAX's threads."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(
        [sys.executable, "-c", JUDGED, str(tmp_path)], env=environment, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    kinds = {name: kind for name, (kind, _) in found.items()}
    fine = {"refused": "refused", "gone": "refused", "command": "refused", "sound": "sound"}
    assert kinds == dict.fromkeys(found, "fault") | fine
    assert found["refused"][1] == "error: config.data.size is 0"
    assert found["gone"][1] == "error: gone: No such file or directory"
    assert "not done in 2 s" in found["late"][1]
    assert "MemoryError" in found["large"][1]


@pytest.mark.campaign
@pytest.mark.parametrize("part", PARTS)
def test_the_campaign_finds_nothing(part):
    command = [sys.executable, "-W", "ignore", "-m", "tests.campaign", *part.split()]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
