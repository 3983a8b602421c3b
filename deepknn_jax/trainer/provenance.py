"""Which examples trained what a run starts from: they are no test of it, on whichever side."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from deepknn_jax.data.copies import are_among
from deepknn_jax.data.dataset import TEST, TRAIN, VALIDATION, Dataset
from deepknn_jax.errors import UserError
from deepknn_jax.files import write_arrays
from deepknn_jax.logs import say
from deepknn_jax.models.weights.load import find_weights
from deepknn_jax.trainer import run_folder


def marked(dataset: Dataset, weights: str) -> Dataset:
    """The data set with `trained` by the run that `weights` are of, if they are a run's folder.

    An example trained it if its pixels did, or the file or row that they were made from, so that a
    run at another size is known, too; and so are its copies in this set. What is known of features'
    own network is kept.
    """
    known, trained = _known(weights), dataset.trained
    if dataset.contents is None or dataset.sources is None:
        return dataset
    if known is not None:
        found = are_among(dataset.contents, known) | are_among(dataset.sources, known)
        trained = found if trained is None else found | trained
    if trained is None:
        return dataset
    return dataset._replace(trained=are_among(dataset.contents, dataset.contents[trained]))


def _known(weights: str) -> np.ndarray | None:
    """Contents uint8 [n, 16] that trained the run, none of a run from before they were kept."""
    folder = Path(weights).expanduser()
    if not weights or not folder.is_dir():
        return None
    known = run_folder.trained_on(folder)
    if known is None:
        say(f"warning: {folder} has no {run_folder.TRAINED_ON}, as it was made before runs kept it:"
            " whether it was trained on what tests here is not known")  # fmt: skip
    return known


def is_frozen(config: ConfigDict, dataset: Dataset) -> bool:
    """Whether nothing was trained on the run's own training part, as far as is known.

    A run's weights without a word of what trained them may have been; published ones, and features
    without such a word, are taken not to have been.
    """
    if config.epochs or not _is_known(config.model.name, config.model.weights):
        return False
    return dataset.trained is None or not dataset.trained[dataset.rows(TRAIN)].any()


def _is_known(name: str, weights: str) -> bool:
    """Whether the weights are published, or of a run that tells what it was trained on."""
    folder = Path(weights).expanduser()
    if not weights or folder.is_dir():
        return not weights or run_folder.trained_on(folder) is not None
    try:  # what is not there may be a run's folder that was moved since
        return find_weights(name, weights).is_file()
    except UserError:
        return False


def used(dataset: Dataset, *, epochs: int) -> Dataset:
    """With its own training and validation part among what has `trained`, after some `epochs`."""
    if not epochs:
        return dataset
    own = np.isin(dataset.splits, (TRAIN, VALIDATION))
    return dataset._replace(trained=own if dataset.trained is None else own | dataset.trained)


def write(workdir: Path, dataset: Dataset, weights: str, *, epochs: int) -> None:
    """Keeps what the run is trained on, and what its `weights` were: contents, sorted, each once.

    What was kept before stays: by an earlier start, perhaps of other files.
    """
    path = workdir / run_folder.TRAINED_ON
    trained = used(dataset, epochs=epochs).trained
    assert dataset.contents is not None
    assert dataset.sources is not None
    if trained is None:
        trained = np.zeros(len(dataset.labels), bool)
    found = [dataset.contents[trained], dataset.sources[trained]]
    earlier = (run_folder.trained_on(folder) for folder in (workdir, Path(weights).expanduser())
               if str(folder) != ".")  # fmt: skip
    found += [each for each in earlier if each is not None]
    write_arrays(path, {"contents": np.unique(np.concatenate(found), axis=0)})


def tell(dataset: Dataset) -> None:
    """Says how many examples of the test and the validation part trained the weights or features.

    Raises:
        UserError: all that test did.
    """
    if dataset.trained is None:
        return
    for part in (TEST, VALIDATION):
        rows = dataset.rows(part)
        n = int(dataset.trained[rows].sum())
        if part == TEST and n == len(rows):
            raise UserError(
                f"all {n:,} test examples trained the run that the weights, or the features, are "
                "of: split the data as it did, or choose others"
            )
        if n:
            then = "; the figures are of the others" if part == TEST else ""
            say(f"weights: {n:,} of {len(rows):,} {part} examples trained the run that the weights,"
                f" or the features, are of{then}")  # fmt: skip
