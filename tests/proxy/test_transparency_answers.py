"""What the client receives is what it would receive without the proxy."""

import gzip
from pathlib import Path

import pytest

from tests.fakes.comparing import both_ways
from tests.fakes.relay import roundtrip, running_worker
from tests.fakes.upstream import Call, Upstream, answering

GET = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
HEAD = GET.replace(b"GET", b"HEAD")
OLD = b"GET /v1/models HTTP/1.0\r\n\r\n"
EMPTY = b"Content-Length: 0\r\n\r\n"
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = SSE + b"Transfer-Encoding: chunked\r\n\r\n"

STATUSES = [200, 201, 202, 205, 206, 226, 299, 300, 301, 307, 400, 401, 403, 404, 407, 408, 409]
STATUSES += [413, 418, 426, 429, 451, 500, 502, 503, 504, 511, 529, 599]

HEADS = {
    "empty reason": b"HTTP/1.1 200 \r\n" + EMPTY,
    "no reason": b"HTTP/1.1 200\r\n" + EMPTY,
    "odd reason": b"HTTP/1.1 200 caf\xc3\xa9 (fine) \r\n" + EMPTY,
    "204": b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
    "304": b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 99\r\n\r\n',
    "redirect": b"HTTP/1.1 302 Found\r\nLocation: https://api.openai.com/v1/x\r\n" + EMPTY,
    "cookies": b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/\r\nset-cookie: b=2\r\n" + EMPTY,
    "server's own": b"HTTP/1.1 200 OK\r\nServer: x\r\nDate: then\r\nCache-Control: no\r\n" + EMPTY,
    "duplicates": b"HTTP/1.1 200 OK\r\nX-A: 1\r\nX-B:\r\nx-a: 2\r\nX-A: \t1 \r\n" + EMPTY,
    "not UTF-8": b"HTTP/1.1 200 OK\r\nX-A: \xff\x80\r\n" + EMPTY,
    "nominated": b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nX-A: 1\r\n" + EMPTY,
    "ninety": b"HTTP/1.1 200 OK\r\n" + b"X-Dup: 1\r\n" * 90 + EMPTY,
    "16 kB": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 16_384 + b"\r\n" + EMPTY,
    "range": b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n\r\nab",
    "errors": b'HTTP/1.1 429 X\r\nretry-after-ms: 1\r\nContent-Length: 12\r\n\r\n{"error":{}}',
    "103": b"HTTP/1.1 103 Early\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n" + EMPTY,
    "102, 100": b"HTTP/1.1 102 P\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n" + EMPTY,
    "unasked gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 23\r\n\r\n"
    + gzip.compress(b"xyz", mtime=0),
}
EVENTS = {
    "one": b"data: {}\n\n",
    "many": b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n",
    "CRLF": b"data: 1\r\n\r\ndata: 2\r\n\r\n",
    "CR": b"data: 1\r\rdata: 2\r\r",
    "comments": b": ping\n\nid: 1\nevent: x\nretry: 3\ndata: a\ndata: b\n\n",
    "BOM": b"\xef\xbb\xbfdata: 1\n\n",
    "NUL": b"data: \x00\x01\xff\n\n",
    "characters": 'data: {"x":"\u00e9\u20ac\U0001f600"}\n\n'.encode(),
    "no final newline": b"data: 1\n\ndata: 2",
    "empty": b"",
    "error": b'data: {"error":{"message":"x","type":"server_error"}}\n\n',
    "1 MB": b"data: " + b"x" * 1_000_000 + b"\n\n",
}


def chunked(*chunks: bytes) -> bytes:
    """Return a chunked body."""
    return b"".join(b"%X\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


async def same_answer(directory: Path, answer: bytes, request: bytes = GET) -> None:
    """Assert that the client cannot tell the difference."""
    direct, proxied = await both_ways(directory, answering(answer, close=True), request)
    assert proxied.answer == direct.answer


@pytest.mark.parametrize("status", STATUSES)
async def test_any_status(tmp_path: Path, status: int) -> None:
    """Also those that nobody has heard of; redirects are not followed, nothing is rewritten."""
    await same_answer(tmp_path, b"HTTP/1.1 %d Why Not\r\nContent-Length: 2\r\n\r\nno" % status)


@pytest.mark.parametrize("answer", HEADS.values(), ids=HEADS)
async def test_any_head(tmp_path: Path, answer: bytes) -> None:
    """Reason, order, case, doubles and 1xx answers stay."""
    await same_answer(tmp_path, answer)


@pytest.mark.parametrize(
    "framing",
    [b"Content-Length: 1234\r\n", b"Transfer-Encoding: chunked\r\n", b""],
    ids=["length", "chunked", "none"],
)
async def test_head_has_no_body(tmp_path: Path, framing: bytes) -> None:
    """Whatever its fields say about the one that GET would have."""
    await same_answer(tmp_path, b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n", HEAD)


@pytest.mark.parametrize("body", EVENTS.values(), ids=EVENTS)
@pytest.mark.parametrize("framing", ["length", "chunked", "until close"])
async def test_any_stream(tmp_path: Path, body: bytes, framing: str) -> None:
    """Events are bytes, and framed as they were."""
    if framing == "chunked":
        answer = CHUNKED + chunked(*filter(None, (body[:3], body[3:])))
    elif framing == "length":
        answer = SSE + b"Content-Length: %d\r\n\r\n" % len(body) + body
    else:
        answer = SSE + b"\r\n" + body
    await same_answer(tmp_path, answer)


async def test_chunks_extensions_and_trailers_stay(tmp_path: Path) -> None:
    """A chunked body goes out as the bytes that came."""
    body = b'3;a="b"\r\nabc\r\n00002;x\r\n\r\n\r\n0;last\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n'
    await same_answer(tmp_path, CHUNKED + body)


async def test_one_byte_at_a_time(tmp_path: Path) -> None:
    """Segments may be cut anywhere: in the head, in a chunk's size, in a character."""
    answer = CHUNKED + chunked("data: €\r\n\r\n".encode(), b"data: 2\n\n")
    script = answering(*(answer[n : n + 1] for n in range(len(answer))), pause=0.0001)
    direct, proxied = await both_ways(tmp_path, script, GET)
    assert proxied.answer == direct.answer


@pytest.mark.parametrize("length", [b"", b"Content-Length: 5\r\n"], ids=["until close", "length"])
async def test_an_upstream_of_http_1_0(tmp_path: Path, length: bytes) -> None:
    """Its status line, and its way to end a body, are what the client sees."""
    await same_answer(tmp_path, b"HTTP/1.0 200 OK\r\n" + length + b"\r\nhello")


async def test_a_client_of_http_1_0_gets_no_chunks(tmp_path: Path) -> None:
    """It would take them for content: the end of the connection is the end of the body."""
    script = answering(CHUNKED + chunked(b"data: 1\n\n", b"data: 2\n\n"), close=True)
    _, proxied = await both_ways(tmp_path, script, OLD)
    assert proxied.answer.body == b"data: 1\n\ndata: 2\n\n"
    assert proxied.answer.head == [b"HTTP/1.1 200 OK", b"Content-Type: text/event-stream"]


async def test_a_client_of_http_1_0_gets_no_1xx(tmp_path: Path) -> None:
    """RFC 9110 section 15.2."""
    script = answering(HEADS["103"], close=True)
    _, proxied = await both_ways(tmp_path, script, OLD)
    assert proxied.answer.interim == []
    assert proxied.answer.head[0] == b"HTTP/1.1 200 OK"


async def test_a_base_path_is_put_in_front(tmp_path: Path) -> None:
    """Of the target as it came."""
    calls: list[bytes] = []

    async def note(call: Call) -> None:
        calls.append(call.first_line)
        await call.send(b"HTTP/1.1 200 OK\r\n" + EMPTY)

    async with (
        Upstream(note) as upstream,
        running_worker(tmp_path, upstream.url + "/a/b") as worker,
    ):
        await roundtrip(worker.port, GET.replace(b"/v1/models", b"//v1%2Fmodels?x"))
    assert calls == [b"GET /a/b//v1%2Fmodels?x HTTP/1.1"]
