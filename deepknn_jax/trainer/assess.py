"""A setup's network judged: its embeddings, the kNN's metrics on them, and its references'."""

import functools
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from deepknn_jax.data.copies import has_copy, numbered
from deepknn_jax.data.dataset import TEST, TRAIN, VALIDATION, Dataset, Listing
from deepknn_jax.data.splits import assign_splits
from deepknn_jax.engine import hosts
from deepknn_jax.engine.averaging import averaged
from deepknn_jax.engine.inputs import are_features
from deepknn_jax.engine.parallel import Embed
from deepknn_jax.engine.step import TrainState
from deepknn_jax.errors import UserError
from deepknn_jax.evaluation.baselines import BASELINES, Part, tuned_baseline
from deepknn_jax.evaluation.evaluate import (
    Embedded,
    Entry,
    Evidence,
    chosen,
    classify,
    elected,
    embed_rows,
    metrics_by_vote,
)
from deepknn_jax.evaluation.metrics import score
from deepknn_jax.knn.sharded import searcher
from deepknn_jax.knn.vote import MAJORITY, VoteRule
from deepknn_jax.logs import Record
from deepknn_jax.trainer.setup import Embedder, Setup, first_state

# What config.evaluate.references may hold.
REFERENCES = ("pixels", "untrained", *BASELINES)

Variables = tuple[Any, Any]  # params, batch_stats


def variables_of(state: TrainState) -> Variables:
    """The part of a state that the network is evaluated with: its average weights, if kept."""
    return averaged(state.opt_state, state.params), state.batch_stats


def embed_split(
    config: ConfigDict,
    setup: Setup | Embedder,
    variables: Variables,
    split: str,
    function: Embed | None = None,
) -> Embedded:
    """The embeddings of one split by the network, or by `function` in its place.

    Raises:
        UserError: they are not finite: their neighbours would mean nothing.
    """
    part = embed_rows(
        function or setup.embed,
        variables,
        setup.store,
        setup.devices,
        setup.dataset.rows(split),
        config.evaluate.batch_size,
    )
    if not np.isfinite(part.embeddings).all():
        raise UserError(
            f"the {split} part's embeddings are not finite; stopped, the last checkpoint is kept: "
            "try a smaller config.optimizer.learning_rate"
        )
    return part


def knn_entries(
    config: ConfigDict, setup: Setup | Embedder, queries: Embedded, gallery: Embedded
) -> tuple[dict[str, Entry], Evidence]:
    """The metrics of the gallery's vote on the queries, and the vote itself."""
    dataset = setup.dataset
    evidence = classify(
        queries,
        gallery,
        dataset.labels,
        k_ps=config.evaluate.k_p,
        num_classes=len(dataset.class_names),
        p=config.loss.p,
        nearest=searcher(setup.devices.mesh),
    )
    return entries_of(dataset, queries, evidence), evidence


def entries_of(dataset: Dataset, queries: Embedded, evidence: Evidence) -> dict[str, Entry]:
    """The metrics of the vote on the queries, by K_p, and of the head if there is one."""
    return metrics_by_vote(
        queries,
        evidence,
        dataset.labels,
        class_names=dataset.class_names,
        train_counts=dataset.train_counts(),
    )


def judged(
    config: ConfigDict, setup: Setup, queries: Embedded, gallery: Embedded
) -> tuple[dict[str, dict[str, Entry] | None], Evidence]:
    """{"test": {...}, ...}: the metrics of the training part's vote on the test part, and the vote.

    "test" is without what trained the network that the weights or the features are of; all of the
    part is "test_with_trained", if that is more. "test_without_copies" is "test" without copies of
    training examples, if it has some; None if it has no others.
    """
    evidence = knn_entries(config, setup, queries, gallery)[1]
    return tested(setup.dataset, queries, evidence), evidence


def tested(
    dataset: Dataset, queries: Embedded, evidence: Evidence
) -> dict[str, dict[str, Entry] | None]:
    """The figures of `judged`, of what the neighbours were found to elect."""
    everything, clean = np.ones(len(queries.rows), bool), clean_of(dataset, queries.rows)
    wanted = {"test": clean}
    if (copied := copied_tests(dataset)[queries.rows] & clean).any():
        wanted["test_without_copies"] = clean & ~copied
    if not clean.all():
        wanted["test_with_trained"] = everything
    return {
        name: entries_of(dataset, *chosen(queries, evidence, of)) if of.any() else None
        for name, of in wanted.items()
    }


def clean_of(dataset: Dataset, rows_n: np.ndarray) -> np.ndarray:
    """Which of the examples, bool [n], trained nothing that the run comes from."""
    if dataset.trained is None:
        return np.ones(len(rows_n), bool)
    clean: np.ndarray = ~dataset.trained[rows_n]
    return clean


def by_rule(dataset: Dataset, evidence: Evidence, k_p: int, rule: VoteRule) -> Evidence:
    """What neighbours that were found by majority elect by the rule; `k_p` are reported."""
    if rule != MAJORITY:  # by that they were asked already
        counts = dataset.train_counts()
        evidence = elected(evidence, dataset.labels, class_counts=counts, rule=rule)
    return evidence._replace(k_p=k_p)


def copied_tests(dataset: Dataset) -> np.ndarray:
    """Which examples, bool [N], test and are copies of training examples."""
    if dataset.contents is None:
        return np.zeros(len(dataset.labels), bool)
    numbers = numbered(dataset.contents)
    return has_copy(numbers, dataset.splits == TEST, dataset.splits == TRAIN)


def epoch_figures(config: ConfigDict, setup: Setup, variables: Variables) -> Record:
    """Leave-one-out training accuracy and, where there is such a part, validation metrics.

    All at the last, largest K_p of the config.
    """
    train_part = embed_split(config, setup, variables, TRAIN)
    k_p = str(config.evaluate.k_p[-1])
    record = {"train_acc": knn_entries(config, setup, train_part, train_part)[0][k_p]["acc"]}
    if len(setup.dataset.rows(VALIDATION)):
        part = embed_split(config, setup, variables, VALIDATION)
        entry = knn_entries(config, setup, part, train_part)[0][k_p]
        record |= {"validation_acc": entry["acc"], "validation_mcr": entry["mcr"]}
    return record


def validation_score(config: ConfigDict, epoch: Record) -> float | None:
    """By what the best epoch is chosen, of an epoch's figures; None where it was not evaluated."""
    if "validation_acc" not in epoch:
        return None
    figures = {key: epoch[f"validation_{key}"] for key in ("acc", "mcr")}
    return score(figures, config.evaluate.best_by)


def references(config: ConfigDict, setup: Setup) -> dict[str, Any]:
    """{"pixels": {"test": {...}}, ...}: kNN on the inputs themselves, and without training.

    And what evaluation.baselines has, each with the options that were chosen.
    """
    wanted = config.evaluate.references
    found: dict[str, Any] = {}
    if "pixels" in wanted:
        name = "features" if are_features(setup.dataset.inputs) else "pixels"
        test, gallery = (
            embed_split(config, setup, ((), ()), split, setup.flat) for split in (TEST, TRAIN)
        )
        found[name] = judged(config, setup, test, gallery)[0]
    if "untrained" in wanted:
        variables = variables_of(first_state(setup))
        test, gallery = (
            embed_split(config, setup, variables, split)._replace(head=None)
            for split in (TEST, TRAIN)
        )
        name = "untrained" if setup.weights is None else "pretrained"
        found[name] = judged(config, setup, test, gallery)[0]
    return found | _baselines(config, setup, [name for name in wanted if name in BASELINES])


def _baselines(config: ConfigDict, setup: Setup, names: list[str]) -> dict[str, Any]:
    """The baselines of these names on the inputs, or on the embeddings by the weights, if any.

    Their options are chosen on the validation part; where there is none, on a fifth of the
    training part, which then is fitted whole.
    """
    if not names:
        return {}
    dataset = setup.dataset
    if setup.weights is None:
        variables, function = ((), ()), setup.flat
    else:
        variables, function = variables_of(first_state(setup)), setup.embed
    rows, tunes = _tuning_rows(dataset)
    splits = (TRAIN, VALIDATION, TEST) if VALIDATION in dataset.splits else (TRAIN, TEST)
    parts = {split: embed_split(config, setup, variables, split, function) for split in splits}
    inputs = np.concatenate([part.embeddings for part in parts.values()])
    place = np.empty(len(dataset.labels), int)  # of a row in them
    place[np.concatenate([part.rows for part in parts.values()])] = np.arange(len(inputs))
    fitting, tuning, training = (
        Part(inputs[place[own]], dataset.labels[own])
        for own in (rows[~tunes], rows[tunes], dataset.rows(TRAIN))
    )
    test, found = parts[TEST], {}
    for name in names:
        of_name = functools.partial(_tuned, name, fitting, tuning, training, test.embeddings)
        predicted, options, figure = hosts.by_main(
            functools.partial(of_name, by=config.evaluate.best_by)
        )
        nobody = np.zeros((len(test.rows), 0), int)
        decided = test._replace(head=np.asarray(predicted, np.int32))
        entries = tested(dataset, decided, Evidence(nobody, nobody, {}))
        found[name] = entries | {"chosen": options, "validation": figure}
    return found


def _tuned(*asked: Any, by: str) -> tuple[list[int], dict[str, Any], float]:
    """`tuned_baseline` as JSON has it."""
    found = tuned_baseline(*asked, by=by)
    return found.predictions.tolist(), found.options, found.figure


def _tuning_rows(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Rows to tune a baseline with, and which of them judge it, bool."""
    splits = dataset.splits
    if VALIDATION not in splits:
        listing = Listing(
            dataset.names, dataset.labels, dataset.class_names, splits=splits, groups=dataset.groups
        )
        splits = assign_splits(
            listing, split="published", test_share=0.0, validation=0.2, split_seed=0
        )
    rows = np.flatnonzero((splits == TRAIN) | (splits == VALIDATION))
    return rows, splits[rows] == VALIDATION
