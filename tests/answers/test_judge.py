"""Predictions against slow loops: the vote, p-values, sets, credibility, abstaining."""

import functools
import logging

import jax
import numpy as np
import pytest
from support.answering import FEATURES, examples, model_of

from deepknn_jax.answers.judge import SCORE_K, calibrate_left_out, check_options, judge
from deepknn_jax.answers.model import Gallery
from deepknn_jax.answers.network import embedder
from deepknn_jax.errors import UserError


@pytest.fixture(scope="module")
def model(compiled_once):
    return model_of()


@pytest.fixture(scope="module")
def queries(model):
    labels = np.array([0, 2, 1, 2, 0, 1, 1])
    return embedder(model)(examples(FEATURES, labels, np.random.default_rng(5)))


def distances_of(queries, gallery):
    return np.sqrt(((queries[:, None].astype(float) - gallery[None].astype(float)) ** 2).sum(-1))


def score(distances, labels, c, k=SCORE_K):
    own, others = np.sort(distances[labels == c])[:k], np.sort(distances[labels != c])[:k]
    return own.mean() / others.mean()


def test_it_is_the_vote_and_its_doubt(model, queries):
    names = tuple("abcdefg")
    found = judge(queries, names, model, k=3, level=0.8, abstain_error=0.1)
    gallery, own = model.gallery, model.calibrated.scores
    distances = distances_of(queries, gallery.embeddings)
    assert found.names == names
    for i, row in enumerate(distances):
        nearest = np.argsort(row, kind="stable")[:3]
        np.testing.assert_array_equal(found.indices[i], nearest)
        np.testing.assert_allclose(found.distances[i], row[nearest], rtol=1e-5)
        votes = np.bincount(gallery.labels[nearest], minlength=3)
        np.testing.assert_allclose(found.shares[i], votes / 3, rtol=1e-6)
        assert votes[found.labels[i]] == votes.max()
        for c in range(3):
            np.testing.assert_allclose(
                found.nearest[i, c], row[gallery.labels == c].min(), rtol=1e-3
            )
        scores = np.array([score(row, gallery.labels, c) for c in range(3)])
        p = [
            (1 + (own.scores[own.labels == c] >= scores[c]).sum()) / (1 + (own.labels == c).sum())
            for c in range(3)
        ]
        np.testing.assert_allclose(found.p_values[i], p)
        marginal = [(1 + (own.scores >= each).sum()) / (1 + len(own.scores)) for each in scores]
        assert found.credibility[i] == pytest.approx(max(marginal))
        np.testing.assert_array_equal(found.sets[i], np.array(p) > 0.2)


def test_what_is_less_credible_than_the_wanted_error_allows_abstains(model, queries):
    curve = model.calibrated.curve
    middle = float(np.median(curve.thresholds))
    tight = model.calibrated._replace(
        curve=curve._replace(error=np.where(curve.thresholds < middle, 0.5, 0.0))
    )
    names = ("",) * len(queries)
    found = judge(queries, names, model._replace(calibrated=tight), k=3, level=0.9,
                  abstain_error=0.1)  # fmt: skip
    least = curve.thresholds[curve.thresholds >= middle].min()
    low, empty = found.credibility < least, ~found.sets.any(axis=1)
    assert [bool(each) for each in found.abstain] == (low | empty).tolist()
    assert ["credibility" in each for each in found.abstain] == low.tolist()
    assert 0 < sum(map(bool, found.abstain)) < len(queries)
    (words,) = {each.split("; ")[-1].split(" above ")[1] for each in np.array(found.abstain)[low]}
    assert words == "which at most 10 % of the answers were wrong on the calibration images"
    never = model.calibrated._replace(curve=curve._replace(error=np.ones_like(curve.error)))
    found = judge(queries, names, model._replace(calibrated=never), k=3, level=0.9,
                  abstain_error=0.1)  # fmt: skip
    assert all("no credibility kept the errors" in each for each in found.abstain)


def test_what_is_like_none_of_the_classes_abstains_whatever_its_credibility(model, queries):
    far = np.concatenate([queries, 10 * queries])
    curve = model.calibrated.curve
    always = model.calibrated._replace(curve=curve._replace(error=np.zeros_like(curve.error)))
    own = always._replace(curve=always.curve._replace(thresholds=0 * curve.thresholds))
    found = judge(far, ("",) * len(far), model._replace(calibrated=own), k=3, level=0.6,
                  abstain_error=0.1)  # fmt: skip
    empty = ~found.sets.any(axis=1)
    assert 0 < empty.sum() < len(far)
    assert [bool(each) for each in found.abstain] == empty.tolist()
    assert set(found.abstain) - {""} == {
        "at level 0.6 it is like none of the classes: its set is empty"
    }


def test_without_validation_there_is_no_doubt_to_tell(model, queries):
    bare = judge(queries, ("",) * 7, model._replace(calibrated=None), k=3, level=0.9,
                 abstain_error=0.1)  # fmt: skip
    assert bare.p_values is bare.credibility is bare.sets is None
    assert bare.abstain == ("",) * 7


def test_many_queries_are_as_few(model, queries):
    """Beyond one block of either size, filled up or not."""
    many = np.tile(queries, (160, 1))
    found = judge(many, ("",) * len(many), model, k=2, level=0.9, abstain_error=0.1)
    few = judge(queries, ("",) * 7, model, k=2, level=0.9, abstain_error=0.1)
    for name in ("labels", "indices", "distances", "shares", "p_values", "nearest"):
        whole, part = getattr(found, name), getattr(few, name)
        np.testing.assert_allclose(whole[-7:], part, rtol=1e-6)
        assert len(whole) == 1120


@pytest.mark.parametrize(
    ("k", "level", "error", "words"),
    [(0, 0.9, 0.1, "`k` is 0"), (48, 0.9, 0.1, "choose 1 to 47"), (1, 1.0, 0.1, "`level` is 1.0"),
     (1, 0.9, 0.0, "`abstain_error` is 0.0")],
)  # fmt: skip
def test_options_out_of_range_are_named(model, k, level, error, words):
    with pytest.raises(UserError, match=words):
        check_options(model, k, level, error)


def test_a_gallery_judges_itself_with_whole_groups_left_out(model):
    gallery = model.gallery
    G = len(gallery.labels)
    groups = np.random.default_rng(8).permutation(G) // 3
    found = calibrate_left_out(gallery, groups, k=3, classes=model.classes, p=2.0)
    distances, labels = distances_of(gallery.embeddings, gallery.embeddings), gallery.labels
    predicted, behind = np.empty(G, int), []
    for i, row in enumerate(distances):
        may = groups != groups[i]
        expected = score(row[may], labels[may], labels[i])
        assert found.scores.scores[i] == pytest.approx(expected, rel=1e-4)
        nearest = np.flatnonzero(may)[np.argsort(row[may], kind="stable")[:3]]
        votes = [(np.sum(labels[nearest] == c), -row[nearest][labels[nearest] == c].sum())
                 for c in range(3)]  # fmt: skip
        predicted[i] = max(range(3), key=votes.__getitem__)
        behind += row[nearest].tolist() if predicted[i] == labels[i] else []
    np.testing.assert_allclose(found.distances, np.sort(behind), rtol=1e-4)
    assert found.curve.error[0] == pytest.approx(np.mean(predicted != labels))  # all answered
    alone = calibrate_left_out(gallery, np.zeros(G, int), k=3, classes=model.classes, p=2.0)
    assert np.isinf(alone.scores.scores).all()  # one group: nobody is left to say anything
    assert alone.curve.error.tolist() == [1.0]
    assert len(alone.distances) == 0


def test_another_few_images_compile_nothing_new(model, queries, caplog):
    """Each program that is compiled stays in memory: a server would grow with every image."""
    asked = [(queries[:1], ("a",)), (queries[1:4], ("b", "c", "d"))]
    options = {"k": 3, "level": 0.9, "abstain_error": 0.1}
    judge(*asked[0], model, **options)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        judge(*asked[1], model, **options)
    assert [each for each in caplog.messages if "ompil" in each] == []


def test_a_gallery_that_grows_by_one_meets_compiled_programs(model, queries, caplog):
    own = model.gallery
    longer = Gallery(*(np.concatenate([each, each[:1]]) for each in (own.embeddings, own.labels)))
    ask = functools.partial(judge, queries, ("",) * 7, k=3, level=0.8, abstain_error=0.1)
    ask(model)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        found = ask(model._replace(gallery=longer))
    assert len(found.labels) == 7
    assert not [line for line in caplog.messages if "jit(" in line and "ompil" in line]
