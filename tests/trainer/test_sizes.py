"""Sizes that a config leaves open, and the lines on those that the training part cannot give."""

import json

import numpy as np
import pytest
from support.runs import file_config, small_config
from support.tiny_sets import save_image

from deepknn_jax import config as config_lib
from deepknn_jax.errors import UserError
from deepknn_jax.trainer import inspect, loop, sizes
from deepknn_jax.trainer.check import check

pytestmark = pytest.mark.usefixtures("compiled_once")
OPEN = {"batch__size": 0, "evaluate__k_p": ()}


def chosen(n, **changes):
    config = sizes.with_sizes(small_config(**(OPEN | changes)), n)
    return config.batch.size, config.batch.per_class, config.evaluate.k_p


@pytest.mark.parametrize(
    ("n", "changes", "expected"),
    [
        (1000, {"model__name": "cnn"}, (16, 0, (1, 5))),
        (11, {}, (11, 0, (1, 5))),
        (11, {"devices": 4}, (8, 0, (1, 5))),  # which four devices share evenly
        (5, {"batch__kind": "proportional"}, (5, 0, (1,))),
        # Of feature vectors an eighth, within bounds.
        (50, {"model__name": "mlp"}, (50, 0, (1, 5))),
        (500, {"model__name": "linear"}, (96, 0, (1, 5))),
        (1600, {"model__name": "mlp"}, (200, 0, (1, 5))),
        (1603, {"model__name": "mlp", "devices": 3}, (198, 0, (1, 5))),
        (8010, {"model__name": "mlp"}, (480, 0, (1, 5))),
        (500, {"model__name": "mlp", "batch__kind": "balanced", "batch__classes": 6},
         (96, 16, (1, 5))),
        (1000, {"batch__kind": "balanced", "batch__classes": 3, "model__name": "cnn"},
         (24, 8, (1, 5))),
        (14, {"batch__kind": "balanced", "batch__classes": 3}, (12, 4, (1, 5))),
        (14, {"batch__kind": "balanced", "batch__classes": 3, "devices": 2}, (12, 4, (1, 5))),
        (17, {"batch__kind": "balanced", "batch__classes": 3, "devices": 2}, (12, 4, (1, 5))),
        # What is set stays, fit or unfit.
        (5, {"batch__size": 64, "evaluate__k_p": (3, 9)}, (64, 0, (3, 9))),
        (5, {"batch__kind": "balanced", "batch__classes": 2, "batch__per_class": 6},
         (12, 6, (1,))),
        (50, {"batch__kind": "balanced", "batch__classes": 2, "batch__size": 40}, (40, 20, (1, 5))),
    ],
)  # fmt: skip
def test_what_is_left_open_is_chosen_and_what_is_set_stays(n, changes, expected):
    assert chosen(n, **changes) == expected


def test_a_config_that_leaves_nothing_open_is_the_same():
    config = small_config()
    assert sizes.with_sizes(config, 3) is config


def test_a_run_goes_on_with_what_it_chose():
    stored = json.loads(config_lib.to_json(sizes.with_sizes(small_config(**OPEN), 5)))
    config = small_config(**OPEN).unlock()
    sizes.take_stored(config, stored)
    assert (config.batch.size, config.evaluate.k_p) == (5, (1,))
    config = small_config(batch__size=7)
    sizes.take_stored(config, stored)
    assert (config.batch.size, config.evaluate.k_p) == (7, small_config().evaluate.k_p)


def test_three_images_a_class_need_no_other_option(tmp_path, capsys):
    """A run is prepared, and goes on as the same run."""
    for i in range(6):
        save_image(tmp_path / "set" / "ab"[i % 2] / f"{i}.png", i % 2)
    config = file_config("class_folders")
    config.data.dir, config.data.cache_dir = str(tmp_path / "set"), str(tmp_path / "cache")
    config.devices = 1
    settled, setup = loop.prepare(*loop.check_workdir(config, tmp_path / "run"), tmp_path / "run")
    assert (setup.steps_per_epoch, settled.evaluate.k_p) == (1, (1,))
    assert setup.positions(range(3)).shape == (3, 4)
    out = capsys.readouterr().out
    for line in (
        "chosen for 4 training examples: config.batch.size=4, config.batch.per_class=2, "
        "config.evaluate.k_p=(1,)\n",
        "config.loss.k is 5; where a batch holds fewer positives of an anchor, at least 1, these",
        "config.loss.m is 5; where a batch holds fewer negatives of an anchor, at least 2, these",
    ):
        assert out.count(line) == 1
    again, _ = loop.check_workdir(config, tmp_path / "run")  # is known as the same run
    assert config_lib.flatten(again) == config_lib.flatten(settled)


def test_enough_neighbours_and_usual_sizes_are_not_spoken_of(capsys):
    config = small_config(**OPEN, loss__k=5, loss__m=5)
    labels = np.repeat([0, 1], 6)
    sizes.tell_sizes(config, sizes.with_sizes(config, 5000), labels)
    assert capsys.readouterr().out == ""
    sizes.tell_sizes(config, sizes.with_sizes(config, 5000), labels[1:])
    assert "config.loss.k is 5; where the training part holds" in capsys.readouterr().out
    config = small_config(loss__name="nca", loss__k=5)  # does not read it
    sizes.tell_sizes(config, config, labels[1:])
    assert capsys.readouterr().out == ""


def test_sizes_that_are_set_and_do_not_fit_bring_the_remedy():
    labels = np.repeat([0, 1], 3)
    with pytest.raises(UserError, match=r"config\.evaluate\.k_p has 7, .* or \(\) for those of 1"):
        sizes.check_enough(small_config(evaluate__k_p=(1, 7), batch__size=4), labels)
    with pytest.raises(UserError, match=r"batch\.size is 8: choose 1 to the 6 .*, or 0 for what f"):
        sizes.check_enough(small_config(evaluate__k_p=(1,), batch__size=8), labels)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"devices": 99}, r"config\.devices is 99, but this machine shows"),
        ({"devices": 4, "batch__size": 63}, r"config\.batch\.size is 63: the 4 devices"),
    ],
)
def test_devices_are_counted_before_any_data_are_read(tmp_path, changes, words):
    config = small_config(data__source="class_folders", data__dir="nowhere", **changes)
    for start in (inspect.run, lambda c: loop.run(c, tmp_path / "run")):
        with pytest.raises(UserError, match=words):
            start(config)


def test_open_sizes_are_valid_values():
    check(small_config(**OPEN))
