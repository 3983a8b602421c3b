"""The picture of test images beside their neighbours shows what it was given."""

import numpy as np
import pytest
from support.png import count, pixels_of

from deepknn_jax.evaluation import neighbors

GREEN, RED = (0x02, 0x9E, 0x73), (0xD5, 0x5E, 0x00)
NAMES = ("nevus", "a class of the longest name that anybody has thought of", "$5 or $6 & 50 %")


@pytest.mark.parametrize("channels", [1, 3])
def test_neighbors_are_framed_by_agreement_with_the_true_class(tmp_path, channels):
    images = np.full((2, 4, 28, 28, channels), 128, np.uint8)
    frames = {}
    for name, neighbor_labels, distance in (
        ("agree", [[0, 0, 0], [1, 1, 1]], 1.0),
        ("mixed", [[0, 1, 2], [1, 1, 2]], 1.0),
        ("none", [[0, 0, -1], [1, 1, -1]], np.inf),
    ):
        path = tmp_path / f"{name}.png"
        distances = np.array([[0.5, 0.7, distance]] * 2)
        true = np.array([0, 1])
        neighbors.draw(
            *(path, images[:, 0], true, true, images[:, 1:]),
            *(np.array(neighbor_labels), distances, NAMES),
            k=3,
        )
        pixels = pixels_of(path)
        frames[name] = count(pixels, GREEN), count(pixels, RED)
        assert count(pixels, (128, 128, 128)) > 6 * 100**2
    assert frames["agree"][1] == frames["none"][1] == 0
    assert frames["mixed"][0] == pytest.approx(frames["agree"][0] / 2, rel=0.1)
    assert frames["mixed"][1] == pytest.approx(frames["agree"][0] / 2, rel=0.1)
    assert frames["none"][0] == pytest.approx(frames["agree"][0] * 2 / 3, rel=0.1)


def test_one_query_with_one_neighbor(tmp_path):
    image = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1) * 4
    one = np.array([1])
    neighbors.draw(
        *(tmp_path / "one.png", image, one, one * 0, image[None]),
        *(one[None], np.array([[0.1]]), NAMES),
        k=1,
        usual_distances=np.array([0.05, 0.2]),
    )
    pixels = pixels_of(tmp_path / "one.png")
    assert count(pixels, GREEN) > 0 < count(pixels, RED)  # right neighbour, wrong prediction


def test_a_distance_is_told_among_those_of_right_answers():
    usual = np.array([1.0, 2.0, 3.0, 4.0])
    assert [neighbors.percentile(usual, x) for x in (0.5, 2.5, 4.0, 9.0)] == [0, 50, 75, 100]
