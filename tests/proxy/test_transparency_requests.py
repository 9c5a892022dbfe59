"""What the upstream receives is what it would receive without the proxy."""

import gzip
from pathlib import Path

import pytest

from tests.fakes.comparing import both_ways
from tests.fakes.upstream import answer_plainly

LINES_90 = b"".join(b"X-%d: %d\r\n" % (number, number) for number in range(90))
END = b"Connection: close\r\n\r\n"


def request(head: bytes, body: bytes = b"") -> bytes:
    """Return a request that ends its connection, with its length where it has a body."""
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return head + length + END + body


async def same_request(directory: Path, *parts: bytes) -> None:
    """Assert that the upstream cannot tell the difference."""
    direct, proxied = await both_ways(directory, answer_plainly, *parts)
    assert len(direct.received) == 1
    assert proxied.received == direct.received
    assert proxied.answer == direct.answer


METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "M-SEARCH"]
TARGETS = [
    b"/a%2Fb%2fc",
    b"/%25%20+;:@&=,$",
    b"/%7e~%41",
    b"//double//slashes/",
    b"/./a/../b/.",
    b"/empty?",
    b"/several?a=1?b=2?",
    b"/raw\"quotes'|{}^`[]\\",
    b"/a#fragment",
    b"/%zz%",
    b"/caf\xc3\xa9",
    b"/?api-version=2024&arr[]=1",
    b"*",
    b"/" + b"x" * 6_000,
    b"/?q=" + b"y" * 16_000,
]
LINES = {
    "minimal": b"",
    "duplicates": b"X-A: 1\r\nx-a: 2\r\nX-A: 1\r\n",
    "empty": b"X-Empty:\r\nX-Blank:   \r\n",
    "inner white space": b"X-A:  a   b \r\nX-B:\tc\td\t\r\n",
    "underscores": b"x_under_score: 1\r\n",
    "odd tokens": b"!#$%&'*+-.^_`|~: odd\r\n",
    "ninety": LINES_90,
    "16 kB": b"X-Long: " + b"a" * 16_384 + b"\r\n",
    "not UTF-8": b"X-Bytes: \x80\xff\xfe caf\xe9\r\n",
    "cookies": b"Cookie: a=1\r\nCookie: b=2\r\n",
    "user agent": b"User-Agent: curl/8\r\nAccept: */*\r\nAccept-Encoding: gzip, br\r\n",
    "key": b"Authorization: Bearer not-a-key\r\nOpenAI-Beta: x=y\r\n",
    "te": b"TE: trailers\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n",
    "h2c": b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
}
BODIES = {
    "invalid JSON": b'{"model": gpt,,}',
    "invalid UTF-8": b'{"a": "\xff\xfe"}',
    "BOM": b'\xef\xbb\xbf{"model":"m"}',
    "duplicate keys": b'{"model":"a","model":"b","n":1.0,"x":1e5}',
    "escapes and order": b'{"z":"\\u00e9\\/","a":{"b" : 1 }}\r\n',
    "binary": bytes(range(256)) * 64,
    "gzip": gzip.compress(b'{"model":"m"}', mtime=0),
    "corrupt gzip": b"\x1f\x8b\x08\x00broken",
    "streamed, asked for usage": b'{"stream":true,"stream_options":{"include_usage":true}}',
    "not streamed": b'{"stream":false,"model":"m"}',
    "1 MB": b'{"x":"' + b"a" * 1_000_000 + b'"}',
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("body", [b"", b"{}"], ids=["empty", "body"])
async def test_any_method(tmp_path: Path, method: str, body: bytes) -> None:
    """Known or not, with a body or without."""
    head = b"%b /v1/x HTTP/1.1\r\nHost: x\r\n" % method.encode()
    await same_request(tmp_path, request(head, body))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target[:24].decode("latin-1"))
async def test_any_target(tmp_path: Path, target: bytes) -> None:
    """Never decoded, resolved or quoted again."""
    await same_request(tmp_path, request(b"GET %b HTTP/1.1\r\nHost: x\r\n" % target))


@pytest.mark.parametrize("lines", LINES.values(), ids=LINES)
async def test_any_fields(tmp_path: Path, lines: bytes) -> None:
    """Order, case, doubles and odd bytes stay; nothing is added."""
    await same_request(tmp_path, request(b"GET /v1/x HTTP/1.1\r\nHost: x\r\n" + lines))


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/responses", b"/v1/files"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_any_body(tmp_path: Path, path: bytes, body: bytes) -> None:
    """Whether the path is metered or not, what cannot be read is not touched."""
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" % path
    await same_request(tmp_path, request(head, body))


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/files"])
@pytest.mark.parametrize("cut", [1, 7, 60, 95, 140])
async def test_chunks_stay_chunks(tmp_path: Path, path: bytes, cut: int) -> None:
    """With extensions and trailers, wherever the segments are cut."""
    whole = (
        b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n" % path
        + END
        + b'6;ext="a;b"\r\nabc\r\n\r\r\n1;x\r\n\n\r\n0\r\nX-Sum: 1\r\nX-Meter-User: u\r\n\r\n'
    )
    direct, proxied = await both_ways(tmp_path, answer_plainly, whole[:cut], whole[cut:])
    assert proxied.received == direct.received
    assert proxied.received[0].body == b"abc\r\n\r\n"
    assert proxied.received[0].chunked


async def test_what_connection_names_ends_here(tmp_path: Path) -> None:
    """RFC 9110 section 7.6.1, but what frames the message is not the client's to take away."""
    head = (
        b"POST /v1/x HTTP/1.1\r\nHost: x\r\nX-Mine: 1\r\nX-Other: 2\r\nContent-Length: 2\r\n"
        b"Connection: close, X-Mine, Content-Length, Host\r\n\r\n{}"
    )
    _, proxied = await both_ways(tmp_path, answer_plainly, head)
    assert proxied.received[0].head[1:] == [b"Host: *", b"X-Other: 2", b"Content-Length: 2"]


async def test_attribution_ends_here(tmp_path: Path) -> None:
    """Also under the names that another gateway gave it."""
    head = (
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nHelicone-User-Id: ada\r\nX-Meter-User: kept\r\n"
        b"helicone-property-class: 5b\r\nX-Portkey-Metadata: {}\r\nx-endpoint: h\r\nAccept: *\r\n"
    )
    _, proxied = await both_ways(
        tmp_path,
        answer_plainly,
        request(head),
        user_headers=("Helicone-User-Id",),
        endpoint_headers=("X-Endpoint",),
        metadata_headers=("x-portkey-metadata",),
        metadata_prefixes=("Helicone-Property-",),
    )
    assert proxied.received[0].head[1:] == [b"Host: *", b"X-Meter-User: kept", b"Accept: *"]


async def test_an_upgrade_to_h2c_is_an_ordinary_request(tmp_path: Path) -> None:
    """It is not tunnelled, and its body arrives whole."""
    whole = (
        b"POST /v1/x HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade, close\r\n"
        b"Content-Length: 11\r\n\r\nhello world"
    )
    direct, proxied = await both_ways(tmp_path, answer_plainly, whole)
    assert proxied.received == direct.received
    assert proxied.received[0].body == b"hello world"


async def test_a_request_of_http_1_0_goes_up_as_1_1(tmp_path: Path) -> None:
    """Each connection has a version of its own; Host is added only where there is none."""
    whole = b"POST /v1/x HTTP/1.0\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
    direct, proxied = await both_ways(tmp_path, answer_plainly, whole)
    assert proxied.received[0].head == [b"POST /v1/x HTTP/1.1", b"Host: *", b"Content-Length: 2"]
    assert proxied.received[0].body == b"{}"
    assert proxied.answer.head == direct.answer.head
