"""Tables of `new_class`: from the records of its runs to lines of markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from deepknn_jax.reproduce.markdown import grid, mean_of, shown

LEVEL = 0.9
K_P = (1, 5)
_MOST_CLASSES = 20  # that a table of lost images lists


def _stages(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """(words, a record of each seed and draw) of each stage of the gallery."""
    found = [("as trained", [record["trained"] for record in records])]
    for i, stage in enumerate(records[0]["draws"][0]):
        words = f"{stage['size']} added"
        if stage["calibrating"]:
            words += f", {stage['calibrating']} to calibrate"
        found.append((words, [draw[i] for record in records for draw in record["draws"]]))
    return found


def votes_table(records: Mapping[int, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Lines of a Markdown table: new classes and others at each stage, and trained anew."""
    head = ["gallery", "runs"]
    for k in K_P:
        head += [f"new, K_p = {k}", f"others, Acc, K_p = {k}", f"others, MCR, K_p = {k}"]
    rows = [each for each in _stages(records[0]) if "calibrate" not in each[0]]
    rows += [(f"trained anew with {size}", [record["trained"] for record in found])
             for size, found in records.items() if size and found]  # fmt: skip
    body = []
    for words, found in rows:
        line = [words, str(len(found))]
        for k in K_P:
            line += [_share([each["figures"][str(k)][key] for each in found])
                     for key in ("new", "acc", "mcr")]  # fmt: skip
        body.append(line)
    return grid(head, body)


def _share(values: Sequence[float]) -> str:
    return shown(mean_of([100 * value for value in values]))


def lost_table(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a Markdown table: of each other class how many test images the vote loses."""
    stages = [each for each in _stages(records)[1:] if "calibrate" not in each[0]]
    names = [name for name in stages[-1][1][0]["lost"] if _lost(stages, name)]
    head = ["class", "test"]
    for words, _ in stages:
        head += [f"lost, {words}", "of these to a new class", "gained"]
    rows = [(name, [name]) for name in names[:_MOST_CLASSES]] if len(names) <= _MOST_CLASSES else []
    rows.append(("all others", list(stages[-1][1][0]["lost"])))
    body = []
    for title, own in rows:
        tests = [sum(record["test"].get(name, 0) for name in own) for record in records]
        line = [title, shown(mean_of(tests), digits=0)]
        for _, found in stages:
            line += [shown(mean_of([sum(each[key].get(name, 0) for name in each[key]
                                        if title == "all others" or name in own)
                                    for each in found]))
                     for key in ("lost", "lost_to_new", "gained")]  # fmt: skip
        body.append(line)
    return grid(head, body)


def _lost(stages: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], name: str) -> bool:
    return any(each["lost"].get(name) for _, found in stages for each in found)


def sets_table(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a Markdown table of the sets at each stage; none where there are no sets."""
    if records[0]["trained"]["sets"] is None:
        return []
    new = records[0]["new"]
    names = sorted(records[0]["test"], key=lambda name: name in new)
    head = ["gallery", *names, "all others", "classes in a set", "others' sets with a new one"]
    body = []
    for words, found in _stages(records):
        sets = [each["sets"] for each in found]
        shares = [[each["covered"][name] for each in sets if name in each["covered"]]
                  for name in names]  # fmt: skip
        body.append([words, *(_share(each) if each else "no class" for each in shares),
                     _share([each["others"] for each in sets]),
                     shown(mean_of([each["size"] for each in sets]), digits=2),
                     _share([each["with_new"] for each in sets])])  # fmt: skip
    return grid(head, body)
