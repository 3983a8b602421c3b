"""Copies: equal contents numbered, linked, paired across parts, and what is said of them."""

import numpy as np
import pytest

from deepknn_jax.data import copies
from deepknn_jax.data.dataset import LEFT_OUT, TEST, TRAIN, VALIDATION, Dataset
from deepknn_jax.errors import UserError

RNG = np.random.default_rng(5)
PART = {"t": TRAIN, "v": VALIDATION, "x": TEST, "-": LEFT_OUT}


def splits(letters):
    return np.asarray([PART[letter] for letter in letters])


def test_contents_are_equal_where_rows_are_and_only_there():
    images = RNG.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    images[4], images[5] = images[1], images[0]
    images[5, 4, 3, 2] ^= 1
    numbers = copies.numbered(copies.contents(images))
    assert numbers.tolist() == [0, 1, 2, 3, 1, 4]
    turned = np.swapaxes(images[:1], 1, 2)  # the same bytes in another shape would be another image
    assert (copies.contents(turned)[0] != copies.contents(images)[0]).any()
    features = np.asarray([[0.0, 1.5], [-0.0, 1.5], [0.0, 1.25]], np.float32)
    assert copies.numbered(copies.contents(features)).tolist() == [0, 0, 1]


def test_known_contents_are_found_among_others():
    rows = RNG.integers(0, 256, (9, 16), dtype=np.uint8)
    rows[:, -1] = 0  # a digest may end so
    assert copies.are_among(rows[2:7], rows[[8, 3, 5, 0]]).tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("seed", range(5))
def test_joined_groups_are_those_of_a_search_from_member_to_member(seed):
    rng = np.random.default_rng(seed)
    groups, others = rng.integers(0, 12, 30) * 7, rng.integers(-30, 0, 30)
    found = copies.joined(groups, others)
    for start in range(30):
        reached, rim = {start}, [start]
        while rim:
            i = rim.pop()
            near = {j for j in range(30) if groups[j] == groups[i] or others[j] == others[i]}
            rim += near - reached
            reached |= near
        assert set(np.flatnonzero(found == found[start])) == reached


def test_all_pairs_across_parts_are_named_once():
    #                   0  1  2  3  4  5  6  7  8  9
    numbers = np.array([0, 0, 1, 1, 1, 0, 2, 3, 1, 0])
    pairs = copies.pairs_across(numbers, splits("txttxvxtx-"))
    wanted = {(1, 0), (4, 2), (4, 3), (8, 2), (8, 3), (1, 5), (5, 0)}
    assert set(zip(pairs.rows.tolist(), pairs.others.tolist(), strict=True)) == wanted
    assert len(pairs.rows) == len(wanted)
    assert (pairs.r == 1).all()


def test_of_many_copies_each_is_named_and_not_every_pair():
    """A thousand blank images have 160,000 pairs across a split."""
    parts = np.repeat([TRAIN, TEST], [800, 200])
    pairs = copies.pairs_across(np.zeros(1000, int), parts)
    assert len(pairs.rows) == 1000
    assert len(set(zip(pairs.rows.tolist(), pairs.others.tolist(), strict=True))) == 1000
    assert set(pairs.rows) | set(pairs.others) == set(range(1000))


def test_what_is_nearer_to_the_test_part_stays():
    numbers = np.array([0, 0, 1, 1, 2, 2, 3, 4])
    drop = copies.to_drop(numbers, splits("txtvvxtt"))
    assert drop.tolist() == [1, 0, 1, 0, 1, 0, 0, 0]


def test_the_lines_count_examples_and_other_labels():
    numbers, parts = np.array([0, 0, 1, 1, 1, 2, 2, 3]), splits("txttxttx")
    labels, names = np.array([0, 1, 0, 1, 0, 0, 1, 0]), list("abcdefgh")
    across, within = copies.lines(numbers, labels, parts, names)
    assert across.startswith("copies: 2 of 3 test examples are those of train over again, 2 of them"
                             " under another label; the first is b, a copy of a")  # fmt: skip
    assert within.startswith("copies: 2 train examples are others over again, under another label;")
    labels = np.array([0, 0, 1, 1, 1, 0, 0, 1])
    (across,) = copies.lines(numbers, labels, parts, names)
    assert "label" not in across
    assert copies.lines(np.arange(8), labels, parts, names) == []


def test_the_error_names_the_first_pair_and_where_all_are():
    inputs = RNG.normal(size=(4, 3)).astype(np.float32)
    inputs[3] = inputs[0]
    data = Dataset(inputs, np.zeros(4, np.int32), ("a", "b", "c", "d"), ("k",), splits("tttx"),
                   contents=copies.contents(inputs))  # fmt: skip
    with pytest.raises(
        UserError, match=r"^d \(test\) is a copy of a \(train\) \(1 such.* in C\.csv"
    ):
        copies.check_none(data, "C.csv")
    copies.check_none(data._replace(splits=splits("tttt")))
