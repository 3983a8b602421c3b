"""Estimators for scikit-learn's pipelines, grid searches and files.

Importing this room imports scikit-learn; `import deepknn_jax` does not.
"""

from deepknn_jax.errors import UserError

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError as _error:
    raise UserError(
        "deepknn_jax.estimators needs scikit-learn: pip install scikit-learn"
    ) from _error

from deepknn_jax.estimators.classifiers import DeepKNNClassifier, LocalMarginClassifier
from deepknn_jax.estimators.linear import LargeMarginNearestNeighbor, NeighborhoodComponentsAnalysis
from deepknn_jax.estimators.neighbors import KNeighborsClassifier

__all__ = [
    "DeepKNNClassifier",
    "KNeighborsClassifier",
    "LargeMarginNearestNeighbor",
    "LocalMarginClassifier",
    "NeighborhoodComponentsAnalysis",
]
