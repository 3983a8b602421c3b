"""What a config makes of a method's record."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from support.runs import small_config

from deepknn_jax import config as config_lib
from deepknn_jax.engine.parallel import get_devices
from deepknn_jax.errors import UserError
from deepknn_jax.knn.neighbors import Examples
from deepknn_jax.losses import base
from deepknn_jax.mining.local_triplets import neighborhood_size
from deepknn_jax.trainer import methods
from deepknn_jax.trainer.check import check
from deepknn_jax.trainer.methods import loss_function
from deepknn_jax.trainer.setup import load

LM = {"loss__name": "local_margin", "loss__neighborhood": 0}


WEIGHTS = (2.0, 3.0, 5.0, 7.0, 11.0)
OPTIONS = dict(zip(("w_lm", "w_ms", "w_md", "w_ss", "w_sd"), WEIGHTS, strict=True))


def embeddings():
    """20 rows of three classes, every class with two members at least."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 20).astype(np.int32)
    return (rng.normal(size=(20, 4)) + labels[:, None]).astype(np.float32), labels


def value_of(dataset, mined, **changes):
    """What the config's loss says of the embeddings above."""
    config = small_config(**{f"loss__{key}": value for key, value in changes.items()})
    check(config)
    x, labels = embeddings()
    batch = Examples(jnp.asarray(x), labels, np.arange(20), np.ones(20, bool))
    loss = loss_function(config, dataset, get_devices(1, "shard_map"))
    return float(jax.jit(lambda: base.mean(loss(batch, batch, **mined)))())


def watched(positives, negatives, margins, *, squared, p, pushed=None):
    """The objective of listed triplets by the loop, its hinge summed, all five weights at work."""
    x, _ = embeddings()
    options = {"squared": squared, "p": p, "pushed": pushed, "reduction": "sum"}
    return reference.watch_triplets_loop(
        x, range(20), positives, negatives, margins, WEIGHTS, **options
    )[0]


def hardest(p, *, positives):
    """Rows of the nearest negative of each, and of the furthest or of the next positive."""
    x, labels = embeddings()
    x, found = x.astype(np.float64), ([], [])
    for a in range(20):
        same = [i for i in range(20) if labels[i] == labels[a] and i != a]
        other = [i for i in range(20) if labels[i] != labels[a]]
        if positives == "furthest":
            found[0].append(reference.nearest(x, a, same, 1, p, furthest=True))
        else:
            found[0].append([min(same, key=lambda i, a=a: (i - a) % 20)])
        found[1].append(reference.nearest(x, a, other, 1, p))
    return map(np.array, found)


@pytest.mark.parametrize(("squared", "p"), [(False, 1.5), (True, 2.0)])
def test_every_option_reaches_the_losses(squared, p):
    """Against the loops: each option has a value that is no default."""
    dataset = load(small_config())
    shared = OPTIONS | {"reduction": "sum", "squared": squared, "p": p}
    listed = {"positives": np.roll(np.arange(20), 3)[:, None].astype(np.int32)}
    listed["negatives"] = listed["positives"][::-1]
    pushed = np.arange(20) % 4 > 0
    kth = np.linspace(0.1, 2, 20, dtype=np.float32)
    mined = listed | {"outside": pushed, "pushed": pushed, "kth_positive": kth}
    found = value_of(dataset, mined, name="local_margin", c_b=4.0, eps=0.3, **shared)
    expected = watched(*listed.values(), 4.0 * kth + 0.3, squared=squared, p=p, pushed=pushed)
    assert found == pytest.approx(expected, rel=1e-5)

    margins = np.full(20, 1.5)
    constant = 20 * 1.5 * OPTIONS["w_lm"]  # which the max-margin losses leave out
    found = value_of(dataset, listed, name="max_margin", margin=1.5, **shared)
    expected = watched(*listed.values(), margins, squared=squared, p=p)
    assert found == pytest.approx(expected - constant, rel=1e-5)
    for flag, positives in ((True, "furthest"), (False, "next")):
        found = value_of(
            dataset, {}, name="max_margin_hard", margin=1.5, hard_positives=flag, **shared
        )
        expected = watched(*hardest(p, positives=positives), margins, squared=squared, p=p)
        assert found == pytest.approx(expected - constant, rel=1e-5)


def test_the_neighbourhood_s_size_is_the_papers():
    sizes = {54000: 233, 45000: 213, 273: 17, 200: 15, 180: 14, 4: 2, 5: 3, 1: 1}
    assert {n: neighborhood_size(0, n) for n in sizes} == sizes
    assert neighborhood_size(9, 54000) == 9


def test_a_small_c_b_is_warned_of(capsys):
    dataset = load(small_config())
    for changes, told in (
        ({"loss__c_b": 2.9}, "config.loss.c_b is 2.9: the theorem on the kNN wants at least 3"),
        ({"loss__c_b": 3.0}, ""),
        ({"loss__c_b": 3.0, "loss__squared": True}, "wants at least 9"),
        ({"loss__c_b": 9.0, "loss__squared": True}, ""),
    ):
        loss_function(small_config(**LM, **changes), dataset, get_devices(1, "shard_map"))
        out = capsys.readouterr().out
        assert told in out
        assert bool(out) == bool(told)


def test_few_negatives_of_the_soft_form_are_warned_of(capsys):
    dataset = load(small_config())
    for m, told in ((5, "config.loss.m is 5: the soft form learnt best against all"), (0, "")):
        config = small_config(loss__name="soft_deep_knn", loss__m=m)
        loss_function(config, dataset, get_devices(1, "shard_map"))
        out = capsys.readouterr().out
        assert told in out
        assert bool(out) == bool(told)


def test_options_that_do_not_go_together_are_refused():
    for changes, words in (
        ({"loss__k": 0}, "loss.k is 0"),
        ({"loss__m": 0, "loss__name": "soft_deep_knn", "neighbors": "dataset"}, "loss.m is 0"),
        (LM | {"loss__squared": True, "loss__p": 1.0}, "loss.squared goes with config.loss.p=2"),
        (LM | {"loss__draws": 0}, "loss.draws"),
        (LM | {"loss__eps": -1.0}, "loss.eps"),
        (LM | {"loss__reduction": "max"}, "loss.reduction"),
        ({"stop_tolerance": -1.0}, "stop_tolerance"),
        ({"first_stage": "softmax"}, "first_stage"),
    ):
        with pytest.raises(UserError, match=words.replace(".", r"\.")):
            check(small_config(**changes))
    check(small_config(**LM))
    check(small_config(loss__name="soft_deep_knn", loss__k=0, loss__m=0))
    check(small_config(loss__name="nca", loss__k=0))  # which it does not read


def test_soft_deep_knn_and_the_weights_of_anchors_are_as_asked():
    """Against the loop, weights of the training part's classes to the power of -1/2."""
    dataset = load(small_config())
    x, labels = embeddings()
    three = np.arange(len(dataset.labels)) % 7 // 3  # unequal classes
    dataset = dataset._replace(labels=three.astype(np.int32))
    options = {"k": 3, "m": 0, "temperature": 0.7, "margin": 0.4, "each_positive": True}
    found = value_of(dataset, {}, name="soft_deep_knn", class_weight_power=0.5, **options)
    weights = 1 / np.sqrt(dataset.train_counts()[labels])
    expected, _ = reference.soft_deep_knn_loop(x, labels, weights=weights, **options)
    assert found == pytest.approx(expected, rel=1e-5)
    unweighted, _ = reference.soft_deep_knn_loop(x, labels, **options)
    assert unweighted != pytest.approx(expected, rel=1e-4)


def test_options_of_other_methods_may_differ_from_a_runs():
    """But not the norm, by which the kNN of every method votes."""
    for method, free, bound in (
        ("deep_knn", {"targets", "neighborhood", "c_b", "temperature"}, {"k", "m", "margin", "p"}),
        ("nca", {"k", "margin", "c_b"}, {"temperature", "log", "class_weight_power", "p"}),
        ("soft_deep_knn", {"log", "targets"}, {"k", "m", "temperature", "each_positive", "p"}),
        ("weighted_cross_entropy", {"class_weight_power", "tau"}, {"p"}),
        ("logit_adjusted_cross_entropy", {"temperature"}, {"tau", "class_weight_power", "p"}),
        ("lmnn", {"k", "neighborhood"}, {"targets", "mu", "margin", "p"}),
        ("cross_entropy", {"k", "margin"}, {"p"}),
        ("local_margin", {"k", "margin", "targets"}, {"neighborhood", "c_b", "draws", "w_sd", "p"}),
    ):
        keys = methods.unread(small_config(loss__name=method))
        assert {f"loss.{key}" for key in free} <= keys
        assert keys.isdisjoint({f"loss.{key}" for key in bound})


@pytest.mark.parametrize(("method", "k"), [("local_margin", 0), ("lmnn", 7), ("deep_knn", 7)])
def test_a_run_from_when_k_meant_three_things_goes_on(method, k):
    key = {"local_margin": "neighborhood", "lmnn": "targets", "deep_knn": "k"}[method]
    stored = json.loads(config_lib.to_json(small_config(loss__name=method)))
    del stored["loss"]["targets"], stored["loss"]["neighborhood"]
    stored["loss"]["k"] = k
    now = small_config(loss__name=method, **{f"loss__{key}": k})
    assert config_lib.differences(now, stored, unread=methods.unread(now)) == []
    other = small_config(loss__name=method, **{f"loss__{key}": k + 1})
    told = config_lib.differences(other, stored, unread=methods.unread(other))
    assert told == [f"loss.{key}: {k} -> {k + 1}"]
