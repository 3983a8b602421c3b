"""Freed memory that stays with the process; each case in a process of its own."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}), reason="another C library"
)
# Faults of a block of 256 MiB that was asked for, touched and freed before.
FAULTS = """
import ctypes
import resource
import numpy as np
from deepknn_jax.engine import allocation

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # no transparent huge pages: a fault is 4 KiB
kept = allocation.keep_freed()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.full(2**28, 1, np.uint8)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**variables):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    told = subprocess.run(
        [sys.executable, "-c", FAULTS],
        env=env | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    kept, count = told.stdout.split()
    return kept == "True", int(count)


def test_a_freed_block_is_taken_again_without_faults():
    kept, count = faults()
    assert kept
    assert count < 1000


@pytest.mark.parametrize(
    "variables", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.check=0"}]
)
def test_what_the_user_has_set_is_left_alone(variables):
    kept, count = faults(**variables)
    assert not kept
    assert count > 10_000
