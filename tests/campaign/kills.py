"""Runs killed at random moments: nothing before the last save is lost, and the end is the same."""

import hashlib
import json
import os
import random
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from campaign.children import left_over
from ml_collections import ConfigDict
from support.runs import digits_file, small_config

from deepknn_jax.logs import read_records
from deepknn_jax.trainer import checkpoint, embed, loop

SECONDS = 180.0  # within which a run must end
# Of the moments, the share that is counted from the first step that is recorded: most of the time
# of so short a run passes before it.
TRAINING = 0.7
TIMES_KILLED = (2, 4, 6)  # at most, before a run may end
# What no two runs have alike: times and speeds.
TIMES = ("seconds", "examples_per_s")


def configs(folder: Path) -> dict[str, ConfigDict]:
    """The five kinds of run: a few seconds each, saved after every call."""
    images = {
        "data__source": "npz", "data__dir": str(digits_file(folder)), "data__split": "published",
        "model__name": "cnn", "data__cache_dir": str(folder / "cache"), "epochs": 2,
        "augment__crop": 7, "augment__flip": True, "steps_per_call": 2,
    }  # fmt: skip
    adam = {"optimizer__name": "adam", "optimizer__learning_rate": 1e-3}
    mined = {"loss__name": "local_margin", "loss__neighborhood": 9, "steps_per_call": 3, **adam}
    stages = {"first_stage": "weighted_cross_entropy", "epochs": 1, "steps_per_call": 3}
    return {
        "resident": small_config(data__validation=0.2, steps_per_call=3),
        "streamed": small_config(**images, data__placement="stream"),
        "mined": small_config(**mined),
        "two stages": small_config(**stages),
        "embed": small_config(**images | {"data__size": 12, "steps_per_call": 0}),
    }


def campaign(count: int, seed: int, folder: Path, say: Callable[[str], None] = print) -> list[str]:
    """Kills `count` runs of the five kinds in turn, finishes each, and tells what is not alike.

    A child is a fork of this process, which has imported all and started nothing, so that the
    moment falls into the run's own work. A run is killed several times before it may end.
    """
    share_compiled(folder / "compiled")
    draw, faults, where = random.Random(seed), [], []
    whole = {}
    for name, config in configs(folder).items():
        workdir = folder / f"whole {name}"
        for _ in range(2):  # the second time with all compiled: that is how long it takes
            shutil.rmtree(workdir, ignore_errors=True)
            began = time.monotonic()
            code = run_killed(name, config, workdir, after=SECONDS)
            spent = time.monotonic() - began
        assert code == 0, (name, (folder / "output").read_text()[-2000:])
        whole[name] = (config, spent, digests(workdir))
        say(f"{name}: undisturbed in {spent:.1f} s")
    killed = 0
    while killed < count:
        name = list(whole)[len(where) % len(whole)]
        config, spent, expected = whole[name]
        workdir = folder / "killed"
        shutil.rmtree(workdir, ignore_errors=True)
        moments, saved = [], -1
        for _ in range(draw.choice(TIMES_KILLED)):
            trains = name != "embed" and draw.random() < TRAINING
            after = draw.uniform(0.0, 1.5) if trains else draw.uniform(0.05, spent)
            if run_killed(name, config, workdir, after=after, trains=trains) == 0:
                break
            killed += 1
            moments.append(round(after, 2))
            saved, lost = last_save(workdir), saved
            if saved < lost:
                faults.append(f"{name} {moments}: step {lost} was saved, {saved} is there")
        where.append((name, moments, saved))
        code = run_killed(name, config, workdir, after=SECONDS)
        found = digests(workdir) if code == 0 else {"exit": str(code)}
        differ = sorted(key for key in expected.keys() | found.keys()
                        if expected.get(key) != found.get(key))  # fmt: skip
        if differ:
            words = (folder / "output").read_text()[-400:]
            faults.append(f"{name} {moments}, saved {saved}: {differ}; {words}")
            say(f"FAULT {faults[-1]}")
    say(f"{killed} kills in {len(where)} runs, {len(faults)} faults; steps saved at the last kill: "
        f"{sorted(saved for _, _, saved in where)}")  # fmt: skip
    return faults


def share_compiled(folder: Path) -> None:
    """Children find what an earlier one has compiled."""
    for option, value in {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }.items():
        jax.config.update(option, value)


def run_killed(
    name: str, config: ConfigDict, workdir: Path, *, after: float, trains: bool = False
) -> int:
    """A run in a fork, killed by SIGKILL after so many seconds unless it ends before with 0.

    `trains`: the seconds are counted from when it next records a step.
    """
    module = embed if name == "embed" else loop
    begun, recorded = time.monotonic(), records(workdir)

    def until(ended: Callable[[float], bool]) -> float:
        while trains and records(workdir) == recorded and time.monotonic() - begun < SECONDS:
            if ended(0.02):
                break
        return after

    return in_child(lambda: module.run(config, workdir), workdir.with_name("output"), until)


def records(workdir: Path) -> list[float]:
    """When metrics.jsonl of the run and its first stage were last written."""
    paths = (workdir / "metrics.jsonl", workdir / "first_stage" / "metrics.jsonl")
    return [path.stat().st_mtime for path in paths if path.exists()]


def digests(workdir: Path) -> dict[str, str]:
    """`state_of` in a child, as it starts JAX and orbax's threads."""
    written = workdir.with_name("digests.json")
    written.unlink(missing_ok=True)

    def write() -> None:
        written.write_text(json.dumps(state_of(workdir)))

    code = in_child(write, workdir.with_name("output"), SECONDS)
    return json.loads(written.read_text()) if code == 0 else {"cannot be read": str(code)}


def in_child(
    work: Callable[[], object], output: Path, seconds: float | Callable[..., float]
) -> int:
    """The exit status of `work` in a fork of this process, killed after so many seconds.

    A function is called first, in this process, and gives them; it is given one that waits and
    tells whether the child has ended.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        os.close(reader)
        for stream in (1, 2):
            os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)

    def has_ended(wait: float) -> bool:
        return bool(select.select([reader], [], [], wait)[0])

    ended = has_ended(seconds(has_ended) if callable(seconds) else seconds)
    os.close(reader)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def last_save(workdir: Path) -> int:
    """The step of the newest checkpoint whose files are as they were written; -1: none.

    Of two stages the first's count, too: each step of the second is above all of the first.
    """
    found = [
        10**6 * (folder.parent == workdir) + extra[0]
        for folder in (workdir / "checkpoints", workdir / "first_stage" / "checkpoints")
        if (extra := checkpoint.newest_extra(folder)) is not None
    ]
    return max(found, default=-1)


def state_of(workdir: Path) -> dict[str, str]:
    """Digests of all that a finished run leaves, without times: {file, or key of it: digest}."""
    found = {}
    for path in sorted(workdir.rglob("*")):
        name = path.relative_to(workdir).as_posix()
        if path.name == "results.json":
            found[name] = repr(json.loads(path.read_text()) | {"seconds": 0})
        elif path.name == "metrics.jsonl":
            for record in read_records(path):
                kept = {key: value for key, value in record.items() if key not in TIMES}
                found[f"{name} {len(found)}"] = repr(kept)
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                found |= {f"{name} {key}": _digest(arrays[key]) for key in arrays.files}
        elif path.name in ("neighbors.csv", "config.json"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.name == "checkpoints":
            leaves = jax.tree_util.tree_leaves_with_path(checkpoint.newest_arrays(path))
            found |= {f"{name} {jax.tree_util.keystr(at)}": _digest(leaf) for at, leaf in leaves}
            found[f"{name} steps"] = repr(checkpoint.steps_in(path)[-1])
    return found | {"left over": repr(left_over(workdir))}


def _digest(array: np.ndarray) -> str:
    array = np.asarray(array)
    return f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
