"""Memory that bodies and connections take: kept while there are calls, given back when they go.

By itself glibc returns the memory of every large piece of a body and asks for it again with the
next one, which costs more than relaying it. It is told to keep a few megabytes. Those it keeps
until it is asked, and so with what connections took: it is asked when three quarters of the most
connections there were have gone. (What stays beyond that are arenas of Python's own allocator in
which something still lives.)
"""

import ctypes
import gc

MANY = 500  # connections; below that there is nothing to gain
LOOKS = 3
KEPT_BYTES = 8 * 1024 * 1024  # at the end of the heap
LARGE_BYTES = 4 * 1024 * 1024  # what gets a mapping of its own; pieces of bodies are smaller
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep() -> None:
    """Keep some memory for the next pieces of bodies; without glibc nothing is done."""
    choose = getattr(ctypes.CDLL(None), "mallopt", None)
    if choose is not None:
        choose(_M_TRIM_THRESHOLD, KEPT_BYTES)
        choose(_M_MMAP_THRESHOLD, LARGE_BYTES)


def trim() -> bool:
    """Return unused memory, and tell whether there was any; without glibc nothing is done."""
    gc.collect()
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return bool(release is not None and release(0))


class Tide:
    """The number of connections, and how high it was."""

    def __init__(self) -> None:
        self._highest = 0
        self._looks = 0

    def is_out(self, connections: int) -> bool:
        """Tell whether most connections have gone: for a few looks, as closing takes time."""
        self._highest = max(self._highest, connections)
        if self._highest >= MANY and connections <= self._highest // 4:
            self._highest = connections
            self._looks = LOOKS
        self._looks -= 1
        return self._looks >= 0
