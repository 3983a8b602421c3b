"""Batches: distinct, of the right size and classes, and functions of (labels, seed, step) alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepknn_jax.engine.batching import (
    KINDS,
    balanced_batch,
    batch_indices,
    check_batching,
    proportional_batch,
    shuffled_batch,
    steps_per_epoch,
)
from deepknn_jax.errors import UserError

SKIN7 = (1113, 6705, 514, 327, 1099, 115, 142)
SD198 = tuple(np.random.default_rng(0).integers(9, 61, 198).tolist())

class_sizes = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(lambda s: sum(s) > 0)
seeds = st.integers(0, 2**31)


def labels_of(sizes, seed=0):
    labels = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    return np.random.default_rng(seed).permutation(labels)


def epoch_of(one_batch, labels, batch_size, seed, epoch):
    steps = steps_per_epoch(len(labels), batch_size)
    return np.stack(
        [
            one_batch(labels, batch_size=batch_size, seed=seed, step=epoch * steps + t)
            for t in range(steps)
        ]
    )


@pytest.mark.parametrize("one_batch", [shuffled_batch, proportional_batch])
@given(sizes=class_sizes, seed=seeds, epoch=st.integers(0, 5), data=st.data())
def test_an_epoch_shows_every_image_at_most_once(one_batch, sizes, seed, epoch, data):
    labels = labels_of(sizes)
    batch_size = data.draw(st.integers(1, len(labels)))
    batches = epoch_of(one_batch, labels, batch_size, seed, epoch)
    assert batches.dtype == np.int32
    assert batches.shape == (len(labels) // batch_size, batch_size)
    assert len(np.unique(batches)) == batches.size
    assert batches.min() >= 0
    assert batches.max() < len(labels)


@pytest.mark.parametrize("one_batch", [shuffled_batch, proportional_batch])
def test_what_is_left_over_and_the_order_differ_between_epochs_and_seeds(one_batch):
    labels = labels_of((50, 30, 17))
    epochs = [epoch_of(one_batch, labels, 10, seed, e) for seed in (0, 1) for e in range(20)]
    assert len({e.tobytes() for e in epochs}) == len(epochs)
    missing = [np.setdiff1d(np.arange(97), e) for e in epochs]
    assert all(len(m) == 7 for m in missing)
    assert len(np.unique(np.concatenate(missing))) > 80  # of 97, in 40 draws of 7


@given(sizes=class_sizes, seed=seeds, epoch=st.integers(0, 5), data=st.data())
def test_proportional_batches_have_the_shares_of_the_training_set(sizes, seed, epoch, data):
    labels = labels_of(sizes)
    batch_size = data.draw(st.integers(1, len(labels)))
    batches = epoch_of(proportional_batch, labels, batch_size, seed, epoch)
    counts = (labels[batches][..., None] == np.arange(len(sizes))).sum(1)
    share = batch_size * np.array(sizes) / len(labels)
    assert np.all(np.abs(counts - share) < 1 + 1 / len(batches))


def test_proportional_batches_of_skin7_are_within_two_images_where_shuffled_ones_are_not():
    labels = labels_of(SKIN7)
    share = 96 * np.array(SKIN7) / len(labels)
    furthest = {}
    for one_batch in (proportional_batch, shuffled_batch):
        batches = epoch_of(one_batch, labels, 96, 7, 0)
        counts = (labels[batches][..., None] == np.arange(7)).sum(1)
        furthest[one_batch] = np.abs(counts - share).max()
    assert furthest[proportional_batch] < 1.01
    assert furthest[shuffled_batch] > 5


def test_proportional_places_every_image_evenly_among_the_batches():
    labels = labels_of((3, 9, 24))
    first = np.stack([epoch_of(proportional_batch, labels, 12, 3, e)[0] for e in range(600)])
    seen = np.bincount(first.ravel(), minlength=36)  # 600 * 12 / 36 = 200 each, binomial
    assert np.all(np.abs(seen - 200) < 5 * np.sqrt(600 * 1 / 3 * 2 / 3))


@given(sizes=class_sizes, seed=seeds, step=st.integers(0, 10**6), data=st.data())
def test_balanced_batches(sizes, seed, step, data):
    labels = labels_of(sizes)
    occurring = np.unique(labels)
    classes = data.draw(st.integers(1, len(occurring)))
    per_class = data.draw(st.integers(1, max(1, len(labels) // classes)))
    batch = balanced_batch(labels, classes=classes, per_class=per_class, seed=seed, step=step)
    assert batch.dtype == np.int32
    assert batch.shape == (classes * per_class,)
    assert len(np.unique(batch)) == len(batch)
    counts = np.bincount(labels[batch], minlength=len(sizes))
    wanted = np.minimum(per_class, sizes)
    if wanted.sum() >= len(batch):  # enough without a class giving more than its S
        assert np.all(counts <= wanted)
        assert np.sum((counts == wanted) & (counts > 0)) >= classes
        assert np.sum((counts > 0) & (counts < wanted)) <= 1  # the last to fill up
    else:  # every class gives its S (or all), the rest comes from any
        assert np.all(counts >= wanted)


@pytest.mark.parametrize(
    ("sizes", "classes", "per_class"), [(SD198, 9, 10), (SKIN7, 4, 24), (SKIN7, 7, 14)]
)
def test_balanced_batches_of_the_papers_sets(sizes, classes, per_class):
    labels = labels_of(sizes)
    seen = np.zeros(len(sizes), int)
    for step in range(300):
        batch = balanced_batch(labels, classes=classes, per_class=per_class, seed=1, step=step)
        counts = np.bincount(labels[batch], minlength=len(sizes))
        assert len(np.unique(batch)) == classes * per_class
        assert np.all(counts <= per_class)
        assert np.sum(counts == np.minimum(per_class, sizes)) >= classes
        assert np.count_nonzero(counts) <= classes + (min(sizes) < per_class)  # one to fill up
        seen += counts > 0
    mean = seen.mean()
    assert np.all(np.abs(seen - mean) < 6 * np.sqrt(mean))  # classes whatever their size


def test_balanced_batches_draw_every_image_of_a_class():
    labels = labels_of((5, 30))
    batches = batch_indices(
        "balanced", labels, batch_size=8, classes=2, per_class=4, seed=0, steps=range(1000)
    )
    seen = np.bincount(batches.ravel(), minlength=35)
    expected = np.where(labels == 0, 1000 * 4 / 5, 1000 * 4 / 30)
    assert np.all(np.abs(seen - expected) < 5 * np.sqrt(expected))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20)
@given(seed=seeds, order=st.permutations(range(25)))
def test_a_batch_depends_on_labels_seed_and_step_alone(kind, seed, order):
    labels = labels_of((9, 20, 14), seed=1)
    sizes = {"batch_size": 6, "classes": 2, "per_class": 3, "seed": seed}
    together = batch_indices(kind, labels, **sizes, steps=range(25))
    for step in order:
        batch_indices(kind, labels[::-1], **sizes, steps=range(step, step + 1))  # others between
        alone = batch_indices(kind, labels.astype(np.int64), **sizes, steps=range(step, step + 1))
        np.testing.assert_array_equal(alone[0], together[step])
    other = batch_indices(kind, labels, **{**sizes, "seed": seed + 1}, steps=range(25))
    assert not np.array_equal(together, other)


def test_kinds_share_no_random_stream_and_no_steps_give_no_batches():
    labels = labels_of((40,))
    sizes = {"batch_size": 40, "classes": 1, "per_class": 40, "seed": 0}
    batches = [batch_indices(kind, labels, **sizes, steps=range(1)) for kind in KINDS]
    assert len({b.tobytes() for b in batches}) == len(KINDS)
    assert batch_indices("shuffled", labels, **sizes, steps=range(0)).shape == (0, 40)


def test_a_batch_cannot_be_changed_under_its_next_reader():
    labels = labels_of((20, 20))
    for one_batch in (shuffled_batch, proportional_batch):
        batch = one_batch(labels, batch_size=8, seed=0, step=0)
        with pytest.raises(ValueError, match="read-only"):
            batch[0] = -1


@pytest.mark.parametrize(
    ("kind", "batch_size", "classes", "per_class", "named"),
    [
        ("sorted", 4, 2, 2, ["sorted", *KINDS]),
        ("shuffled", 31, 2, 2, ["`batch_size` is 31", "30"]),
        ("proportional", 0, 2, 2, ["`batch_size` is 0", "30"]),
        ("balanced", 32, 2, 16, ["`batch_size` is 32", "30"]),
        ("balanced", 8, 4, 2, ["`classes` is 4", "3"]),
        ("balanced", 8, 3, 3, ["`batch_size` is 8", "3 x 3 = 9"]),
    ],
)
def test_what_cannot_be_is_said_in_one_line(kind, batch_size, classes, per_class, named):
    labels = labels_of((10, 0, 12, 8))  # class 1 does not occur
    with pytest.raises(UserError) as error:
        check_batching(kind, labels, batch_size=batch_size, classes=classes, per_class=per_class)
    assert "\n" not in str(error.value)
    for word in named:
        assert word in str(error.value)


def test_classes_and_per_class_are_ignored_where_batches_are_not_balanced():
    check_batching("shuffled", labels_of((3, 3)), batch_size=6, classes=9, per_class=10)
