"""What is logged, and how: JSON lines on standard output, or readable ones on a terminal.

This is the only room that configures structlog. Lines are collected and written by a thread of
their own, several at a time, so that an output that blocks (a full pipe, a stopped terminal) never
holds up a call: what does not fit the buffer is dropped and counted. No line holds a key, a prompt
or an answer: callers log facts only, and whatever looks like a key is masked here all the same.
"""

import atexit
import logging
import os
import re
import select
import stat
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger
from typing_extensions import override

KEY_SHAPED = re.compile(r"\b(sk|sess|ek)-[A-Za-z0-9_-]{8,}|(?i:\bbearer )[!-~]{8,}")
MASK = "[masked]"
STANDARD_OUTPUT = 1

_encoder = msgspec.json.Encoder(enc_hook=str, decimal_format="string")


class LineWriter:
    """Writes lines to a descriptor from a thread; `write` never blocks and never raises."""

    def __init__(
        self, fd: int, *, delay_seconds: float = 0.1, limit_bytes: int = 1_048_576
    ) -> None:
        self._fd = fd
        self._delay = delay_seconds
        self._limit = limit_bytes
        # Processes share the output: on a pipe only writes up to PIPE_BUF stay in one piece.
        self._most = select.PIPE_BUF if stat.S_ISFIFO(os.fstat(fd).st_mode) else 65_536
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._size = 0
        self._dropped = 0
        self._waiting = threading.Event()
        self._hurry = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Return how many lines found the buffer full since they could last be reported."""
        return self._dropped

    def write(self, line: bytes) -> None:
        """Take one line, without its newline."""
        with self._lock:
            if self._size + len(line) > self._limit:
                self._dropped += 1
                return
            self._lines.append(line)
            self._size += len(line) + 1
            first, full = len(self._lines) == 1, self._size >= self._most
        if first:
            self._waiting.set()
        if full:
            self._hurry.set()

    def close(self, timeout_seconds: float = 2.0) -> None:
        """Write what is left; give up after the timeout if the output does not take it."""
        self._closing = True
        self._hurry.set()
        self._waiting.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not (self._closing and not self._lines):
            self._waiting.wait()
            self._hurry.wait(self._delay)
            with self._lock:
                lines, dropped = self._lines, self._dropped
                self._lines, self._size, self._dropped = [], 0, 0
                self._waiting.clear()
                self._hurry.clear()
            if dropped:
                lines.append(_encoder.encode({"event": "log lines dropped", "count": dropped}))
            try:
                self._write_all(lines)
            except OSError:  # the reader is gone, nobody can be told
                return

    def _write_all(self, lines: list[bytes]) -> None:
        batch = bytearray()
        for line in lines:
            if batch and len(batch) + len(line) >= self._most:
                self._write_out(bytes(batch))
                batch.clear()
            batch += line + b"\n"
        self._write_out(bytes(batch))

    def _write_out(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:  # somebody made the shared output non-blocking
                select.select([], [self._fd], [], 1.0)


class DirectWriter:
    """Writes each line at once, without a thread; one that would have to wait is dropped.

    For the supervisor: a process with threads should not fork.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._output = select.poll()
        self._output.register(fd, select.POLLOUT)
        self.dropped = 0

    def write(self, line: bytes) -> None:
        """Write one line, without its newline, unless the output is full or gone."""
        try:
            if self._output.poll(0) and os.write(self._fd, line + b"\n"):
                return
        except OSError:  # the reader is gone, nobody can be told
            pass
        self.dropped += 1

    def close(self) -> None:
        """Nothing is left to be written."""


Writer = LineWriter | DirectWriter


class CallLog:
    """The canonical line of every call, on the shortest way to the output."""

    def __init__(self, writer: Writer, *, process: str, console: Processor | None) -> None:
        self._writer = writer
        self._process = process
        self._console = console
        self._head = b',"level":"info","event":"call","process":' + _encoder.encode(process)

    @property
    def dropped(self) -> int:
        """Return how many lines the output did not take since they could last be reported."""
        return self._writer.dropped

    def log(self, facts: Mapping[str, object]) -> None:
        """Log one call; `facts` are names and values, none of them content or a key."""
        now = datetime.fromtimestamp(time.time(), UTC)
        if self._console is not None:
            event = {"time": now.isoformat(timespec="milliseconds"), "level": "info"}
            masked = _masked(None, "info", {**event, "event": "call", **facts})
            line = self._console(None, "info", masked)
            self._writer.write(str(line).encode())
            return
        body = _encoder.encode(facts)
        if _may_hold_a_key(body):
            body = _encoder.encode(_masked(None, "info", dict(facts)))
        comma = b"" if body == b"{}" else b","
        self._writer.write(b'{"time":' + _encoder.encode(now) + self._head + comma + body[1:])

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def configure(
    log_format: Literal["auto", "json", "console"],
    *,
    process: str,
    fd: int = STANDARD_OUTPUT,
    threaded: bool = True,
) -> CallLog:
    """Send structlog and the standard library's logging to the output; the caller closes."""
    terminal = os.isatty(fd)
    readable = terminal if log_format == "auto" else log_format == "console"
    console = structlog.dev.ConsoleRenderer(
        colors=terminal,
        exception_formatter=structlog.dev.plain_traceback,
        timestamp_key="time",
        sort_keys=False,
    )
    writer = LineWriter(fd) if threaded else DirectWriter(fd)
    atexit.register(writer.close)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _Named(process),
            structlog.processors.format_exc_info,  # text without local variables: they hold content
            _masked,
            console if readable else _as_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: _Output(writer),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Bridge()], level=logging.WARNING, force=True)
    return CallLog(writer, process=process, console=console if readable else None)


class _Named:
    """Adds the name of the process to every line."""

    def __init__(self, process: str) -> None:
        self._process = process

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["process"] = self._process
        return event


class _Output:
    """What structlog takes for a logger: every level is one write."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def info(self, line: str | bytes) -> None:
        self._writer.write(line if isinstance(line, bytes) else line.encode())

    debug = warning = warn = error = critical = fatal = exception = msg = log = info


class _Bridge(logging.Handler):
    """Hands the log records of libraries on to structlog."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            max(record.levelno, logging.INFO),
            "library message",
            logger=record.name,
            message=record.getMessage(),
            exc_info=record.exc_info,
        )


def _may_hold_a_key(text: bytes) -> bool:
    """Tell whether a closer look is due: this one is taken at every call."""
    lowered = text.lower()
    return b"sk-" in lowered or b"ek-" in lowered or b"sess-" in lowered or b"bearer " in lowered


def _masked(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = KEY_SHAPED.sub(MASK, value)
    return event


def _as_json(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
    first = {name: event.pop(name) for name in ("time", "level", "event", "process")}
    return _encoder.encode(first | dict(event))
