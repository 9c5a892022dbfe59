"""The proxy's own answers: well framed, in a shape that clients know, and told apart."""

import msgspec

from proxy.replies import error_answer, plain_answer


def test_an_error_has_openais_shape_and_says_whose_it_is() -> None:
    """SDKs read `error.message` and `error.type`."""
    head, _, body = error_answer(502, 'no "way"', "upstream_x", close=True).partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 502 Bad Gateway",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        b"X-Meter-Error: upstream_x",
        b"Connection: close",
    ]
    error = {"message": 'openai-meter: no "way"', "type": "upstream_x", "param": None, "code": None}
    assert msgspec.json.decode(body) == {"error": error}


def test_head_gets_the_head_alone() -> None:
    """With the length that GET would get."""
    whole = plain_answer(200, b"abc", content_type=b"text/plain", close=False)
    head = plain_answer(200, b"abc", content_type=b"text/plain", close=False, head_only=True)
    assert whole == head + b"abc"
    assert b"Connection" not in head


def test_a_status_without_a_known_reason_has_none() -> None:
    """RFC 9112 section 4: the space stays."""
    answer = plain_answer(299, b"", content_type=b"text/plain", close=False)
    assert answer.startswith(b"HTTP/1.1 299 \r\n")
