"""Near-copies: images whose small grey thumbnails correlate, as saved anew or cut a little."""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import sparse
from scipy.sparse import csgraph

NEAR_COPIES = ("tell", "drop", "group")
SIDE = 32  # of the thumbnails in pixels; smaller images are not compared
LEAST_R = 0.97  # Pearson's correlation of two thumbnails, above which they are near-copies
_BLOCK = 1024  # thumbnails in one product


class Nearest(NamedTuple):
    """Of each of n rows the row int [n] that it correlates with most, and how: `r` float32 [n]."""

    rows: np.ndarray
    r: np.ndarray


def are_compared(inputs_N: np.ndarray) -> bool:
    """Whether they are images of at least SIDE pixels: of fewer nearly all would be alike."""
    return inputs_N.ndim == 4 and min(inputs_N.shape[1:3]) >= SIDE


def thumbnails(images_NxHxWxC: np.ndarray) -> np.ndarray:
    """Of uint8 images float32 [N, SIDE * SIDE] of mean 0 and length 1; 0 of constant ones.

    They are means over boxes of the grey image, of 8 bits. The product of two rows is Pearson's
    correlation. The images may be a memory map, which is read once.
    """

    def of_image(image: np.ndarray) -> np.ndarray:
        grey = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("L")
        return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX)).ravel()

    images = np.asarray(images_NxHxWxC)  # a memory map takes 0.1 ms for each of its rows
    with ThreadPoolExecutor() as pool:
        found = np.stack(list(pool.map(of_image, images))).astype(np.float32)
    found -= found.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    # Of a constant image rounding leaves about 1e-4; one level in one pixel is about 1.
    return np.where(length > 0.1, found / np.maximum(length, 0.1), np.float32(0))


def nearest(thumbs_NxT: np.ndarray, rows_n: np.ndarray, others_m: np.ndarray) -> Nearest:
    """Of each of `rows_n` the one of `others_m`, of which there are some, that is most like it.

    A product of _BLOCK rows at a time: 2,000 beside 8,000 take about a second on two cores.
    """
    best = Nearest(np.zeros(len(rows_n), int), np.full(len(rows_n), -2, np.float32))
    for i in range(0, len(rows_n), _BLOCK):
        block = thumbs_NxT[rows_n[i : i + _BLOCK]]
        for j in range(0, len(others_m), _BLOCK):
            others = others_m[j : j + _BLOCK]
            r = block @ thumbs_NxT[others].T
            places, highest = r.argmax(axis=1), r.max(axis=1)
            better = np.flatnonzero(highest > best.r[i : i + _BLOCK])
            best.rows[better + i] = others[places[better]]
            best.r[better + i] = highest[better]
    return best


def nearly_joined(thumbs_NxT: np.ndarray) -> np.ndarray:
    """int32 [N]: near-copies, and near-copies of near-copies, are in one group."""
    found = np.arange(len(thumbs_NxT))
    for i in range(0, len(found), _BLOCK):
        block = slice(i, i + _BLOCK)
        for j in range(i, len(found), _BLOCK):
            near, other = np.nonzero(thumbs_NxT[block] @ thumbs_NxT[j : j + _BLOCK].T > LEAST_R)
            links = found[near + i], found[other + j]
            if (links[0] != links[1]).any():
                ones = np.ones(len(near), bool)
                graph = sparse.coo_matrix((ones, links), (len(found), len(found)))
                found = csgraph.connected_components(graph, directed=False)[1][found]
    return found.astype(np.int32)
