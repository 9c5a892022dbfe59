"""Event streams: a paced upstream, and a client that times every chunk.

Every event carries the moment at which it was sent (CLOCK_MONOTONIC, the same for all processes),
so the client knows how long each one was under way.
"""

import argparse
import asyncio
import itertools
import json
import re
import statistics
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
BODY = b'{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"Count."}]}'
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer sk-not-a-key\r\nX-Meter-User: u\r\nX-Meter-Endpoint: chat_response\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
_NUMBERS = itertools.count()
_SENT = re.compile(rb'"content":"(\d+)"')


def chunk(data: bytes) -> bytes:
    """Return data as one chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


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
        """Begin a stream when a request is whole: its body ends with a brace."""
        self._received += data
        if b"\r\n\r\n" in self._received and self._received.endswith(b"}"):
            self._received = b""
            self.transport.write(HEAD)
            self._streams[self] = self._count

    def connection_lost(self, _: Exception | None) -> None:
        """Forget the stream."""
        self._streams.pop(self, None)


async def serve(port: int, count: int, interval_seconds: float) -> None:
    """Serve streams of `count` events, all in one beat."""
    streams: dict[Paced, int] = {}
    loop = asyncio.get_running_loop()
    await loop.create_server(lambda: Paced(streams, count), "127.0.0.1", port, backlog=4096)
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

    def __init__(self, delays: list[int], done: asyncio.Event) -> None:
        self._delays = delays
        self.done = done
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        cast("asyncio.Transport", transport).write(REQUEST)

    def data_received(self, data: bytes) -> None:
        """Time each event in the data."""
        now = time.monotonic_ns()
        text = self._tail + data
        last = 0
        for match in _SENT.finditer(text):
            self._delays.append(now - int(match[1]))
            last = match.end()
        self._tail = text[max(last, len(text) - 64) :]
        if text.endswith(b"0\r\n\r\n"):
            self.done.set()

    def connection_lost(self, _: Exception | None) -> None:
        """Stop waiting."""
        self.done.set()


async def measure(port: int, streams: int, deadline_seconds: float) -> dict[str, float]:
    """Open so many streams and return delays in microseconds."""
    loop = asyncio.get_running_loop()
    delays: list[int] = []
    readers = [Reader(delays, asyncio.Event()) for _ in range(streams)]
    waiting = iter(readers)
    async with asyncio.timeout(deadline_seconds):
        for _ in readers:
            await loop.create_connection(lambda: next(waiting), "127.0.0.1", port)
        for reader in readers:
            await reader.done.wait()
    ordered = sorted(delays)
    return {
        "chunks": len(ordered),
        "p50_us": statistics.median(ordered) / 1000,
        "p99_us": ordered[int(len(ordered) * 0.99)] / 1000,
    }


def main() -> None:
    """Run as the upstream, or as the client that prints what it measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=["serve", "measure"])
    parser.add_argument("port", type=int)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--interval", type=float, default=0.02)
    options = parser.parse_args()
    if options.role == "serve":
        uvloop.run(serve(options.port, options.count, options.interval))
        return
    result = uvloop.run(measure(options.port, options.streams, options.count * 0.02 * 5 + 30))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
