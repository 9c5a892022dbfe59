"""Event streams are cut into the same events whatever the line ends and the chunks."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.sse import MAX_LINES, SseEvent, SseFramer, parse, split

LIMIT = 1 << 20
STREAM = (
    b"\xef\xbb\xbfdata: first\n\n"
    b": a comment\n\n"
    b'event: named\ndata: {"a":\ndata: 1}\nid: 7\nretry: 10\n\n'
    b"data:no space\n\n\n"
    b"data\n\n"
    b"data: sp\xc3\xa4ter\n\n"
)
EVENTS = [
    SseEvent(b"", b"first"),
    SseEvent(b"named", b'{"a":\n1}'),
    SseEvent(b"", b"no space"),
    SseEvent(b"", b"sp\xc3\xa4ter"),
]
LINE_ENDS = [b"\n", b"\r\n", b"\r"]


def framed(chunks: list[bytes], limit: int = LIMIT) -> tuple[bytes, bytes, list[SseEvent]]:
    """Return what was spilt, all that came out, and the events that say something."""
    framer = SseFramer(max_event_bytes=limit)
    fed = [framer.feed(chunk) for chunk in chunks]
    blocks = [*(whole for _, whole in fed), framer.finish()]
    events = [parse(event) for block in blocks for event in split(block)]
    spilt = b"".join(spill for spill, _ in fed)
    passed = b"".join(spill + whole for spill, whole in fed) + blocks[-1]
    return spilt, passed, [event for event in events if event.data]


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    """Cut a stream at the given offsets."""
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


@pytest.mark.parametrize("line_end", LINE_ENDS, ids=["LF", "CRLF", "CR"])
@given(cuts=st.lists(st.integers(0, 1 << 12), max_size=30))
def test_any_chunking_gives_the_same_events(line_end: bytes, cuts: list[int]) -> None:
    """Cutting the stream at arbitrary offsets changes nothing, whatever ends its lines."""
    stream = STREAM.replace(b"\n", line_end)
    spilt, passed, events = framed(pieces(stream, cuts))
    assert events == EVENTS
    assert (spilt, passed) == (b"", stream)


@pytest.mark.parametrize("line_end", LINE_ENDS, ids=["LF", "CRLF", "CR"])
def test_an_event_without_its_last_line_end_is_read(line_end: bytes) -> None:
    """Some upstreams close right behind [DONE]."""
    chunks = [b"data: a" + line_end + line_end + b"data: [DONE]"]
    assert [event.data for event in framed(chunks)[2]] == [b"a", b"[DONE]"]


@pytest.mark.parametrize("line_end", LINE_ENDS, ids=["LF", "CRLF", "CR"])
def test_whole_events_come_out_at_once(line_end: bytes) -> None:
    """A reader must not wait for the next chunk to see an event that is complete."""
    framer = SseFramer(max_event_bytes=LIMIT)
    event = b"data: a" + line_end + line_end
    assert [framer.feed(event), framer.feed(event + b"data: b")] == [(b"", event), (b"", event)]


@given(st.lists(st.sampled_from([b"\r", b"\n", b"a", b"data: x"]), max_size=30), st.integers(1, 9))
def test_no_byte_is_lost_or_made(parts: list[bytes], limit: int) -> None:
    """Whatever comes, in whatever size, what goes out is what came in."""
    assert framed(parts, limit)[1] == b"".join(parts)


@given(st.lists(st.integers(0, 1 << 12), max_size=30))
def test_a_too_large_event_is_lost_and_no_other(cuts: list[int]) -> None:
    """The stream goes on behind an event that nobody wants to hold."""
    large = b"data: " + b"x" * 100 + b"\r\n\r\n"
    stream = b"data: a\r\n\r\n" + large + b"data: b\r\n\r\n"
    spilt, passed, events = framed(pieces(stream, cuts), limit=20)
    assert [event.data for event in events if len(event.data) < 20] == [b"a", b"b"]
    assert passed == stream
    assert spilt in {b"", large}


def test_a_too_large_event_is_counted_once() -> None:
    """It passes unread, piece by piece, and memory does not grow with it."""
    framer = SseFramer(max_event_bytes=10)
    assert framer.feed(b"data: " + b"x" * 20) == (b"", b"")
    assert framer.feed(b"yyy") == (b"data: " + b"x" * 20 + b"yyy", b"")
    assert framer.feed(b"zzz") == (b"zzz", b"")
    assert framer.feed(b"\n\ndata: b\n\ndata") == (b"\n\n", b"data: b\n\n")
    assert framer.lost == 1


def test_split_gives_back_its_block() -> None:
    """The bytes of events are not changed by looking at them singly."""
    for line_end in LINE_ENDS:
        block = STREAM.replace(b"\n", line_end) + b"data: cut"
        assert b"".join(split(block)) == block
    assert split(b"") == []


def test_an_event_of_thousands_of_lines_says_nothing() -> None:
    """JSON over a few lines is read, however."""
    assert parse(b"data: {\ndata: }\n\n").data == b"{\n}"
    assert parse(b"data: {\n" + b"data: \r\n" * MAX_LINES + b"data: }\n\n").data == b""
