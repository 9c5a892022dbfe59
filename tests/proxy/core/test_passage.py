"""What of a head passes is the contract's matter; every case of it stands here as bytes."""

import pytest

from proxy.core import headers, passage
from proxy.core.headers import ANSWER_PATTERN, Head, request_pattern

DESTINATION = passage.Destination(
    authority=b"api.example:9",
    base_path=b"/base",
    own_names=(b"x-meter-user",),
    own_prefixes=(b"x-meter-metadata-",),
)
PATTERN = request_pattern([b"X-Meter-User"], [b"X-Meter-Metadata-"])


def passed(raw: bytes, *, invited: bool = False, spliced_length: int | None = None) -> bytes:
    """Return what a request's head becomes."""
    line = headers.request_line(raw.partition(b"\r\n")[0])
    assert line is not None
    return passage.request_head(
        PATTERN.read(raw), line, DESTINATION, invited=invited, spliced_length=spliced_length
    )


def answer(raw: bytes) -> Head:
    """Return an answer's head."""
    return ANSWER_PATTERN.read(raw)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (
            b"GET /?b HTTP/1.1\r\nX-A: 1 \r\nhost:x\r\nX-Meter-User:\r\nx-meter-metadata-:\r\n\r\n",
            b"GET /base/?b HTTP/1.1\r\nX-A: 1 \r\nhost: api.example:9\r\n\r\n",
        ),
        (b"GET / HTTP/1.0\r\n\r\n", b"GET /base/ HTTP/1.1\r\nHost: api.example:9\r\n\r\n"),
        (
            b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost: api.example:9\r\n\r\n",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: x-a, host\r\nX-A: 1\r\nX-B: 2\r\n\r\n",
            b"GET /base/ HTTP/1.1\r\nHost: api.example:9\r\nX-B: 2\r\n\r\n",
        ),
    ],
    ids=["attribution", "no Host", "asterisk", "nominated"],
)
def test_a_request_keeps_what_is_not_the_proxys(raw: bytes, expected: bytes) -> None:
    """Line by line, in order."""
    assert passed(raw) == expected


def test_the_owner_of_an_upstream_may_replace_fields() -> None:
    """Whatever the client sends under such a name is not passed on, in no place of the request."""
    raw = b"GET / HTTP/1.1\r\nHost: x\r\nAPI-Key: a\r\nX-A: 1\r\napi-key: b\r\nX-B: 2\r\n\r\n"
    destination = DESTINATION._replace(left_out=(b"api-key", b"x-b"), added=b"api-key: own\r\n")
    line = headers.RequestLine(b"GET", b"/", 1)
    assert passage.request_head(
        PATTERN.read(raw), line, destination, invited=False, spliced_length=None
    ) == (b"GET /base/ HTTP/1.1\r\nHost: api.example:9\r\nX-A: 1\r\napi-key: own\r\n\r\n")
    trailers = [(b"Api-Key", b"c"), (b"X-C", b"3")]
    assert passage.request_trailers(trailers, destination) == [(b"X-C", b"3")]


def test_a_websocket_is_asked_for_anew() -> None:
    """Its hop-by-hop fields are this connection's own; no other upgrade goes on."""
    raw = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
    assert passed(raw).endswith(b"9\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert passed(raw.replace(b"WebSocket", b"h2c")).endswith(b"9\r\n\r\n")


def test_an_invited_client_needs_no_second_invitation() -> None:
    """Expect is gone where the proxy has answered it."""
    raw = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n"
    assert b"Expect: 100-continue" in passed(raw)
    assert b"Expect" not in passed(raw, invited=True)


def test_a_spliced_request_tells_its_length_and_asks_for_identity() -> None:
    """In place of what the client said, or added where it said nothing."""
    raw = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nAccept-Encoding: gzip\r\n"
    raw += b"X-A: 1\r\naccept-encoding: br\r\n\r\n"
    lines = passed(raw, spliced_length=42).split(b"\r\n")[2:-2]
    assert lines == [b"Content-Length: 42", b"Accept-Encoding: identity", b"X-A: 1"]
    raw = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    lines = passed(raw, spliced_length=42).split(b"\r\n")[2:-2]
    assert lines == [b"Transfer-Encoding: chunked", b"Accept-Encoding: identity"]


def test_attribution_does_not_leave_as_a_trailer() -> None:
    """Neither by name nor by prefix, in any case."""
    trailers = [(b"X-Meter-User", b"u"), (b"x-meter-metadata-k", b"v"), (b"X-Sum", b"1")]
    assert passage.request_trailers(trailers, DESTINATION) == [(b"X-Sum", b"1")]


def test_an_answer_that_loses_nothing_is_the_bytes_that_came() -> None:
    """Not even a copy of them."""
    raw = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n"
    assert passage.answer_head(answer(raw)) is raw


def test_an_answer_loses_hop_by_hop_fields_and_what_is_framed_anew() -> None:
    """And gets what its new connection needs."""
    head = answer(
        b"HTTP/1.1 200 OK\r\nKeep-Alive: 5\r\nX-A: 1\r\nConnection: x-a\r\nContent-Length: 1\r\n"
        b"X-B: 2\r\n\r\n"
    )
    assert passage.answer_head(head) == (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX-B: 2\r\n\r\n")
    framed = passage.answer_head(head, without=(b"content-length",), added=b"X-C: 3\r\n")
    assert framed == b"HTTP/1.1 200 OK\r\nX-B: 2\r\nX-C: 3\r\n\r\n"
    plain = answer(b"HTTP/1.1 200 OK\r\nX-B: 2\r\n\r\n")
    assert passage.answer_head(plain, added=b"X-C: 3\r\n") == framed
