"""A run's data set, and the lines that tell of it before anything else happens."""

from ml_collections import ConfigDict

from deepknn_jax.data.copies import check_none
from deepknn_jax.data.dataset import Dataset
from deepknn_jax.trainer.keys import naming_keys, say_in_keys
from deepknn_jax.trainer.setup import load, survey


def tell_and_load(config: ConfigDict) -> Dataset:
    """The config's data set, as `load` gives it; its account is said as far as it is known."""
    found = survey(config)
    for line in found.account:
        say_in_keys(line)
    dataset = load(config, found)
    for line in dataset.account[len(found.account) :]:
        say_in_keys(line)
    return dataset


@naming_keys()
def check_copies(config: ConfigDict, dataset: Dataset, table: str = "") -> None:
    """Raises UserError for copies in two parts where they are to stop; `table` names them."""
    if config.data.copies == "stop":
        check_none(dataset, table)
