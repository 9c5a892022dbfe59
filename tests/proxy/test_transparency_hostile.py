"""Hostile upstreams and clients: whatever they say, it passes byte for byte and leaves a record.

Bodies are arbitrary JSON, event streams and forms: broken, cut, nested, lying about their type and
coding. What a meter makes of them is in the record; it must never be a fault of ours.
"""

import asyncio
import gzip
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.core.charging import charge
from proxy.core.metering import FAULT
from proxy.pricefile import load_price_book
from proxy.resources import resource
from tests.fakes.relay import Running, Wire, running_worker
from tests.fakes.running import metering
from tests.fakes.upstream import Call, Upstream
from tests.proxy.test_transparency_streams import peak_megabytes, worker_process

BOOK = load_price_book(resource("pricing.yaml"))
SMALL: dict[str, Any] = {"max_event_bytes": 1024, "max_held_bytes": 1 << 20}
NAMES = [
    "usage",
    "tool_usage",
    "image_gen",
    "web_search",
    "num_requests",
    "prompt_tokens",
    "completion_tokens",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "input_tokens_details",
    "prompt_tokens_details",
    "cached_tokens",
    "seconds",
    "type",
    "id",
    "model",
    "status",
    "error",
    "code",
    "response",
    "output",
    "tools",
    "container",
    "action",
    "data",
    "duration",
    "service_tier",
    "background",
    "choices",
    "delta",
    "message",
    "content",
    "n",
    "size",
    "quality",
    "input",
    "messages",
]
WORDS = [
    "response.completed",
    "response.failed",
    "completed",
    "failed",
    "queued",
    "duration",
    "web_search_call",
    "search",
    "code_interpreter_call",
    "image_generation_call",
    "gpt-4o-mini",
    "gpt-image-1",
    "whisper-1",
    "transcript",
    "\0",
    "\ud800",
]
NUMBERS = st.sampled_from([0, -1, 7, 2**53, 10**40, 1.5, -0.0, float("nan"), float("inf"), 1e300])
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, st.sampled_from(WORDS), st.text(max_size=8))
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(NAMES), inner, max_size=6)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=8)
JSON = st.one_of(
    st.builds(lambda value: json.dumps(value).encode(), OBJECTS | VALUES),
    st.builds(lambda value, cut: json.dumps(value).encode()[:cut], OBJECTS, st.integers(0, 60)),
    st.builds(
        lambda value: json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass"), OBJECTS
    ),
    st.integers(1, 3000).map(lambda depth: b'{"usage":' + b"[" * depth),
    st.binary(max_size=80),
)
LINES = st.one_of(
    JSON.map(lambda data: b"data: " + data),
    st.sampled_from(
        [b"data: [DONE]", b"data", b"event: error", b": ping", b"id: 1\0", b"retry: x"]
    ),
    st.sampled_from([b"event: response.completed", b"\xef\xbb\xbfdata: {}", b"d" * 2000, b""]),
    st.binary(max_size=30),
)
STREAMS = st.lists(
    st.tuples(LINES, st.sampled_from([b"\n\n", b"\n", b"\r\n\r\n", b"\r", b""]))
).map(lambda lines: b"".join(part for line in lines for part in line))
ANSWERS = st.one_of(JSON, STREAMS, JSON.map(gzip.compress), st.binary(max_size=300))
KINDS = st.sampled_from(
    [
        b"application/json",
        b"text/event-stream",
        b"text/event-stream; charset=\xff",
        b"text/plain",
        b"audio/mpeg",
        b"audio/pcm",
        b"multipart/mixed; boundary=b",
        b"",
    ]
)
CODINGS = st.sampled_from([b"", b"", b"", b"gzip", b"br", b"zstd", b"gzip, gzip", b"x-unknown"])
PARTS = st.lists(
    st.one_of(
        st.sampled_from(
            [b"--b\r\n", b"--b--\r\n", b"\r\n--b\r\n", b"\r\n\r\n", b"--b", b"--B\r\n"]
        ),
        st.sampled_from(NAMES).map(
            lambda name: b'Content-Disposition: form-data; name="%b"\r\n\r\n' % name.encode()
        ),
        st.just(b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF'),
        st.sampled_from(
            [b"RIFF\xff\xff\xff\xffWAVEfmt ", b"ID3\x04\0\0\x7f\x7f\x7f\x7f", b"OggS\0"]
        ),
        st.just(b"x" * 5000),
        st.binary(max_size=40),
    ),
    max_size=12,
).map(b"".join)
FORM_TYPES = st.sampled_from(
    [
        b"multipart/form-data; boundary=b",
        b'multipart/form-data; boundary="b"',
        b"multipart/form-data",
        b"multipart/form-data; boundary=" + b"b" * 300,
        b"Multipart/Form-Data; Boundary=b; boundary=c",
    ]
)
FORM_PATHS = st.sampled_from([b"audio/transcriptions", b"images/edits", b"videos", b"audio/voices"])
JSON_PATHS = st.sampled_from(
    [
        b"chat/completions",
        b"responses",
        b"embeddings",
        b"images/generations",
        b"audio/speech",
        b"batches",
        b"threads/t/runs",
        b"evals/e/runs",
        b"nothing/known",
    ]
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a client says, and what it is answered."""

    path: bytes
    sent_type: bytes
    sent: bytes
    kind: bytes
    coding: bytes
    answer: bytes
    framing: str
    cut: int

    @property
    def request(self) -> bytes:
        """The request as it goes out."""
        return (
            b"POST /v1/%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: %b\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (self.path, self.sent_type, len(self.sent), self.sent)
        )

    @property
    def fields(self) -> bytes:
        """The fields of the answer that say what it is; they need not be true."""
        kind = b"Content-Type: %b\r\n" % self.kind if self.kind else b""
        return kind + (b"Content-Encoding: %b\r\n" % self.coding if self.coding else b"")

    @property
    def body(self) -> bytes:
        """The body of the answer with its framing."""
        if self.framing != "chunked":
            return self.answer
        pieces = [piece for piece in (self.answer[: self.cut], self.answer[self.cut :]) if piece]
        return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"

    @property
    def head(self) -> bytes:
        """The head of the answer."""
        framings = {
            "length": b"Content-Length: %d\r\n" % len(self.answer),
            "chunked": b"Transfer-Encoding: chunked\r\n",
        }
        return b"HTTP/1.1 200 OK\r\n" + self.fields + framings.get(self.framing, b"") + b"\r\n"


def _exchanges(
    paths: st.SearchStrategy[bytes],
    types: st.SearchStrategy[bytes],
    bodies: st.SearchStrategy[bytes],
) -> st.SearchStrategy[list[Exchange]]:
    framings = st.sampled_from(["length", "chunked", "until close"])
    cuts = st.integers(0, 40)
    one = st.builds(Exchange, paths, types, bodies, KINDS, CODINGS, ANSWERS, framings, cuts)
    return st.lists(one, min_size=1, max_size=6)


async def _assert_passes(exchanges: list[Exchange]) -> None:
    """Check that both sides get what the other has said, and that each call has a record."""
    waiting = list(exchanges)

    async def script(call: Call) -> None:
        exchange = waiting.pop(0)
        await call.send(exchange.head + exchange.body[: exchange.cut])
        await asyncio.sleep(0)
        await call.send(exchange.body[exchange.cut :])
        call.close()

    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        async with (
            asyncio.timeout(60),
            Upstream(script) as upstream,
            running_worker(Path(name), upstream.url, drain_seconds=0.1, **SMALL) as worker,
        ):
            for exchange in exchanges:
                await _assert_one_passes(worker, upstream, exchange)
            closings = await worker.wait_for_closings(len(exchanges))
    assert len(closings) == len(exchanges)
    for closing in closings:
        assert closing.usage_problem != FAULT
        row = charge(closing, BOOK)
        assert (row.status, row.api_path) == (200, closing.opening.api_path)


async def _assert_one_passes(worker: Running, upstream: Upstream, exchange: Exchange) -> None:
    wire = await Wire.to(worker.port)
    await wire.send(exchange.request)
    head, _, body = (await wire.rest()).partition(b"\r\n\r\n")
    await wire.close()
    assert body == exchange.body
    assert exchange.fields in head + b"\r\n"
    assert upstream.calls[-1].body == exchange.sent


_HOSTILE = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@_HOSTILE
@given(_exchanges(JSON_PATHS, st.sampled_from([b"application/json", b"x/json", b"text/x"]), JSON))
async def test_any_json_and_any_answer_pass_and_leave_a_record(exchanges: list[Exchange]) -> None:
    """Nobody asks for a stream here: what is edited in one is test_transparency_splice.py's."""
    await _assert_passes(exchanges)


@_HOSTILE
@given(_exchanges(FORM_PATHS, FORM_TYPES, PARTS))
async def test_any_form_and_any_answer_pass_and_leave_a_record(exchanges: list[Exchange]) -> None:
    """Boundaries that lie, parts that never end, files that are none."""
    await _assert_passes(exchanges)


MEGABYTE = 1 << 20
FLOODS = {  # what is sent, how its answer begins, and of what that goes on and on
    "event": (b"application/json", b"text/event-stream", b"", b'data: {"usage":', b"9" * MEGABYTE),
    "nested": (b"application/json", b"application/json", b"", b'{"usage":', b"[" * MEGABYTE),
    "bomb": (b"application/json", b"application/json", b"gzip", b"", b""),
    "part": (b"multipart/form-data; boundary=b", b"application/json", b"", b"", b"x" * MEGABYTE),
    "head": (b"multipart/form-data; boundary=b", b"text/plain", b"", b"", b"X: y\r\n" * 100_000),
}


def _bomb(megabytes: int) -> bytes:
    """Return zeros, so many, packed by a thousand to one."""
    packer = zlib.compressobj(wbits=31)
    packed = [packer.compress(bytes(MEGABYTE)) for _ in range(megabytes)]
    return b"".join(packed) + packer.flush()


@pytest.mark.parametrize("name", FLOODS)
async def test_memory_is_bounded_whatever_is_said(tmp_path: Path, name: str) -> None:
    """Events, values, names and parts without an end, and what unpacks to a thousand times more."""
    sent_type, kind, coding, begun, more = FLOODS[name]
    sent = b"--b\r\nContent-Disposition: form-data; name=" + more * 80
    sent = sent if sent_type.startswith(b"multipart") else b"{}"
    answer = _bomb(400) if coding else begun + more * 80
    path = b"responses" if sent == b"{}" else b"audio/transcriptions"
    asked = Exchange(path, sent_type, sent, kind, coding, answer, "length", 0)

    async def script(call: Call) -> None:
        await call.send(asked.head + asked.body)

    async with (
        asyncio.timeout(120),
        Upstream(script) as upstream,
        worker_process(tmp_path, upstream.url) as (pid, port),
    ):
        wire = await Wire.to(port)
        await wire.send(b"GET /_meter/healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        await wire.answer()
        before = peak_megabytes(pid)
        await wire.send(asked.request)
        _, body = await wire.answer()
        assert body == answer
        assert upstream.calls[-1].body == sent
        assert peak_megabytes(pid) - before < 60
        await wire.close()


_REST = b'"completion_tokens":3,"total_tokens":8'
_FIVE = b'"prompt_tokens":5,' + _REST
_REPORTED, _REFUSED = ("reported", "0.000002550000"), ("unavailable", None)
USAGES = {  # what an answer says of its usage, and what the row says: the source, the cost
    "negative": (b'"prompt_tokens":-5,' + _REST, _REFUSED),
    "negative part": (_FIVE + b',"prompt_tokens_details":{"cached_tokens":-9}', _REFUSED),
    "part above the whole": (
        _FIVE + b',"prompt_tokens_details":{"cached_tokens":9}',
        ("reported", None),
    ),
    "details in a list": (_FIVE + b',"prompt_tokens_details":[7]', _REFUSED),
    "half a token": (b'"prompt_tokens":5.5,' + _REST, _REFUSED),
    "1e308": (b'"prompt_tokens":1e308,' + _REST, _REFUSED),
    "1e400": (b'"prompt_tokens":1e400,' + _REST, _REFUSED),
    "10**400": (b'"prompt_tokens":1' + b"0" * 400 + b"," + _REST, _REFUSED),
    "2**63": (b'"prompt_tokens":9223372036854775808,' + _REST, _REFUSED),
    "text": (b'"prompt_tokens":"5",' + _REST, _REFUSED),
    "boolean": (b'"prompt_tokens":true,' + _REST, _REFUSED),
    "null": (b'"prompt_tokens":null,"completion_tokens":null', _REFUSED),
    "nested": (b'"prompt_tokens":{"a":[1]},' + _REST, _REFUSED),
    "nothing": (b"", _REFUSED),
    "NaN": (b'"prompt_tokens":NaN,' + _REST, ("estimated", "0.000001200000")),
    "told twice": (b'"prompt_tokens":7,' + _FIVE, _REPORTED),
    "NUL": (_FIVE + b',"x":"a\\u0000b"', _REPORTED),
    "half a character": (_FIVE + b',"x":"\\ud800"', _REPORTED),
    "no UTF-8": (_FIVE + b',"x":"\xff"', _REFUSED),
    "large": (_FIVE + b',"x":"' + b"x" * 200_000 + b'"', _REPORTED),
    "deep": (_FIVE + b',"x":' + b"[" * 900 + b"]" * 900, _REPORTED),
    "tier": (_FIVE + b'},"service_tier":"warp","x":{', ("reported", None)),
    "tier of a wrong type": (_FIVE + b'},"service_tier":[7],"x":{', _REPORTED),
    "usage twice": (b'"prompt_tokens":-1},"usage":{' + _FIVE, _REPORTED),
    "model": (_FIVE + b'},"model":"no-such-model","x":{', _REPORTED),
    "model of a wrong type": (_FIVE + b'},"model":["gpt-4o"],"x":{', _REPORTED),
    "names with NUL": (_FIVE + b'},"model":"a\\u0000","id":"\\u0000","x":{', _REPORTED),
    "names too long": (
        _FIVE + b'},"model":"' + b"m" * 9000 + b'","id":"' + b"i" * 9000 + b'","x":{',
        _REPORTED,
    ),
}


async def test_whatever_usage_is_said_to_be_there_is_a_row(tmp_path: Path, database: str) -> None:
    """Postgres takes it; what is no count is flagged with its cost unknown, never 0."""
    bodies = {
        name: b'{"id":"c","model":"gpt-4o-mini","usage":{' + usage + b"}}"
        for name, (usage, _) in USAGES.items()
    }
    waiting = list(bodies.values())

    async def script(call: Call) -> None:
        body = waiting.pop(0)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: r\xff\r\n"
        await call.send(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))

    asked = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}'
    async with Upstream(script) as upstream, metering(tmp_path, upstream.url, database) as meter:
        for name, body in bodies.items():
            wire = await Wire.to(meter.port)
            await wire.send(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Meter-User: %b\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (name.encode(), len(asked), asked)
            )
            assert (await wire.answer())[1] == body
            await wire.close()
        rows = {row["user_id"]: row for row in await meter.rows(len(bodies))}
    for name, (_, (source, cost)) in USAGES.items():
        row = rows[name]
        told = None if row["cost_usd"] is None else str(row["cost_usd"])
        assert (name, row["usage_source"], told) == (name, source, cost)
        flagged = row["usage_problem"] or row["unpriced_reason"]
        assert bool(flagged) == (source != "reported" or cost is None)
