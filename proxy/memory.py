"""Give memory back to the system when many connections have gone.

What they took is free for the next ones, but not for other programs: glibc keeps it until it is
asked. It is asked when three quarters of the most connections there were have gone. (What stays
beyond that are arenas of Python's own allocator in which something still lives.)
"""

import ctypes
import gc

MANY = 500  # connections; below that there is nothing to gain
LOOKS = 3


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
