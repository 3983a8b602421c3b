"""Embeddings of new images judged: the vote, its evidence, and how far it is to be trusted."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deepknn_jax.answers.model import Calibrated, Gallery, Model
from deepknn_jax.errors import UserError
from deepknn_jax.evaluation import doubt
from deepknn_jax.knn.sizes import filled_to, filled_up
from deepknn_jax.knn.vote import MAJORITY, KNNPredictions, VoteRule, knn_classify, vote

SCORE_K = 5  # neighbours of a class that a ratio score takes (docs/predict.md)
_ALIKE = 128  # queries are filled up to as many, then to as many as _BLOCK: two programs do for all
_BLOCK = 1024


class Predictions(NamedTuple):
    """What a model says of n images.

    `names` of the images; `labels` int32 [n] of the vote, -1 where nobody voted; `shares` float32
    [n, C] of the votes, weighted by the model's rule, 1 in sum; `p_values` float64 [n, C], NaN for
    a class without calibration images; `credibility` [n], the largest marginal p-value; `sets` bool
    [n, C], the classes that cannot be ruled out; `abstain`, of each image why no answer should be
    given, or ""; `indices` int32 [n, k] of the neighbours in the gallery, the nearest first, and
    `distances` float32 [n, k] to them; `nearest` float32 [n, C], the distance to the nearest
    image of each class. Without calibration `p_values`, `credibility` and `sets` are None.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    shares: np.ndarray
    p_values: np.ndarray | None
    credibility: np.ndarray | None
    sets: np.ndarray | None
    abstain: tuple[str, ...]
    indices: np.ndarray
    distances: np.ndarray
    nearest: np.ndarray


def check_options(model: Model, k: int, level: float, abstain_error: float) -> None:
    """Raises UserError for options that `judge` cannot take."""
    if not 1 <= k <= len(model.gallery.labels):
        raise UserError(f"`k` is {k}: choose 1 to {len(model.gallery.labels)}, the size of the"
                        " gallery")  # fmt: skip
    for name, share in (("level", level), ("abstain_error", abstain_error)):
        if not 0 < share < 1:
            raise UserError(f"`{name}` is {share}: choose a share between 0 and 1, such as 0.9")


def judge(
    embeddings_nxD: np.ndarray,
    names: tuple[str, ...],
    model: Model,
    *,
    k: int,
    level: float,
    abstain_error: float,
) -> Predictions:
    """The predictions for n embedded images; options as `check_options` wants them.

    `k` neighbours vote. `level`: of each class's images such a share has its class in the set.
    `abstain_error`: the share of wrong answers that is wanted; what is less credible than gave it
    on the validation part is not answered, nor what is like none of the classes: an empty set.
    """
    found = _vote(embeddings_nxD, model, k)
    labels = np.asarray(found.labels)
    near = nearest_of(embeddings_nxD, model.gallery, model.classes, p_of(model))
    no_vote = tuple("" if label >= 0 else "nobody voted" for label in labels)
    evidence = (np.asarray(found.indices), np.asarray(found.distances), doubt.to_nearest(near))
    if model.calibrated is None:
        return Predictions(names, labels, np.asarray(found.shares), None, None, None, no_vote,
                           *evidence)  # fmt: skip
    scores = doubt.ratios(near)
    calibration = model.calibrated.scores
    p_values = doubt.p_values(scores, calibration)
    credibility = doubt.credibility(doubt.marginal_p_values(scores, calibration))
    sets = doubt.prediction_sets(p_values, level=level)
    reasons = _abstain(credibility, sets, model.calibrated, level=level, error=abstain_error)
    return Predictions(
        names,
        labels,
        np.asarray(found.shares),
        p_values,
        credibility,
        sets,
        tuple(none or reason for none, reason in zip(no_vote, reasons, strict=True)),
        *evidence,
    )


def p_of(model: Model) -> float:
    """The order of the norm that the model's distances are of."""
    return float(model.about["p"])


_classify = functools.partial(jax.jit, static_argnames=("k", "num_classes", "p"))(
    lambda *arrays, **options: knn_classify(*arrays, **options)
)


def vote_options(model: Model, k: int) -> dict[str, Any]:
    """How k neighbours vote by the model: the static options of `knn_classify`."""
    return {"k": k, "num_classes": len(model.classes), "p": p_of(model)}


def _vote(embeddings_nxD: np.ndarray, model: Model, k: int) -> KNNPredictions:
    n, options = len(embeddings_nxD), vote_options(model, k)
    # A row of NaN is nobody's neighbour: a gallery that grows meets compiled programs.
    gallery = filled_up(model.gallery.embeddings, np.nan), filled_up(model.gallery.labels, 0)
    parts = []
    for start in range(0, n, _BLOCK):
        queries = embeddings_nxD[start : start + _BLOCK]
        size = _ALIKE if len(queries) <= _ALIKE else _BLOCK
        part = _classify(filled_to(queries, size), *gallery, **options)
        parts.append([np.asarray(each)[: len(queries)] for each in part])
    joined: list[Any] = [np.concatenate(each) for each in zip(*parts, strict=True)]
    classes = len(model.classes)
    return _by_rule(KNNPredictions(*joined), model.gallery.labels, classes, rule_of(model))


def rule_of(model: Model) -> VoteRule:
    """How the model's neighbours vote; a folder from before there was a choice: by majority."""
    return VoteRule(**model.about.get("vote", {}))


def _by_rule(
    found: KNNPredictions, labels_G: np.ndarray, classes: int, rule: VoteRule
) -> KNNPredictions:
    """What the same neighbours say by the model's rule, in the numbers that the run had."""
    if rule == MAJORITY:
        return found
    voters = np.where(found.indices < 0, -1, labels_G[np.asarray(found.indices)])
    labels, shares = vote(
        found.distances,
        jnp.asarray(voters),
        num_classes=classes,
        class_counts=jnp.asarray(np.bincount(labels_G, minlength=classes)),
        rule=rule,
    )
    return found._replace(labels=labels, shares=shares)


def nearest_of(
    embeddings_nxD: np.ndarray, gallery: Gallery, classes: tuple[str, ...], p: float
) -> doubt.NearestOfClasses:
    """Of n images, none of the gallery's, the distances to the nearest of each class."""
    return doubt.nearest_of_classes(embeddings_nxD, gallery.embeddings, gallery.labels,
                                    num_classes=len(classes), k=SCORE_K, p=p)  # fmt: skip


def _abstain(
    credibility_n: np.ndarray,
    sets_nxC: np.ndarray,
    calibrated: Calibrated,
    *,
    level: float,
    error: float,
) -> list[str]:
    threshold = doubt.abstain_threshold(calibrated.curve, error=error)
    none = f"no credibility kept the errors on the calibration images at {100 * error:g} %"
    empty = f"at level {level:g} it is like none of the classes: its set is empty"
    reasons = []
    for found, any_class in zip(credibility_n, np.any(sets_nxC, axis=1).tolist(), strict=True):
        low = none if np.isinf(threshold) else "" if found >= threshold else (
            f"credibility {found:.3f} is below {threshold:.3f}, above which at most "
            f"{100 * error:g} % of the answers were wrong on the calibration images"
        )  # fmt: skip
        reasons.append("; ".join(filter(None, ("" if any_class else empty, low))))
    return reasons


def calibrate(
    embeddings_nxD: np.ndarray,
    labels_n: np.ndarray,
    predicted_n: np.ndarray,
    distances_nxk: np.ndarray,
    *,
    gallery: Gallery,
    classes: tuple[str, ...],
    p: float,
) -> Calibrated:
    """What a validation part tells: n images that never trained the network, nor vote.

    `predicted_n` int [n] is the vote on them, and `distances_nxk` those to the neighbours that
    voted.
    """
    near = nearest_of(embeddings_nxD, gallery, classes, p)
    return _calibrated(doubt.ratios(near), labels_n, predicted_n, distances_nxk)


def _calibrated(
    scores_nxC: np.ndarray, labels_n: np.ndarray, predicted_n: np.ndarray, distances_nxk: np.ndarray
) -> Calibrated:
    n, classes = scores_nxC.shape
    own = doubt.Calibration(scores_nxC[np.arange(n), labels_n], labels_n, classes)
    credible = doubt.credibility(doubt.marginal_p_values(scores_nxC, own))
    wrong = predicted_n != labels_n
    behind = distances_nxk[~wrong]
    return Calibrated(
        own,
        doubt.error_coverage(credible, wrong),
        np.sort(behind[np.isfinite(behind)]).astype(np.float64),
    )


def calibrate_left_out(
    gallery: Gallery,
    groups_G: np.ndarray,
    *,
    k: int,
    classes: tuple[str, ...],
    p: float,
    rule: VoteRule = MAJORITY,
) -> Calibrated:
    """What a gallery tells of itself: each image judged without its whole group, int [G].

    Valid only where nothing was trained on it: else coverage falls far below what is promised.
    """
    embeddings, labels = gallery.embeddings, gallery.labels
    near = doubt.nearest_of_classes(
        embeddings, embeddings, labels, num_classes=len(classes), k=SCORE_K, p=p,
        query_groups_Q=groups_G, gallery_groups_G=groups_G,
    )  # fmt: skip
    rows, ids, n = filled_up(embeddings), filled_up(groups_G), len(labels)
    options: dict[str, Any] = {"k": k, "num_classes": len(classes), "p": p}
    among = filled_up(embeddings, np.nan), filled_up(labels, 0)
    found = _classify(rows, *among, query_ids=ids, gallery_ids=ids, **options)
    found = _by_rule(jax.tree.map(lambda each: each[:n], found), labels, len(classes), rule)
    predicted, distances = np.asarray(found.labels), np.asarray(found.distances)
    return _calibrated(doubt.ratios(near), labels, predicted, distances)
