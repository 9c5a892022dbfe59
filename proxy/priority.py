"""Calls come before records: whatever is no worker gets processor time that calls leave over.

Niceness tells the kernel so. Where it groups processes by session (`sched_autogroup_enabled`, as on
most machines outside of containers), niceness only counts within a session, and every process of
Postgres has one of its own; so the session's group is told too.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

NICENESS = 19  # about a seventieth of what a worker gets, where both want a processor


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
