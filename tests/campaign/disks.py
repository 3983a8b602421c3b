"""Disks full at a random byte: the command ends in one line, and goes on once there is room."""

import contextlib
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

from campaign import kills
from campaign.children import left_over
from support.runs import small_config

SIZE = 16 * 2**20  # of the disk; a run takes 4.5 MiB, and 3 more while it saves
PAGE = 4096


def campaign(count: int, seed: int, folder: Path, say: Callable[[str], None] = print) -> list[str]:
    """`count` runs on a disk with a random number of bytes left, each finished with room."""
    kills.share_compiled(folder / "compiled")
    config, draw, faults = (
        small_config(data__validation=0.2, steps_per_call=3),
        random.Random(seed),
        [],
    )
    kills.run_killed("resident", config, folder / "whole", after=kills.SECONDS)
    expected = kills.digests(folder / "whole")
    used = sum(path.stat().st_size for path in (folder / "whole").rglob("*") if path.is_file())
    ended = dict.fromkeys(("in one line", "whole"), 0)
    for number in range(count):
        left = draw.randrange(0, 2 * used) // PAGE * PAGE
        with disk(folder / f"disk {number}") as mounted:
            (mounted / "other").write_bytes(bytes(SIZE - left))
            code, words = command(config, mounted / "run", folder)
            half = left_over(mounted)
            one_line = code == 1 and words.startswith("error: ") and words.count("\n") == 1
            if not (one_line or code == 0) or half:
                faults.append(f"{left} bytes left: exit {code}, left {half}: {words[-300:]}")
            ended["whole" if code == 0 else "in one line"] += 1
            (mounted / "other").unlink()
            code, words = command(config, mounted / "run", folder)
            found = (
                kills.digests(mounted / "run") if code == 0 else {"exit": f"{code} {words[-300:]}"}
            )
            differ = sorted(key for key in expected.keys() | found.keys()
                      if expected.get(key) != found.get(key))  # fmt: skip
            if differ:
                faults.append(f"{left} bytes left, then room: {differ[:5]} {found.get('exit', '')}")
    for fault in faults:
        say(f"FAULT {fault}")
    say(f"{count} full disks: {ended}, {len(faults)} faults; a whole run takes {used:,} bytes")
    return faults


@contextlib.contextmanager
def disk(at: Path):
    """A file system of SIZE in memory; mounting one needs rights."""
    at.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(at)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def command(config, workdir: Path, folder: Path) -> tuple[int, str]:
    """The exit status and what went to stderr of the command, in a fork."""
    errors = folder / "errors"
    errors.unlink(missing_ok=True)

    def work() -> None:
        import sys

        from support.runs import arguments

        from deepknn_jax import main

        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
        sys.argv = ["deepknn_jax", *arguments(config), f"--workdir={workdir}"]
        try:
            main.cli()
        except SystemExit as stop:
            if isinstance(stop.code, str):
                print(stop.code, file=sys.stderr)  # noqa: T201
            sys.stderr.flush()
            os._exit(1 if isinstance(stop.code, str) else stop.code or 0)

    code = kills.in_child(work, folder / "output", kills.SECONDS)
    return code, errors.read_text() if errors.exists() else ""
