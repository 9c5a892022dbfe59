"""Ask a process of our own for estimates: started when first needed, bounded in every direction.

A call whose answer tells no usage is described to that process over a pipe, and what it estimates
goes into the call's closing. The event loop only hands bytes to a thread; the thread waits for the
pipe. How many questions wait, how large they are and how long each may take has a bound; a call
beyond it stays without an estimate, and its row says why. What is asked holds content: it is in
memory alone, and gone when it is answered.
"""

import asyncio
import contextlib
import os
import queue
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from proxy.core.estimates import Question
from proxy.core.model import Estimate

COMMAND = (sys.executable, "-P", "-m", "proxy.estimating")
MAX_WAITING = 64  # questions
MAX_WAITING_BYTES = 1 << 25
ANSWER_SECONDS = 20.0  # to one question, its start included; then the process is ended
END_SECONDS = 5.0  # how long a killed process is waited for
IDLE_SECONDS = 600.0  # without a question; then the process is ended
END_SECONDS = 2.0
MAX_ANSWER_BYTES = 1 << 16
FRAME = struct.Struct(">I")

BUSY = "estimator_busy"
LATE = "estimate_too_late"
FAILED = "estimator_failed"
STOPPED = "proxy_stopped"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Estimate).decode
Done = Callable[[Estimate], None]


class Cancellable(Protocol):
    """What `call_later` of an event loop returns."""

    def cancel(self) -> object:
        """Forget it."""


@dataclass(slots=True, eq=False)
class _Ticket:
    """One question on its way; `done` is None once it has been told something."""

    done: Done | None
    size: int
    since: float
    timer: Cancellable | None = field(default=None)


@dataclass(slots=True)
class Counts:
    """What has become of questions so far."""

    made: int = 0  # estimates
    given_up: int = 0  # questions: beyond a bound, too late, or the process has failed
    seconds: float = 0.0  # from the questions to their estimates, summed


class Inquiries:
    """Asks for a worker; its methods belong to the event loop's thread."""

    def __init__(
        self,
        *,
        call_later: Callable[[float, Callable[[], None]], Cancellable],
        call_from_thread: Callable[[Callable[[], None]], object],
        command: tuple[str, ...] = COMMAND,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._call_later = call_later
        self._call_from_thread = call_from_thread
        self._tickets: set[_Ticket] = set()
        self._size = 0
        self._questions: queue.SimpleQueue[tuple[_Ticket, bytes] | None] = queue.SimpleQueue()
        self._consultant = _Consultant(command, answer_seconds)
        self._thread: threading.Thread | None = None
        self._stopped = False
        self.counts = Counts()
        self.answered = asyncio.Event()  # set while no question waits for its answer
        self.answered.set()

    def ask(self, question: Question, done: Done, *, seconds: float) -> None:
        """Have `done` called with an estimate, after so many seconds with an empty one."""
        packed = _encode(question)
        if self._stopped:
            self._give_up(done, STOPPED)
            return
        size = self._size + len(packed)
        if len(self._tickets) >= MAX_WAITING or size > MAX_WAITING_BYTES:
            self._give_up(done, BUSY)
            return
        ticket = _Ticket(done, len(packed), time.monotonic())
        ticket.timer = self._call_later(seconds, lambda: self._tell(ticket, Estimate(note=LATE)))
        self._tickets.add(ticket)
        self.answered.clear()
        self._size = size
        self._questions.put((ticket, packed))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="estimates", daemon=True)
            self._thread.start()

    @property
    def waiting(self) -> int:
        """Return how many questions wait for their answer."""
        return len(self._tickets)

    def stop(self) -> None:
        """Give up what still waits; the process ends."""
        self._stopped = True
        self._questions.put(None)
        self._consultant.kill()
        for ticket in tuple(self._tickets):
            self._tell(ticket, Estimate(note=STOPPED))

    def join(self) -> None:
        """Wait until the process is gone, for a moment; not in the event loop."""
        if self._thread is not None:
            self._thread.join(END_SECONDS)

    def _give_up(self, done: Done, note: str) -> None:
        self.counts.given_up += 1
        done(Estimate(note=note))

    def _tell(self, ticket: _Ticket, estimate: Estimate) -> None:
        """Hand an estimate over, once."""
        done, ticket.done = ticket.done, None
        if done is None:
            return
        self._tickets.discard(ticket)
        self._size -= ticket.size
        if not self._tickets:
            self.answered.set()
        if ticket.timer is not None:
            ticket.timer.cancel()
        if estimate.input_tokens is None and estimate.output_tokens is None:
            self.counts.given_up += 1
        else:
            self.counts.made += 1
            self.counts.seconds += time.monotonic() - ticket.since
        done(estimate)

    def _work(self) -> None:
        """Answer questions, in a thread of its own."""
        while (asked := self._next()) is not None:
            ticket, packed = asked
            if ticket.done is not None:
                self._report(ticket, self._consultant.consult(packed))
        self._consultant.end()

    def _next(self) -> tuple[_Ticket, bytes] | None:
        try:
            return self._questions.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            self._consultant.end()
            return self._questions.get()

    def _report(self, ticket: _Ticket, estimate: Estimate) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            self._call_from_thread(lambda: self._tell(ticket, estimate))


class _Consultant:
    """The process that is asked. One question at a time, in one thread."""

    def __init__(self, command: tuple[str, ...], seconds: float) -> None:
        self._command = command
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def consult(self, packed: bytes) -> Estimate:
        """Return its answer; whatever goes wrong ends it, and the next question starts another."""
        try:
            process = self._process = self._process or self._start()
            seconds = 0.0 if self._closed else self._seconds
            return _asked(process, packed, time.monotonic() + seconds)
        except (OSError, ValueError, EOFError, msgspec.MsgspecError):  # OSError: no answer in time
            self.end()
            return Estimate(note=FAILED)

    def kill(self) -> None:
        """Let whoever waits for its answer wait no longer, for good; from any thread."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()

    def end(self) -> None:
        """End the process: it keeps nothing."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with contextlib.suppress(
                subprocess.TimeoutExpired
            ):  # it is dead, or the kernel holds it
                process.communicate(timeout=END_SECONDS)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own command
            self._command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def _asked(process: subprocess.Popen[bytes], packed: bytes, deadline: float) -> Estimate:
    """Ask, and return the answer; raise one of OSError, ValueError, EOFError, MsgspecError."""
    if process.stdin is None or process.stdout is None:
        raise EOFError
    left = memoryview(FRAME.pack(len(packed)) + packed)
    while left:
        left = left[os.write(process.stdin.fileno(), left) :]
    source = process.stdout.fileno()
    (length,) = FRAME.unpack(_read(source, FRAME.size, deadline))
    return _decode(_read(source, length, deadline))


def _read(source: int, size: int, deadline: float) -> bytes:
    """Read exactly so many bytes before the deadline."""
    if size > MAX_ANSWER_BYTES:
        raise ValueError(size)
    readable = select.poll()
    readable.register(source, select.POLLIN)
    data = b""
    while len(data) < size:
        if not readable.poll(max(deadline - time.monotonic(), 0.0) * 1000):
            raise TimeoutError
        part = os.read(source, size - len(data))
        if not part:
            raise EOFError
        data += part
    return data
