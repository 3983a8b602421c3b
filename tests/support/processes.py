"""Runs on several processes of this machine, each with devices of its own, and what they find.

As a script it is one of these processes: `python processes.py OUT` writes OUT/METHOD.npz for each
of METHODS, and a whole run to OUT/run.
"""

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]

# Of each the config's changes; some hold the set on the devices, some bring it call by call.
METHODS = {
    "deep_knn": {"loss__name": "deep_knn"},
    "triplet": {"loss__name": "triplet", "data__placement": "stream"},
    "weighted_cross_entropy": {"loss__name": "weighted_cross_entropy"},
    "local_margin": {
        "loss__name": "local_margin",
        "data__placement": "stream",
        "optimizer__learning_rate": 1e-5,
    },
    "whole_set": {"loss__name": "deep_knn", "neighbors": "dataset", "refresh_steps": 2},
}


def three_steps(method):
    """{name: array} after three steps in float64 on all devices, and the kNN's word on the test."""
    import jax
    from support.runs import setup_of, small_config

    from deepknn_jax.engine.parallel import fetch
    from deepknn_jax.trainer import loop
    from deepknn_jax.trainer.assess import embed_split, knn_entries, variables_of
    from deepknn_jax.trainer.setup import first_state

    config = small_config(
        **METHODS[method],
        devices=0,
        model__dtype="float64",
        epochs=1,
        steps_per_call=3,
        loss__neighborhood=9,
    )
    setup = setup_of(config)
    wide = lambda x: x.astype("float64") if x.dtype == "float32" else x  # noqa: E731
    state = jax.tree.map(wide, first_state(setup))
    found = {}
    mined = setup.mining.empty if setup.mining else {}
    for new, _, log in loop.train(config, setup, state, mined, {}):
        state = new
        found |= {f"{name} {log['step']}": log[name] for name in ("loss", "gradient_norm")}
        if log["step"] >= 3:
            break
    found |= {
        jax.tree_util.keystr(path): fetch(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }
    train, test = (
        embed_split(config, setup, variables_of(state), split) for split in ("train", "test")
    )
    _, evidence = knn_entries(config, setup, test, train)
    return found | {"rows": evidence.rows, "votes": evidence.predictions[5]}


def whole_run(workdir):
    """results.json of a run on all devices."""
    from support.runs import small_config

    from deepknn_jax.trainer import loop

    config = small_config(loss__name="triplet", devices=0, data__validation=0.2)
    return loop.run(config, workdir)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def launched(command, count, devices, cwd, **environment):
    """The command as `count` processes of `devices` devices each: their Popens, the main one first.

    None is left running at the block's end.
    """
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    common = {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}",
        "JAX_NUM_PROCESSES": str(count),
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": paths,
        "XLA_FLAGS": "",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, *map(str, command)], cwd=cwd, text=True,
            env=os.environ | common | {"JAX_PROCESS_ID": str(number)} | environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for number in range(count)
    ]  # fmt: skip
    try:
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()


def outcomes(processes, timeout=900):
    """[(exit status, stdout, stderr)] once all have ended."""
    found = []
    for process in processes:
        out, err = process.communicate(timeout=timeout)
        found.append((process.returncode, out, err))
    return found


def main(folder):
    from deepknn_jax.engine import hosts

    hosts.join("auto")
    import jax

    with jax.enable_x64(True):
        for method in METHODS:
            found = three_steps(method)
            if hosts.is_main():
                np.savez(folder / f"{method}.npz", **found)
    # As where each host has a disk of its own: the first process of this host comes first.
    with (folder / "turns").open("a") as turns:
        hosts.in_turns(
            folder / f"disk{hosts.number()}", lambda: print(hosts.number(), file=turns, flush=True)
        )
    # The main process's folder is all that a run needs: the others are given one that is not there.
    whole_run(folder / ("run" if hosts.is_main() else f"none{hosts.number()}"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
