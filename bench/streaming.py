"""Event streams: a paced upstream, and a client that times every chunk.

Every event carries the moment at which it was sent (CLOCK_MONOTONIC, the same for all processes),
so the client knows how long each one was under way.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import re
import signal
import statistics
import sys
import time
from typing import cast

import uvloop

EVENT = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_0",'
    b'"choices":[{"index":0,"delta":{"content":"%d"},"logprobs":null,"finish_reason":null}],'
    b'"usage":null,"obfuscation":"aBcDeFgH"}\n\n'
)
USAGE = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"gpt-4o-mini-2024-07-18","choices":[],'
    b'"usage":{"prompt_tokens":20,"completion_tokens":100,"total_tokens":120}}\n\n'
)
HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\nx-request-id: req_1\r\n\r\n"
)
ANSWER = (
    b'{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,'
    b'"model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"One."},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":20,"completion_tokens":100,"total_tokens":120}}'
)
PLAIN = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: req_1\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
)
PLAIN_SECONDS = 0.3  # how long a plain call is under way, so that a client can leave it
_NUMBERS = itertools.count()
_STREAMED = re.compile(rb'"stream":\s*true')
_SENT = re.compile(rb'"content":"(\d+)"')


def request(body: bytes, path: str, fields: str = "") -> bytes:
    """Return a call with the fields that a client of OpenAI sends, and these lines besides."""
    more = "".join(f"{line}\r\n" for line in fields.splitlines())
    return (
        b"POST %b HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer sk-not-a-key\r\nX-Meter-User: u\r\n"
        b"X-Meter-Endpoint: chat_response\r\n"
        b"%bContent-Length: %d\r\n\r\n%b" % (path.encode(), more.encode(), len(body), body)
    )


def question(model: str, *, stream: bool = True, include_usage: bool = False) -> bytes:
    """Return the body of a call."""
    asked: dict[str, object] = {"model": model}
    if stream:
        asked["stream"] = True
    if include_usage:
        asked["stream_options"] = {"include_usage": True}
    asked["messages"] = [{"role": "user", "content": "Count."}]
    return json.dumps(asked, separators=(",", ":")).encode()


def chunk(data: bytes) -> bytes:
    """Return data as one chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _whole(received: bytes) -> bool:
    return received.endswith((b"}", b"}\r\n0\r\n\r\n"))


class Paced(asyncio.Protocol):
    """One connection to the upstream: each request is answered by a stream."""

    def __init__(self, streams: dict["Paced", int], count: int) -> None:
        self._streams = streams
        self._count = count
        self._received = b""
        self.number = next(_NUMBERS)
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Begin an answer when a request is whole: its body ends with a brace."""
        self._received += data
        if b"\r\n\r\n" in self._received and _whole(self._received):
            streamed = _STREAMED.search(self._received) is not None
            self._received = b""
            if streamed:
                self.transport.write(HEAD)
                self._streams[self] = self._count
            else:
                loop = asyncio.get_running_loop()
                loop.call_later(PLAIN_SECONDS, self.transport.write, PLAIN)

    def connection_lost(self, _: Exception | None) -> None:
        """Forget the stream."""
        self._streams.pop(self, None)


async def serve(port: int, count: int, interval_seconds: float) -> None:
    """Serve streams of `count` events, all in one beat."""
    streams: dict[Paced, int] = {}
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Paced(streams, count), "127.0.0.1", port, backlog=8192)
    loop.add_signal_handler(signal.SIGUSR1, lambda: streams.update(dict.fromkeys(streams, 0)))
    slices = 10  # the beat is dealt out, so that not all streams speak in the same moment
    number = 0
    while True:
        started = loop.time()
        for stream, left in tuple(streams.items()):
            if stream.number % slices == number % slices:
                _beat(streams, stream, left)
        number += 1
        await asyncio.sleep(max(0.0, interval_seconds / slices - (loop.time() - started)))


def _beat(streams: dict[Paced, int], stream: Paced, left: int) -> None:
    if left > 0:
        stream.transport.write(chunk(EVENT % time.monotonic_ns()))
        streams[stream] = left - 1
        return
    stream.transport.write(chunk(USAGE) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    streams.pop(stream, None)


class Reader(asyncio.Protocol):
    """One client: sends a request, times what comes."""

    def __init__(self, delays: list[int], data: bytes) -> None:
        self._delays = delays
        self._request = data
        self.begun = asyncio.Event()
        self.done = asyncio.Event()
        self.complete = False
        self._tail = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Time each event in the data."""
        now = time.monotonic_ns()
        text = self._tail + data
        last = 0
        for match in _SENT.finditer(text):
            self._delays.append(now - int(match[1]))
            last = match.end()
        self._tail = text[max(last, len(text) - 64) :]
        self.begun.set()
        if text.endswith(b"0\r\n\r\n"):
            self.complete = True
            self.done.set()

    def connection_lost(self, _: Exception | None) -> None:
        """Stop waiting."""
        self.begun.set()
        self.done.set()


async def opened(port: int, count: int, data: bytes, delays: list[int]) -> list[Reader]:
    """Open so many streams, one after the other."""
    loop = asyncio.get_running_loop()
    readers = [Reader(delays, data) for _ in range(count)]
    waiting = iter(readers)
    for _ in readers:
        await loop.create_connection(lambda: next(waiting), "127.0.0.1", port)
    return readers


async def measure(
    port: int, streams: int, data: bytes, deadline_seconds: float
) -> dict[str, float]:
    """Read so many streams to their end and return delays in microseconds."""
    delays: list[int] = []
    readers: list[Reader] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(deadline_seconds):
            readers = await opened(port, streams, data, delays)
            for reader in readers:
                await reader.done.wait()
    ordered = sorted(delays) or [0]
    return {
        "chunks": len(delays),
        "complete": sum(reader.complete for reader in readers),
        "p50_us": statistics.median(ordered) / 1000,
        "p99_us": ordered[int(len(ordered) * 0.99)] / 1000,
    }


async def hold(port: int, streams: int, data: bytes, deadline_seconds: float) -> None:
    """Open so many streams, say so, and read them to an end that somebody else brings about."""
    readers: list[Reader] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(deadline_seconds):
            readers = await opened(port, streams, data, [])
            for reader in readers:
                await reader.begun.wait()
    print(json.dumps({"open": sum(not reader.done.is_set() for reader in readers)}), flush=True)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(deadline_seconds):
            for reader in readers:
                await reader.done.wait()
    print(json.dumps({"complete": sum(reader.complete for reader in readers)}), flush=True)


async def leave(port: int, count: int, data: bytes, *, streamed: bool) -> None:
    """Make so many calls and hang up: in the middle of a stream, or before a plain answer."""
    readers = await opened(port, count, data, [])
    if streamed:
        for reader in readers:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.begun.wait(), 10)
    await asyncio.sleep(PLAIN_SECONDS / 2)
    for reader in readers:
        reader.transport.abort()
    await asyncio.sleep(0.1)


def main() -> None:
    """Run as the upstream, or as a client that prints what it saw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["serve", "measure", "hold", "leave", "leave-plain"])
    parser.add_argument("port", type=int)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--interval", type=float, default=0.02)
    parser.add_argument("--path", default="/v1/chat/completions")
    parser.add_argument("--model", default="gpt-4o-mini")
    parser.add_argument("--fields", default="")
    parser.add_argument("--include-usage", action="store_true")
    options = parser.parse_args()
    if options.role == "serve":
        uvloop.run(serve(options.port, options.count, options.interval))
        return
    streamed = options.role != "leave-plain"
    body = question(options.model, stream=streamed, include_usage=options.include_usage)
    data = request(body, options.path, options.fields)
    if options.role == "measure":
        deadline = options.count * options.interval * 5 + 30
        result = uvloop.run(measure(options.port, options.streams, data, deadline))
        json.dump(result, sys.stdout)
    elif options.role == "hold":
        uvloop.run(hold(options.port, options.streams, data, 60))
    else:
        uvloop.run(leave(options.port, options.streams, data, streamed=streamed))


if __name__ == "__main__":
    main()
