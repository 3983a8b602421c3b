"""A run: load, train, evaluate, write. The only place that orders side effects."""

import contextlib
import itertools
import operator
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from deepknn_jax import config as config_lib
from deepknn_jax.data.dataset import TEST, TRAIN, VALIDATION, Dataset
from deepknn_jax.engine import hosts
from deepknn_jax.engine.feed import plan_calls, train_calls
from deepknn_jax.engine.parallel import present_devices
from deepknn_jax.engine.step import StepLog, TrainState
from deepknn_jax.errors import UserError
from deepknn_jax.evaluation import report
from deepknn_jax.files import write_text
from deepknn_jax.logs import Record, Seconds, clock, duration, read_records, record_log, say
from deepknn_jax.mining.batches import Mined
from deepknn_jax.trainer import assess, checkpoint, identity, inherited, provenance
from deepknn_jax.trainer.assess import Variables, embed_split, epoch_figures, variables_of
from deepknn_jax.trainer.check import check
from deepknn_jax.trainer.finished import (
    Fitted,
    changes,
    check_trained,
    evaluate_run,
    set_results_aside,
)
from deepknn_jax.trainer.loading import check_copies, tell_and_load
from deepknn_jax.trainer.lock import check_held, check_writable, holding
from deepknn_jax.trainer.methods import METHODS
from deepknn_jax.trainer.setup import (
    Setup,
    build,
    first_stage,
    first_state,
    resolve,
    settle,
)
from deepknn_jax.trainer.sizes import devices_of
from deepknn_jax.trainer.voting import check_chosen


@holding
def run(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Trains, or goes on training, and evaluates; returns what results.json holds.

    A finished run is only evaluated anew, and that where its evaluation is to be another one.

    Raises:
        UserError: for whatever the user can mend.
    """
    check(config)
    start = workdir / "first_stage" if config.first_stage else None
    if start is not None and report.read_results(workdir) is None:
        say(f"first stage: {METHODS[config.first_stage].title}")
        run(first_stage(config), start)
    config, weights = check_workdir(config, workdir, start)
    results, longer = report.read_results(workdir), False
    if results is not None:
        stored = identity.stored_run(workdir)
        changed = changes(config, results, workdir)
        longer = config.epochs > (before := identity.epochs_of(results, stored))
        if not changed and not longer and identity.moved(config, stored):
            prepare(config, weights, workdir, start)  # it compares the data
        anew = changed and f"; evaluated anew for {changed}"
        more = f"; goes on from {before} to {config.epochs} epochs" if longer else anew
        say(f"{workdir}: finished before{more}")
        if not more:
            say(report.table(results))
            return results
        check_trained(workdir)
    config, setup = prepare(config, weights, workdir, start)
    provenance.tell(setup.dataset)
    if longer:
        set_results_aside(workdir, before)
    if (longer or results is None) and hosts.is_main():
        weights_of = str(start or config.model.weights)
        provenance.write(workdir, setup.dataset, weights_of, epochs=config.epochs)
    seconds: Seconds = {}
    with report.begun_map(config.evaluate.pictures and hosts.is_main()) as map_of:
        fitted = fit(config, setup, workdir, seconds)
        results = evaluate_run(config, setup, fitted, workdir, seconds, map_of)
    say(report.table(results))
    say("seconds: " + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()))
    say(f"written to {workdir}")
    return results


def prepare(
    config: ConfigDict,
    weights: Mapping[str, Any] | None,
    workdir: Path,
    start: Path | None = None,
) -> tuple[ConfigDict, Setup]:
    """Loads, builds, and writes config.json and inputs.npz: what weights and data have settled.

    And copies.csv, where the data set has copies. `start`: as of `check_workdir`.

    Raises:
        UserError: for whatever is wrong with the data; `workdir` holds a run on others.
    """
    devices_of(config)  # what does not fit this machine is told before any data are read
    kept = inherited.kept_for(config, workdir)
    dataset = tell_and_load(config, kept.set_range)
    describe(dataset)
    dataset = provenance.marked(dataset, str(start or config.model.weights))
    config = settle(config, dataset)
    check_chosen(config, dataset)
    scale = inherited.scale_of(kept, dataset)
    setup = build(config, dataset, weights, scale)
    identity.check_data(setup.content, identity.stored_run(workdir), workdir)
    check_copies(config, dataset, workdir)
    if hosts.is_main():
        workdir.mkdir(parents=True, exist_ok=True)
        inherited.write(workdir, dataset, scale)  # first: with config.json the run has begun
        write_text(workdir / "config.json", config_lib.to_json(config))
    return config, setup


def check_workdir(
    config: ConfigDict, workdir: Path, start: Path | None = None
) -> tuple[ConfigDict, Mapping[str, Any] | None]:
    """The config, resolved, and its weights, once it is known that they may go on in `workdir`.

    `start` is the run of the first stage, whose weights are taken.

    Raises:
        UserError: a folder that cannot be written to or holds another run; as `check` and
            `resolve`.
    """
    check(config)
    present_devices()  # else found only when the data are decoded
    hosts.by_main(lambda: check_writable(workdir))
    stored = identity.stored_run(workdir)
    config, weights = resolve(config, stored.config, str(start or ""))
    finished = report.read_results(workdir) is not None
    identity.check_config(config, stored, workdir, finished=finished)
    identity.restore_config(workdir, stored)
    return config, weights


def describe(dataset: Dataset) -> None:
    """Tells what was loaded, after what was found."""
    parts = [
        f"{len(dataset.rows(split))} {split}"
        for split in (TRAIN, VALIDATION, TEST)
        if len(dataset.rows(split))
    ]
    shape = " x ".join(map(str, dataset.inputs.shape[1:]))
    say(f"data: {' + '.join(parts)} examples of {shape}, {len(dataset.class_names)} classes")
    if dataset.skipped:
        first, n = dataset.skipped[0], len(dataset.skipped)
        say(f"left out of the examples: {n:,}, {first} first; results.json will name all")


def fit(config: ConfigDict, setup: Setup, workdir: Path, seconds: Seconds) -> Fitted:
    """Trains from the last checkpoint, or from the start, to the end."""
    folder = workdir / "checkpoints"
    manager = checkpoint.open_manager(folder, keep=2) if hosts.is_main() else None
    validates = config.data.validation > 0
    begun = {"config": config_lib.to_json(config), "data": dict(setup.content)}
    state, mined, best = resumed(setup, manager, seconds, validates=validates)
    saved = time.monotonic()
    record = record_log(workdir, int(state.step)) if hosts.is_main() else _unrecorded
    recent, objectives = so_far(workdir, int(state.step), setup.steps_per_epoch)
    ended = converged(objectives, config.stop_tolerance) or not setup.total_steps

    def save(step: int) -> None:
        check_held(workdir)
        extra = begun | {
            "epoch": step / setup.steps_per_epoch, "best_step": best.step,
            "best_figure": best.figure, "seconds": seconds,
        }  # fmt: skip
        with clock(seconds, "checkpoints"):
            checkpoint.save(manager, step, (state, best.variables, mined), extra)

    if manager is not None and not setup.total_steps and not checkpoint.steps_in(folder):
        save(0)
    with stop_signals() as stopped:
        for new_state, new_mined, log in (
            () if ended else train(config, setup, state, mined, seconds)
        ):
            state, mined = new_state, new_mined
            step = log["step"]
            record(log)
            recent.append(log)
            if step % setup.steps_per_epoch == 0:
                objectives.append(epoch_mean(setup, recent, "loss"))
                ended = converged(objectives, config.stop_tolerance)
                epoch = end_epoch(config, setup, state, recent, seconds, last=ended)
                record(epoch | {"objective": objectives[-1]})
                recent.clear()
                figure = assess.validation_score(config, epoch) if validates else None
                if figure is not None and (best.figure is None or figure > best.figure):
                    best = Fitted(_copy(state), step, figure)
            ended |= step == setup.total_steps
            stop = hosts.largest(stopped())
            due = ended or stop or time.monotonic() - saved >= config.checkpoint_seconds
            if due and manager is not None:
                save(step)
                saved = time.monotonic()
            if stop:
                say(f"stopped at step {step} and saved; the same command goes on from there")
                raise SystemExit(hosts.status_once_saved(stop))
            if ended:
                break
    return best if validates else Fitted(variables_of(state), int(state.step), None)


def resumed(
    setup: Setup, manager: checkpoint.Manager | None, seconds: Seconds, *, validates: bool
) -> tuple[TrainState, Mined, Fitted]:
    """The state, what was mined and the best so far, of the last checkpoint or the very start.

    All are part of each checkpoint, so that they are of one moment; so are the seconds spent.
    """
    state, mined = first_state(setup), setup.mining.empty if setup.mining else {}
    best = Fitted(_copy(state) if validates else ((), ()), 0, None)
    like = (state, best.variables, jax.tree.map(jnp.asarray, mined))
    if (found := checkpoint.restore_on_all(manager, like)) is None:
        return state, mined, best
    step, (state, variables, mined), extra = found
    seconds.update(extra["seconds"])
    say(f"going on from step {step} of {setup.total_steps}")
    best = Fitted(variables, extra["best_step"], extra["best_figure"])
    return state, jax.tree.map(np.asarray, mined), best


def _unrecorded(values: Record) -> None:
    """In the place of a log: the main process has it."""


def so_far(workdir: Path, step: int, per_epoch: int) -> tuple[list[Record], list[float]]:
    """From metrics.jsonl: the calls in the epoch that `step` is in, and each epoch's objective."""
    history = hosts.by_main(lambda: read_records(workdir / "metrics.jsonl"))
    epochs = [record for record in history if "objective" in record]
    calls = [record for record in history if "objective" not in record]
    recent = [record for record in calls if record["step"] > step - step % per_epoch]
    return recent, [record["objective"] for record in epochs]


def epoch_mean(setup: Setup, recent: list[Record], key: str) -> float:
    """The mean over the steps of the epoch that `recent`, its calls, has come to the end of."""
    steps = [log["step"] for log in recent]
    parts = np.diff([steps[-1] - setup.steps_per_epoch, *steps])
    return float(np.average([log[key] for log in recent], weights=parts))


def converged(objectives: list[float], tolerance: float) -> bool:
    """Whether the last epoch changed the objective by no more than the tolerance, if there is one.

    The stopping rule of Neighborhood Watch, algorithm 1.
    """
    if tolerance == 0 or len(objectives) < 2:
        return False
    return abs(objectives[-1] - objectives[-2]) <= tolerance


def train(
    config: ConfigDict, setup: Setup, state: TrainState, mined: Mined, seconds: Seconds
) -> Iterator[tuple[TrainState, Mined, Record]]:
    """Makes the calls that remain; after each, the new state, what is mined, and a record.

    Raises:
        UserError: a loss or a gradient is not finite; the state of that call is not handed out.
    """
    first, per_epoch = int(state.step), setup.steps_per_epoch
    interval = setup.mining.interval if setup.mining else setup.total_steps
    most = min(setup.steps_per_call, interval)
    calls = plan_calls(first, setup.total_steps, intervals=(per_epoch, interval), most=most)
    for number, group in itertools.groupby(calls, lambda steps: steps.start // interval):
        own_calls, start = list(group), number * interval
        if setup.mining and own_calls[0].start == start:
            with clock(seconds, "mining"):
                mined = mine(config, setup, state, range(start, start + interval))
        feed = train_calls(
            setup.store, setup.devices, own_calls, setup.sampler(start, mined), most=most
        )
        for steps in own_calls:
            with clock(seconds, "waiting for data"):
                call = next(feed)
            began = time.monotonic()
            spent_on = "training" if steps.start > first else "first call (compiles)"
            limit = config.step_timeout if steps.start > first else 0.0
            with clock(seconds, spent_on), hosts.watched(limit, f"the call to step {steps.stop}"):
                state, logs = setup.train(state, call)
                logs = jax.tree.map(np.asarray, logs)
            logs = jax.tree.map(operator.itemgetter(slice(len(steps))), logs)
            _check_finite(logs, steps)
            record = _record(setup, logs, steps)
            if steps.start > first:
                examples = config.batch.size * len(steps)
                record["examples_per_s"] = examples / (time.monotonic() - began)
            yield state, mined, record


def mine(config: ConfigDict, setup: Setup, state: TrainState, steps: range) -> Mined:
    """What the anchors of `steps` are trained against, as the network of `state` sees the set."""
    assert setup.mining is not None
    bank = None
    if setup.mining.embeds:
        bank = embed_split(config, setup, variables_of(state), TRAIN).embeddings
    return setup.mining.mine(bank, setup.positions(steps), steps.start)


def _check_finite(logs: StepLog, steps: range) -> None:
    finite = np.isfinite(logs.loss) & np.isfinite(logs.gradient_norm)
    if not finite.all():
        raise UserError(
            f"step {steps.start + int(np.argmin(finite)) + 1}: loss or gradient is not finite; "
            "stopped, the last checkpoint is kept: try a smaller config.optimizer.learning_rate"
        )


def _record(setup: Setup, logs: StepLog, steps: range) -> Record:
    return {
        "step": steps.stop,
        "epoch": steps.stop / setup.steps_per_epoch,
        "loss": float(np.mean(logs.loss)),
        "active": float(np.mean(logs.active)),
        "gradient_norm": float(np.mean(logs.gradient_norm)),
        **{name: float(np.mean(values)) for name, values in logs.means.items()},
        "lr": float(setup.schedule(steps.stop - 1)),
    }


def end_epoch(
    config: ConfigDict,
    setup: Setup,
    state: TrainState,
    recent: list[Record],
    seconds: Seconds,
    *,
    last: bool,
) -> Record:
    """Evaluates where the config says so or the training ends, and says how the epoch went."""
    step, epoch = recent[-1]["step"], recent[-1]["step"] // setup.steps_per_epoch
    record: Record = {"step": step, "epoch": float(epoch)}
    every = config.evaluate.every_epochs
    if last or epoch == config.epochs or (every and epoch % every == 0):
        with clock(seconds, "evaluation"):
            record |= epoch_figures(config, setup, variables_of(state))
    loss, active = (epoch_mean(setup, recent, key) for key in ("loss", "active"))
    speeds = [log["examples_per_s"] for log in recent if "examples_per_s" in log]
    spent = sum(seconds.values()) - seconds.get("first call (compiles)", 0.0)
    words = [f"epoch {epoch}/{config.epochs}", f"loss {loss:.4f}", f"active {active:.1%}"]
    # The training images' own accuracy is near 100 % of any network that learnt them: it stands in
    # metrics.jsonl, and here only where nothing else tells how far the training is.
    told = ("validation_acc", "val acc") if "validation_acc" in record else (
        "train_acc", "seen in training, leave-one-out:")  # fmt: skip
    if told[0] in record:
        words.append(f"{told[1]} {record[told[0]]:.1%}")
    if speeds:
        words.append(f"{np.median(speeds):,.0f} examples/s")
    left = spent / step * (setup.total_steps - step)
    say("  ".join([*words, f"{duration(left)} left"]))
    return record


def _copy(state: TrainState) -> Variables:
    """The variables in memory of their own: the state's is given to the next call."""
    return jax.tree.map(jnp.copy, variables_of(state))


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """In the block SIGTERM and Ctrl-C only set what the function returns: 0, or the signal.

    In a thread, as a notebook's or an application's, signals are not the training's matter.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    received = [0]

    def note(number: int, frame: object) -> None:
        received[0] = number
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C is obeyed

    handlers = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: received[0]
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is not signal.SIG_IGN:  # at the end of several processes
                signal.signal(number, handler)
