"""Classes too many for one picture: the largest, and one that stands for the rest."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MOST = 40  # that a picture can name


class Shown(NamedTuple):
    """`place` int [C] of each class among the shown ones; their `names`; is the last the `rest`?"""

    place: np.ndarray
    names: tuple[str, ...]
    rest: bool


def shown_classes(counts_C: np.ndarray, class_names: Sequence[str], enough: int = MOST) -> Shown:
    """All classes where they are `enough` or fewer; else the MOST largest, and the rest as one.

    The shown ones keep their order; of equal `counts_C` the first are shown. The rest is named
    "other (9,960 classes)".
    """
    C = len(class_names)
    if enough >= C:
        return Shown(np.arange(C), tuple(class_names), rest=False)
    largest = np.sort(np.argsort(-np.asarray(counts_C), kind="stable")[:MOST])
    place = np.full(C, MOST)
    place[largest] = np.arange(MOST)
    names = (*(class_names[c] for c in largest), f"other ({C - MOST:,} classes)")
    return Shown(place, names, rest=True)
