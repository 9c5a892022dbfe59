"""Replace running workers by new ones without a call noticing: what SIGHUP asks for.

One after another: a successor is started on the same listening socket, and only when it listens is
the one before it told to retire. That one takes no further connection, ends each of its links with
the answer that is under way, and leaves when none is left or its time is over. A successor that
does not come up ends the replacement, and the workers that are there go on.
"""

import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from proxy.children import Child

READY_SECONDS = 30.0
RETIRE = signal.SIGUSR1

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Retired:
    """A worker that serves its last links, and when that has taken too long (monotonic)."""

    child: Child
    deadline: float


def is_listening(child: Child, status_directory: Path) -> bool:
    """Tell whether a worker has written its first snapshot: it listens by then."""
    process = child.process
    try:
        snapshot = json.loads((status_directory / f"{child.name}.json").read_bytes())
    except (OSError, ValueError):
        return False
    return process is not None and snapshot.get("pid") == process.pid


class Succession:
    """The workers, and those that have been replaced but still have something to do."""

    def __init__(
        self,
        workers: list[Child],
        make: Callable[[int, int], Child],
        *,
        lifeline: int,
        status_directory: Path,
        patience_seconds: float,
    ) -> None:
        """Take the workers, and what makes one of a number and a generation."""
        self.workers = workers
        self.retired: list[Retired] = []
        self._make = make
        self._lifeline = lifeline
        self._status_directory = status_directory
        self._patience_seconds = patience_seconds
        self._generation = 1
        self._steps: Iterator[None] | None = None

    @property
    def under_way(self) -> bool:
        """Whether workers are being replaced."""
        return self._steps is not None

    def begin(self) -> None:
        """Begin to replace all workers; one replacement at a time."""
        if self._steps is None:
            self._generation += 1
            self._steps = self._replace_all()

    def go_on(self) -> None:
        """Do what can be done now, without waiting; called again and again."""
        for one in tuple(self.retired):
            if not one.child.running:
                self.retired.remove(one)
            elif time.monotonic() > one.deadline:
                _log.error("process killed, it took too long to retire", name=one.child.name)
                one.child.signal(signal.SIGKILL)
        if self._steps is not None and next(self._steps, self) is self:
            self._steps = None

    def _replace_all(self) -> Iterator[None]:
        _log.info("replacing the workers", generation=self._generation)
        for number, before in enumerate(self.workers):
            successor = self._make(number, self._generation)
            problem = successor.start(time.monotonic(), lifeline=self._lifeline)
            deadline = time.monotonic() + READY_SECONDS
            while problem is None and not is_listening(successor, self._status_directory):
                if not successor.running:
                    problem = "it ended"
                elif time.monotonic() > deadline:
                    problem = f"it does not listen within {READY_SECONDS:g} s"
                    successor.signal(signal.SIGKILL)
                    successor.wait(READY_SECONDS)
                else:
                    yield
            if problem is not None:
                _log.error(
                    "worker not replaced, those that are there go on",
                    name=successor.name,
                    problem=problem,
                )
                return
            self.workers[number] = successor
            before.signal(RETIRE)
            self.retired.append(Retired(before, time.monotonic() + self._patience_seconds))
            yield
        _log.info("workers replaced", generation=self._generation)
