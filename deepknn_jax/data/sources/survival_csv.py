"""A csv of features with survival times as a source of two classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepknn_jax.data.dataset import TEST, TRAIN, Listing
from deepknn_jax.data.listing import checked, existing_folder, told
from deepknn_jax.data.survival import (
    SURVIVAL_DAYS,
    alive_beyond,
    censored_lines,
    read_survival_csv,
)
from deepknn_jax.errors import UserError

FOLDS = 5


def survival_csv(
    folder: str | Path,
    *,
    csv: str,
    time_column: str,
    event_column: str,
    name_column: str,
    feature_prefixes: Sequence[str] = (),
    fold: int = 0,
    leave_out_censored: bool = False,
) -> Listing:
    """Features float32 [N, F]; class "survived": alive after 1,096 days, or "died".

    `csv` is a table in `folder`, read by `read_survival_csv`, with times in days. Those censored
    before 1,096 days count as survivors, as in the paper, unless `leave_out_censored`. `fold` 1..5
    chooses the test part among five stratified folds drawn with seed 0, which are then the
    published split; 0: no published split.

    Raises:
        UserError: as `read_survival_csv`; no such folder or fold; a class of fewer than 5.
    """
    if not csv:
        raise UserError("no table given: set `csv` to its name, relative to `folder`")
    root = existing_folder(folder, f"{csv}, a table of names, times, events and features", (csv,))
    table = read_survival_csv(
        root / csv,
        time_column=time_column,
        event_column=event_column,
        name_column=name_column,
        feature_prefixes=feature_prefixes,
    )
    labels = alive_beyond(table.times, table.events)
    unknown = ~table.events & (table.times <= SURVIVAL_DAYS)
    kept = np.flatnonzero(~unknown | (not leave_out_censored))
    listing = Listing(
        tuple(table.names[i] for i in kept),
        labels[kept],
        ("died", "survived"),
        inputs=table.features[kept],
        splits=_stratified_fold(labels[kept], fold) if fold else None,
    )
    return told(checked(listing, root / csv), censored_lines(len(labels) - len(kept)))


def _stratified_fold(labels_N: np.ndarray, fold: int) -> np.ndarray:
    from sklearn.model_selection import StratifiedKFold

    if not 1 <= fold <= FOLDS:
        raise UserError(f"`fold` is {fold}: choose one of 1..{FOLDS}, or 0 for none")
    sizes = np.bincount(labels_N, minlength=2)
    if sizes.min() < FOLDS:
        raise UserError(f"{sizes[0]} died and {sizes[1]} survived: {FOLDS} folds need"
                        f" {FOLDS} of each; set `fold` to 0")  # fmt: skip
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(labels_N, labels_N)
    splits = np.full(len(labels_N), TRAIN, dtype="<U10")
    splits[list(folds)[fold - 1][1]] = TEST
    return splits
