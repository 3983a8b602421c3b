"""Of many classes the largest, and one for the rest."""

import numpy as np

from deepknn_jax.evaluation.classes import shown_classes


def test_few_classes_are_all_shown():
    place, names, rest = shown_classes(np.ones(40), list(map(str, range(40))))
    assert (place.tolist(), names, rest) == (list(range(40)), tuple(map(str, range(40))), False)
    assert len(shown_classes(np.ones(200), ["a"] * 200, enough=200).names) == 200


def test_of_many_the_largest_keep_their_order_and_the_others_share_a_place():
    counts = np.ones(10_000, int)
    counts[9_000:9_030] = 7
    names = [f"c{c}" for c in range(10_000)]
    place, shown, rest = shown_classes(counts, names)
    assert rest
    assert (
        shown
        == (
            *names[:10],  # the first of the equal ones
            *names[9_000:9_030],
            "other (9,960 classes)",
        )
    )
    assert place[[0, 9, 10, 8_999, 9_000, 9_029, 9_999]].tolist() == [0, 9, 40, 40, 10, 39, 40]
