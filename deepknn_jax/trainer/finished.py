"""What a run leaves once it is trained, and when that is to be made anew."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from deepknn_jax.answers.model import Model
from deepknn_jax.config import default
from deepknn_jax.data.dataset import LEFT_OUT, TEST, TRAIN, VALIDATION, Dataset
from deepknn_jax.engine import hosts
from deepknn_jax.errors import UserError
from deepknn_jax.evaluation import operating_point, report
from deepknn_jax.evaluation.evaluate import Embedded, Evidence
from deepknn_jax.evaluation.tsne import Map
from deepknn_jax.files import sound
from deepknn_jax.logs import Seconds, clock
from deepknn_jax.trainer import answering, by_class, checkpoint, voting
from deepknn_jax.trainer.assess import (
    Variables,
    copied_tests,
    embed_split,
    entries_of,
    references,
    tested,
)
from deepknn_jax.trainer.methods import title_of
from deepknn_jax.trainer.provenance import used
from deepknn_jax.trainer.setup import Setup

# What a reference is called in results.json -> in config.evaluate.references.
_REFERENCES = {"features": "pixels", "pretrained": "untrained"}


class Fitted(NamedTuple):
    """Parameters to report, the step they are of, and their figure on the validation part."""

    variables: Variables
    step: int
    figure: float | None


def changes(config: ConfigDict, results: Mapping[str, Any], workdir: Path) -> str:
    """Which options of the evaluation the `results` of a finished run do not answer, or "".

    The results themselves tell what they are of, so that an evaluation that was stopped half-way
    is not taken for done.
    """
    wanted = config.evaluate
    k_ps = {int(vote) for vote in results["test"] if vote != "head"}
    beside = {_REFERENCES.get(name, name) for name in results["references"]}
    # A run from before pictures were recorded drew them all, or did not finish.
    drawn = hosts.by_main((workdir / report.PICTURES[0]).exists)
    before = {"all": "drawn"} if drawn else {}
    undrawn = wanted.pictures and not results.get("pictures", before)
    # Of a run from before there was such an option nothing is asked.
    folder, vote = dict(config.model_folder), dict(default().evaluate.vote)
    vote = results.get("vote", {}).get("asked", vote)
    asked = {
        "config.evaluate.k_p": k_ps != set(wanted.k_p),
        "config.evaluate.vote": vote != dict(wanted.vote),
        "config.evaluate.references": beside != set(wanted.references),
        "config.evaluate.pictures": undrawn,
        "config.model_folder": results.get("model_folder", folder) != folder,
    }
    return ", ".join(key for key, changed in asked.items() if changed)


def check_trained(workdir: Path) -> None:
    """Raises UserError where a finished run has no checkpoint to go on from."""
    if not hosts.by_main(lambda: checkpoint.steps_in(workdir / "checkpoints")):
        raise UserError(
            f"{workdir}: its checkpoints are gone, so it can neither be evaluated anew nor go on:"
            " leave config.evaluate and config.epochs as they were, or choose another --workdir"
        )


def set_results_aside(workdir: Path, epochs: int) -> None:
    """Renames results.json, which tells that a run of so many epochs is finished: it goes on."""
    if hosts.is_main():
        (workdir / "results.json").rename(workdir / f"results_of_{epochs}_epochs.json")


def evaluate_run(
    config: ConfigDict,
    setup: Setup,
    fitted: Fitted,
    workdir: Path,
    seconds: Seconds,
    map_of: report.MapOf,
) -> dict[str, Any]:
    """Evaluates the test part, once, beside the references, and writes all files.

    The main process writes: embeddings and evidence first, then results.json, the model folder, and
    pictures, which may fail, last.

    Raises:
        UserError: the references want more memory than there is; what was written stays.
    """
    dataset = setup.dataset
    with clock(seconds, "evaluation"):
        parts = {
            split: embed_split(config, setup, fitted.variables, split)
            for split in (TRAIN, VALIDATION, TEST)
            if len(dataset.rows(split))
        }
        mapped = map_of(dataset, parts.values())  # computed while the rest is evaluated
        voted, found = voting.vote(config, setup, parts)
        evidence = found[TEST]
    if hosts.is_main():
        with clock(seconds, "writing"):
            _write_evidence(config, dataset, parts, evidence, workdir)
    with clock(seconds, "evaluation"):
        results = {
            "method": title_of(config),
            **tested(dataset, parts[TEST], evidence),
            **voting.record(config, voted),
            **by_class.figures(config, dataset, parts, evidence, voted.rule),
            "train": entries_of(dataset, parts[TRAIN], found[TRAIN]),
            "references": _references(config, setup),
            "copies": _counts(dataset),
            "epochs": config.epochs,
            "reported": {"step": fitted.step, "validation": fitted.figure},
            "skipped": [sound(name) for name in dataset.skipped],
            "model_folder": {},
            "pictures": {},
            "seconds": seconds,
        }
    if hosts.is_main():
        report.write_results(workdir, results)
        with clock(seconds, "writing"):
            report.remove_pictures(workdir)  # of an earlier evaluation
            model = answering.write_model(
                config, setup, fitted.variables, parts, found, results, workdir
            )
            results["model_folder"] = dict(config.model_folder)
            if config.evaluate.pictures:
                beside = _draw_vote(voted, voting.origin(config, voted), workdir)
                drawn = _draw(dataset, model, parts, evidence, workdir, mapped)
                results["pictures"] = drawn | beside
        report.write_results(workdir, results)
    return results


def _write_evidence(
    config: ConfigDict,
    dataset: Dataset,
    parts: Mapping[str, Embedded],
    evidence: Evidence,
    workdir: Path,
) -> None:
    described = used(dataset, epochs=config.epochs)
    report.write_embeddings(workdir / "embeddings.npz", described, parts.values())
    report.write_trained(workdir / report.TRAINED, dataset, dataset.rows(TEST))
    report.write_neighbors(workdir / "neighbors.csv", dataset, parts[TEST], evidence)


def _draw(
    dataset: Dataset,
    model: Model,
    parts: Mapping[str, Embedded],
    evidence: Evidence,
    workdir: Path,
    mapped: Map | None,
) -> dict[str, str]:
    """Draws all pictures and the page; what became of each. The map is waited for last."""
    page, test = workdir / report.REPORT, parts[TEST]
    usual = None if model.calibrated is None else model.calibrated.distances
    write = functools.partial(answering.write_report, model, dataset, test, workdir)
    written = {page.name: report.attempt(page, write)}
    drawn = report.draw(workdir, dataset, parts.values(), test, evidence, usual, mapped)
    return drawn | written


def _draw_vote(voted: voting.Voting, how: str, workdir: Path) -> dict[str, str]:
    path = workdir / report.OPERATING_POINT
    points = {part: curves[voted.k_p] for part, curves in voted.curves.items()}
    if not points:  # every test example trained what the run comes from
        return {}
    write = functools.partial(
        operating_point.draw, path, points, k_p=voted.k_p, power=voted.rule.class_size_power,
        how=how,
    )  # fmt: skip
    return {path.name: report.attempt(path, write)}


def _counts(dataset: Dataset) -> dict[str, int]:
    """How many test examples are copies of training examples, nearly, or trained before."""
    test, near = dataset.rows(TEST), 0
    if dataset.near is not None:
        rows, others, _ = dataset.near
        tests, trains = dataset.splits[rows] == TEST, dataset.splits[others] == TRAIN
        near = int((tests & trains).sum())
    return {
        "of_training": int(copied_tests(dataset).sum()),
        "nearly_of_training": near,
        "trained_before": 0 if dataset.trained is None else int(dataset.trained[test].sum()),
        "left_out": int((dataset.splits == LEFT_OUT).sum()),
    }


def _references(config: ConfigDict, setup: Setup) -> dict[str, Any]:
    try:
        return references(config, setup)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"the references want more than this machine has ({reason}); the training is kept: "
            "set config.evaluate.references=() and start again"
        ) from error
