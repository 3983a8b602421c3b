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
_TOUCHED = set()


def node_id(item):
    """The id without the folder that scikit-learn is installed in."""
    return "sklearn/" + item.nodeid.rsplit("sklearn/", 1)[-1]


def _telling(function):
    @functools.wraps(function)
    def told(*args, **kwargs):
        _TOUCHED.add(os.environ.get("PYTEST_CURRENT_TEST", "").rsplit(" (", 1)[0])
        return function(*args, **kwargs)

    return told


def pytest_configure(config):
    for ours in OURS:
        setattr(neighbors, ours.__name__, ours)
        if "DEEPKNN_TOUCHED" in os.environ:
            ours.fit = _telling(ours.fit)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Leaves the listed tests."""
    if "DEEPKNN_ONLY" not in os.environ:
        return
    wanted = set(Path(os.environ["DEEPKNN_ONLY"]).read_text(encoding="utf-8").splitlines())
    found = {node_id(item): item for item in items}
    if missing := sorted(wanted - found.keys()):
        raise pytest.UsageError(f"{len(missing)} tests are not there: {missing[0]} first")
    items[:] = [item for name, item in found.items() if name in wanted]


def pytest_sessionfinish(session):
    if path := os.environ.get("DEEPKNN_TOUCHED"):
        names = {"sklearn/" + name.rsplit("sklearn/", 1)[-1] for name in _TOUCHED}
        Path(path).write_text("".join(f"{name}\n" for name in sorted(names)), encoding="utf-8")
