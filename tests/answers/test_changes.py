"""Changes of a gallery against a plain list of (name, label), and copies by content and by rows."""

import numpy as np
import pytest

from deepknn_jax.answers.changes import (
    ADD,
    RELABEL,
    REMOVE,
    RESTORE,
    Cases,
    Change,
    applied,
    check_known,
    classes_of,
    contents_of,
    copies_among,
    joined,
    standing,
    taken,
    without_clashes,
    without_copies,
)
from deepknn_jax.errors import UserError


def cases(names, labels, *, votes=True, seed=0, groups=None):
    n = len(names)
    x = np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)
    return Cases(x, np.asarray(labels), np.asarray(list(names)), np.full(n, votes), contents_of(x),
                 groups, tuple(name.encode() for name in names))  # fmt: skip


BASE = cases("abcd", ["nv", "nv", "mel", "df"], groups=np.array([3, 3, 0, 7]))


def pairs(found):
    return list(zip(found.names.tolist(), found.labels.tolist(), strict=True))


def test_each_change_is_what_it_says_and_later_ones_see_it():
    changes = [
        Change(REMOVE, names=["b"]),
        Change(ADD, cases("bx", ["vasc", "mel"], seed=1)),  # b again, another one
        Change(RELABEL, names=["b", "c"], labels=["a longer label", "nv"]),
        Change(REMOVE, names=["x", "a"]),
    ]
    expected = [
        [("a", "nv"), ("c", "mel"), ("d", "df")],
        [("a", "nv"), ("c", "mel"), ("d", "df"), ("b", "vasc"), ("x", "mel")],
        [("a", "nv"), ("c", "nv"), ("d", "df"), ("b", "a longer label"), ("x", "mel")],
        [("c", "nv"), ("d", "df"), ("b", "a longer label")],
    ]
    for n, wanted in enumerate(expected, 1):
        assert pairs(applied(BASE, changes[:n])) == wanted
    last = applied(BASE, changes)
    np.testing.assert_array_equal(last.embeddings[:2], BASE.embeddings[2:])
    np.testing.assert_array_equal(last.embeddings[2], changes[1].cases.embeddings[0])
    assert last.pictures == (b"c", b"d", b"b")
    assert len(set(last.groups.tolist())) == 3  # what joins is of no known group


def test_a_restore_passes_over_what_it_undid():
    did = [(ADD, 0), (REMOVE, 0), (RESTORE, 1), (RELABEL, 0), (RESTORE, 3), (REMOVE, 0)]
    assert [standing(did[:n]) for n in range(7)] == [[], [0], [0, 1], [0], [0, 3], [0], [0, 5]]
    assert standing([(ADD, 0), (RESTORE, 0)]) == []


def test_classes_go_with_their_last_vote_and_new_ones_come_last():
    trained = ("df", "mel", "nv", "never")
    now = applied(BASE, [Change(REMOVE, names=["c"]), Change(ADD, cases("yz", ["vasc", "akiec"]))])
    assert classes_of(trained, BASE, now) == ("df", "nv", "never", "vasc", "akiec")
    calibrates = joined([now, cases("m", ["mel"], votes=False)])
    assert classes_of(trained, BASE, calibrates) == ("df", "nv", "never", "vasc", "akiec")


def test_copies_are_found_by_content_else_by_rows_up_to_rounding():
    other = cases("pqr", ["nv"] * 3, seed=5)
    new = joined([other, taken(BASE, np.array([2]))])
    assert copies_among(new, BASE).tolist() == [-1, -1, -1, 2]
    near = BASE._replace(embeddings=BASE.embeddings * np.float32(1 + 1e-6),
                         contents=np.zeros((4, 16), np.uint8))  # fmt: skip
    assert copies_among(new, near).tolist() == [-1, -1, -1, 2]
    assert copies_among(near, BASE).tolist() == [0, 1, 2, 3]
    assert copies_among(near, taken(BASE, np.zeros(4, bool))).tolist() == [-1] * 4
    # Of known contents those decide: the same row of another image is no copy.
    assert copies_among(BASE._replace(contents=other.contents[[0, 1, 2, 0]]), BASE).tolist() == [
        -1, -1, -1, -1]  # fmt: skip


def test_a_copy_joins_once_and_never_under_two_labels():
    new = joined([cases("pq", ["nv", "df"], seed=5), BASE._replace(names=np.array(list("ABCD")))])
    twice = joined([new, taken(new, np.array([1]))._replace(names=np.array(["again"]))])
    kept, copies = without_copies(twice, BASE)
    assert pairs(kept) == [("p", "nv"), ("q", "df")]
    assert copies == [("A", "a"), ("B", "b"), ("C", "c"), ("D", "d"), ("again", "q")]
    wrong = twice._replace(labels=np.array(["nv", "df", "nv", "mel", "mel", "df", "nv"]))
    with pytest.raises(UserError, match=r"B \(mel\) is b \(nv\) over again; again \(nv\) is q \("):
        without_copies(wrong, BASE)


def test_names_that_are_absent_or_taken():
    with pytest.raises(UserError, match=r"no image is called 'imgae.png' and 1 more: did"):
        check_known(["imgae.png", "z"], cases(["image.png"], ["nv"]))
    assert without_clashes(["a", "n", "n", "a"], ["a"], 4) == [
        "a (line 4)", "n", "n (line 4)", "a (line 4, 2)"]  # fmt: skip
