"""scikit-learn's common checks; none may fail."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from deepknn_jax.estimators import (
    DeepKNNClassifier,
    KNeighborsClassifier,
    LargeMarginNearestNeighbor,
    LocalMarginClassifier,
    NeighborhoodComponentsAnalysis,
)

pytestmark = pytest.mark.scikit_learn
# One layer: what is checked does not depend on the network, and the programs compile sooner.
SMALL = {"hidden": (), "embedding_size": 4, "epochs": 3, "learning_rate": 1e-3}


@parametrize_with_checks(
    [
        KNeighborsClassifier(),
        KNeighborsClassifier(ties="nearer"),
        DeepKNNClassifier(**SMALL),
        DeepKNNClassifier(**SMALL, validation_fraction=0.2, ties="nearer"),
        LocalMarginClassifier(**SMALL, neighborhood=3),
        NeighborhoodComponentsAnalysis(max_iter=5),
        LargeMarginNearestNeighbor(max_iter=5),
    ]
)
def test_checks(estimator, check):
    check(estimator)
