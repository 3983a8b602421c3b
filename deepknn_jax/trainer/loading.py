"""A run's data set, and the lines that tell of it before anything else happens."""

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from deepknn_jax.data.cache import cache_folder
from deepknn_jax.data.copies import check_none
from deepknn_jax.data.dataset import Dataset
from deepknn_jax.engine import hosts
from deepknn_jax.evaluation import report
from deepknn_jax.trainer.keys import naming_keys, say_in_keys
from deepknn_jax.trainer.setup import decoded, load, survey


def tell_and_load(
    config: ConfigDict, set_range: Sequence[float] = (), *, to_train: bool = True
) -> Dataset:
    """The config's data set; its account is said as far as it is known.

    As `setup.load` gives it, or `setup.decoded` where it is not `to_train`; `set_range` is theirs.
    Of several processes one decodes.
    """

    def read() -> Dataset:
        found = survey(config)
        for line in found.account:
            say_in_keys(line)
        dataset = (load if to_train else decoded)(config, found, set_range)
        for line in dataset.account[len(found.account) :]:
            say_in_keys(line)
        return dataset

    return hosts.in_turns(cache_folder(config.data.cache_dir), read)


@naming_keys()
def check_copies(config: ConfigDict, dataset: Dataset, workdir: Path | None = None) -> None:
    """Raises UserError for copies in two parts where they are to stop.

    Writes a table of them in `workdir`, if that is given and there are any.
    """
    table = ""
    if workdir is not None and hosts.is_main():
        table = report.write_copies(workdir / report.COPIES, dataset)
    if config.data.copies == "stop":
        check_none(dataset, table)
