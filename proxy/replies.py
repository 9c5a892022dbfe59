"""Answers of the proxy's own: what it says of itself, and errors in OpenAI's shape.

Nothing here is ever mixed with an answer of the upstream.
"""

import msgspec

_REASONS = {
    200: b"OK",
    400: b"Bad Request",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}


def plain_answer(
    status: int,
    body: bytes,
    *,
    content_type: bytes,
    close: bool,
    fields: bytes = b"",
    head_only: bool = False,
) -> bytes:
    """Return an answer of the proxy's own."""
    head = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b%b\r\n" % (
        status,
        _REASONS.get(status, b""),
        content_type,
        len(body),
        fields,
        b"Connection: close\r\n" if close else b"",
    )
    return head if head_only else head + body


def error_answer(
    status: int, message: str, error_type: str, *, close: bool, head_only: bool = False
) -> bytes:
    """Return an error in OpenAI's shape; `X-Meter-Error` tells that it is the proxy's own."""
    error = {"message": f"openai-meter: {message}", "type": error_type, "param": None, "code": None}
    return plain_answer(
        status,
        msgspec.json.encode({"error": error}),
        content_type=b"application/json",
        close=close,
        fields=b"X-Meter-Error: %b\r\n" % error_type.encode(),
        head_only=head_only,
    )
