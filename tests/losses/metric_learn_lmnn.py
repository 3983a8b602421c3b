"""The LMNN objective that metric-learn reaches on iris and wine, for test_lmnn.py.

metric-learn 0.7.0 needs scikit-learn < 1.8, so this runs once, in an environment of its own, and
its figures are kept in metric_learn_lmnn.json beside it:

    python -m venv lmnn && lmnn/bin/pip install metric-learn==0.7.0 "scikit-learn<1.8"
    lmnn/bin/python tests/losses/metric_learn_lmnn.py

Features are standardised, k = 3, the start is L = I. "defaults" are metric-learn's own settings;
"converged" starts with a longer step and goes on until the objective stands still. Each final L is
judged by the definition of this project (Weinberger and Saul 2009, equal weights of pull and push,
sums), as is L = I.
"""

import json
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
from metric_learn import LMNN
from sklearn.datasets import load_iris, load_wine

K = 3
SETTINGS = {
    "defaults": {},
    "converged": {"learn_rate": 1e-2, "convergence_tol": 1e-9, "max_iter": 20_000},
}


def squared_distances(x):
    """[N, N], from differences."""
    return np.sum((x[:, None] - x[None]) ** 2, axis=2)


def target_neighbors(x, labels):
    """The K nearest of the same class [N, K], never itself; ties to the lower index."""
    distances = squared_distances(x)
    distances[labels[:, None] != labels[None]] = np.inf
    np.fill_diagonal(distances, np.inf)
    return np.argsort(distances, axis=1, kind="stable")[:, :K]


def objective(x, labels, targets):
    """Half the pull and half the push, summed over anchors, targets and impostors."""
    distances, total = squared_distances(x), 0.0
    for i, row in enumerate(targets):
        impostors = distances[i, labels != labels[i]]
        for j in row:
            total += 0.5 * distances[i, j]
            total += 0.5 * np.sum(np.maximum(0.0, 1.0 + distances[i, j] - impostors))
    return float(total)


def figures(bunch):
    """What is kept of one data set."""
    x = (bunch.data - bunch.data.mean(axis=0)) / bunch.data.std(axis=0)
    labels = bunch.target
    targets = target_neighbors(x, labels)
    kept = {"at_identity": objective(x, labels, targets)}
    for name, settings in SETTINGS.items():
        model = LMNN(init="identity", n_neighbors=K, **settings)
        # Its own choice breaks ties in no fixed order; both are to minimise one function.
        model._select_targets = lambda *_, targets=targets: targets
        components = model.fit(x, labels).components_.round(9)
        kept[name] = {
            "objective": objective(x @ components.T, labels, targets),
            "iterations": model.n_iter_,
            "components": components.tolist(),
        }
    return kept


def main():
    """Writes the JSON."""
    versions = {name: version(name) for name in ("metric-learn", "scikit-learn", "numpy")}
    result = {
        "versions": {"python": platform.python_version(), **versions},
        "settings": SETTINGS,
        "iris": figures(load_iris()),
        "wine": figures(load_wine()),
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
