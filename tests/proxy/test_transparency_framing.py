"""Ambiguous framing goes no further: 400 to the client, 502 for the upstream's."""

import asyncio
from pathlib import Path

import pytest

from tests.fakes.relay import Wire, roundtrip, running_worker
from tests.fakes.upstream import Call, Upstream, answer_plainly, answering

POST = b"POST /v1/x HTTP/1.1\r\nHost: x\r\n"
TE = b"Transfer-Encoding: chunked\r\n"
GET = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
SMUGGLED = b"0\r\n\r\nGET /admin HTTP/1.1\r\nHost: x\r\n\r\n"


def lengths(*values: bytes) -> bytes:
    """Return a head with these lengths, and five bytes."""
    return POST + b"".join(b"Content-Length:%b\r\n" % value for value in values) + b"\r\n12345"


def codings(*values: bytes) -> bytes:
    """Return a head with these codings, and a body that means two things."""
    return POST + b"".join(b"Transfer-Encoding:%b\r\n" % v for v in values) + b"\r\n" + SMUGGLED


def chunks(body: bytes) -> bytes:
    """Return a request with this for a chunked body."""
    return POST + TE + b"\r\n" + body


REQUESTS = {
    "CL, TE": POST + b"Content-Length: 5\r\n" + TE + b"\r\n" + SMUGGLED,
    "TE, CL": POST + TE + b"Content-Length: 5\r\n\r\n" + SMUGGLED,
    "two lengths": lengths(b" 5", b" 6"),
    "twice the same": lengths(b" 5", b" 5"),
    "list of lengths": lengths(b" 5, 5"),
    "plus": lengths(b" +5"),
    "minus": lengths(b" -5"),
    "hex": lengths(b" 0x5"),
    "empty length": lengths(b""),
    "huge length": lengths(b" 99999999999999999999"),
    "length of 2**64": lengths(b" 18446744073709551621"),
    "underscore": lengths(b" 1_0"),
    "letters": lengths(b" 5a"),
    "two numbers": lengths(b" 5 5"),
    "length behind tab": lengths(b"\x0b5"),
    "unknown coding": codings(b" gzip"),
    "gzip, chunked": codings(b" gzip, chunked"),
    "chunked, gzip": codings(b" chunked, gzip"),
    "chunked twice": codings(b" chunked", b" chunked"),
    "chunked, chunked": codings(b" chunked, chunked"),
    "identity": codings(b" identity"),
    "xchunked": codings(b" xchunked"),
    "quoted": codings(b' "chunked"'),
    "vertical tab": codings(b" \x0bchunked"),
    "parameter": codings(b" chunked;q=1"),
    "no coding": codings(b""),
    "TE on 1.0": POST.replace(b"1.1", b"1.0") + TE + b"\r\n" + SMUGGLED,
    "space before colon": POST + b"Content-Length : 5\r\n\r\n12345",
    "tab before colon": POST + b"Transfer-Encoding\t: chunked\r\n\r\n" + SMUGGLED,
    "leading space": POST.replace(b"Host", b" Host") + b"\r\n",
    "obs-fold": POST + b"X-A: 1\r\n 2\r\n\r\n",
    "folded coding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + SMUGGLED,
    "bare LF": POST.replace(b"\r\n", b"\n") + b"\n",
    "LF in a field": POST + b"X-A: 1\nTransfer-Encoding: chunked\r\n\r\n" + SMUGGLED,
    "CR in a field": POST + b"X-A: 1\rX-B: 2\r\n\r\n",
    "CR CR LF": POST + b"X-A: 1\r\r\n\r\n",
    "LF at the end": POST + b"\n",
    "NUL in a field": POST + b"X-A: \x00\r\n\r\n",
    "NUL in a name": POST + b"X\x00A: 1\r\n\r\n",
    "space in a name": POST + b"X A: 1\r\n\r\n",
    "byte in a name": POST + b"X\xff: 1\r\n\r\n",
    "no name": POST + b": 1\r\n\r\n",
    "no colon": POST + b"X-A\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": POST + b"Host: y\r\n\r\n",
    "two Hosts, 1.0": POST.replace(b"1.1", b"1.0") + b"Host: y\r\n\r\n",
    "version 2": b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    "version 1.2": b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
    "version 0.9": b"GET /\r\n\r\n",
    "lower case": b"GET / http/1.1\r\nHost: x\r\n\r\n",
    "no version": b"GET / \r\nHost: x\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tabs": b"GET\t/\tHTTP/1.1\r\nHost: x\r\n\r\n",
    "space in target": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL in target": b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "trailing space": b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
    "absolute-form": b"GET http://evil.example/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT /": b"CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n",
    "authority": b"GET @evil.example/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "no slash": b"GET v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "chunk 0x": chunks(b"0x5\r\n12345\r\n0\r\n\r\n"),
    "chunk plus": chunks(b"+5\r\n12345\r\n0\r\n\r\n"),
    "chunk minus": chunks(b"-5\r\n12345\r\n0\r\n\r\n"),
    "chunk underscore": chunks(b"0_5\r\n12345\r\n0\r\n\r\n"),
    "chunk space": chunks(b"5 \r\n12345\r\n0\r\n\r\n"),
    "chunk overflow": chunks(b"10000000000000005\r\n12345\r\n0\r\n\r\n"),
    "chunk without size": chunks(b"\r\n12345\r\n0\r\n\r\n"),
    "chunk too long": chunks(b"5\r\n123456\r\n0\r\n\r\n"),
    "chunk without CR LF": chunks(b"5\r\n123450\r\n\r\n"),
    "chunk with LF": chunks(b"5\n12345\n0\n\n"),
    "chunk size with LF": chunks(b"5\n12345\r\n0\r\n\r\n"),
    "chunk size with CR": chunks(b"5\rX12345\r\n0\r\n\r\n"),
    "data with LF": chunks(b"5\r\n12345\n0\r\n\r\n"),
    "extension with LF": chunks(b"5;a\nb\r\n12345\r\n0\r\n\r\n"),
    "extension with NUL": chunks(b"5;a=\x00\r\n12345\r\n0\r\n\r\n"),
    "trailer length": chunks(b"0\r\nContent-Length: 5\r\n\r\n"),
    "trailer coding": chunks(b"0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "trailer host": chunks(b"0\r\nHost: y\r\n\r\n"),
    "trailer with LF": chunks(b"0\r\nX-A: 1\n\r\n"),
    "trailer without colon": chunks(b"0\r\nX-A\r\n\r\n"),
    "folded trailer": chunks(b"0\r\nX-A: 1\r\n 2\r\n\r\n"),
}
OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS = {
    "CL, TE": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
    "list of lengths": OK + b"Content-Length: 5, 5\r\n\r\n12345",
    "minus": OK + b"Content-Length: -5\r\n\r\n12345",
    "huge length": OK + b"Content-Length: 99999999999999999999\r\n\r\n12345",
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "TE on 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before colon": OK + b"Content-Length : 0\r\n\r\n",
    "obs-fold": OK + b"X-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "CR in a field": OK + b"X-A: 1\rX-B: 2\r\nContent-Length: 0\r\n\r\n",
    "NUL": OK + b"X-A: \x00\r\nContent-Length: 0\r\n\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "status of two": b"HTTP/1.1 20 OK\r\n\r\n",
    "not HTTP": b"SSH-2.0-OpenSSH_9\r\n\r\n",
    "version 2": b"HTTP/2 200 OK\r\n\r\n",
    "LF in reason": b"HTTP/1.1 200 O\nK\r\nContent-Length: 0\r\n\r\n",
    "unasked 101": b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nx",
    "endless 1xx": b"HTTP/1.1 102 P\r\n\r\n" * 101,
    "300 kB of head": OK + b"X-A: " + b"a" * 300_000 + b"\r\n\r\n",
}
CHUNKS = {
    "0x": b"0x5\r\n12345\r\n0\r\n\r\n",
    "overflow": b"fffffffffffffffff\r\n12345\r\n0\r\n\r\n",
    "too long": b"5\r\n1234567\r\n0\r\n\r\n",
    "LF": b"5\n12345\n0\n\n",
    "folded trailer": b"0\r\nX-A: 1\r\n 2\r\n\r\n",
    "endless extension": b"5;" + b"a" * 400_000,
    "endless trailers": b"5\r\n12345\r\n0\r\n" + b"X-A: 1\r\n" * 60_000,
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "in two"])
async def test_an_ambiguous_request_is_refused(
    tmp_path: Path, request_: bytes, *, whole: bool
) -> None:
    """The upstream never hears of it where one segment holds it, and never takes it for whole."""
    async with (
        asyncio.timeout(20),
        Upstream(answer_plainly) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        if not whole:
            cut = request_.find(b"\r\n\r\n") + 4
            await wire.send(request_[: cut or 9])
            await asyncio.sleep(0.01)
            request_ = request_[cut or 9 :]
        await wire.send(request_)
        answer = await wire.rest()
        await wire.close()
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert answer.count(b"\r\n\r\n") == 1
        assert upstream.calls == []
        if whole:
            assert worker.records() == []
        else:
            assert [closing.outcome for closing in worker.closings()] in ([], ["refused"])


async def test_a_head_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """With a status of its own (RFC 6585)."""
    async with Upstream() as upstream, running_worker(tmp_path, upstream.url) as worker:
        answer = await roundtrip(worker.port, POST + b"X-A: " + b"a" * 70_000)
        assert answer.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_an_ambiguous_answer_is_a_502(tmp_path: Path, answer: bytes) -> None:
    """Nothing of it is passed on, and its connection is not used again."""
    script = answering(answer, pause=0.001)
    async with (
        asyncio.timeout(20),
        Upstream(script) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(GET)
        head = await wire.head()
        while head.startswith(b"HTTP/1.1 102 "):
            head = await wire.head()
        assert head.startswith(b"HTTP/1.1 502 ")
        assert b"\r\nX-Meter-Error: upstream_protocol_error\r\n" in head
        upstream.script = answer_plainly
        await wire.until(b"}}")
        await wire.send(GET)
        assert (await wire.answer())[1] == b"{}"
        await wire.close()
        assert upstream.connections == 2
        outcomes = [closing.outcome for closing in await worker.wait_for_closings(2)]
        assert outcomes == ["upstream_error", "ok"]


@pytest.mark.parametrize("body", CHUNKS.values(), ids=CHUNKS)
async def test_a_broken_chunk_breaks_the_answer_off(tmp_path: Path, body: bytes) -> None:
    """The client must not take it for complete."""
    head = OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    script = answering(head, body, pause=0.02)
    async with (
        asyncio.timeout(20),
        Upstream(script) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        data = await roundtrip(worker.port, GET)
        assert data.startswith(head)
        assert b"0\r\n\r\n" not in data
        closing = await worker.closing()
        assert (closing.outcome, closing.status) == ("upstream_error", 200)
        assert closing.error_type == "upstream_protocol_error"


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 2\r\n\r\n{}",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
    ids=["length", "chunked", "204"],
)
@pytest.mark.parametrize("pause", [0.0, 0.03], ids=["same segment", "later"])
async def test_bytes_behind_an_answer_are_nobodys(
    tmp_path: Path, answer: bytes, pause: float
) -> None:
    """They are neither passed on nor taken for the next call's answer."""

    async def poison(call: Call) -> None:
        await call.send(answer if pause else answer + OK + b"Content-Length: 6\r\n\r\npoison")
        if pause:
            await asyncio.sleep(pause)
            await call.send(OK + b"Content-Length: 6\r\n\r\npoison")

    async with (
        asyncio.timeout(20),
        Upstream(poison) as upstream,
        running_worker(tmp_path, upstream.url) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(GET)
        assert await wire.exactly(len(answer)) == answer
        await asyncio.sleep(2 * pause)
        upstream.script = answer_plainly
        await wire.send(GET)
        assert (await wire.answer())[1] == b"{}"
        await wire.close()
        assert upstream.connections == 2
