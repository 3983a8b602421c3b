"""Which neighbours are one piece of evidence, and which are near everything."""

import numpy as np
import pytest

from deepknn_jax.answers.model import Gallery
from deepknn_jax.answers.thumbnails import encode_array, joined
from deepknn_jax.answers.voters import hubs, small_pictures, voters


@pytest.fixture(scope="module")
def gallery():
    """Row 2 shows row 0 brighter, row 4 nothing, row 5 is too small; 1 and 3 are one embedding."""
    rng = np.random.default_rng(0)
    smooth = np.repeat(np.repeat(rng.integers(0, 200, (6, 8, 8, 1)), 6, 1), 6, 2).astype(np.uint8)
    smooth[2] = smooth[0] // 2 + 40
    pictures = [encode_array(image) for image in smooth]
    pictures[4], pictures[5] = b"", encode_array(smooth[0, :20, :20])
    embeddings = rng.normal(size=(6, 3)).astype(np.float32)
    embeddings[3] = embeddings[1]
    return Gallery(embeddings, np.zeros(6, np.int32), thumbnails=joined(pictures))


def test_near_copies_and_equal_embeddings_are_one_voter(gallery):
    small = small_pictures(gallery, [0, 1, 2, 3, 4, 5, 5])
    assert sorted(small) == [0, 1, 2, 3]
    rows = np.array([5, 2, 1, 4, 0, 3])
    assert voters(rows, gallery, small).tolist() == [0, 1, 2, 3, 1, 2]
    assert voters(rows, gallery, {}).tolist() == [0, 1, 2, 3, 4, 2]
    assert voters(rows[:0], gallery, small).tolist() == []


def test_images_of_one_patient_are_one_voter_and_links_are_followed(gallery):
    grouped = gallery._replace(groups=np.array([1, 2, 3, 4, 3, 2]))
    small = small_pictures(gallery, range(6))
    # 0 and 2 look alike, 2 and 4 are of one patient, so are 1 and 5, and 1 and 3 are equal.
    assert voters(np.array([0, 4, 5, 3, 2, 1]), grouped, small).tolist() == [0, 0, 1, 1, 0, 1]


def test_without_thumbnails_nothing_is_compared(gallery):
    assert small_pictures(gallery._replace(thumbnails=None), [0, 1]) == {}
    assert small_pictures(gallery, [4]) == {}


def test_hubs_are_far_above_the_mean_and_only_of_this_gallery():
    counts = np.full(50, 5, np.int32)
    counts[[3, 7]] = 60, 9
    found = Gallery(np.zeros((50, 2)), np.zeros(50, np.int32), occurrence=counts)
    assert np.flatnonzero(hubs(found)).tolist() == [3]
    assert not hubs(found._replace(occurrence=None)).any()
    assert not hubs(found._replace(occurrence=counts[:49])).any()
    assert not hubs(found._replace(occurrence=np.full(50, 5))).any()
