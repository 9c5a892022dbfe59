"""An answer is framed anew in two cases only, and then it is whole or seen not to be."""

import gzip

import pytest

from proxy import framing
from proxy.answering import ends_with_link, reframed, with_head
from proxy.errors import UpstreamProtocolError
from proxy.framing import AnswerHead

NULL = b'data: {"choices":[{}],"usage":null}\n\n'
KEPT = b'data: {"choices":[{}]}\n\n'
SSE = b"Content-Type: text/event-stream\r\n"


def answer(lines: bytes, *, version: bytes = b"1.1", status: bytes = b"200") -> AnswerHead:
    """Return an answer's head."""
    raw = b"HTTP/%b %b OK\r\n%b\r\n" % (version, status, lines)
    return framing.judged_answer(raw, head_only=False)


@pytest.mark.parametrize(
    ("head", "spliced", "minor_version", "closes"),
    [
        (answer(b"Transfer-Encoding: chunked\r\n"), False, 1, None),
        (answer(b"Transfer-Encoding: chunked\r\n"), False, 0, True),
        (answer(b"Content-Length: 5\r\n"), False, 0, None),
        (answer(SSE + b"Content-Length: 5\r\n"), True, 1, False),
        (answer(SSE + b"Content-Length: 5\r\n"), True, 0, True),
        (answer(SSE + b"Content-Length: 0\r\n"), True, 1, None),
        (answer(SSE, status=b"429"), True, 1, None),
        (answer(b"Content-Type: application/json\r\n"), True, 1, None),
        (answer(SSE + b"Content-Encoding: x-odd\r\n"), True, 1, None),
        (answer(SSE), False, 1, None),
    ],
)
def test_which_answers_are_framed_anew(
    head: AnswerHead, minor_version: int, *, spliced: bool, closes: bool | None
) -> None:
    """All others go out as the bytes that came."""
    body = reframed(head, spliced=spliced, minor_version=minor_version, max_event_bytes=1000)
    assert (body is None) is (closes is None)
    if body is not None:
        assert body.closes is closes


def test_a_stripped_body_is_chunked() -> None:
    """Its trailers are the upstream's, and an empty part is no last chunk."""
    head = answer(SSE + b"Transfer-Encoding: chunked\r\n")
    body = reframed(head, spliced=True, minor_version=1, max_event_bytes=1000)
    assert body is not None
    assert body.part(NULL[:9], done=False) == b""
    assert body.part(NULL[9:], done=False) == framing.chunk(KEPT)
    head.trailers.append((b"X-Sum", b"1"))
    assert body.part(b"data: x", done=True) == b"7\r\ndata: x\r\n0\r\nX-Sum: 1\r\n\r\n"


def test_a_client_of_http_1_0_gets_the_data_alone() -> None:
    """Stripped or not."""
    head = answer(SSE + b"Transfer-Encoding: chunked\r\n")
    for spliced, expected in ((True, KEPT), (False, NULL)):
        body = reframed(head, spliced=spliced, minor_version=0, max_event_bytes=1000)
        assert body is not None
        assert body.part(NULL, done=True) == expected


@pytest.mark.parametrize("data", [gzip.compress(NULL)[:-1], b"\x1f\x8b\x08\x00odd"])
def test_what_cannot_be_decoded_is_an_error(data: bytes) -> None:
    """A short stream must not be taken for a whole one."""
    head = answer(SSE + b"Content-Encoding: gzip\r\n")
    body = reframed(head, spliced=True, minor_version=1, max_event_bytes=1000)
    assert body is not None
    with pytest.raises(UpstreamProtocolError, match="decoded"):
        body.part(data, done=True)


@pytest.mark.parametrize(
    ("version", "close", "minor_version", "expected"),
    [
        (b"1.1", False, 1, b""),
        (b"1.1", True, 1, b"Connection: close\r\n"),
        (b"1.1", False, 0, b"Connection: keep-alive\r\n"),
        (b"1.0", False, 1, b"Connection: keep-alive\r\n"),
    ],
)
def test_the_clients_connection_is_its_own(
    version: bytes, minor_version: int, expected: bytes, *, close: bool
) -> None:
    """A status line of HTTP/1.0 would else be read as its end."""
    head = answer(b"Content-Length: 0\r\n", version=version)
    out = with_head(head, None, b"", close=close, minor_version=minor_version)
    assert out == head.head.raw[:-2] + expected + b"\r\n"


def test_when_the_end_of_the_connection_is_the_end_of_the_answer() -> None:
    """Then it must not end cleanly where the answer did not."""
    assert ends_with_link(answer(b""), None)
    assert not ends_with_link(answer(b"Content-Length: 5\r\n"), None)
    body = reframed(answer(SSE), spliced=True, minor_version=1, max_event_bytes=1000)
    assert not ends_with_link(answer(SSE), body)
