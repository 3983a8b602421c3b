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
import resource
import numpy as np
from deepknn_jax.engine import allocation

kept = allocation.keep_freed()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.full(2**28, 1, np.uint8)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**variables):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    # Without huge pages, of which numpy asks for, a fault is 4 KiB.
    told = subprocess.run(
        [sys.executable, "-c", FAULTS], env=env | {"NUMPY_MADVISE_HUGEPAGE": "0"} | variables,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
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
