"""The same request sent to the upstream straight and through the proxy, and what each side saw."""

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fakes.relay import Running, Wire, running_worker
from tests.fakes.upstream import Call, Script, Upstream

PATIENCE_SECONDS = 20
NAME = "named"
HOP_BY_HOP = (b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client received: heads line by line, less hop-by-hop ones, and raw body bytes."""

    interim: list[list[bytes]]
    head: list[bytes]
    body: bytes


@dataclass(frozen=True, slots=True)
class Received:
    """What the upstream received, less hop-by-hop lines and the value of Host."""

    head: list[bytes]
    body: bytes
    chunked: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """Both ends of one way."""

    answer: Answer
    received: list[Received]


def end_to_end(head: bytes) -> list[bytes]:
    """Return the lines of a head less those that belong to one connection."""
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    kept = [line for line in lines[1:] if line.partition(b":")[0].lower() not in HOP_BY_HOP]
    return lines[:1] + [b"Host: *" if line[:5].lower() == b"host:" else line for line in kept]


def answer_of(raw: bytes) -> Answer:
    """Take apart what a client received."""
    interim: list[list[bytes]] = []
    while raw.startswith(b"HTTP/1.1 1"):
        head, _, raw = raw.partition(b"\r\n\r\n")
        interim.append(end_to_end(head))
    head, blank, body = raw.partition(b"\r\n\r\n")
    return Answer(interim, end_to_end(head + blank), body)


def received(call: Call) -> Received:
    """Take apart what the upstream received."""
    return Received(end_to_end(call.head), call.body, call.chunked)


async def exchange(port: int, *parts: bytes) -> bytes:
    """Send a request that asks to close, part by part, and return all that comes back."""
    wire = await Wire.to(port)
    try:
        for part in parts:
            await wire.send(part)
            await asyncio.sleep(0.001)  # so that the parts are segments of their own
        return await wire.rest()
    except ConnectionError:
        return b""
    finally:
        await wire.close()


async def both_ways(
    directory: Path, script: Script, *parts: bytes, **settings: Any
) -> tuple[Seen, Seen]:
    """Return what is seen directly and through the proxy; under a name it is the same."""
    settings = {"upstreams": f'{{"{NAME}": "http://127.0.0.1:%d"}}', **settings}
    async with asyncio.timeout(PATIENCE_SECONDS), Upstream(script) as upstream:
        direct = await _seen(upstream, upstream.port, parts)
        settings["upstreams"] %= upstream.port
        async with running_worker(directory, upstream.url, **settings) as worker:
            proxied = await _seen(upstream, worker.port, parts)
            calls = len(proxied.received)
            await _accounted(worker, calls)
            below = _below_the_name(parts)
            if below is not None:
                assert await _seen(upstream, worker.port, below) == proxied
                await _accounted(worker, 2 * calls)
    return direct, proxied


def _below_the_name(parts: tuple[bytes, ...]) -> tuple[bytes, ...] | None:
    """Return the same request under a name, None where its target is no path."""
    target = re.match(rb"[^ \r\n]+ (?=/[^ \r\n]* HTTP/1\.[01]\r\n)", parts[0])
    if target is None:
        return None
    first = parts[0]
    return first[: target.end()] + b"/" + NAME.encode() + first[target.end() :], *parts[1:]


async def _seen(upstream: Upstream, port: int, parts: tuple[bytes, ...]) -> Seen:
    upstream.calls.clear()
    raw = await exchange(port, *parts)
    return Seen(answer_of(raw), [received(call) for call in upstream.calls])


async def _accounted(worker: Running, calls: int) -> None:
    """Whatever happened, each call has one opening and one closing of it."""
    closings = await worker.wait_for_closings(calls)
    openings = await asyncio.to_thread(worker.openings)
    ids = [closing.opening.event_id for closing in closings]
    assert ids == [opening.event_id for opening in openings]
    assert len(set(ids)) == calls
