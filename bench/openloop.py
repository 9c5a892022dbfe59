"""Calls at a fixed rate, whatever the answers take: an open loop, timed from when each was due.

The beat comes from a timer of the kernel (timerfd), because those of event loops are whole
milliseconds. A call that finds no idle connection opens one; where all are busy it waits, and that
counts, so that a target that stands still is not asked less often.
"""

import argparse
import asyncio
import ctypes
import json
import os
import struct
import time
from collections import deque
from typing import cast

import uvloop
from streaming import request

CLOCK_MONOTONIC, TFD_NONBLOCK, TFD_TIMER_ABSTIME = 1, 0o4000, 1
LIMIT = 512  # connections
WARM_SECONDS = 1
_PLAIN = '{{"model":"{model}","messages":[{{"role":"user","content":"{content}"}}]}}'
_CONTENT = "The quick brown fox jumps over the lazy dog. " * 16
_libc = ctypes.CDLL(None, use_errno=True)


def beat(first_ns: int, interval_ns: int) -> int:
    """Return a timer that is readable at that moment and then at every interval."""
    timer = _libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)
    parts = (*divmod(interval_ns, 10**9), *divmod(first_ns, 10**9))
    if timer < 0 or _libc.timerfd_settime(timer, TFD_TIMER_ABSTIME, struct.pack("4q", *parts), 0):
        raise OSError(ctypes.get_errno(), "timerfd")
    return int(timer)


class Link(asyncio.Protocol):
    """One connection: a call at a time."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._due = 0
        self._left = -1  # bytes of the answer that are still to come; -1: its head
        self._chunked = False
        self._data = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the call that waits longest."""
        self.transport = cast("asyncio.Transport", transport)
        self._load.idle(self)

    def ask(self, due: int) -> None:
        """Send the call that was due at that moment."""
        self._due, self._left, self._data = due, -1, b""
        self.transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        """Find the end of the answer."""
        if self._left < 0:
            self._data += data
            head, found, data = self._data.partition(b"\r\n\r\n")
            if not found:
                return
            lines = head.lower().split(b"\r\n")
            if b" 200 " not in lines[0] + b" ":
                self._load.failed += 1
            length = [line for line in lines if line.startswith(b"content-length:")]
            self._chunked = not length
            self._left = int(length[0].partition(b":")[2]) if length else 1
            self._data = b""
        if self._chunked:
            self._data = (self._data + data)[-5:]
            self._left = 0 if self._data.endswith(b"0\r\n\r\n") else 1
        else:
            self._left -= len(data)
        if self._left == 0 and self._due:
            self._load.took(time.monotonic_ns() - self._due)
            self._due = 0
            self._load.idle(self)

    def connection_lost(self, _: Exception | None) -> None:
        """Count the call that is lost with it."""
        self._load.lost(self, in_call=self._due > 0)


class Load:
    """The calls, and how long each took."""

    def __init__(self, port: int, data: bytes) -> None:
        self.request = data
        self.failed = 0
        self.ended = 0
        self.latencies: list[int] = []
        self._port = port
        self._idle: list[Link] = []
        self._waiting: deque[int] = deque()
        self._links = 0
        self._connecting: set[asyncio.Task[object]] = set()

    def due(self, moment: int) -> None:
        """Make a call now, or as soon as a connection can be had."""
        if self._idle:
            self._idle.pop().ask(moment)
            return
        self._waiting.append(moment)
        if self._links < LIMIT:
            self._links += 1
            loop = asyncio.get_running_loop()
            task = loop.create_task(
                loop.create_connection(lambda: Link(self), "127.0.0.1", self._port)
            )
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def idle(self, link: Link) -> None:
        """Give the connection the call that waits longest, or keep it."""
        if self._waiting:
            link.ask(self._waiting.popleft())
        else:
            self._idle.append(link)

    def took(self, nanoseconds: int) -> None:
        """Note one answer."""
        self.ended += 1
        self.latencies.append(nanoseconds)

    def lost(self, link: Link, *, in_call: bool) -> None:
        """Forget a connection."""
        self._links -= 1
        if link in self._idle:
            self._idle.remove(link)
        if in_call:
            self.ended += 1
            self.failed += 1

    def forget(self) -> None:
        """Forget what was measured so far."""
        self.latencies.clear()


async def run(port: int, data: bytes, rate: float, seconds: float) -> dict[str, float]:
    """Make calls at this rate for so long; return latencies in microseconds."""
    loop = asyncio.get_running_loop()
    load = Load(port, data)
    interval = round(1e9 / rate)
    first = time.monotonic_ns() + 50_000_000
    warm, count = int(rate * WARM_SECONDS), int(rate * (seconds + WARM_SECONDS))
    timer, made = beat(first, interval), 0
    done = asyncio.Event()

    def tick() -> None:
        nonlocal made
        for _ in range(struct.unpack("Q", os.read(timer, 8))[0]):
            if made == warm:
                load.forget()
            if made < count:
                load.due(first + made * interval)
            made += 1
        if made >= count:
            loop.remove_reader(timer)
            done.set()

    loop.add_reader(timer, tick)
    async with asyncio.timeout(seconds * 3 + 30):
        await done.wait()
    limit = loop.time() + 15  # for those that are still under way
    while load.ended < count and loop.time() < limit:  # noqa: ASYNC110 (nothing tells)
        await asyncio.sleep(0.02)
    os.close(timer)
    ordered = sorted(load.latencies) or [0]
    return {
        "calls": load.ended,
        "failed": load.failed + count - load.ended,
        **{
            f"p{name}_us": ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1000
            for name, share in (("50", 0.5), ("99", 0.99), ("999", 0.999))
        },
    }


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--path", default="/v1/chat/completions")
    parser.add_argument("--model", default="gpt-4o-mini")
    parser.add_argument("--fields", default="")
    options = parser.parse_args()
    body = _PLAIN.format(model=options.model, content=_CONTENT).encode()
    data = request(body, options.path, options.fields)
    print(json.dumps(uvloop.run(run(options.port, data, options.rate, options.seconds))))


if __name__ == "__main__":
    main()
