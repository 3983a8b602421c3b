"""What a training begins with, by its content: the same wherever it lies."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from deepknn_jax.data.dataset import Dataset, digests


def of_data(dataset: Dataset, weights: Mapping[str, Any] | None) -> dict[str, str]:
    """Digests of each part of the data set, and of the weights to start from, if any."""
    found = digests(dataset)
    if weights is not None:
        whole = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_leaves_with_path(weights):
            whole.update(jax.tree_util.keystr(path).encode())
            whole.update(np.ascontiguousarray(leaf).tobytes())
        found["weights"] = whole.hexdigest()
    return found
