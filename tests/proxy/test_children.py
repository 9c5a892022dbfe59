import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from proxy.children import Backoff, Child

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")


@pytest.fixture
def lifeline() -> Iterator[int]:
    """Give the reading end of a pipe whose other end stays open during the test."""
    reader, writer = os.pipe()
    yield reader
    os.close(reader)
    os.close(writer)


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_pause_doubles_up_to_five_seconds() -> None:
    """A process that ends at once is not started in a busy loop."""
    backoff, delays = Backoff(), []
    for now in range(100, 108):
        backoff.started = now
        backoff.ended(now)
        delays.append(round(backoff.due - now, 1))
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_who_lived_long_starts_again_quickly() -> None:
    """An accident once a day is no crash loop."""
    backoff = Backoff(delay_seconds=5.0, started=100.0)
    backoff.ended(200.0)
    assert backoff.due == pytest.approx(200.1)


def test_a_child_ends_once(lifeline: int) -> None:
    """`poll` tells of an end one time; then there is no process."""
    child = Child(name="c", command=(sys.executable, "-c", "exit(3)"), environment=os.environ)
    child.start(1.0, lifeline=lifeline)
    assert child.process is not None
    child.process.wait(10)
    assert child.poll() == 3
    assert child.poll() is None
    assert not child.running


def test_what_cannot_be_started_is_due_again_later(lifeline: int) -> None:
    """A machine that is out of processes must not take the supervisor down as well."""
    child = Child(name="c", command=("/nowhere/to/be/found",), environment=os.environ)
    assert "No such file" in str(child.start(100.0, lifeline=lifeline))
    assert not child.running
    assert child.backoff.due == pytest.approx(100.1)


def test_a_child_has_its_own_session_and_takes_signals(lifeline: int) -> None:
    """Ctrl-C in a terminal does not reach it; we do."""
    child = Child(name="c", command=SLEEP, environment=os.environ)
    assert child.start(1.0, lifeline=lifeline) is None
    assert child.process is not None
    assert os.getsid(child.process.pid) != os.getsid(0)
    child.signal(signal.SIGKILL)
    child.wait(10)
    assert not child.running
    child.signal(signal.SIGKILL)  # nobody is there: nothing happens


def test_a_child_dies_with_its_parent() -> None:
    """Also if the parent is killed without a chance to say so."""
    program = (
        "import os, sys, time; from proxy.children import Child;"
        f"child = Child(name='c', command={SLEEP!r}, environment=os.environ);"
        "child.start(1.0, lifeline=os.pipe()[0]);"
        "print(child.process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", program], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(pid, 0)
        parent.kill()
    _until(lambda: not _lives(pid))


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123 - not a path of ours
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
