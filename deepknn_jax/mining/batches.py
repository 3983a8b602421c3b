"""What is mined for the anchors of the steps to come, and the batches that bring it to them.

As it is found at one step and used at later ones, it is part of a training's state, and saved with
each checkpoint.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# What was mined, by the names of the loss's arguments; numpy's on the host, JAX's in the step.
Mined = dict[str, Any]

# (embeddings [N, D] of the training part or None, the anchors' positions in it [R, A] for R steps,
# the first of these steps) -> arrays [R, A, ...]: integers are ids, -1 where there is none; other
# dtypes tell something of the anchors.
Miner = Callable[[np.ndarray | None, np.ndarray, int], Mined]

# A step's examples beside its anchors are filled up with others to a multiple of this, so that up
# to eight devices embed equally many; beyond that with padding, so that the examples are the same
# on any number of devices.
_EVEN = 8
# A step's places come in multiples of this (and of the devices), so that few programs are compiled.
_PLACES = 64


class Mining(NamedTuple):
    """How a training mines: for the next `interval` steps at a time.

    `empty` is shaped as what `mine` returns; `embeds` says whether it looks at embeddings.
    """

    mine: Miner
    interval: int
    empty: Mined
    embeds: bool


class Batches(NamedTuple):
    """T steps: `ids` [T, U] of the examples to embed, -1 for padding, and what was mined.

    With nothing mined all are anchors. Otherwise the anchors stand first in each device's share of
    a row, and `mined` has [T, A, ...] for them in that order.
    """

    ids: np.ndarray
    mined: Mined


def with_partners(
    anchors_TxA: np.ndarray, mined: Mined, rows_N: np.ndarray, *, devices: int
) -> np.ndarray:
    """Ids [T, U] of the anchors and all that was mined for them, each distinct example once.

    Args:
        anchors_TxA: ids, distinct in each row; A is a multiple of `devices`.
        mined: for the anchors, [T, A, ...]; what is integer is ids, -1 for none.
        rows_N: ids of the training part: what fills up an uneven number comes from here.
        devices: over which each row will be cut, evenly.

    Returns:
        -1 stands for padding; U is what the fullest step needs, rounded up.
    """
    steps, size = anchors_TxA.shape
    partners = _partners(anchors_TxA, mined, rows_N)
    places = size + max(len(others) for others in partners)
    places += -places % math.lcm(_PLACES, devices)
    ids = np.full((steps, devices, places // devices), -1, np.int32)
    first = size // devices
    ids[:, :, :first] = anchors_TxA.reshape(steps, devices, -1)
    for t, others in enumerate(partners):
        even = np.pad(others, (0, -len(others) % devices), constant_values=-1)
        ids[t, :, first : first + len(even) // devices] = even.reshape(-1, devices).T
    return ids.reshape(steps, places)


def _partners(anchors_TxA: np.ndarray, mined: Mined, rows_N: np.ndarray) -> list[np.ndarray]:
    """For each step the distinct ids beside its anchors, their number a multiple of _EVEN."""
    found = []
    ids_of = [values for values in mined.values() if np.issubdtype(values.dtype, np.integer)]
    for t, anchors in enumerate(anchors_TxA):
        listed = np.unique(np.concatenate([ids[t].ravel() for ids in ids_of]))
        others = np.setdiff1d(listed[listed >= 0], anchors, assume_unique=True)
        if missing := -len(others) % _EVEN:
            free = np.setdiff1d(rows_N, np.concatenate([anchors, others]))[:missing]
            # A set smaller than its batches has none left: padding it is.
            padding = np.full(missing - len(free), -1)
            others = np.concatenate([others, free, padding])
        found.append(others.astype(np.int32))
    return found
