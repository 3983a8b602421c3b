"""The run's vote: what config.evaluate.vote asks for, and what the validation part chooses."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from deepknn_jax.data.dataset import TEST, TRAIN, VALIDATION, Dataset
from deepknn_jax.errors import UserError
from deepknn_jax.evaluation import operating_point
from deepknn_jax.evaluation.evaluate import Embedded, Evidence
from deepknn_jax.evaluation.operating_point import Curves
from deepknn_jax.knn.vote import VoteRule
from deepknn_jax.trainer.assess import by_rule, clean_of, knn_entries
from deepknn_jax.trainer.setup import Setup

AUTO = "auto"
K_PS = ("last", AUTO)


class Voting(NamedTuple):
    """The run's vote: `k_p` neighbours by a `rule`; and the `curves` of each part, around it.

    `chosen`: which of "class_size_power" and "k_p" validation chose.
    """

    k_p: int
    rule: VoteRule
    chosen: tuple[str, ...]
    curves: Mapping[str, Curves]


def check_vote(vote: Mapping[str, Any]) -> None:
    """Raises UserError for values of config.evaluate.vote that it cannot have."""
    power = vote["class_size_power"]
    if power != AUTO and not 0 <= _number(power) <= 1:
        raise UserError(
            f"config.evaluate.vote.class_size_power is {power!r}: choose 0 to 1, or {AUTO}"
        )
    if not 0 <= vote["temperature"] < float("inf"):
        raise UserError(
            f"config.evaluate.vote.temperature is {vote['temperature']}: choose above 0, or 0 "
            "where all distances are to weigh alike"
        )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _to_choose(config: ConfigDict) -> tuple[str, ...]:
    vote = config.evaluate.vote
    return tuple(key for key in ("class_size_power", "k_p") if vote[key] == AUTO)


def check_chosen(config: ConfigDict, dataset: Dataset) -> None:
    """Raises UserError where validation is to choose and there is no such part."""
    if (keys := _to_choose(config)) and not len(dataset.rows(VALIDATION)):
        raise UserError(
            f"config.evaluate.vote.{keys[0]} is {AUTO}, but there is no validation part to choose "
            "it on: set config.data.validation=0.2, or give a value"
        )


def vote(
    config: ConfigDict, setup: Setup, parts: Mapping[str, Embedded]
) -> tuple[Voting, dict[str, Evidence]]:
    """The run's vote, and what each part's neighbours in the training part elect by it.

    Each part is searched once.
    """
    nearest = {split: knn_entries(config, setup, parts[split], parts[TRAIN])[1] for split in parts}
    found = settled(config, setup.dataset, nearest)
    return found, {
        split: by_rule(setup.dataset, evidence, found.k_p, found.rule)
        for split, evidence in nearest.items()
    }


def elected(dataset: Dataset, evidence: Evidence, told: Mapping[str, Any]) -> Evidence:
    """What neighbours elect by the vote that a results.json tells."""
    return by_rule(dataset, evidence, int(told["k_p"]), rule_told(told))


def rule_told(told: Mapping[str, Any]) -> VoteRule:
    """The rule of the vote that a results.json tells."""
    return VoteRule(*(float(told[key]) for key in VoteRule._fields))


def settled(config: ConfigDict, dataset: Dataset, found: Mapping[str, Evidence]) -> Voting:
    """The run's vote, and the curves of its validation and test parts.

    `found` are their neighbours, by part. The test part's curve is of what results.json's "test"
    is of.
    """
    vote, to_choose = config.evaluate.vote, _to_choose(config)
    given = None if vote.class_size_power == AUTO else float(vote.class_size_power)
    powers = sorted({*operating_point.POWERS, *(() if given is None else (given,))})
    curves = _curves(dataset, found, powers, vote.temperature)
    k_p, power = max(config.evaluate.k_p), given
    if to_choose:
        candidates = {
            k: [point for point in points if given in (None, point.class_size_power)]
            for k, points in curves[VALIDATION].items()
            if vote.k_p == AUTO or k == k_p
        }
        k_p, point = operating_point.choose(candidates, by=vote.choose_by)
        power = point.class_size_power
    assert power is not None
    return Voting(k_p, VoteRule(power, float(vote.temperature)), to_choose, curves)


def _curves(
    dataset: Dataset,
    found: Mapping[str, Evidence],
    powers: list[float],
    temperature: float,
) -> dict[str, Curves]:
    """Of both parts by one program: their queries are put one after the other."""
    parts = [part for part in (VALIDATION, TEST) if part in found]
    joined = Evidence(
        np.concatenate([found[part].distances for part in parts]),
        np.concatenate([found[part].rows for part in parts]),
        found[TEST].predictions,
    )
    counts = dataset.train_counts()
    predicted = operating_point.predictions(
        joined, dataset.labels, class_counts=counts, powers=powers, temperature=temperature
    )
    whole = np.concatenate([dataset.rows(part) for part in parts])
    of = np.repeat(parts, [len(dataset.rows(part)) for part in parts])
    kept = (of != TEST) | clean_of(dataset, whole)
    return {
        part: operating_point.curves(
            {k: labels[:, mask] for k, labels in predicted.items()},
            dataset.labels[whole[mask]],
            class_names=dataset.class_names, train_counts=counts, powers=powers,
        )
        for part in parts
        if (mask := (of == part) & kept).any()
    }  # fmt: skip


def record(config: ConfigDict, voting: Voting) -> dict[str, Any]:
    """What results.json tells of the vote: {"vote": ..., "operating_points": ...}."""
    vote = {"k_p": voting.k_p, **voting.rule._asdict(), "chosen": list(voting.chosen),
            "asked": dict(config.evaluate.vote)}  # fmt: skip
    points = {
        part: {str(k): [point._asdict() for point in points] for k, points in curves.items()}
        for part, curves in voting.curves.items()
    }
    return {"vote": vote, "operating_points": points}


def origin(config: ConfigDict, voting: Voting) -> str:
    """Words on where the vote's tau is from."""
    if "class_size_power" in voting.chosen:
        by = {"acc": "Acc", "mcr": "MCR", "mean": "the mean of Acc and MCR"}
        return f"chosen on validation by {by[config.evaluate.vote.choose_by]}"
    return "as given; nothing was chosen here" if voting.rule.class_size_power else "the papers'"
