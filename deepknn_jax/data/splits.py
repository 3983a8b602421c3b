"""Which examples train, validate and test: the published split, or one drawn by class and group."""

from collections import Counter

import numpy as np

from deepknn_jax.data.copies import joined
from deepknn_jax.data.dataset import TEST, TRAIN, VALIDATION, Listing
from deepknn_jax.data.listing import doubtful_labels
from deepknn_jax.errors import UserError, check_choice

SPLITS = ("published", "stratified", "grouped")
_HOW_TO_PUBLISH = (
    "parts are published by folders train/ and test/, by the keys or the splits [N] of an .npz "
    "file, by `split_column` of a csv, or by the `fold` of skin7 and survival_csv"
)


def assign_splits(
    listing: Listing,
    *,
    split: str,
    test_share: float,
    validation: float,
    split_seed: int,
    bound: np.ndarray | None = None,
) -> np.ndarray:
    """The split of each example: strings [N] of TRAIN, VALIDATION, TEST.

    Args:
        listing: N examples.
        split: "published" (the source's), "stratified" (drawn class by class), "grouped" (so
            drawn that a group, a patient or a lesion, is never on two sides), or "": what
            `chosen_split` says.
        test_share: share of each class that goes to the test part, above 0 and below 1; not used
            by "published".
        validation: share of the training part to validate on, at least 0 and below 1. Drawn like
            the test part; for "published", by group where there are groups. A published validation
            part is used in its place, and never trained on.
        split_seed: of the draw. The same listing and seed give the same split.
        bound: int [N], copies by their numbers: what is drawn here keeps those with the same one,
            and the groups that they link, on one side. Else the draw is as without them.

    Raises:
        UserError: an option out of range, a split that the source has not, a class with fewer than
            2 training examples.
    """
    taken = chosen_split(listing, split)
    if not split and taken == "published":
        listing = listing._replace(splits=_with_test_part(listing))
    split = taken
    if not 0 <= validation < 1:
        raise UserError(f"`validation` is {validation}: it must be at least 0 and below 1")
    if split != "published" and not 0 < test_share < 1:
        raise UserError(f"`test_share` is {test_share}: it must be above 0 and below 1")
    if split == "grouped" and listing.groups is None:
        raise UserError("`split` is 'grouped': the source names no groups; set `group_pattern` or "
                        "`group_column`, or choose stratified")  # fmt: skip
    if split_seed < 0:
        raise UserError(f"`split_seed` is {split_seed}: it must be at least 0")
    alone = np.arange(len(listing.names))  # every example a group of its own
    units = alone if split == "stratified" or listing.groups is None else listing.groups
    groups = units if bound is None else joined(units, bound)
    if split == "published":
        splits = unbound = _published(listing)
    else:
        places = _places(units, alone >= 0, np.random.default_rng([split_seed, 0]))
        splits, unbound = (
            np.where(_draw(listing.labels, each, places, test_share), TEST, TRAIN).astype("<U10")
            for each in (groups, units)
        )
    if validation and not (splits == VALIDATION).any():
        places = _places(units, unbound == TRAIN, np.random.default_rng([split_seed, 1]))
        train = np.flatnonzero(splits == TRAIN)
        drawn = _draw(listing.labels[train], groups[train], places[train], validation)
        splits[train[drawn]] = VALIDATION
    check_class_sizes(listing.labels, splits, listing.class_names)
    return splits


def chosen_split(listing: Listing, split: str) -> str:
    """`split` itself, or for "": published where the source has one, grouped where it has groups.

    Where it has neither: stratified. A training part alone is no published split; a training and a
    validation part are one, of which the validation part then tests.

    Raises:
        UserError: an unknown `split`.
    """
    if split:
        check_choice("`split`", split, SPLITS)
        return split
    parts = parts_of(listing.splits)
    if TRAIN in parts and len(parts) > 1:
        return "published"
    return "stratified" if listing.groups is None else "grouped"


def parts_of(splits: np.ndarray | None) -> dict[str, int]:
    """How many are in TRAIN, VALIDATION and TEST, without those that are empty."""
    if splits is None:
        return {}
    sizes = {part: int((splits == part).sum()) for part in (TRAIN, VALIDATION, TEST)}
    return {part: size for part, size in sizes.items() if size}


def split_lines(
    listing: Listing, split: str, splits: np.ndarray, *, validation: float = 0.0
) -> list[str]:
    """Tells which split was used and why, what it did not use, and which groups it parts.

    `split` is what was asked for, "" for what fits; `splits` [N] is what `assign_splits` gave, with
    the share `validation`.
    """
    taken, published = chosen_split(listing, split), parts_of(listing.splits)
    why = {
        "published": "the source has one",
        "grouped": "the source names groups",
        "stratified": "the source gives neither parts nor groups",
    }[taken]
    if list(published) == [TRAIN]:
        why = f"the source has a {TRAIN} part alone"
    lines = [f"split: {taken}, as {'`split` says' if split else why}: {sizes_of(splits)}"]
    if taken == "published" and TEST not in published:
        lines.append(f"the source has no {TEST} part: its {VALIDATION} part tests")
    if taken != "published" and len(published) > 1:
        lines.append(f"not used: the source's own parts ({sizes_of(listing.splits)})")
    if taken == "published" and not validation and (splits == VALIDATION).any():
        lines.append(f"not used: the {VALIDATION} part, as `validation` is 0")
    return lines + _group_lines(listing.groups, splits)


def sizes_of(splits: np.ndarray | None) -> str:
    """As "80 train + 20 test"."""
    return " + ".join(f"{size:,} {part}" for part, size in parts_of(splits).items())


def _group_lines(groups: np.ndarray | None, splits: np.ndarray) -> list[str]:
    if groups is None:
        return []
    test = splits == TEST
    shared = np.isin(groups[test], groups[splits == TRAIN]).sum()
    line = f"groups: {len(np.unique(groups)):,}"
    if shared:
        line += (f"; {shared:,} of {test.sum():,} test examples share one with training examples"
                 " (`split`=grouped keeps a group on one side)")  # fmt: skip
    return [line]


def check_class_sizes(labels: np.ndarray, splits: np.ndarray, class_names: tuple[str, ...]) -> None:
    """Raises UserError where a class has fewer than 2 training examples, or none are to test.

    A lone example of its class has no positive neighbour to train with.
    """
    sizes = np.bincount(labels[splits == TRAIN], minlength=len(class_names))
    if small := [f"{class_names[c]} ({sizes[c]})" for c in np.flatnonzero(sizes < 2)]:
        shown = ", ".join(small[:5]) + (f" and {len(small) - 5} more" if len(small) > 5 else "")
        doubts = "".join(f" ({line})" for line in doubtful_labels(labels, class_names))
        raise UserError(f"too few training examples, each class needs 2: {shown}; "
                        f"add examples or leave the class out{doubts}")  # fmt: skip
    if not (splits == TEST).any():
        raise UserError("the test part is empty: add examples, or choose another `split`")


def _with_test_part(listing: Listing) -> np.ndarray:
    """The published splits [N]; where none tests, what was to validate does."""
    assert listing.splits is not None
    splits = listing.splits.astype("<U10")
    if not (splits == TEST).any():
        splits[splits == VALIDATION] = TEST
    return splits


def _published(listing: Listing) -> np.ndarray:
    if listing.splits is None:
        raise UserError("`split` is 'published': the source publishes none; choose stratified, or "
                        f"grouped where there are groups; {_HOW_TO_PUBLISH}")  # fmt: skip
    splits = listing.splits.astype("<U10")
    for part in (TRAIN, TEST):
        if not (splits == part).any():
            other = "" if part == TRAIN else f", or none: a {VALIDATION} part then tests"
            raise UserError(f"`split` is 'published': the source has no {part} part; "
                            f"choose stratified or grouped{other}; {_HOW_TO_PUBLISH}"
                            )  # fmt: skip
    return splits


def _draw(labels: np.ndarray, groups: np.ndarray, places: np.ndarray, share: float) -> np.ndarray:
    """A random choice, bool [n], of whole groups that holds about `share` of every class.

    The groups are visited in random order, that of their first rows' `places`, again and again,
    and one changes sides if that brings the class shares nearer to `share` in the sum of squares,
    until none does (with groups of one example each class is rounded to the nearest count).
    Visiting the large groups first would settle sooner, but fill the test part with patients of
    many images. A group stays if a class would keep fewer than 2 examples. Groups that may as well
    be on either side (a class's share ends in a half) go where the total comes nearest to `share`.
    Then a class of which nothing was taken gets its cheapest group, if one can be spared.
    """
    _, groups, group_sizes = np.unique(groups, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(group_sizes)[:-1])
    contents = [Counter(labels[rows].tolist()) for rows in members]
    sizes = np.bincount(labels).tolist()
    taken = [0] * len(sizes)
    chosen = [False] * len(members)

    def cost(g: int) -> float:
        """Change of the sum over classes of (share taken - share)^2 if g changes sides."""
        sign = -1 if chosen[g] else 1
        if any(sizes[c] - taken[c] - sign * n < 2 for c, n in contents[g].items()):
            return np.inf
        return sum(
            n * (n + 2 * sign * (taken[c] - share * sizes[c])) / sizes[c] ** 2
            for c, n in contents[g].items()
        )

    def change_sides(g: int) -> None:
        for c, n in contents[g].items():
            taken[c] += -n if chosen[g] else n
        chosen[g] = not chosen[g]

    order = np.argsort(places[[rows[0] for rows in members]], kind="stable").tolist()
    settled = False
    while not settled:
        settled = True
        for g in order:
            if cost(g) < -1e-12:  # not 0: rounding could send a group back and forth for ever
                change_sides(g)
                settled = False
    missing = round(share * len(labels)) - sum(taken)
    for g in order:
        size = -group_sizes[g] if chosen[g] else group_sizes[g]
        if abs(cost(g)) <= 1e-12 and abs(missing - size) < abs(missing):
            change_sides(g)
            missing -= size
    for c, size in enumerate(sizes):
        if size and not taken[c]:
            best = min((g for g in order if c in contents[g]), key=cost)
            if cost(best) < np.inf:
                change_sides(best)
    return np.asarray(chosen)[groups]


def _places(units: np.ndarray, among: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random number for each of n examples, float64 [n], the same for those of a unit.

    Those of the units `among` which is drawn are drawn first: what copies add to these, as they
    bind examples, changes no other's.
    """
    inside, outside = np.unique(units[among]), np.setdiff1d(units, units[among])
    drawn = np.concatenate([inside, outside])
    order = np.argsort(drawn, kind="stable")
    numbers = rng.random(len(drawn))
    found: np.ndarray = numbers[order][np.searchsorted(drawn[order], units)]
    return found
