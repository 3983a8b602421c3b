"""How much memory a piece of work takes, in a process of its own."""

import os
import subprocess
import sys

from support.runs import ROOT

_CODE = """
import resource
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
{before}
start = peak()
{work}
print(start, peak())
"""


def peak_memory(work, *, before="", cwd=None):
    """(MB, MB): the most that a process held until `work` began, and until it ended."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    code = _CODE.format(before=before, work=work)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=cwd, text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    start, end = done.stdout.splitlines()[-1].split()
    return float(start), float(end)
