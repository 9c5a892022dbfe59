"""Heads are edited as bytes: the few known fields are found, everything else stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import headers
from proxy.core.headers import ANSWER_PATTERN, FieldPattern, request_pattern

HEAD = (
    b"POST /v1/x HTTP/1.1\r\nHost: a\r\nX-Odd:  b \r\nCONNECTION: keep-alive, X-Named\r\n"
    b"x-named: 1\r\nX-Meter-User: u\r\nAccept: */*\r\nX-Meter-Metadata-Class: 5b\r\n\r\n"
)
PATTERN = request_pattern([b"X-Meter-User"], [b"X-Meter-Metadata-"])

NAMES = st.sampled_from([b"Host", b"Accept", b"X-A", b"x-a", b"Connection", b"TE", b"Te2"])
VALUES = st.binary(max_size=12).map(lambda v: v.replace(b"\r", b"").replace(b"\n", b""))
LINES = st.lists(st.tuples(NAMES, VALUES), max_size=12)


def head_of(lines: list[tuple[bytes, bytes]]) -> bytes:
    """Return a head with these lines."""
    fields = b"".join(b"%b: %b\r\n" % line for line in lines)
    return b"GET / HTTP/1.1\r\n" + fields + b"\r\n"


def test_fields_are_found_by_name_in_any_case() -> None:
    """Names are case-insensitive (RFC 9110 section 5.1), values keep theirs."""
    fields = PATTERN.read(HEAD).fields
    assert fields[b"host"] == [b"a"]
    assert fields[b"connection"] == [b"keep-alive, X-Named"]
    assert fields[b"x-meter-user"] == [b"u"]
    assert fields[b"x-meter-metadata-class"] == [b"5b"]
    assert b"accept" not in fields


def test_lines_that_stay_with_the_proxy_are_left_out() -> None:
    """Order, spelling and odd white space of all others are the client's own."""
    head = PATTERN.read(HEAD)
    assert head.first_line == b"POST /v1/x HTTP/1.1"
    assert head.lines == [b"Host: a", b"X-Odd:  b ", b"x-named: 1", b"Accept: */*"]
    assert not head.passes_whole
    assert headers.joined(head.first_line, head.lines, b"X: y\r\n") == (
        b"POST /v1/x HTTP/1.1\r\nHost: a\r\nX-Odd:  b \r\nx-named: 1\r\nAccept: */*\r\nX: y\r\n\r\n"
    )


def test_a_replaced_value_keeps_the_spelling_of_its_name() -> None:
    """`HOST:a` becomes `HOST: b`."""
    assert headers.replaced([b"HOST:a ", b"X: y"], b"host", b"b") == [b"HOST: b", b"X: y"]


def test_connection_names_fields_that_go_too() -> None:
    """RFC 9110 section 7.6.1; a peer may not name what frames the message."""
    head = head_of([(b"Connection", b"X-A, content-length, close"), (b"X-A", b"1"), (b"X-B", b"2")])
    read = PATTERN.read(head)
    assert headers.nominated(read.fields) == [b"x-a"]
    assert headers.without(read.lines, [b"x-a"]) == [b"X-B: 2"]


@given(LINES)
def test_reading_keeps_every_line_that_passes(lines: list[tuple[bytes, bytes]]) -> None:
    """What is left is the head without the lines that stay, whatever the values hold."""
    raw = head_of(lines)
    head = PATTERN.read(raw)
    kept = [line for line in lines if line[0].lower() not in (b"connection", b"te")]
    assert headers.joined(head.first_line, head.lines) == head_of(kept)
    assert head.passes_whole is (len(kept) == len(lines))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"GET / HTTP/1.1\r\n", (b"GET", b"/", 1)),
        (b"BREW /pot HTTP/1.0\r\n", (b"BREW", b"/pot", 0)),
        (b'GET /a"b%2F?? HTTP/1.1\r\n', (b"GET", b'/a"b%2F??', 1)),
        (b"GET  / HTTP/1.1\r\n", None),
        (b"GET / HTTP/2.0\r\n", None),
        (b"GET /\tx HTTP/1.1\r\n", None),
        (b"G(T / HTTP/1.1\r\n", None),
        (b"GET / HTTP/1.1 \r\n", None),
    ],
)
def test_request_lines(line: bytes, expected: tuple[bytes, bytes, int] | None) -> None:
    """RFC 9112 section 3: one space between, any method, nothing but HTTP/1."""
    assert headers.request_line(line.removesuffix(b"\r\n")) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n", (200, 1)),
        (b"HTTP/1.0 529 \r\n", (529, 0)),
        (b"HTTP/1.1 599\r\n", (599, 1)),
        (b"HTTP/1.1 099 x\r\n", None),
        (b"HTTP/2 200\r\n", None),
        (b"ICY 200 OK\r\n", None),
    ],
)
def test_status_lines(line: bytes, expected: tuple[int, int] | None) -> None:
    """RFC 9112 section 4: the reason may be empty or missing."""
    assert headers.status_line(line.removesuffix(b"\r\n")) == expected


def test_values_are_read_as_first_text_or_tokens() -> None:
    """Several lines make one list (RFC 9110 section 5.3)."""
    head = head_of([(b"Connection", b"A,, b"), (b"connection", b"C")])
    fields = ANSWER_PATTERN.read(head).fields
    assert headers.tokens(fields, b"connection") == [b"a", b"b", b"c"]
    assert headers.first(fields, b"connection") == b"A,, b"
    assert headers.text(fields, b"connection") == "A,, b"
    assert headers.first(fields, b"te") is None
    assert headers.text(fields, b"te") == ""
    assert headers.tokens(fields, b"te") == []


@pytest.mark.parametrize(
    ("options", "lives"),
    [
        ([], (False, True)),
        ([b"keep-alive"], (True, True)),
        ([b"Keep-Alive"], (True, True)),
        ([b"close"], (False, False)),
        ([b"Close"], (False, False)),
        ([b"keep-alive, close"], (False, False)),
        ([b"keep-alive", b"close"], (False, False)),
        ([b"upgrade"], (False, True)),
        ([b"Keep-Alive, X-Named"], (True, True)),
    ],
)
def test_a_connection_lives_on(options: list[bytes], lives: tuple[bool, bool]) -> None:
    """RFC 9112 section 9.3: close wins; then HTTP/1.0 has to ask for it, HTTP/1.1 does not."""
    fields = ANSWER_PATTERN.read(head_of([(b"Connection", option) for option in options])).fields
    assert tuple(headers.keeps_alive(fields, minor) for minor in (0, 1)) == lives


def test_a_longer_name_is_not_taken_for_a_shorter_one() -> None:
    """Names are compared whole."""
    pattern = FieldPattern([b"te"], left_out=())
    head = pattern.read(head_of([(b"Te2", b"x"), (b"TE", b"y")]))
    assert head.fields == {b"te": [b"y"]}
    assert head.lines == [b"Te2: x", b"TE: y"]


def test_what_is_remembered_of_spellings_is_bounded() -> None:
    """Clients choose names, so they must not be able to fill the memory with them."""
    pattern = FieldPattern([b"host"])
    for number in range(headers.MAX_SPELLINGS + 10):
        pattern.read(head_of([(b"X-%d" % number, b"1")]))
    assert len(pattern._known) <= headers.MAX_SPELLINGS  # noqa: SLF001 (what is kept is the point)
    long = b"x" * (headers.MAX_SPELLING_BYTES + 1)
    pattern.read(head_of([(long, b"1")]))
    assert long not in pattern._known  # noqa: SLF001
    assert pattern.read(head_of([(b"HOST", b"a")])).fields[b"host"] == [b"a"]


def test_long_lines_and_queries_are_read_but_not_remembered() -> None:
    """Memory stays bounded, and holds no key that a query may carry."""
    before = headers._remembered_request_line.cache_info().currsize  # noqa: SLF001
    long = b"/" + b"x" * 300
    assert headers.request_line(b"GET %b HTTP/1.1" % long) == (b"GET", long, 1)
    assert headers.request_line(b"GET /a?api-key=secret HTTP/1.1") == (
        b"GET",
        b"/a?api-key=secret",
        1,
    )
    assert headers._remembered_request_line.cache_info().currsize == before  # noqa: SLF001
    assert headers.status_line(b"HTTP/1.1 200 " + b"x" * 300) == (200, 1)
