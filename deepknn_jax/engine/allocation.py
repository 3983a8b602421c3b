"""Memory from the system: what the process has freed stays with it."""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of glibc's malloc.h
_NEVER = -1


def keep_freed() -> bool:
    """Has glibc keep what is freed for what is asked for next; whether it does.

    XLA on a CPU allocates what a step holds, and frees it, each time. What glibc then gives back to
    the system comes again page by page, each with a fault: embedding 10,000 images of 28 x 28 took
    0.3 to 1.1 s, 0.3 with this (docs/speed.md, "Memory from the system"). To be called before JAX
    computes anything: what its threads have allocated by then stays in arenas of their own.

    Nothing is done where the user has set malloc's variables, and without glibc.
    """
    asked = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    asked |= any(name.startswith("MALLOC_") for name in os.environ)
    if asked or "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER))
    done = [mallopt(name, value) for name, value in wanted]  # all of them, whatever the first says
    return all(done)
