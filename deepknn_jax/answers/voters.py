"""How much evidence neighbours are: copies and images of one patient as one voter, and hubs."""

import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from deepknn_jax.answers.model import Gallery
from deepknn_jax.data.cache import threads
from deepknn_jax.data.near_copies import LEAST_R, SIDE, thumbnails

_FAR = 3.0  # deviations above the mean of the gallery's counts, from which an image is a hub


def small_pictures(gallery: Gallery, rows: Iterable[int]) -> dict[int, np.ndarray]:
    """By row of the gallery its thumbnail as `near_copies` compares them, float32 [SIDE * SIDE].

    Rows without a thumbnail, or with one too small to compare, are left out.
    """
    pictures = gallery.thumbnails
    if pictures is None:
        return {}

    def of_row(row: int) -> np.ndarray | None:
        if not (webp := pictures.webp(row)):
            return None
        with Image.open(io.BytesIO(webp)) as image:
            if min(image.size) < SIDE:
                return None
            grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
            return np.asarray(grey)[..., None]

    wanted = sorted(set(rows))
    with ThreadPoolExecutor(threads()) as pool:
        found = list(pool.map(of_row, wanted))
    there = [(row, image) for row, image in zip(wanted, found, strict=True) if image is not None]
    if not there:
        return {}
    vectors = thumbnails(np.stack([image for _, image in there]))
    return {row: vector for (row, _), vector in zip(there, vectors, strict=True)}


def voters(rows_k: np.ndarray, gallery: Gallery, small: dict[int, np.ndarray]) -> np.ndarray:
    """Numbers int [k], by first appearance: neighbours of one number are no independent evidence.

    These are images of one group (patient, lesion), those whose embeddings are equal, those whose
    thumbnails correlate above near_copies.LEAST_R, and whatever such pairs join.
    """
    embeddings = gallery.embeddings[rows_k]
    alike = (embeddings[:, None] == embeddings[None]).all(axis=2)
    if gallery.groups is not None:
        own = gallery.groups[rows_k]
        alike |= own[:, None] == own[None]
    seen = [i for i, row in enumerate(rows_k.tolist()) if row in small]
    if seen:
        vectors = np.stack([small[int(rows_k[i])] for i in seen])
        alike[np.ix_(seen, seen)] |= vectors @ vectors.T > LEAST_R
    first = np.arange(len(rows_k))
    for _ in rows_k:  # the least place that is joined to each, at most k links away
        first = np.where(alike, first[None], len(rows_k)).min(axis=1, initial=len(rows_k))
    return np.unique(first, return_inverse=True)[1].reshape(-1)


def hubs(gallery: Gallery) -> np.ndarray:
    """Bool [G]: images that are near unusually many others, by their `occurrence`.

    That is _FAR deviations above the mean or more, which no more than one in ten can be
    (Chebyshev). Where counts are not known, or are of another gallery than this, no image is one.
    """
    counts = gallery.occurrence
    if counts is None or len(counts) != len(gallery.labels) or not len(counts):
        return np.zeros(len(gallery.labels), bool)
    spread = float(counts.std())
    found: np.ndarray = (counts >= counts.mean() + _FAR * spread) & (spread > 0)
    return found
