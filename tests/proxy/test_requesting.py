"""A request goes up as it came, but for what its usage needs."""

import pytest

from proxy import framing, requesting
from proxy.core.headers import request_pattern
from proxy.core.passage import Destination
from proxy.core.plans import RequestPlans
from proxy.framing import Request

PLANS = RequestPlans(
    request_pattern([], []),
    Destination(authority=b"api.example", base_path=b"", own_names=(), own_prefixes=()),
)
STREAMED = b'{"model":"gpt-5.4","stream":true}'
PLAIN = b'{"model":"gpt-5.4"}'


def request(lines: bytes) -> Request:
    """Return a request's head."""
    raw = b"POST /v1/chat/completions HTTP/1.1\r\nHost: here\r\n%b\r\n" % lines
    return framing.judged_request(raw, PLANS)


@pytest.mark.parametrize("body", [PLAIN, STREAMED])
@pytest.mark.parametrize("invited", [False, True])
def test_a_body_of_known_length_goes_as_it_came(body: bytes, *, invited: bool) -> None:
    """And says how long it is; the client's wish to be told to go on passes if it was not."""
    declared = b"Content-Length: %d\r\n" % len(body)
    sent, spliced = requesting.whole(
        request(b"Expect: 100-continue\r\n" + declared),
        body,
        [],
        asks_usage=False,
        invited=invited,
    )
    head, _, rest = sent.partition(b"\r\n\r\n")
    assert (rest, spliced) == (body, False)
    assert declared.strip() in head
    assert (b"100-continue" in head) is not invited


def test_usage_is_asked_for_where_it_would_not_be_told() -> None:
    """The length is that of what is sent."""
    declared = request(b"Content-Length: %d\r\n" % len(STREAMED))
    sent, spliced = requesting.whole(declared, STREAMED, [], asks_usage=True, invited=False)
    head, _, body = sent.partition(b"\r\n\r\n")
    assert spliced
    assert b'"include_usage":true' in body
    assert b"Content-Length: %d" % len(body) in head
    plain = request(b"Content-Length: %d\r\n" % len(PLAIN))
    sent, spliced = requesting.whole(plain, PLAIN, [], asks_usage=True, invited=False)
    assert (sent.endswith(PLAIN), spliced) == (True, False)


def test_a_body_in_chunks_stays_in_chunks() -> None:
    """An empty part would be its end; trailers follow the last chunk."""
    chunked = request(b"Transfer-Encoding: chunked\r\n")
    assert requesting.part(chunked, b"ab") == b"2\r\nab\r\n"
    assert requesting.part(chunked, b"") == b""
    end = b"0\r\nX-Sum: 1\r\n\r\n"
    assert requesting.last_chunk(chunked, [(b"X-Sum", b"1")]) == end
    sent, _ = requesting.whole(chunked, PLAIN, [(b"X-Sum", b"1")], asks_usage=False, invited=False)
    assert sent.endswith(b"\r\n\r\n%x\r\n%b\r\n%b" % (len(PLAIN), PLAIN, end))
    declared = request(b"Content-Length: 2\r\n")
    assert requesting.part(declared, b"ab") == b"ab"
