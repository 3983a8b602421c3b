"""Damaged and hostile inputs: each must end in one line, or in a sound result."""

import collections
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from campaign import inputs, lies, runs
from campaign.children import FAULT, Outcome, attempt, left_over

SECONDS = 30.0


def campaign(
    count: int, seed: int, run: Path, say: Callable[[str], None] = print, only: str = ""
) -> dict:
    """`count` inputs over all kinds in turn; the faults are said."""
    every = inputs.kinds(run) | runs.kinds(run, run.with_name("compiled"))
    every = {name: kind for name, kind in every.items() if only in name}
    names = list(every)
    tally: collections.Counter[str] = collections.Counter()
    faults, slowest, largest, began = [], (0.0, ""), (0, ""), time.monotonic()
    for number in range(count):
        name = names[number % len(names)]
        with tempfile.TemporaryDirectory() as made:
            folder, draw = Path(made), random.Random(f"{seed} {number}")
            case = f"{number} {name}: {inputs.draw_case(every[name], folder, draw)}"
            found = attempt(lambda: every[name].read(draw), folder, seconds=SECONDS)
            found = judged_after(found, folder)
            tally[found.kind] += 1
            slowest = max(slowest, (found.seconds, case))
            largest = max(largest, (found.peak, case))
            if found.kind == FAULT:
                faults.append(case)
                say(f"FAULT {case}\n    {found.words.strip()}")
                if out := (folder / "output").read_text(errors="replace")[-300:]:
                    say(f"    output: {out}")
    say(f"{dict(tally)} in {time.monotonic() - began:.0f} s; slowest {slowest}; largest {largest}")
    return {"tally": dict(tally), "faults": faults}


def judged_after(found: Outcome, folder: Path) -> Outcome:
    """The outcome, once it is seen what the child left behind."""
    if (folder / lies.MARK).exists():
        return found._replace(kind=FAULT, words="ran code of the file")
    if half := left_over(folder):
        return found._replace(kind=FAULT, words=f"left {half}; {found.words}")
    return found
