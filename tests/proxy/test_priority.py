"""Tests of proxy.priority: real processes, and what the kernel says of them."""

import ctypes
import os
import platform
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.priority import step_back, take_short_turns

FAMILY = """
import subprocess, sys
child = subprocess.Popen(["sleep", "60"], start_new_session=True)
print(child.pid, flush=True)
sys.stdin.read()
child.kill()
child.wait()
"""


@pytest.fixture
def family() -> Iterator[tuple[int, int]]:
    """Run a process that leads a session, with a child that leads another."""
    with subprocess.Popen(  # noqa: S603 (our own text)
        [sys.executable, "-c", FAMILY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None
        yield parent.pid, int(parent.stdout.readline())


def _niceness(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


def _group(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/autogroup").read_text().rpartition(" ")[2].strip()
    except OSError:
        return ""  # a kernel without such groups


def test_a_process_and_its_children_step_back(family: tuple[int, int]) -> None:
    """Both are behind others, by niceness and by the groups of their sessions; asked twice too."""
    own = _niceness(os.getpid())
    for pid in family:
        assert _niceness(pid) == own
    for _ in range(2):
        step_back(family[0])
    for pid in family:
        assert _niceness(pid) == max(own, 19)
        assert _group(pid) in {"", "19"}


def test_who_is_further_behind_stays_there(family: tuple[int, int]) -> None:
    """Nobody is moved forward, whatever an owner has chosen."""
    step_back(family[0], 15)
    step_back(family[0], 5)
    assert [_niceness(pid) for pid in family] == [15, 15]
    assert {_group(pid) for pid in family} <= {"", "15"}


def test_the_group_of_a_session_that_others_share_is_left_alone() -> None:
    """A process started from a shell must not take the shell and its other programs along."""
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        before = _group(child.pid)
        step_back(child.pid)
        assert _niceness(child.pid) >= 19
        assert _group(child.pid) == before
        child.kill()


def turn_of(pid: int) -> int:
    """Return the length of a process' turns in nanoseconds, as it asked for; 0: an old kernel."""
    number = {"x86_64": 315, "aarch64": 275}[platform.machine()]
    attributes = ctypes.create_string_buffer(48)
    assert ctypes.CDLL(None).syscall(number, pid, attributes, 48, 0) == 0
    return int(struct.unpack_from("Q", attributes, 24)[0])


def turns_are_known() -> bool:
    """Whether the kernel has turns that can be asked for."""
    return turn_of(os.getpid()) > 0


def test_who_takes_short_turns_keeps_their_share(family: tuple[int, int]) -> None:
    """And neither who is there already nor who is started later has another turn for it."""
    before = turn_of(os.getpid())
    niceness = _niceness(family[0])
    for _ in range(2):
        take_short_turns(family[0])
    assert turn_of(family[0]) == (100_000 if turns_are_known() else 0)
    assert turn_of(family[1]) == before
    assert _niceness(family[0]) == niceness
    assert os.sched_getscheduler(family[0]) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER


def test_what_a_process_starts_has_ordinary_turns() -> None:
    """A worker's estimates are no call."""
    program = (
        "import os, subprocess, sys; from proxy.priority import take_short_turns;"
        "take_short_turns(os.getpid());"
        "child = subprocess.Popen(['sleep', '60']);"
        "print(child.pid, flush=True); sys.stdin.read(); child.kill(); child.wait()"
    )
    with subprocess.Popen(  # noqa: S603 (our own text)
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert turn_of(parent.pid) == (100_000 if turns_are_known() else 0)
        assert turn_of(child) == turn_of(os.getpid())
        parent.communicate(timeout=30)


def test_who_has_another_policy_is_left_alone() -> None:
    """Somebody has chosen it."""
    with subprocess.Popen(["/bin/sleep", "60"]) as child:
        os.sched_setscheduler(child.pid, os.SCHED_BATCH, os.sched_param(0))
        take_short_turns(child.pid)
        assert os.sched_getscheduler(child.pid) == os.SCHED_BATCH
        child.kill()


def test_who_has_ended_is_no_problem() -> None:
    """A process may end between a look and the next."""
    with subprocess.Popen(["/bin/true"]) as child:
        child.wait()
        step_back(child.pid)
        take_short_turns(child.pid)
