"""One process alone; several are in tests/trainer/test_processes.py."""

import numpy as np
import pytest

from deepknn_jax import logs
from deepknn_jax.engine import hosts
from deepknn_jax.errors import UserError


def test_one_process_does_all_itself(tmp_path):
    hosts.join("auto", {"HOME": "/root"})
    hosts.join("off", {"JAX_NUM_PROCESSES": "2"})
    assert (hosts.count(), hosts.number(), hosts.is_main()) == (1, 0, True)
    asked = []
    assert hosts.by_main(lambda: asked.append(1) or (1, "a")) == (1, "a")
    assert hosts.in_turns(tmp_path / "none", lambda: asked.append(2) or 7) == 7
    assert asked == [1, 2]
    assert not (tmp_path / "none").exists()
    hosts.wait()
    assert hosts.largest(15) == 15
    tree = {"x": np.arange(3)}
    assert hosts.broadcast(tree) is tree


def test_a_way_that_is_none_and_half_an_environment():
    with pytest.raises(UserError, match="--distributed is 'yes': choose from auto, on, off"):
        hosts.join("yes")
    with pytest.raises(UserError, match="JAX_NUM_PROCESSES set, but several processes want"):
        hosts.join("auto", {"JAX_NUM_PROCESSES": "2"})


def test_its_ends_are_those_of_any_command(capsys):
    with pytest.raises(SystemExit) as failed:
        hosts.fail("error: no")
    assert failed.value.code == "error: no"
    with pytest.raises(SystemExit) as stopped:
        hosts.stop("stopped by SIGTERM", 143)
    assert stopped.value.code == 143
    assert capsys.readouterr().err == "stopped by SIGTERM\n"


def test_other_processes_say_nothing(monkeypatch, capsys):
    monkeypatch.setattr(logs, "_muted", False)
    logs.say("one")
    logs.mute()
    logs.say("two")
    assert capsys.readouterr().out == "one\n"
