"""Index batches as pure functions of (labels, seed, step), so that a resume sees the same batches.

Everything is numpy on the host. Randomness is `default_rng([seed, epoch or step, tag])`; nothing
depends on what was asked for before. `batch_indices` checks its arguments; the functions for one
batch take them as they are.
"""

from functools import lru_cache

import numpy as np

from deepknn_jax.errors import UserError, check_choice

KINDS = ("shuffled", "balanced", "proportional")
_SHUFFLED, _BALANCED, _PROPORTIONAL = range(3)  # tags: kinds share no random stream


def steps_per_epoch(n: int, batch_size: int) -> int:
    """Number of full batches in n examples; the rest, other images each epoch, sits it out."""
    return n // batch_size


def shuffled_batch(labels_N: np.ndarray, *, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Batch of one shuffled epoch after the other: int32 [batch_size], no image twice an epoch."""
    epoch, place = divmod(step, steps_per_epoch(len(labels_N), batch_size))
    return _shuffled_epoch(len(labels_N), seed, epoch)[place * batch_size :][:batch_size]


def proportional_batch(
    labels_N: np.ndarray, *, batch_size: int, seed: int, step: int
) -> np.ndarray:
    """Batch with the training set's class shares: int32 [batch_size], no image twice an epoch.

    With T batches an epoch, a class of n_c images has B * n_c / N of them in each batch, to
    within less than 1 + 1/T.
    """
    epoch, place = divmod(step, steps_per_epoch(len(labels_N), batch_size))
    return _proportional_epoch(_bytes(labels_N), batch_size, seed, epoch)[place]


def balanced_batch(
    labels_N: np.ndarray, *, classes: int, per_class: int, seed: int, step: int
) -> np.ndarray:
    """Batch of P = `classes` random classes x S = `per_class` images: int32 [P * S], all distinct.

    A class of fewer than S images gives all it has; the batch is filled up with images of further
    random classes (at most S each), and of any class once there are no more.
    """
    rng = np.random.default_rng([seed, step, _BALANCED])
    rows_by_class = _rows_by_class(_bytes(labels_N))
    size, chosen = classes * per_class, np.empty(0, np.int32)
    for c in rng.permutation(len(rows_by_class)):  # the first P fill the batch, if large enough
        rows = rows_by_class[c]
        take = min(per_class, len(rows), size - len(chosen))
        if take == 0:
            return chosen
        chosen = np.concatenate([chosen, rng.choice(rows, take, replace=False)])
    unused = np.setdiff1d(np.arange(len(labels_N), dtype=np.int32), chosen)
    return np.concatenate([chosen, rng.choice(unused, size - len(chosen), replace=False)])


def batch_indices(
    kind: str,
    labels_N: np.ndarray,
    *,
    batch_size: int,
    classes: int,
    per_class: int,
    seed: int,
    steps: range,
) -> np.ndarray:
    """Batches of the T given steps: int32 [T, batch_size], rows of `labels_N`.

    `kind` is one of KINDS; `classes` and `per_class` matter for "balanced" alone. `seed` >= 0.
    """
    check_batching(kind, labels_N, batch_size=batch_size, classes=classes, per_class=per_class)
    if kind == "balanced":
        batches = [
            balanced_batch(labels_N, classes=classes, per_class=per_class, seed=seed, step=step)
            for step in steps
        ]
    else:
        one_batch = shuffled_batch if kind == "shuffled" else proportional_batch
        batches = [
            one_batch(labels_N, batch_size=batch_size, seed=seed, step=step) for step in steps
        ]
    return np.stack(batches) if batches else np.empty((0, batch_size), np.int32)


def check_batching(
    kind: str, labels_N: np.ndarray, *, batch_size: int, classes: int, per_class: int
) -> None:
    """Raise UserError, in one line, where no such batch can be made of `labels_N`."""
    check_choice("`kind`", kind, KINDS)
    if not 1 <= batch_size <= len(labels_N):
        raise UserError(
            f"`batch_size` is {batch_size}: choose 1 to the {len(labels_N)} training images, or 0 "
            "for what fits"
        )
    if kind != "balanced":
        return
    occurring = len(np.unique(labels_N))
    if not 1 <= classes <= occurring:
        raise UserError(
            f"`classes` is {classes}: choose 1 to the number of classes that occur in the training "
            f"set, {occurring}"
        )
    if classes * per_class != batch_size:
        raise UserError(
            f"`batch_size` is {batch_size}, but balanced batches hold `classes` x `per_class` = "
            f"{classes} x {per_class} = {classes * per_class}: change one of the three"
        )


def _bytes(labels_N: np.ndarray) -> bytes:
    """Labels as a key for the caches below; hashing them is far cheaper than sorting them."""
    return labels_N.astype(np.int32, copy=False).tobytes()


@lru_cache(maxsize=4)
def _rows_by_class(labels: bytes) -> tuple[np.ndarray, ...]:
    """Rows int32 of each class that occurs, in the order of the labels."""
    labels_N = np.frombuffer(labels, np.int32)
    starts = np.unique(np.sort(labels_N), return_index=True)[1][1:]
    return tuple(np.split(np.argsort(labels_N, kind="stable").astype(np.int32), starts))


@lru_cache(maxsize=4)
def _shuffled_epoch(n: int, seed: int, epoch: int) -> np.ndarray:
    order = np.random.default_rng([seed, epoch, _SHUFFLED]).permutation(n).astype(np.int32)
    order.setflags(write=False)  # shared by all who ask for this epoch
    return order


@lru_cache(maxsize=4)
def _proportional_epoch(labels: bytes, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """All T batches of an epoch, int32 [T, B], by systematic sampling.

    The images stand in a line, class after class, shuffled within each; batch t takes each T-th
    from the t-th on, so a run of m images of one class gives each batch m / T rounded down or up.
    """
    rng = np.random.default_rng([seed, epoch, _PROPORTIONAL])
    rows_by_class = _rows_by_class(labels)
    line = np.concatenate(
        [rng.permutation(rows_by_class[c]) for c in rng.permutation(len(rows_by_class))]
    )
    n = len(line)
    batches = steps_per_epoch(n, batch_size)
    surplus = n - batches * batch_size
    left_out = (np.arange(surplus) + rng.random()) * n // max(surplus, 1)  # evenly, so by share too
    line = np.delete(line, left_out.astype(int)).reshape(batch_size, batches)
    order = np.ascontiguousarray(line[:, rng.permutation(batches)].T)
    order.setflags(write=False)
    return order
