"""llhttp judges, we cut: what is refused, and where a body ends, whatever the pieces."""

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import framing
from proxy.core.headers import request_pattern
from proxy.core.passage import Destination
from proxy.core.plans import RequestPlans
from proxy.errors import FramingError

PLANS = RequestPlans(
    request_pattern([], []),
    Destination(authority=b"api.example", base_path=b"", own_names=(), own_prefixes=()),
)
ODD = st.sampled_from([b"\r\n\r\n", b"\r\n", b"0\r\n\r\n", b"\r", b"\n", b"x", b"data: 1\n\n"])
DATA = st.lists(ODD | st.binary(min_size=1, max_size=6), max_size=6)


def read(raw: bytes, cuts: list[int]) -> tuple[bytes, framing.ChunkedReader, int]:
    """Feed a body in pieces; return its data, the reader, and how much belonged to it."""
    reader = framing.ChunkedReader()
    edges = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    data, consumed = b"", 0
    for start, end in pairwise(edges):
        body, used = reader.feed(raw[start:end])
        data += body
        consumed += used
        if reader.done:
            break
    return data, reader, consumed


@given(chunks=DATA, cuts=st.lists(st.integers(0, 120), max_size=12), trailer=st.booleans())
def test_a_chunked_body_ends_where_it_ends(
    chunks: list[bytes], cuts: list[int], *, trailer: bool
) -> None:
    """Whatever it holds, wherever it is cut; what follows is not touched."""
    trailers = [(b"X-Sum", b"1")] if trailer else []
    raw = b"".join(map(framing.chunk, chunks)) + framing.last_chunk(trailers)
    data, reader, consumed = read(raw + b"GET / HTTP/1.1\r\n\r\n", cuts)
    assert data == b"".join(chunks)
    assert reader.done
    assert consumed == len(raw)
    assert reader.trailers == trailers


@given(raw=st.binary(max_size=60), cuts=st.lists(st.integers(0, 60), max_size=5))
def test_any_bytes_are_read_or_refused(raw: bytes, cuts: list[int]) -> None:
    """Nothing else is ever raised."""
    with suppress(FramingError):
        read(raw, cuts)


PARTS = st.sampled_from(
    [
        b"1\r\nx\r\n", b"5\r\n0\r\n\r\n\r\n", b"0b\r\ndata: one\n\n\r\n", b"2;name=x\r\nab\r\n",
        b"0\r\n\r\n", b"0\r\n", b"X-Sum: 1\r\n", b"1", b"\r\n", b"x", b"0x1\r\nx\r\n",
        b"1_0\r\n0123456789abcdef\r\n", b"+1\r\nx\r\n", b" 1\r\nx\r\n",
        b"1\nx\r\n", b"1\r\nxx\r\n", b"3\r\nab\r\n", b"00000001\r\nx\r\n",
    ]
)  # fmt: skip


def outcome(pieces: list[bytes]) -> tuple[bytes, int, bool, framing.Trailers] | None:
    """Return what comes of a body in these pieces; None where it is refused."""
    reader, data, consumed = framing.ChunkedReader(), b"", 0
    try:
        for piece in pieces:
            plain = reader.plain(piece)
            body, used = reader.feed(piece) if plain is None else (plain, len(piece))
            data += body
            consumed += used
            if reader.done:
                break
    except FramingError:
        return None
    return data, consumed, reader.done, reader.trailers


@given(parts=st.lists(PARTS, min_size=1, max_size=8), joined=st.lists(st.booleans(), max_size=8))
def test_a_chunk_that_comes_by_itself_is_read_as_the_parser_reads_it(
    parts: list[bytes], joined: list[bool]
) -> None:
    """Whatever came before and comes behind, well formed or not: as if it came byte by byte."""
    pieces = [b""]
    for part, together in zip(parts, [*joined, *[False] * len(parts)], strict=False):
        if together:
            pieces[-1] += part
        else:
            pieces.append(part)
    raw = b"".join(parts)
    byte_by_byte = [raw[at : at + 1] for at in range(len(raw))]
    assert outcome([piece for piece in pieces if piece]) == outcome(byte_by_byte)


@pytest.mark.parametrize("size", [1, 15, 16, 4095, 4096, 70000])
def test_data_is_framed_and_read_at_any_size(size: int) -> None:
    """Small chunks are told by their length, larger ones by what they say."""
    framed = framing.chunk(b"x" * size)
    assert framed == f"{size:x}".encode() + b"\r\n" + b"x" * size + b"\r\n"
    reader = framing.ChunkedReader()
    assert reader.plain(framed) == (b"x" * size if size < 4096 else None)
    assert reader.feed(framed) == (b"x" * size, len(framed))


@given(raw=st.binary(max_size=60))
def test_any_head_is_judged_or_refused(raw: bytes) -> None:
    """A request's as well as an answer's."""
    for judge in (
        lambda: framing.judged_request(b"GET / HTTP/1.1\r\n" + raw + b"\r\n\r\n", PLANS),
        lambda: framing.judged_answer(b"HTTP/1.1 200 OK\r\n" + raw + b"\r\n\r\n", head_only=False),
    ):
        with suppress(FramingError):
            judge()


def test_a_head_is_found_however_it_is_cut() -> None:
    """Looking at a byte twice is not needed."""
    raw = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    for end in range(1, len(raw)):
        assert framing.head_end(raw[:end], end - 1, 100) == -1
    assert framing.head_end(raw + b"body", len(raw) - 1, 100) == len(raw)


@pytest.mark.parametrize(
    ("buffer", "status"),
    [
        (b"GET /\nHost: x", 400),
        (b"GET /\rHost: x", 400),
        (b"a" * 101, 431),
        (b"a" * 100 + b"\r\n\r\n", 431),
    ],
    ids=["LF", "CR", "endless", "too long"],
)
def test_what_will_never_be_a_head_is_refused_early(buffer: bytes, status: int) -> None:
    """Nobody waits for its end."""
    with pytest.raises(FramingError) as caught:
        framing.head_end(buffer, 0, 100)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("head", "head_only", "expected"),
    [
        (b"200 OK\r\nContent-Length: 5", False, 5),
        (b"200 OK\r\nContent-Length: 5", True, 0),
        (b"200 OK\r\nTransfer-Encoding: Chunked", False, framing.CHUNKED),
        (b"200 OK\r\nTransfer-Encoding: chunked", True, 0),
        (b"200 OK\r\nX-A: 1", False, framing.UNTIL_CLOSE),
        (b"204 N\r\nX-A: 1", False, 0),
        (b"304 N\r\nContent-Length: 5", False, 0),
        (b"103 E\r\nX-A: 1", False, 0),
    ],
)
def test_the_length_of_an_answer(head: bytes, expected: int, *, head_only: bool) -> None:
    """RFC 9112 section 6.3."""
    judged = framing.judged_answer(b"HTTP/1.1 " + head + b"\r\n\r\n", head_only=head_only)
    assert judged.length == expected


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        (b"1", b"", True),
        (b"1", b"Connection: x, Close\r\n", False),
        (b"1", b"Connection: keep-alive\r\n", True),
        (b"0", b"", False),
        (b"0", b"Connection: Keep-Alive\r\n", True),
        (b"0", b"Connection: keep-alive, close\r\n", False),
    ],
)
def test_who_wants_to_keep_a_connection(version: bytes, connection: bytes, *, keeps: bool) -> None:
    """RFC 9112 section 9.3, for requests and answers alike."""
    lines = b"Host: x\r\nContent-Length: 0\r\n" + connection + b"\r\n"
    request = framing.judged_request(b"POST / HTTP/1.%b\r\n" % version + lines, PLANS)
    answer = framing.judged_answer(b"HTTP/1.%b 200 OK\r\n" % version + lines, head_only=False)
    assert request.plan.keeps_alive is answer.keeps_alive is keeps


def test_an_answer_until_close_keeps_nothing() -> None:
    """Its end is the connection's."""
    head = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n"
    assert not framing.judged_answer(head, head_only=False).keeps_alive


@pytest.mark.parametrize("endless", [b"5;" + b"a" * 70_000, b"0\r\n" + b"X-A: 1\r\n" * 9_000])
def test_extensions_and_trailers_are_bounded(endless: bytes) -> None:
    """They are held, so there must be an end to them."""
    with pytest.raises(FramingError, match="65536"):
        read(endless, list(range(0, len(endless), 1000)))


def test_no_trailer_frames_a_message() -> None:
    """RFC 9110 section 6.5.1."""
    assert framing.judge_trailers([(b"X-A", b"1")]) == [(b"X-A", b"1")]
    with pytest.raises(FramingError, match="Content-Length"):
        framing.judge_trailers([(b"X-A", b"1"), (b"Content-Length", b"1")])
