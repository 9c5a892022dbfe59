"""Calls come before records: whatever is no worker gets processor time that calls leave over.

Niceness tells the kernel so. Where it groups processes by session (`sched_autogroup_enabled`, as on
most machines outside of containers), niceness only counts within a session, and every process of
Postgres has one of its own; so the session's group is told too.

Niceness says how much processor somebody gets, not how soon. Who has a processor keeps it for the
length of a turn, some milliseconds, before somebody who wakes up gets it; unless that one
asks for shorter turns (EEVDF, since Linux 6.12). Workers do; it gives them no more than before.
"""

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator
from pathlib import Path

NICENESS = 19  # about a seventieth of what a worker gets, where both want a processor
TURN_NANOSECONDS = 100_000  # the shortest that the kernel knows; a call takes less

_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
_SCHED_RESET_ON_FORK = 1
_libc = ctypes.CDLL(None)


class _Attributes(ctypes.Structure):
    """What the kernel calls sched_attr, in its first version."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def take_short_turns(pid: int) -> None:
    """Let a process have the processor soon when it wakes up, and for a short while.

    What it has started already is left as it is; what it starts from then on has ordinary turns,
    and niceness 0 where its own is lower. A kernel before 6.12 takes no notice of turns.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    with contextlib.suppress(OSError):  # it has ended
        if number is None or os.sched_getscheduler(pid) != os.SCHED_OTHER:
            return
        attributes = _Attributes(
            size=ctypes.sizeof(_Attributes),
            policy=os.SCHED_OTHER,
            flags=_SCHED_RESET_ON_FORK,
            nice=os.getpriority(os.PRIO_PROCESS, pid),
            runtime=TURN_NANOSECONDS,
        )
        _libc.syscall(number, pid, ctypes.byref(attributes), 0)


def step_back(pid: int, niceness: int = NICENESS) -> None:
    """Let a process and its children run behind others; who is further behind stays there."""
    for one in (pid, *_children(pid)):
        with contextlib.suppress(OSError):  # it has ended, or is not ours
            if os.getpriority(os.PRIO_PROCESS, one) < niceness:
                os.setpriority(os.PRIO_PROCESS, one, niceness)
            if os.getsid(one) == one:
                _lower_group(Path(f"/proc/{one}/autogroup"), niceness)


def _children(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        yield from map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def _lower_group(group: Path, niceness: int) -> None:
    """Lower a session's group; its file reads like `/autogroup-42 nice 0`."""
    said = group.read_text().rpartition(" ")[2].strip()
    if said and int(said) < niceness:
        group.write_text(str(niceness))
