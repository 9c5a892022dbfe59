"""Tests of proxy.priority: real processes, and what the kernel says of them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.priority import step_back

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


def test_who_has_ended_is_no_problem() -> None:
    """A process may end between a look and the next."""
    with subprocess.Popen(["/bin/true"]) as child:
        child.wait()
        step_back(child.pid)
