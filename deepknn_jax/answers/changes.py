"""A gallery that changes: labelled cases that join, leave, or get another label. Pure functions.

The state after some changes is made from what the training left and the changes themselves, in
their order: so each earlier state can be had again, and nothing that was trained is overwritten.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np

from deepknn_jax.data.copies import contents
from deepknn_jax.errors import UserError

ADD, REMOVE, RELABEL, RESTORE = "add", "remove", "relabel", "restore"
_ALIKE = 1e-5  # of the largest coordinate: what two machines make of one image differs by less
_TOLD = 3  # examples that a message names
_LAST = 20  # changes that the card lists


class Cases(NamedTuple):
    """n labelled examples: those that vote, and those that calibrate.

    `embeddings` float32 [n, D]; `labels` [n] names of classes and `names` [n], strings; `votes`
    bool [n], False for those that calibrate; `contents` uint8 [n, 16] (data.copies), zeros where
    nobody knows them; `groups` int [n] or None; `pictures` [n] WebP files or None.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    names: np.ndarray
    votes: np.ndarray
    contents: np.ndarray
    groups: np.ndarray | None = None
    pictures: tuple[bytes, ...] | None = None


class Change(NamedTuple):
    """One change of what stands.

    `did` is ADD (`cases`), REMOVE (`names`) or RELABEL (`names` and `labels`).
    """

    did: str
    cases: Cases | None = None
    names: Sequence[str] = ()
    labels: Sequence[str] = ()


def contents_of(inputs: np.ndarray) -> np.ndarray:
    """What copies are found by, uint8 [n, 16]: of features as float32, whatever they came as."""
    return contents(inputs.astype(np.float32) if inputs.ndim == 2 else inputs)


def taken(cases: Cases, rows: np.ndarray) -> Cases:
    """Those at `rows`, int [m] or bool [n]."""
    index = np.flatnonzero(rows) if rows.dtype == bool else rows
    pictures = cases.pictures
    return Cases(
        cases.embeddings[index],
        cases.labels[index],
        cases.names[index],
        cases.votes[index],
        cases.contents[index],
        None if cases.groups is None else cases.groups[index],
        None if pictures is None else tuple(pictures[i] for i in index.tolist()),
    )


def joined(parts: Sequence[Cases]) -> Cases:
    """One after the other; groups and pictures where the first has them.

    The groups of the others, where they have some, are told apart from the first's: each is new.
    """
    first = parts[0]
    groups, pictures = first.groups, first.pictures
    for part in parts[1:]:
        n = len(part.names)
        if groups is not None:
            own = np.arange(n) if part.groups is None else part.groups
            groups = np.concatenate([groups, own + groups.max(initial=-1) + 1])
        if pictures is not None:
            pictures += (b"",) * n if part.pictures is None else part.pictures
    return Cases(
        np.concatenate([part.embeddings for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.names for part in parts]),
        np.concatenate([part.votes for part in parts]),
        np.concatenate([part.contents for part in parts]),
        groups,
        pictures,
    )


def standing(dids: Sequence[tuple[str, int]]) -> list[int]:
    """Which of the changes, (did, to) each, make the last state: what a restore undid is passed."""
    found, n = [], len(dids)
    while n:
        did, to = dids[n - 1]
        if did == RESTORE:
            n = to
        else:
            n -= 1
            found.append(n)
    return found[::-1]


def applied(base: Cases, changes: Sequence[Change]) -> Cases:
    """The cases after the changes, none of which is a RESTORE: the base's first, in their order."""
    parts = [base, *(change.cases for change in changes if change.cases is not None)]
    pool = joined(parts)
    there = np.arange(len(pool.names)) < len(base.names)
    labels, end = pool.labels.astype(object), len(base.names)
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(pool.names.tolist()):
        rows.setdefault(name, []).append(row)
    for change in changes:
        if change.cases is not None:
            there[end : end + len(change.cases.names)] = True
            end += len(change.cases.names)
        for i, name in enumerate(change.names):
            own = [row for row in rows.get(name, ()) if there[row]]
            if change.did == REMOVE:
                there[own] = False
            elif change.did == RELABEL:
                labels[own] = change.labels[i]
    return taken(pool._replace(labels=labels.astype(str)), there)


def classes_of(trained: Sequence[str], before: Cases, now: Cases) -> tuple[str, ...]:
    """The classes of a state: those of the training, as long as one of them votes; then new ones.

    `before` are the cases of the training. A class that had no voting image then stays.
    """
    voting, once = set(now.labels[now.votes].tolist()), set(before.labels[before.votes].tolist())
    kept = [name for name in trained if name in voting or name not in once]
    new = dict.fromkeys(now.labels[now.votes].tolist())
    return (*kept, *(name for name in new if name not in set(trained)))


def about_changed(
    trained: Mapping[str, Any], classes: Sequence[str], cases: Cases, lines: Sequence[Any]
) -> dict[str, Any]:
    """What model.json holds after the `lines` (`journal.Line`), of the `trained` one's."""
    old = trained["classes"]

    def of(counts: Sequence[int], name: str) -> int:
        return counts[old.index(name)] if name in old else 0

    def numbers(votes: bool) -> list[int]:
        own = Counter(cases.labels[cases.votes == votes].tolist())
        return [own[name] for name in classes]

    recalls = trained["test"]["per_class_recall"]
    return {
        **trained,
        "classes": list(classes),
        "counts": {
            "train": numbers(votes=True),
            "validation": numbers(votes=False),
            "test": [of(trained["counts"]["test"], name) for name in classes],
        },
        "test": {
            **trained["test"],
            "per_class_recall": {name: recalls.get(name) for name in classes},
        },
        "changes": told(lines),
        "trained_validation": trained["counts"]["validation"],
    }


def told(lines: Sequence[Any]) -> dict[str, Any]:
    """What model.json tells of the `lines` (`journal.Line`)."""
    last = [
        {"line": line.number, "when": line.when, "did": line.did, "note": line.note,
         "cases": len(line.names), "to": line.to}
        for line in lines[-_LAST:]
    ]  # fmt: skip
    return {"lines": len(lines), "last": last}


def check_known(names: Sequence[str], cases: Cases) -> None:
    """Raises UserError, which says what is called nearly so, for names that no case has."""
    known = set(cases.names.tolist())
    absent = [name for name in names if name not in known]
    if not absent:
        return
    more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
    near = get_close_matches(absent[0], known, 3)
    hint = f"did you mean {' or '.join(near)}?" if near else "--list tells the names"
    raise UserError(f"no image is called {absent[0]!r}{more}: {hint}; nothing was changed")


def copies_among(new: Cases, known: Cases) -> np.ndarray:
    """Of each of n new cases a copy among the known ones, int [n], -1 for none.

    By content where both are known, else by embeddings that are equal up to rounding.
    """
    found = np.full(len(new.names), -1)
    place: dict[bytes, int] = {}
    for row, content in enumerate(known.contents):
        if content.any():
            place.setdefault(content.tobytes(), row)
    for i, content in enumerate(new.contents):
        if content.any():
            found[i] = place.get(content.tobytes(), -1)
    told, untold = new.contents.any(axis=1), np.flatnonzero(~known.contents.any(axis=1))
    for left, right in ((np.flatnonzero(told & (found < 0)), untold),
                        (np.flatnonzero(~told), np.arange(len(known.names)))):  # fmt: skip
        same = _equal(new.embeddings[left], known.embeddings[right])
        found[left[same >= 0]] = right[same[same >= 0]]
    return found


def _equal(new_nxD: np.ndarray, known_mxD: np.ndarray) -> np.ndarray:
    """The row of `known` that equals each of `new` up to rounding, int [n], or -1.

    Rows that are equal are so in a weighted sum of their coordinates; only these are compared.
    """
    found = np.full(len(new_nxD), -1)
    if not len(known_mxD) or not len(new_nxD):
        return found
    bound = _ALIKE * float(np.abs(known_mxD).max())
    weights = np.linspace(1, 2, known_mxD.shape[1])
    sums = known_mxD.astype(np.float64) @ weights
    order = np.argsort(sums, kind="stable")
    ascending, reach = sums[order], bound * weights.sum()
    for i, row in enumerate(new_nxD):
        middle = row.astype(np.float64) @ weights
        low, high = np.searchsorted(ascending, [middle - reach, middle + reach])
        near = np.sort(order[low:high])
        if len(near):
            apart = np.abs(known_mxD[near] - row).max(axis=1)
            if apart.min() <= bound:
                found[i] = near[np.argmin(apart)]
    return found


def without_copies(new: Cases, known: Cases) -> tuple[Cases, list[tuple[str, str]]]:
    """What of `new` is not there yet, and of the others (name, what it is a copy of).

    Raises:
        UserError: a copy has another label than what it is a copy of.
    """
    among = copies_among(new, known)
    first = copies_among(new, new)
    keep, copies, conflicts = np.zeros(len(new.names), bool), [], []
    for i, name in enumerate(new.names.tolist()):
        if among[i] >= 0:
            of, label = known.names[among[i]], known.labels[among[i]]
        elif 0 <= first[i] < i:
            of, label = new.names[first[i]], new.labels[first[i]]
        else:
            keep[i] = True
            continue
        if label != new.labels[i]:
            conflicts.append(f"{name} ({new.labels[i]}) is {of} ({label}) over again")
        copies.append((name, str(of)))
    if conflicts:
        more = len(conflicts) - _TOLD
        raise UserError("; ".join(conflicts[:_TOLD]) + (f"; and {more} more" if more > 0 else "")
                        + ": one image cannot have two labels, so nothing was added; leave these "
                        "out, or give those that are there their label by --relabel")  # fmt: skip
    return taken(new, keep), copies


def without_clashes(names: Sequence[str], known: Sequence[str], line: int) -> list[str]:
    """The names, where another case or an earlier one of them has it told apart by a number."""
    seen, found = set(known), []
    for name in names:
        other, n = name, 1
        while other in seen:
            other, n = f"{name} (line {line}{f', {n}' if n > 1 else ''})", n + 1
        seen.add(other)
        found.append(other)
    return found
