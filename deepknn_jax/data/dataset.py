"""A data set is arrays; a split of it is indices."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deepknn_jax.data.account import Account
from deepknn_jax.data.view import View

TRAIN, VALIDATION, TEST = "train", "validation", "test"
LEFT_OUT = ""  # in the place of a part: an example that is in none
_BLOCK_BYTES = 2**26  # of inputs that one thread reads for `digests`


class Pairs(NamedTuple):
    """n pairs of rows, `rows` and `others` int [n], that are alike; `r` [n] their correlation."""

    rows: np.ndarray
    others: np.ndarray
    r: np.ndarray


class Listing(NamedTuple):
    """What a source found, before anything is decoded. N examples, in the source's order.

    Either `inputs` (uint8 [N, H, W, C] images, uint8 [N, D, H, W, C] volumes, or float32 or
    float64 features, [N, F] or [N, V, F] of V views) or `files` (N image paths) is given. `names`
    are N distinct strings. `splits` [N] holds TRAIN, VALIDATION or TEST where the source publishes
    a split. `groups` int32 [N] marks what must stay on one side (patients, lesions). `labels` int32
    [N] index `class_names`. `account` is what the source has to tell besides. Features that were
    made of images may bring `view`, the images that they are of, their `contents` (as a Dataset's)
    and `trained`, bool [N]: those that trained the network which made them.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    inputs: np.ndarray | None = None
    files: tuple[Path, ...] | None = None
    splits: np.ndarray | None = None
    groups: np.ndarray | None = None
    account: Account = Account()
    view: View | None = None
    contents: np.ndarray | None = None
    trained: np.ndarray | None = None


class Dataset(NamedTuple):
    """N examples ready to be trained on.

    `inputs` is uint8 [N, H, W, C] or [N, D, H, W, C] (an array or a read-only memory map) or
    float32 or float64 features, [N, F] or [N, V, F] of V views; `labels` int32 [N]; `splits` [N] of
    TRAIN, VALIDATION, TEST, or LEFT_OUT for copies that were to be dropped; `skipped` names the
    files of examples that were left out, as rows without a label or an image and what could not be
    decoded (none unless that was asked for). `account` are the lines that tell what was found, left
    out, and how it was split. `groups` int32 [N] marks what belongs together (patients, lesions),
    where the source knows. `set_range`: (low, high) of the training part, where images of more than
    8 bits were scaled by it. `view`: where the images lie that `inputs` were made from, if that is
    known.

    `contents` uint8 [N, 16] are digests of the inputs (data.copies), `sources` those of what they
    were made from: the files' bytes, or the source's own arrays. `near` are near-copies in two
    parts. `trained` bool [N] marks the examples that trained what this data set or the weights
    come from; None where no run is known to have.
    """

    inputs: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    class_names: tuple[str, ...]
    splits: np.ndarray
    skipped: tuple[str, ...] = ()
    account: tuple[str, ...] = ()
    groups: np.ndarray | None = None
    set_range: tuple[float, ...] = ()
    view: View | None = None
    contents: np.ndarray | None = None
    sources: np.ndarray | None = None
    near: Pairs | None = None
    trained: np.ndarray | None = None

    def rows(self, split: str) -> np.ndarray:
        """Indices int32 [n] of the examples of `split`, ascending."""
        return np.flatnonzero(self.splits == split).astype(np.int32)

    def train_counts(self) -> np.ndarray:
        """Numbers int [C] of training examples of each class."""
        return np.bincount(self.labels[self.rows(TRAIN)], minlength=len(self.class_names))


def digests(dataset: Dataset) -> dict[str, str]:
    """Sha256, in hex, of each part of what a training sees, wherever the data lie.

    Keys: names, labels, classes, splits, inputs. A read of all inputs.
    """
    inputs = dataset.inputs
    rows = max(1, _BLOCK_BYTES // max(1, inputs[:1].nbytes))
    with ThreadPoolExecutor() as pool:
        blocks = pool.map(
            lambda start: hashlib.sha256(np.ascontiguousarray(inputs[start : start + rows]).data),
            range(0, len(inputs), rows),
        )
        whole = hashlib.sha256(repr((inputs.shape, inputs.dtype.str)).encode())
        for block in blocks:
            whole.update(block.digest())
    lists = {
        "names": list(dataset.names),
        "labels": dataset.labels.tolist(),
        "classes": list(dataset.class_names),
        "splits": dataset.splits.tolist(),
    }
    texts = {key: json.dumps(values).encode() for key, values in lists.items()}
    found = {key: hashlib.sha256(text).hexdigest() for key, text in texts.items()}
    return found | {"inputs": whole.hexdigest()}
