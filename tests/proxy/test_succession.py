"""One worker after another is replaced; whoever does not come up or does not leave is ended."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy.children import Child
from proxy.succession import Succession, is_listening

# Writes its snapshot as a worker does, ends on SIGUSR1, or does neither.
LISTENS = """
import json, os, pathlib, signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))
pathlib.Path(sys.argv[1]).write_text(json.dumps({"pid": os.getpid()}))
time.sleep(60)
"""
STAYS = LISTENS.replace("sys.exit(0)", "None")
ENDS = "import sys; sys.exit(3)"


@pytest.fixture
def lifeline() -> Iterator[int]:
    """Give the reading end of a pipe whose other end stays open during the test."""
    reader, writer = os.pipe()
    yield reader
    os.close(reader)
    os.close(writer)


@pytest.fixture
def started() -> Iterator[list[Child]]:
    """Give a list of children that are ended after the test."""
    children: list[Child] = []
    yield children
    for child in children:
        child.signal(signal.SIGKILL)
        child.wait(10)


def until(true: Callable[[], bool], succession: Succession | None = None) -> None:
    """Wait until something is so, going on meanwhile."""
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        if succession is not None:
            succession.go_on()
        time.sleep(0.01)


def succession_of(
    programs: list[str], directory: Path, lifeline: int, started: list[Child], patience: float = 60
) -> Succession:
    """Return two workers, where the program of each generation is given."""

    def make(number: int, generation: int) -> Child:
        name = f"w-{number}.{generation}"
        command = (sys.executable, "-c", programs[generation - 1], str(directory / f"{name}.json"))
        child = Child(name=name, command=command, environment=os.environ)
        started.append(child)
        return child

    workers = [make(0, 1), make(1, 1)]
    for worker in workers:
        worker.start(1.0, lifeline=lifeline)
        until(lambda worker=worker: is_listening(worker, directory))  # type: ignore[misc]
    return Succession(
        workers, make, lifeline=lifeline, status_directory=directory, patience_seconds=patience
    )


def test_workers_are_replaced_one_after_another(
    tmp_path: Path, lifeline: int, started: list[Child]
) -> None:
    """The one before is told to retire when the one behind it listens, and not before."""
    succession = succession_of([LISTENS, LISTENS], tmp_path, lifeline, started)
    before = list(succession.workers)
    succession.begin()
    succession.begin()  # one at a time
    assert succession.under_way
    until(lambda: not succession.under_way, succession)
    assert [worker.name for worker in succession.workers] == ["w-0.2", "w-1.2"]
    assert all(is_listening(worker, tmp_path) for worker in succession.workers)
    until(lambda: not any(worker.running for worker in before))
    succession.go_on()
    assert not succession.retired


def test_a_successor_that_ends_ends_the_replacement(
    tmp_path: Path, lifeline: int, started: list[Child]
) -> None:
    """Those that are there go on."""
    succession = succession_of([LISTENS, ENDS], tmp_path, lifeline, started)
    succession.begin()
    until(lambda: not succession.under_way, succession)
    assert [worker.name for worker in succession.workers] == ["w-0.1", "w-1.1"]
    assert all(worker.running for worker in succession.workers)


def test_whoever_does_not_leave_is_killed(
    tmp_path: Path, lifeline: int, started: list[Child]
) -> None:
    """When its time is over."""
    succession = succession_of([STAYS, LISTENS], tmp_path, lifeline, started, patience=0)
    before = list(succession.workers)
    succession.begin()
    until(lambda: not succession.under_way and not succession.retired, succession)
    assert not any(worker.running for worker in before)


@pytest.mark.parametrize("text", ["", "{", json.dumps({"pid": 1})])
def test_a_snapshot_of_somebody_else_says_nothing(
    tmp_path: Path, lifeline: int, started: list[Child], text: str
) -> None:
    """It may be left over, or half written."""
    child = Child(name="w", command=(sys.executable, "-c", ENDS), environment=os.environ)
    started.append(child)
    child.start(1.0, lifeline=lifeline)
    if text:
        (tmp_path / "w.json").write_text(text)
    assert not is_listening(child, tmp_path)
