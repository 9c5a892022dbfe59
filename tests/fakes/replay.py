"""Recorded exchanges, an upstream that gives their answers in several ways, and their client.

An answer is given as it was recorded, compressed, or cut at random places; or (`TOLD`) with what
an upstream adds to a stream when it is asked for usage: an event with usage at the end and
`"usage":null` in all others. The same exchange, way and seed give the same bytes.
"""

import asyncio
import base64
import gzip
import json
import random
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import brotli
import zstandard

from tests.fakes.upstream import Call, Script

KINDS = ("chat.completions", "completions", "responses", "embeddings")
EDITED = "include_usage_mismatch"  # a recording that contradicts itself
NAME = "X-Replay-Exchange"  # a field of the request that says which answer is wanted
MAX_PIECES = 24
TOLD_USAGE = (
    b'{"prompt_tokens":31,"completion_tokens":7,"total_tokens":38,'
    b'"prompt_tokens_details":{"cached_tokens":16,"audio_tokens":0},'
    b'"completion_tokens_details":{"reasoning_tokens":5,"audio_tokens":0}}'
)
_FRAMING = {"content-length", "content-encoding", "transfer-encoding", "connection"}
_DATA = re.compile(rb"^data: (\{.*)\}([ \r]*)$", re.MULTILINE)
_END = re.compile(rb"^data: \[DONE\]", re.MULTILINE)
_READ_BYTES = 2**18


class Way(StrEnum):
    """How an answer is given."""

    PLAIN = "plain"
    GZIP = "gzip"
    DEFLATE = "deflate"
    BROTLI = "br"
    ZSTD = "zstd"
    CUT = "cut"
    TOLD = "told"


CODERS: Mapping[Way, Callable[[bytes], bytes]] = {
    Way.GZIP: partial(gzip.compress, mtime=0),
    Way.DEFLATE: zlib.compress,
    Way.BROTLI: partial(brotli.compress, quality=1),
    Way.ZSTD: zstandard.compress,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One recorded exchange; `facts` is all that its recording says about it."""

    id: str
    kind: str
    method: str
    target: str
    request_headers: tuple[tuple[str, str], ...]
    request_body: bytes
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    facts: dict[str, Any]

    @property
    def is_stream(self) -> bool:
        """Whether the answer is a stream of events."""
        return bool(self.facts["is_stream"])

    @property
    def tells_usage(self) -> bool:
        """Whether the answer to a charged call says what it used."""
        return bool(self.facts["metering"] == "usage_in_body")

    @property
    def is_asked_for_usage(self) -> bool:
        """Whether the proxy asks for usage where the client did not."""
        if self.kind not in {"chat.completions", "completions"} or self.method != "POST":
            return False
        request = json.loads(self.request_body)
        return request.get("stream") is True and not _includes_usage(request)


@dataclass(frozen=True, slots=True)
class Received:
    """An answer as the client got it: head, body as framed, body without transfer coding."""

    head: bytes
    raw_body: bytes
    body: bytes


@cache
def load(path: Path) -> tuple[Exchange, ...]:
    """Return the recorded exchanges that do not contradict themselves."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = map(json.loads, lines)
        return tuple(_exchange(row) for row in rows if EDITED not in row["features"])


def request(exchange: Exchange, host: str) -> bytes:
    """Return the request, with the header fields by which its row is found again."""
    fields = [
        ("Host", host),
        *exchange.request_headers,
        ("X-Meter-User", f"user-{exchange.kind}"),
        ("X-Meter-Metadata-Exchange", exchange.id),
        (NAME, exchange.id),
    ]
    if exchange.method == "POST" or exchange.request_body:
        fields.append(("Content-Length", str(len(exchange.request_body))))
    return _head(f"{exchange.method} {exchange.target} HTTP/1.1", fields) + exchange.request_body


def answer(exchange: Exchange, way: Way) -> list[bytes]:
    """Return the answer in the pieces in which it is sent."""
    chance = random.Random(f"{exchange.id} {way}")  # noqa: S311 - cuts, not secrets
    fields = list(exchange.headers)
    body = exchange.body
    if way is Way.TOLD and exchange.is_asked_for_usage and exchange.is_stream:
        body = told(body)
    if way in CODERS:
        fields.append(("Content-Encoding", way))
        body = CODERS[way](body)
    if way is Way.CUT or exchange.is_stream:
        fields.append(("Transfer-Encoding", "chunked"))
        pieces = cut(body, chance) if way is Way.CUT else body.splitlines(keepends=True)
        body = b"".join(map(_chunk, pieces)) + b"0\r\n\r\n"
    else:
        fields.append(("Content-Length", str(len(body))))
    message = _head(f"HTTP/1.1 {exchange.status} As Recorded", fields) + body
    return list(cut(message, chance)) if way is Way.CUT else [message]


def told(stream: bytes) -> bytes:
    """Return a stream as it comes when usage was asked for."""
    ended = _END.search(stream)
    end = ended.start() if ended else len(stream)
    events, rest = _DATA.sub(rb'data: \1,"usage":null}\2', stream[:end]), stream[end:]
    last = b'data: {"id":"chatcmpl-told","choices":[],"usage":' + TOLD_USAGE + b"}\n\n"
    return events + last + rest


def cut(data: bytes, chance: random.Random) -> Iterator[bytes]:
    """Cut data at random offsets, never into nothing."""
    count = min(len(data), chance.randint(1, MAX_PIECES))
    inner = sorted(chance.sample(range(1, len(data)), count - 1)) if count > 1 else []
    return (data[start:end] for start, end in pairwise([0, *inner, len(data)]) if start < end)


def replaying(exchanges: Sequence[Exchange], way: Way) -> Script:
    """Return a script that answers each request with the exchange that it names."""
    known = {exchange.id: exchange for exchange in exchanges}

    async def script(call: Call) -> None:
        name = call.header(NAME)
        assert name is not None
        for piece in answer(known[name.decode()], way):
            await call.send(piece)
            await asyncio.sleep(0)  # so that each piece is read by itself

    return script


async def replay(
    exchanges: Sequence[Exchange], port: int, *, connections: int = 8
) -> dict[str, Received]:
    """Make all calls on a few connections that are kept alive; return the answers by exchange."""
    waiting, received = list(reversed(exchanges)), {}

    async def work() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_READ_BYTES)
        while waiting:
            exchange = waiting.pop()
            writer.write(request(exchange, f"127.0.0.1:{port}"))
            async with asyncio.timeout(30):
                received[exchange.id] = await receive(reader)
        writer.close()
        await writer.wait_closed()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            tasks.create_task(work())
    return received


async def receive(reader: asyncio.StreamReader) -> Received:
    """Read one answer whose body has a length or chunks."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    if length is not None:
        body = await reader.readexactly(int(length[1]))
        return Received(head, body, body)
    raw, data = [], []
    while True:
        line = await reader.readuntil(b"\r\n")
        chunk = await reader.readexactly(int(line, 16) + 2)
        raw += [line, chunk]
        data.append(chunk[:-2])
        if chunk == b"\r\n":
            return Received(head, b"".join(raw), b"".join(data))


def _exchange(row: dict[str, Any]) -> Exchange:
    body = row["request_body"]
    fields = {name.lower(): value for name, value in row["response_headers"].items()}
    fields.setdefault("content-type", _content_type(row))  # where the recorder kept none
    return Exchange(
        id=row["id"],
        kind=row["endpoint"],
        method=row["method"],
        target=row["path"] + ("?" + row["query"] if row["query"] else ""),
        request_headers=tuple(row["request_headers"].items()),
        request_body=base64.b64decode(body) if row["request_body_is_b64"] else _asked(row),
        status=row["status"],
        headers=tuple(field for field in fields.items() if field[0] not in _FRAMING),
        body=_given(row),
        facts=row,
    )


def _asked(row: dict[str, Any]) -> bytes:
    """Return the body of the request; a made-up one has to fit its recorded answer."""
    body: str = row["request_body"]
    if row["request_fidelity"] == "missing" and row["is_stream"] and row["usage"]:
        request = json.loads(body)
        if row["endpoint"] == "completions" and not _includes_usage(request):
            body = json.dumps(request | {"stream_options": {"include_usage": True}})
    return body.encode()


def _given(row: dict[str, Any]) -> bytes:
    """Return the body of the answer; what a recorder put in that no upstream would is left out."""
    body = base64.b64decode(row["response_body_b64"])
    if row["response_fidelity"] == "reconstructed" and row["metering"] == "usage_missing":
        return body.replace(b',"usage":null', b"")
    return body


def _includes_usage(request: dict[str, Any]) -> bool:
    return (request.get("stream_options") or {}).get("include_usage") is True


def _content_type(row: dict[str, Any]) -> str:
    return "text/event-stream" if row["is_stream"] else "application/json"


def _head(first_line: str, fields: Sequence[tuple[str, str]]) -> bytes:
    lines = [first_line, *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
