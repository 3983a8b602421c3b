"""What identifies a run: its config and its data, as its checkpoints hold them."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib
from deepknn_jax.engine import hosts
from deepknn_jax.errors import UserError
from deepknn_jax.files import parse_json, read_json, write_text
from deepknn_jax.logs import say
from deepknn_jax.trainer import checkpoint
from deepknn_jax.trainer.methods import unread
from deepknn_jax.trainer.recipe import learning_rate

# Where data and weights lie: free in a run that knows them by their content.
_PLACES = ("data.dir", "data.csv", "data.train_list", "data.test_list", "model.weights")
# What only chooses the best on a validation part, and what is drawn and told of the way there.
_OF_VALIDATION = ("evaluate.k_p", "evaluate.every_epochs", "evaluate.best_by")
_PROBED = 2  # steps of an epoch at which the learning rates of two configs are compared


class Stored(NamedTuple):
    """What is known of the run in a workdir: {} or None where there is none.

    `config`: that of the newest checkpoint, else of config.json. `extra`: what the newest
    checkpoint has beside its arrays, and `step` its step.
    """

    config: dict[str, Any] | None
    extra: Mapping[str, Any] = {}
    step: int = 0


def stored_run(workdir: Path) -> Stored:
    """The run in `workdir`, as the main process sees it.

    Raises:
        UserError: its config.json is damaged, and no checkpoint holds the config.
    """
    found: Any = hosts.by_main(lambda: _stored_run(workdir))
    return Stored(*found)


def _stored_run(workdir: Path) -> Stored:
    step, extra = checkpoint.newest_extra(workdir / "checkpoints") or (0, {})
    if "config" in extra:
        return Stored(parse_json(extra["config"]), extra, step)
    return Stored(read_json(workdir / "config.json"), extra, step)


def restore_config(workdir: Path, stored: Stored) -> None:
    """Writes config.json anew from a checkpoint's where it is lost or damaged."""
    if "config" not in stored.extra or not hosts.is_main():
        return
    path = workdir / "config.json"
    with contextlib.suppress(UserError):
        if read_json(path) is not None:
            return
    say(f"{path}: lost or damaged; restored from the checkpoint of step {stored.step}")
    write_text(path, stored.extra["config"])


def check_config(config: ConfigDict, stored: Stored, workdir: Path, *, finished: bool) -> None:
    """Raises UserError where the run in `workdir` is of another config, or cannot go on so far."""
    if stored.config is None:
        return
    free = unread(config)
    if finished:  # until then it may have a say in which parameters are the best
        free.add("evaluate.k_p")
    if not config.data.validation:
        free.update(_OF_VALIDATION)
    if "data" in stored.extra:
        free.update(_PLACES)
    differ = config_lib.differences(config, stored.config, unread=free)
    longer = config.epochs > _epochs(stored)
    if [each for each in differ if not (longer and each.startswith("epochs: "))]:
        raise UserError(
            f"{workdir} holds a run of another config ({'; '.join(differ)}): "
            "choose another --workdir, or delete it"
        )
    if longer and (reason := _why_not_longer(config, stored)):
        raise UserError(
            f"{workdir}: config.epochs {_epochs(stored)} -> {config.epochs} is not how it would "
            f"have gone from the start ({reason}); train its network on in another --workdir with "
            f"--config.model.weights={workdir}"
        )


def epochs_of(results: Mapping[str, Any], stored: Stored) -> int:
    """config.epochs of the finished run that has these `results`."""
    return int(results.get("epochs") or _epochs(stored))


def moved(config: ConfigDict, stored: Stored) -> bool:
    """Whether data or weights are said to be elsewhere than they were."""
    now, then = config_lib.flatten(config), config_lib.flatten(stored.config or {})
    return any(now[key] != then.get(key, now[key]) for key in _PLACES)


def _epochs(stored: Stored) -> int:
    """How many the run was to have, by its config; a config from before an option is as default."""
    return int((stored.config or {}).get("epochs", config_lib.default().epochs))


def _why_not_longer(config: ConfigDict, stored: Stored) -> str:
    """Why the past of a run with more epochs would have been another one, or ""."""
    epochs = _epochs(stored)
    if config.first_stage:
        return "the first stage would have been longer, too"
    shorter = config.copy_and_resolve_references().unlock()
    shorter.epochs = epochs
    rates = [
        [float(learning_rate(each, _PROBED)(step)) for step in range(_PROBED * epochs)]
        for each in (shorter, config)
    ]
    if rates[0] != rates[1]:
        return "the learning rate's past depends on the number of epochs"
    every = config.evaluate.every_epochs
    ended, of_last = stored.extra.get("epoch"), stored.extra.get("best_step") == stored.step
    off_schedule = not every or epochs % every > 0
    if config.data.validation and ended in (None, epochs) and of_last and off_schedule:
        return "its best network is of its last epoch, which it would not have looked at"
    return ""


def check_data(found: Mapping[str, str], stored: Stored, workdir: Path) -> None:
    """Raises UserError where the run in `workdir` began with other data than those `found`."""
    then = stored.extra.get("data")
    if then is None:
        return
    differ = [key for key in sorted(then.keys() | found.keys()) if then.get(key) != found.get(key)]
    if differ:
        raise UserError(
            f"{workdir} holds a run on other data ({', '.join(differ)} "
            f"{'differs' if len(differ) == 1 else 'differ'}): choose another --workdir, or give it "
            "the data that it began with"
        )
