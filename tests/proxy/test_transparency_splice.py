"""A stream is asked for its usage, and the client sees the stream that it asked for."""

import asyncio
import gzip
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.relay import Running, Wire, roundtrip, running_worker
from tests.fakes.upstream import Call, Upstream, answering

BODY = b'{"model":"m", "stream":true,"messages":[]}'
SPLICED = b'{"stream_options":{"include_usage":true},"model":"m", "stream":true,"messages":[]}'
ASKED = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
PLAIN = b'data: {"id":"c","choices":[{"delta":{"content":"%b"}}]}\n\n'
NULL = b'data: {"id":"c","choices":[{"delta":{"content":"%b"}}],"usage":null}\n\n'
USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
DONE = b"data: [DONE]\n\n"
SENT = NULL % b"\xe2\x82" + NULL % b"b" + USAGE + DONE
WANTED = PLAIN % b"\xe2\x82" + PLAIN % b"b" + DONE
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
CHUNKED = SSE + b"Transfer-Encoding: chunked\r\n\r\n"


def post(body: bytes = BODY, fields: bytes = b"", *, version: bytes = b"1.1") -> bytes:
    """Return a chat request that ends its connection."""
    return (
        b"POST /v1/chat/completions HTTP/%b\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\n%bContent-Length: %d\r\n\r\n%b" % (version, fields, len(body), body)
    )


def chunked(*chunks: bytes) -> bytes:
    """Return a chunked body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks if c) + b"0\r\n\r\n"


def content(answer: bytes) -> bytes:
    """Return the body of an answer without its framing."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return body
    data = b""
    while (size := int(body.partition(b"\r\n")[0], 16)) > 0:
        start = body.index(b"\r\n") + 2
        data += body[start : start + size]
        body = body[start + size + 2 :]
    return data


async def call(directory: Path, answer: bytes, request: bytes, **chosen: Any) -> tuple[Call, bytes]:
    """Return what the upstream received and what the client received."""
    async with (
        asyncio.timeout(20),
        Upstream(answering(answer, close=True)) as upstream,
        running_worker(directory, upstream.url, **chosen) as worker,
    ):
        data = await roundtrip(worker.port, request)
        closing = await worker.closing()
        assert closing.usage is None or b'"prompt_tokens":3' in closing.usage
        return upstream.calls[0], data


FRAMINGS = {
    "chunked": CHUNKED + chunked(SENT[:70], SENT[70:150], SENT[150:]),
    "length": SSE + b"Content-Length: %d\r\n\r\n" % len(SENT) + SENT,
    "until close": SSE + b"\r\n" + SENT,
    "gzip all the same": SSE + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(SENT, mtime=0),
}


@pytest.mark.parametrize("answer", FRAMINGS.values(), ids=FRAMINGS)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_the_traces_are_taken_out(tmp_path: Path, answer: bytes, version: bytes) -> None:
    """However the stream is framed or compressed; every other byte stays."""
    received, data = await call(tmp_path, answer, post(version=version))
    assert received.body == SPLICED
    assert received.header("content-length") == b"%d" % len(SPLICED)
    assert received.header("accept-encoding") == b"identity"
    head = data.partition(b"\r\n\r\n")[0]
    assert content(data) == WANTED
    assert b"Content-Length" not in head
    assert b"Content-Encoding" not in head
    assert (b"Transfer-Encoding: chunked" in head) is (version == b"1.1")
    assert data.endswith(b"0\r\n\r\n") is (version == b"1.1")


async def test_identity_is_asked_for_instead_of_the_clients_wish(tmp_path: Path) -> None:
    """A compressed stream could not be looked into without delay."""
    fields = b"accept-encoding: gzip, br\r\nX-A: 1\r\nAccept-Encoding: zstd\r\n"
    received, _ = await call(tmp_path, FRAMINGS["chunked"], post(fields=fields))
    codings = [line for line in received.lines if line.lower().startswith(b"accept-encoding:")]
    assert [line.lower() for line in codings] == [b"accept-encoding: identity"]
    assert b"X-A: 1" in received.lines


async def test_trailers_stay(tmp_path: Path) -> None:
    """The body is chunked again, but its trailers are the upstream's."""
    answer = FRAMINGS["chunked"].removesuffix(b"\r\n") + b"X-Sum: 1\r\n\r\n"
    _, data = await call(tmp_path, answer, post())
    assert data.endswith(b"0\r\nX-Sum: 1\r\n\r\n")


async def test_a_chunked_request_stays_chunked(tmp_path: Path) -> None:
    """Its body is spliced, and it gets no length."""
    head = post().partition(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n"
    received, data = await call(tmp_path, FRAMINGS["chunked"], head + chunked(BODY[:9], BODY[9:]))
    assert (received.body, received.chunked) == (SPLICED, True)
    assert content(data) == WANTED


async def test_a_held_body_is_invited_by_the_proxy(tmp_path: Path) -> None:
    """It must be whole before the upstream hears of it, so the upstream cannot invite it."""
    async with (
        asyncio.timeout(10),
        Upstream(answering(FRAMINGS["chunked"])) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        request = post(fields=b"Expect: 100-continue\r\n")
        await wire.send(request.removesuffix(BODY))
        assert await wire.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert upstream.calls == []
        await wire.send(BODY)
        assert content(await wire.rest()) == WANTED
        await wire.close()
        assert upstream.calls[0].header("expect") is None


UNTOUCHED = {
    "asked for itself": post(ASKED),
    "not streamed": post(BODY.replace(b"true", b"false")),
    "not JSON": post(b'{"stream":true,,}'),
    "compressed": post(gzip.compress(BODY), b"Content-Encoding: gzip\r\n"),
    "other path": post().replace(b"chat/completions", b"responses"),
    "multipart": post().replace(b"application/json", b"multipart/form-data"),
    "too large to be held": post(BODY[:-1] + b',"x":"' + b"a" * 900_000 + b'"}'),
}


@pytest.mark.parametrize("request_", UNTOUCHED.values(), ids=UNTOUCHED)
async def test_nothing_is_spliced_and_nothing_taken_out(tmp_path: Path, request_: bytes) -> None:
    """Where the client asked itself, or the request is no stream, or cannot be read."""
    answer = FRAMINGS["chunked"]
    received, data = await call(tmp_path, answer, request_, max_held_bytes=4096)
    assert received.body == request_.partition(b"\r\n\r\n")[2]
    assert received.header("accept-encoding") is None
    assert data.partition(b"\r\n\r\n")[2] == answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % len(USAGE)
        + USAGE,
        b"HTTP/1.1 429 No\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n"
        % len(USAGE)
        + USAGE,
        SSE + b"Content-Encoding: x-odd\r\nContent-Length: %d\r\n\r\n" % len(USAGE) + USAGE,
    ],
    ids=["JSON", "error", "unknown coding"],
)
async def test_what_is_no_stream_is_not_stripped(tmp_path: Path, answer: bytes) -> None:
    """An error, or whatever else came instead, goes out as it came."""
    _, data = await call(tmp_path, answer, post())
    assert data == answer[: -len(USAGE) - 2] + b"Connection: close\r\n\r\n" + USAGE


@pytest.mark.parametrize("body", [gzip.compress(SENT)[:-9], b"\x1f\x8b\x08\x00broken"])
async def test_a_stream_that_cannot_be_decoded_breaks_off(tmp_path: Path, body: bytes) -> None:
    """It must not look complete."""
    answer = SSE + b"Content-Encoding: gzip\r\n\r\n" + body
    _, data = await call(tmp_path, answer, post())
    assert b"0\r\n\r\n" not in data


async def test_a_stripped_stream_that_breaks_off_is_seen_to(tmp_path: Path) -> None:
    """The client gets the events that came, and no end."""
    _, data = await call(tmp_path, CHUNKED + b"%x\r\n%b\r\n" % (len(SENT), SENT), post())
    assert data.endswith(b"\r\n" + WANTED + b"\r\n")


EVENTS = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(
        [NULL % b"x", PLAIN % b"y", USAGE, DONE, b": ping\n\n", b"\r\n", b"data: \xff\n\n"]
    ),
)


@settings(max_examples=25, deadline=None)
@given(
    events=st.lists(EVENTS, max_size=8),
    cuts=st.lists(st.integers(0, 400), max_size=8),
    asked=st.booleans(),
)
def test_what_comes_is_what_was_sent_less_the_injected_usage(
    events: list[bytes], cuts: list[int], *, asked: bool
) -> None:
    """For any bytes and any cuts, spliced or not, through real sockets."""
    # An event ends before the next begins, so that what is to be taken out can be written down.
    ended = [
        event if event.endswith(b"\n\n") else event.strip(b"\r\n") + b"\n\n" for event in events
    ]
    sent = b"".join(ended)
    wanted = sent if asked else b"".join(without_usage(event) for event in ended)
    edges = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
    chunks = [sent[start:end] for start, end in pairwise(edges)]
    received = asyncio.run(_through(chunks, post(ASKED if asked else BODY)))
    assert received == wanted


def without_usage(event: bytes) -> bytes:
    """Return what is left of an event of ours."""
    if event == USAGE:
        return b""
    return PLAIN % b"x" if event == NULL % b"x" else event


async def _through(chunks: list[bytes], request: bytes) -> bytes:
    parts = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks]

    async def serve(worker: Running) -> bytes:
        return content(await roundtrip(worker.port, request))

    script = answering(CHUNKED, *parts, b"0\r\n\r\n")
    with TemporaryDirectory() as directory:
        async with (
            asyncio.timeout(20),
            Upstream(script) as upstream,
            running_worker(Path(directory), upstream.url) as worker,
        ):
            return await serve(worker)
