"""The test part's figures of each class with intervals, and those of its patients or lesions."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from deepknn_jax.answers.judge import nearest_of
from deepknn_jax.answers.model import Gallery
from deepknn_jax.data.dataset import TEST, TRAIN, Dataset
from deepknn_jax.evaluation.by_group import group_figures
from deepknn_jax.evaluation.doubt import to_nearest
from deepknn_jax.evaluation.evaluate import Embedded, Evidence, chosen, voters_of
from deepknn_jax.evaluation.intervals import MOST_SCORED, Judged, class_figures, fine_scores
from deepknn_jax.knn.vote import VoteRule, vote


def figures(
    config: ConfigDict,
    dataset: Dataset,
    parts: Mapping[str, Embedded],
    evidence: Evidence,
    rule: VoteRule,
) -> dict[str, Any]:
    """{"intervals": {K_p: ...}, "by_group": {K_p: ...}} at the reported K_p, for results.json.

    Of what "test" there is of: without examples that trained the weights before. The second only
    where groups are known. Of very many examples and classes there is no AUC and no "by_group".
    """
    test, gallery = parts[TEST], parts[TRAIN]
    if dataset.trained is not None:
        test, evidence = chosen(test, evidence, ~dataset.trained[test.rows])
    if not len(test.rows):
        return {}
    names, (k, predicted) = dataset.class_names, evidence.reported
    groups = None
    if dataset.groups is not None:
        groups = np.unique(dataset.groups[test.rows], return_inverse=True)[1].reshape(-1)
    scores = None
    if len(test.rows) * len(names) <= MOST_SCORED:
        voters = voters_of(evidence, dataset.labels)[:, :k]
        _, shares = vote(jnp.asarray(evidence.distances[:, :k]), jnp.asarray(voters),
                         num_classes=len(names), class_counts=jnp.asarray(dataset.train_counts()),
                         rule=rule)  # fmt: skip
        own = Gallery(gallery.embeddings, dataset.labels[gallery.rows])
        nearest = to_nearest(nearest_of(test.embeddings, own, names, float(config.loss.p)))
        scores = fine_scores(np.asarray(shares), nearest)
    judged = Judged(dataset.labels[test.rows], predicted, scores, groups)
    found: dict[str, Any] = {"intervals": {str(k): class_figures(judged, names)}}
    if groups is not None and scores is not None:
        counts = dataset.train_counts()
        by_group = group_figures(judged, class_names=names, train_counts=counts)
        found |= {"by_group": {str(k): by_group}} if by_group else {}
    return found
