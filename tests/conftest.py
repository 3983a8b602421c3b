"""Settings of every test: fake devices, strict ranks, real data and optional packages."""

import os
from pathlib import Path

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)

import jax
import pytest
from support.optional import ABSENT, STRICT
from support.runs import compiled_once, finished  # noqa: F401  (fixtures)

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets that DEEPKNN_DATA names; skips where it is absent."""
    root = Path(os.environ.get("DEEPKNN_DATA", ""))
    if not os.environ.get("DEEPKNN_DATA") or not root.is_dir():
        pytest.skip(ABSENT + "DEEPKNN_DATA names no folder of data sets")
    return root


@pytest.fixture
def strict_dtypes():
    """Strict dtype promotion, for tests of our own numerical functions (optax and flax fail it)."""
    with jax.numpy_dtype_promotion("strict"):
        yield


def pytest_terminal_summary(terminalreporter):
    """Tells how many tests skipped for absent data, and which for anything else."""
    reasons = [str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", [])]
    absent = sum(ABSENT in reason for reason in reasons)
    terminalreporter.write_line(
        f"skipped for absent data: {absent}; for anything else: {len(reasons) - absent}"
    )


def pytest_sessionfinish(session):
    """In CI a skip for anything but absent data fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if STRICT and any(ABSENT not in str(report.longrepr[2]) for report in skipped):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
