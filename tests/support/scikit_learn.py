"""A pytest plugin: scikit-learn's own tests with this project's classes in place of its own.

    pytest -p support.scikit_learn --pyargs sklearn.neighbors.tests.test_neighbors ...

Plugins load before the test modules do. DEEPKNN_ONLY names a file of node ids: those run, and one
that is not there fails. DEEPKNN_TOUCHED names a file for the ids of the tests that fit one of ours.
"""

import functools
import os
from pathlib import Path

import pytest
from sklearn import neighbors

from deepknn_jax import estimators

OURS = (estimators.KNeighborsClassifier, estimators.NeighborhoodComponentsAnalysis)
_TOUCHED, _CURRENT = set(), []


def name_of(item):
    return f"{item.module.__name__}::{item.name}"


def _telling(function):
    @functools.wraps(function)
    def told(*args, **kwargs):
        _TOUCHED.update(_CURRENT)
        return function(*args, **kwargs)

    return told


def pytest_configure(config):
    for ours in OURS:
        setattr(neighbors, ours.__name__, ours)
        if "DEEPKNN_TOUCHED" in os.environ:
            for name in {"__init__", "fit", "_fit", "_loss_grad_lbfgs"} & set(dir(ours)):
                setattr(ours, name, _telling(getattr(ours, name)))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Leaves the listed tests."""
    if "DEEPKNN_ONLY" not in os.environ:
        return
    wanted = set(Path(os.environ["DEEPKNN_ONLY"]).read_text(encoding="utf-8").splitlines())
    found = {name_of(item): item for item in items}
    if missing := sorted(wanted - found.keys()):
        raise pytest.UsageError(f"{len(missing)} tests are not there: {missing[0]} first")
    items[:] = [item for name, item in found.items() if name in wanted]


def pytest_runtest_setup(item):
    _CURRENT[:] = [name_of(item)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """One that skips cannot be wanted to pass."""
    report = yield
    if report.skipped:
        _TOUCHED.discard(name_of(item))
    return report


def pytest_sessionfinish(session):
    if path := os.environ.get("DEEPKNN_TOUCHED"):
        names = "".join(f"{name}\n" for name in sorted(_TOUCHED))
        Path(path).write_text(names, encoding="utf-8")
