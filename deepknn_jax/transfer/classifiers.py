"""Simple classifiers on the principal components of frozen embeddings."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from deepknn_jax.errors import UserError
from deepknn_jax.evaluation.metrics import classification_metrics
from deepknn_jax.knn.intake import as_classes, as_count, as_wide_rows
from deepknn_jax.knn.vote import knn_classify
from deepknn_jax.mining.local_triplets import neighborhood_size

# A component with less than this share of the variance is rounding of float32.
_LEAST_SHARE = 1e-10


def standardize(train_x: np.ndarray, test_x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, less the training part's mean and over its deviation; constants give 0.

    Raises:
        UserError: not [N, D] and [M, D]; no training example; NaN or infinity.
    """
    from sklearn.preprocessing import StandardScaler

    train, test = as_wide_rows(train_x=train_x, test_x=test_x)
    if not len(train):
        raise UserError("train_x has no row: there is nothing to learn from")
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), scaler.transform(test)


def reduce(train_x: np.ndarray, test_x: np.ndarray, pca: int) -> tuple[np.ndarray, np.ndarray]:
    """Standardised, then on at most `pca` principal components; both fitted on the training part.

    Args:
        train_x, test_x: [N, D], [M, D].
        pca: components, >= 1. There are fewer where the training part spans fewer dimensions, to
            a share of 1e-10 of its variance: the rest is rounding, which Cox's model would blow up.

    Returns:
        float64 [N, d] and [M, d].

    Raises:
        UserError: the training part is one point; as `standardize`.
    """
    pca = as_count("pca", pca)
    from sklearn.decomposition import PCA

    train, test = standardize(train_x, test_x)
    if not train.any():
        raise UserError("the training part's embeddings are all equal: nothing to transfer")
    fitted = PCA(min(pca, *train.shape), svd_solver="full").fit(train)
    kept = fitted.explained_variance_ratio_ >= _LEAST_SHARE
    return fitted.transform(train)[:, kept], fitted.transform(test)[:, kept]


def classify_all(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    pca: int = 32,
    k: int = 0,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Test metrics of four classifiers on the principal components (Neighborhood Watch, table 2).

    kNN, this project's own; and scikit-learn's linear SVM (C = 1), decision tree, and MLP with one
    layer of 24 ReLU units, all else as scikit-learn has it but the MLP's 1,000 epochs at most.

    Args:
        train_x, test_x: embeddings [N, D], [M, D].
        train_y, test_y: int [N], [M], 0 and up.
        pca: as `reduce`.
        k: neighbours that vote; 0: `mining.local_triplets.neighborhood_size`.
        seed: of the tree and the MLP.

    Returns:
        {"kNN" | "SVM" | "DT" | "MLP": {"acc": share, "mcr": mean class recall}}.

    Raises:
        UserError: k above N; training examples of one class only; labels that are not as many as
            the embeddings, or no integers from 0; as `reduce`.
    """
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    train_y = as_classes("train_y", train_y, len(train_x), num_classes=None)
    test_y = as_classes("test_y", test_y, len(test_x), num_classes=None)
    if not len(test_y):
        raise UserError("the test part is empty: nothing to classify")
    k = neighborhood_size(as_count("k", k, least=0), len(train_y))
    if k > len(train_y):
        raise UserError(f"`k` is {k}, but there are {len(train_y)} training examples: choose fewer")
    if len(np.unique(train_y)) < 2:
        raise UserError("the training part is of one class: nothing to classify")
    num_classes = int(max(train_y.max(), test_y.max())) + 1
    train, test = reduce(train_x, test_x, pca)
    queries, gallery = (jnp.asarray(x, jnp.float32) for x in (test, train))
    voted = knn_classify(queries, gallery, jnp.asarray(train_y), k=k, num_classes=num_classes)
    predictions = {"kNN": np.asarray(voted.labels)}
    for name, model in (
        ("SVM", SVC(kernel="linear")),
        ("DT", DecisionTreeClassifier(random_state=seed)),
        ("MLP", MLPClassifier((24,), activation="relu", max_iter=1000, random_state=seed)),
    ):
        predictions[name] = model.fit(train, train_y).predict(test)
    known: dict[str, Any] = {
        "class_names": [str(c) for c in range(num_classes)],
        "train_counts": np.bincount(train_y, minlength=num_classes),
    }
    metrics = {name: classification_metrics(test_y, y, **known) for name, y in predictions.items()}
    return {name: {key: found[key] for key in ("acc", "mcr")} for name, found in metrics.items()}
