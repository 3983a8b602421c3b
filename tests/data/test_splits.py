"""Splits: class shares, groups on one side, what is refused."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deepknn_jax.data.dataset import TEST, TRAIN, VALIDATION, Listing
from deepknn_jax.data.splits import (
    assign_splits,
    check_class_sizes,
    chosen_split,
    split_lines,
)
from deepknn_jax.errors import UserError


def listing(labels, groups=None, splits=None):
    labels = np.asarray(labels, np.int32)
    classes = tuple(f"class{c}" for c in range(labels.max() + 1))
    names = tuple(f"n{i}" for i in range(len(labels)))
    groups = None if groups is None else np.asarray(groups, np.int32)
    splits = None if splits is None else np.asarray(splits)
    inputs = np.zeros((len(labels), 1), np.float32)
    return Listing(names, labels, classes, inputs=inputs, splits=splits, groups=groups)


def assign(data, split="stratified", test_share=0.2, validation=0.0, seed=0):
    return assign_splits(
        data, split=split, test_share=test_share, validation=validation, split_seed=seed
    )


def counts(labels, mask):
    return np.bincount(np.asarray(labels)[mask], minlength=max(labels) + 1)


@settings(max_examples=50)
@given(
    sizes=st.lists(st.integers(2, 60), min_size=2, max_size=8),
    share=st.floats(0.05, 0.6),
    seed=st.integers(0, 1000),
)
def test_stratified_takes_the_nearest_count_of_each_class(sizes, share, seed):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    assume(max(sizes) >= 3)  # else there is no image to spare for a test part
    splits = assign(listing(labels), test_share=share, seed=seed)
    for size, taken in zip(sizes, counts(labels, splits == TEST), strict=True):
        nearest = min(max(share * size, 1), size - 2)
        assert abs(taken - nearest) <= 0.5 + 1e-9


@settings(max_examples=50)
@given(data=st.data(), n_groups=st.integers(20, 80), seed=st.integers(0, 100))
def test_no_group_is_on_two_sides(data, n_groups, seed):
    """Groups of random sizes, some of two classes."""
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 5, n_groups))
    labels = np.concatenate([groups % 3, np.arange(30) % 3])
    mixed = rng.random(len(labels)) < 0.1
    labels[mixed] = rng.integers(0, 3, mixed.sum())
    groups = np.concatenate([groups, 100 + np.arange(30)])
    splits = assign(listing(labels, groups), "grouped", 0.25, 0.2, seed)
    for group in np.unique(groups):
        assert len(set(splits[groups == group])) == 1
    # Lone images of a class on both sides: moving one would have mended a miss of more than half.
    lone = groups >= 100
    off = np.abs(counts(labels, splits == TEST) - 0.25 * counts(labels, labels >= 0))
    for c in range(3):
        if len({s == TEST for s in splits[lone & (labels == c)]}) == 2:
            assert off[c] <= 0.5 + 1e-6


@pytest.mark.parametrize("sizes", [(75, 125), (5, 5, 5, 5), (45, 55, 35, 65), (10, 15, 25, 30)])
def test_classes_whose_share_ends_in_a_half_add_up_to_the_whole(sizes):
    """0.3 of four classes of 5 is 6 in all, not 4 or 8."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    for seed in range(5):
        splits = assign(listing(labels), test_share=0.3, validation=0.0, seed=seed)
        assert (splits == TEST).sum() == round(0.3 * sum(sizes))
        taken = counts(labels, splits == TEST)
        assert np.abs(taken - 0.3 * np.asarray(sizes)).max() <= 0.5 + 1e-9


def test_grouped_does_not_prefer_large_groups():
    """Of groups of 1 and of 5, both kinds give about the share (greedy by size would not)."""
    groups = np.concatenate([np.arange(500), np.repeat(np.arange(500, 600), 5)])
    labels = np.zeros(len(groups), int)
    labels[::2] = 1
    taken = np.mean(
        [assign(listing(labels, groups), "grouped", 0.2, seed=s) == TEST for s in range(10)], axis=0
    )
    assert 0.17 < taken[:500].mean() < 0.23
    assert 0.17 < taken[500:].mean() < 0.23


def test_a_class_of_few_large_groups_still_gets_a_test_group():
    labels = [0] * 20 + [1] * 20
    groups = [*range(20), *[20] * 10, *[21] * 10]
    splits = assign(listing(labels, groups), "grouped", 0.1)
    assert counts(labels, splits == TEST).tolist() == [2, 10]


def test_the_seed_decides_and_the_split_is_that_of_version_one():
    labels = np.arange(40) % 4
    first, again, other = (assign(listing(labels), seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    # A golden value: another draw would silently make old results incomparable.
    assert np.flatnonzero(first == TEST).tolist() == [2, 3, 11, 13, 18, 20, 21, 32]


def test_validation_is_drawn_from_the_training_part():
    labels = np.arange(300) % 3
    without, with_part = (assign(listing(labels), validation=v) for v in (0.0, 0.25))
    np.testing.assert_array_equal(without == TEST, with_part == TEST)
    assert counts(labels, with_part == VALIDATION).tolist() == [20, 20, 20]
    assert not (without == VALIDATION).any()


def test_published_keeps_its_parts():
    labels = np.arange(24) % 2
    parts = [TRAIN] * 12 + [VALIDATION] * 6 + [TEST] * 6
    for validation in (0.0, 0.5):
        splits = assign(listing(labels, splits=parts), "published", validation=validation)
        assert splits.tolist() == parts


def test_published_with_groups_validates_on_whole_groups():
    labels, groups = np.arange(60) % 2, np.arange(60) // 4
    parts = [TRAIN] * 48 + [TEST] * 12
    splits = assign(listing(labels, groups, parts), "published", validation=0.25)
    assert (splits[48:] == TEST).all()
    assert (splits == VALIDATION).sum() == 12
    for group in range(12):
        assert len(set(splits[groups == group])) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "random"}, "^`split` is 'random': choose from published, stratified, grouped"),
        ({"split": "published"}, "^`split` is 'published': .*publishes none"),
        ({"split": "grouped"}, "^`split` is 'grouped': .*no groups; set `group_pattern` or "),
        ({"test_share": 0.0}, "^`test_share` is 0.0: it must be above 0"),
        ({"test_share": 1.0}, "^`test_share` is 1.0: .* below 1"),
        ({"validation": 1.0}, "^`validation` is 1.0: .* below 1"),
        ({"validation": -0.1}, "^`validation` is -0.1: it must be at least 0"),
        ({"seed": -1}, "^`split_seed` is -1: it must be at least 0"),
    ],
)
def test_values_out_of_range(options, words):
    with pytest.raises(UserError, match=words):
        assign(listing(np.arange(20) % 2), **options)


def test_a_published_split_without_a_test_part():
    with pytest.raises(UserError, match=r"^`split` is 'published': the source has no test part"):
        assign(listing([0, 0, 1, 1], splits=[TRAIN] * 4), "published")


def test_a_class_too_small_to_train_is_named_with_its_count():
    with pytest.raises(UserError, match=r"class1 \(1\)"):
        assign(listing([0] * 10 + [1]))
    with pytest.raises(UserError, match=r"class0 \(1\), class1 \(0\)"):
        check_class_sizes(np.asarray([0]), np.asarray([TRAIN]), ("class0", "class1"))
    # Two images train, none is spared; three spare one.
    splits = assign(listing([0] * 10 + [1] * 2 + [2] * 3), test_share=0.5)
    assert counts([0] * 10 + [1] * 2 + [2] * 3, splits == TEST).tolist() == [5, 0, 1]


HALVES = [TRAIN, TEST] * 10


@pytest.mark.parametrize(
    ("groups", "parts", "chosen"),
    [
        (None, None, "stratified"),
        (range(20), None, "grouped"),
        (None, HALVES, "published"),
        (range(20), HALVES, "published"),
        (None, [TRAIN, VALIDATION] * 10, "published"),
        (None, [TRAIN] * 20, "stratified"),
        (range(20), [TRAIN] * 20, "grouped"),
    ],
)
def test_the_split_that_fits_is_taken_unless_another_is_asked_for(groups, parts, chosen):
    groups = None if groups is None else list(groups)
    found = listing([0, 0, 1, 1] * 5, groups, parts)
    assert chosen_split(found, "") == chosen
    assert chosen_split(found, "stratified") == "stratified"
    if parts != [TRAIN, VALIDATION] * 10:
        np.testing.assert_array_equal(assign(found, ""), assign(found, chosen))


def test_a_validation_part_tests_where_there_is_no_test_part():
    labels = [0, 0, 1, 1] * 5
    found = listing(labels, splits=[TRAIN, VALIDATION] * 10)
    assert assign(found, "").tolist() == HALVES
    assert split_lines(found, "", assign(found, ""))[1:] == [
        "the source has no test part: its validation part tests"
    ]
    drawn = assign(found, "", validation=0.3)
    assert (drawn == VALIDATION).sum() == 3
    with pytest.raises(UserError, match="has no test part"):
        assign(found, "published")


def test_a_validation_part_that_is_not_used_is_told():
    found = listing([0, 1, 0, 1] * 6, splits=([TRAIN] * 2 + [VALIDATION, TEST]) * 6)
    splits = assign(found, "")
    assert split_lines(found, "", splits)[1:] == ["not used: the validation part, as `validation`"
                                                  " is 0"]  # fmt: skip
    assert len(split_lines(found, "", splits, validation=0.1)) == 1


@pytest.mark.parametrize(
    ("groups", "parts", "split", "lines"),
    [
        (None, None, "", ["split: stratified, as the source gives neither parts nor groups: 16"
                          " train + 4 test"]),
        (None, HALVES, "", ["split: published, as the source has one: 10 train + 10 test"]),
        (None, [TRAIN] * 20, "", ["split: stratified, as the source has a train part alone: "
                                  "16 train + 4 test"]),
        (None, HALVES, "stratified", ["split: stratified, as `split` says: 16 train + 4 test",
                                      "not used: the source's own parts (10 train + 10 test)"]),
        ([i // 2 for i in range(20)], HALVES, "",
         ["split: published, as the source has one: 10 train + 10 test",
          "groups: 10; 10 of 10 test examples share one with training examples (`split`=grouped "
          "keeps a group on one side)"]),
        ([i // 2 for i in range(20)], None, "",
         ["split: grouped, as the source names groups: 16 train + 4 test", "groups: 10"]),
    ],
)  # fmt: skip
def test_the_split_is_told_and_what_it_leaves(groups, parts, split, lines):
    found = listing([0, 0, 1, 1] * 5, groups, parts)
    assert split_lines(found, split, assign(found, split)) == lines
