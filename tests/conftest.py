"""Settings of every test: fake devices, strict ranks, real data and optional packages."""

import os
import signal
import tempfile
from pathlib import Path

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
if "PYTEST_XDIST_WORKER" not in os.environ:  # this process starts the workers, or is the only one
    # One folder of compiled programs for the session, and never the user's: what one worker, or a
    # command that a test starts, compiled is there for all. It is new each time, so that each
    # program is compiled once at least. Processes that are no command of ours keep none.
    _COMPILED = tempfile.TemporaryDirectory(prefix="deepknn_jax_tests_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "1e9"

import hypothesis
import jax
import pytest
from support.optional import KINDS, absent, faults, kind_of_skip
from support.runs import compiled_once, finished  # noqa: F401  (fixtures)

from deepknn_jax.engine import compiled

# A shell's background job ignores Ctrl-C, and so would each command that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
compiled.keep()
jax.config.update("jax_numpy_rank_promotion", "raise")
# A first call compiles, and the machine may have other work: time says nothing of an example.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets that DEEPKNN_DATA names; skips where it is absent.

    The test that asks for this has the marker `data`.
    """
    root = Path(os.environ.get("DEEPKNN_DATA", ""))
    if not os.environ.get("DEEPKNN_DATA") or not root.is_dir():
        pytest.skip(absent("data", "DEEPKNN_DATA names no folder of data sets"))
    return root


@pytest.fixture(scope="module", autouse=True)
def forgotten_programs():
    """Each program takes some mappings of memory, of which a process may have 65,530 on Linux.

    A worker that kept all that it compiled died of that, near the end of the suite.
    """
    yield
    jax.clear_caches()


@pytest.fixture
def strict_dtypes():
    """Strict dtype promotion, for tests of our own numerical functions (optax and flax fail it)."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Each report says which of the markers of absence its test has (xdist carries it over)."""
    report = yield
    report.markers = sorted(KINDS & {marker.name for marker in item.iter_markers()})
    return report


def faults_of(terminalreporter):
    """`faults` of this session."""
    stats = terminalreporter.stats
    return list(faults(stats.get("skipped", []), stats.get("passed", [])))


def pytest_terminal_summary(terminalreporter):
    """Tells how many tests skipped for what, and what the markers say wrongly."""
    kinds = [kind_of_skip(report) for report in terminalreporter.stats.get("skipped", [])]
    counts = [f"{kind or 'anything else'}: {kinds.count(kind)}" for kind in [*sorted(KINDS), None]]
    terminalreporter.write_line(f"skipped for absent {', '.join(counts)}")
    for line in faults_of(terminalreporter):
        terminalreporter.write_line(line, red=True)


def pytest_sessionfinish(session):
    """A skip or a marker that says something wrong fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and faults_of(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
