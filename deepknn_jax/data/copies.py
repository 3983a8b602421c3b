"""Copies: examples of equal content, which of them stand in two parts, and what that means.

A content is the bytes of a row as the network sees it: the decoded and fitted pixels, or the
features. So a PNG and a BMP of one picture are copies, whatever their files are called.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from deepknn_jax.data.dataset import TEST, TRAIN, VALIDATION, Dataset, Pairs
from deepknn_jax.errors import UserError

COPIES = ("warn", "drop", "stop")
DIGEST = 16  # bytes of a content
_BLOCK = 2**20  # bytes that a thread is given at once: of less, threads cost more than they do
# Of one content at most so many pairs are named, and each example at least once.
_NAMED = 1000
# Pairs of parts across which copies count: an example of the first is judged by the second.
ACROSS = ((TEST, TRAIN), (TEST, VALIDATION), (VALIDATION, TRAIN))


def digest(data: bytes) -> np.ndarray:
    """uint8 [DIGEST] of any bytes."""
    return np.frombuffer(hashlib.blake2b(data, digest_size=DIGEST).digest(), np.uint8)


def contents(inputs_N: np.ndarray) -> np.ndarray:
    """uint8 [N, DIGEST]: equal for rows of equal numbers, and else different.

    `inputs_N` [N, ...] may be a memory map: it is read once, a row at a time in each thread.
    """
    inputs_N = np.asarray(inputs_N)  # a memory map takes 0.1 ms for each of its rows
    kind = repr((inputs_N.shape[1:], inputs_N.dtype.str)).encode()
    is_float = inputs_N.dtype.kind == "f"
    n = len(inputs_N)
    found = np.empty((n, DIGEST), np.uint8)
    block = max(1, _BLOCK * n // max(1, inputs_N.nbytes))

    def of_rows(start: int) -> None:
        for i in range(start, min(start + block, n)):
            row = inputs_N[i] + 0.0 if is_float else inputs_N[i]  # -0.0 equals 0.0
            found[i] = digest(kind + row.tobytes())

    with ThreadPoolExecutor() as pool:
        list(pool.map(of_rows, range(0, n, block)))
    return found


def numbered(contents_NxL: np.ndarray) -> np.ndarray:
    """int32 [N]: the number of each row's content, 0 for that which occurs first."""
    packed = np.ascontiguousarray(contents_NxL).view(f"V{contents_NxL.shape[1]}")[:, 0]
    _, first, inverse = np.unique(packed, return_index=True, return_inverse=True)
    place = np.empty(len(first), np.int32)
    place[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    return place[inverse]


def are_among(contents_NxL: np.ndarray, known_nxL: np.ndarray) -> np.ndarray:
    """Which, bool [N], of the contents are among the known ones."""
    numbers = numbered(np.concatenate([known_nxL, contents_NxL]))
    return np.isin(numbers[len(known_nxL) :], numbers[: len(known_nxL)])


def joined(groups_N: np.ndarray, others_N: np.ndarray) -> np.ndarray:
    """int32 [N]: the groups that remain where those with a common member, of either, are one."""
    _, groups = np.unique(groups_N, return_inverse=True)
    _, others = np.unique(others_N, return_inverse=True)
    start = int(groups.max()) + 1
    size = start + int(others.max()) + 1
    links = sparse.coo_matrix((np.ones(len(groups), bool), (groups, others + start)), (size, size))
    found: np.ndarray = csgraph.connected_components(links, directed=False)[1][groups]
    return found.astype(np.int32)


def has_copy(copies_N: np.ndarray, rows_N: np.ndarray, others_N: np.ndarray) -> np.ndarray:
    """Which, bool [N], of the masked `rows_N` have a copy among the masked `others_N`."""
    return rows_N & np.isin(copies_N, copies_N[others_N])


def to_drop(copies_N: np.ndarray, splits_N: np.ndarray) -> np.ndarray:
    """Which, bool [N], train with a copy that tests or validates, or validate with one to test."""
    test, validation, train = (splits_N == part for part in (TEST, VALIDATION, TRAIN))
    validating = has_copy(copies_N, validation, test)
    return validating | has_copy(copies_N, train, test | validation)


def pairs_across(copies_N: np.ndarray, splits_N: np.ndarray) -> Pairs:
    """The pairs of copies in two parts, in the order of ACROSS."""
    found = [
        _pairs(copies_N, np.flatnonzero(splits_N == part), np.flatnonzero(splits_N == other))
        for part, other in ACROSS
    ]
    return chained(found)


def conflicts(copies_N: np.ndarray, labels_N: np.ndarray, splits_N: np.ndarray) -> Pairs:
    """The pairs of copies within the training part that have two labels, each named once."""
    train = np.flatnonzero(splits_N == TRAIN)
    _, first, inverse = np.unique(copies_N[train], return_index=True, return_inverse=True)
    as_first = labels_N[train] == labels_N[train[first]][inverse]
    return _pairs(copies_N, train[~as_first], train[as_first])


def _pairs(copies_N: np.ndarray, rows_n: np.ndarray, others_m: np.ndarray) -> Pairs:
    """Of each content all pairs, or _NAMED of them in which each example occurs."""
    found = []
    shared = np.intersect1d(copies_N[rows_n], copies_N[others_m])
    rows_of, others_of = (_by_content(copies_N, rows, shared) for rows in (rows_n, others_m))
    for rows, others in zip(rows_of, others_of, strict=True):
        a, b = len(rows), len(others)
        i = np.arange(min(a * b, max(a, b, _NAMED)))
        pair = rows[i % a], others[(i + i // np.lcm(a, b)) % b]
        found.append(Pairs(*pair, np.ones(len(i))))
    pairs = chained(found)
    order = np.lexsort((pairs.others, pairs.rows))
    return Pairs(pairs.rows[order], pairs.others[order], pairs.r)


def _by_content(copies_N: np.ndarray, rows_n: np.ndarray, shared: np.ndarray) -> list[np.ndarray]:
    """The rows of each of the `shared` contents, ascending."""
    rows = rows_n[np.isin(copies_N[rows_n], shared)]
    rows = rows[np.argsort(copies_N[rows], kind="stable")]
    cuts = np.flatnonzero(np.diff(copies_N[rows])) + 1
    return np.split(rows, cuts) if len(rows) else []


def chained(found: Sequence[Pairs]) -> Pairs:
    """One after the other."""
    none = Pairs(np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    return Pairs(*(np.concatenate(each) for each in zip(none, *found, strict=True)))


def lines(
    copies_N: np.ndarray, labels_N: np.ndarray, splits_N: np.ndarray, names: Sequence[str]
) -> list[str]:
    """Tells how many examples have a copy in another part, and which training ones conflict."""
    told = []
    for part, other in ACROSS:
        mine, theirs = splits_N == part, splits_N == other
        has = has_copy(copies_N, mine, theirs)
        if not has.any():
            continue
        differ = int(_have_other_labels(copies_N, labels_N, has, theirs).sum())
        pairs = _pairs(copies_N, np.flatnonzero(has), np.flatnonzero(theirs))
        told.append(f"copies: {has.sum():,} of {mine.sum():,} {part} examples are those of {other} "
                    "over again" + (f", {differ:,} of them under another label" if differ else "")
                    + f"; the first is {names[pairs.rows[0]]}, a copy of {names[pairs.others[0]]} "
                    "(`copies`=drop leaves the latter out)")  # fmt: skip
    pairs = conflicts(copies_N, labels_N, splits_N)
    if n := len(np.unique(pairs.rows)):
        told.append(
            f"copies: {n:,} {TRAIN} examples are others over again, under another label; "
            f"the first is {names[pairs.rows[0]]}, a copy of {names[pairs.others[0]]}"
        )
    return told


def _have_other_labels(
    copies_N: np.ndarray, labels_N: np.ndarray, rows_N: np.ndarray, others_N: np.ndarray
) -> np.ndarray:
    """Which, bool [N], of the masked `rows_N` have a copy of another label in `others_N`."""
    _, places = np.unique(copies_N, return_inverse=True)
    low, high = labels_N.copy(), labels_N.copy()  # [N] is enough for each content
    low[places[others_N]], high[places[others_N]] = labels_N.max() + 1, -1
    np.minimum.at(low, places[others_N], labels_N[others_N])
    np.maximum.at(high, places[others_N], labels_N[others_N])
    has = has_copy(copies_N, rows_N, others_N)
    return has & ((low[places] != labels_N) | (high[places] != labels_N))


def check_none(dataset: Dataset, table: str = "") -> None:
    """Raises UserError where copies are in two parts; `table` is the file that names them all."""
    assert dataset.contents is not None
    pairs = pairs_across(numbered(dataset.contents), dataset.splits)
    if not len(pairs.rows):
        return
    row, other = pairs.rows[0], pairs.others[0]
    first, second = (f"{dataset.names[i]} ({dataset.splits[i]})" for i in (row, other))
    more = f"{len(pairs.rows):,} such pairs" + (f", all in {table}" if table else "")
    raise UserError(f"{first} is a copy of {second} ({more}); remove one of each, or set `copies`="
                    "drop or warn")  # fmt: skip
