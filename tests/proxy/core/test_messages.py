import sys
import tracemalloc

import pytest

from proxy.core.frames import NOT_WEBSOCKET
from proxy.core.inflating import TOO_LARGE as BOMB
from proxy.core.inflating import UNDECODABLE, UNKNOWN_EXTENSION, Extensions
from proxy.core.messages import CUT, TOO_LARGE, MessageReader
from tests.fakes.websocket import PING, Deflater, close, fragments, frame

PLAIN = Extensions()
PACKED = Extensions(deflates=True)


def reader(
    extensions: Extensions = PLAIN, max_bytes: int = 1000, at_once: int = sys.maxsize
) -> MessageReader:
    """Return a reader to whom audio does not matter."""
    return MessageReader(
        extensions,
        max_bytes=max_bytes,
        matters=lambda start: not start.startswith(b"audio"),
        at_once=at_once,
    )


def test_messages_that_matter_are_put_together() -> None:
    """The others pass; a long one is known by its first bytes."""
    messages = reader()
    long = b"w" * 900
    stream = b"".join((frame(b"audio"), frame(b"a"), *fragments([b"b", b"c"]), frame(b"p", PING)))
    stream += frame(b"audio" * 100_000) + frame(long) + close(1000)
    assert list(messages.feed(stream)) == [b"a", b"bc", long]
    messages.finish()
    assert (messages.problem, messages.close_code) == (None, 1000)


def test_what_does_not_matter_is_not_kept() -> None:
    """However large it is, and however it comes."""
    messages = reader()
    for piece in fragments([b"audio" * 50] + [b"x" * 5000] * 20):
        assert list(messages.feed(piece)) == []
    assert list(messages.feed(frame(b"a"))) == [b"a"]
    assert messages.problem is None


@pytest.mark.parametrize("extensions", [PLAIN, PACKED], ids=["plain", "compressed"])
def test_a_message_that_is_too_large_is_lost(extensions: Extensions) -> None:
    """It alone; that it is missing stays known."""
    messages = reader(extensions)
    large = b"w" * 1001
    packed = Deflater()
    stream = frame(large) if extensions is PLAIN else packed.frame(large)
    assert list(messages.feed(stream)) == []
    assert list(messages.feed(frame(b"a"))) == [b"a"]
    assert messages.problem == TOO_LARGE


def test_compressed_messages_are_inflated() -> None:
    """Those between them may be plain, and those that do not matter are part of the history."""
    messages, packed = reader(PACKED), Deflater()
    stream = packed.frame(b"audio" * 700) + frame(b"plain") + packed.frame(b"packed audio")
    assert list(messages.feed(stream)) == [b"plain", b"packed audio"]
    assert messages.problem is None


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (frame(b"\xff\xff\xff", reserved=0x40), UNDECODABLE),
        (Deflater().frame(bytes(100_000)), BOMB),
        (frame(b"x", 7), NOT_WEBSOCKET),
        (frame(b"half")[:-1], CUT),
        (frame(b"h" * 600)[:-1], CUT),
    ],
)
def test_what_cannot_be_read_is_a_problem(data: bytes, problem: str) -> None:
    """Something may have been billed in it."""
    messages = reader(PACKED)
    assert list(messages.feed(data)) == []
    messages.finish()
    assert messages.problem == problem


def test_a_cut_in_what_does_not_matter_is_none() -> None:
    """Nor is one between two messages."""
    messages = reader()
    assert list(messages.feed(frame(b"a") + frame(b"audio" * 1000)[:-1])) == [b"a"]
    messages.finish()
    assert messages.problem is None


def test_nothing_is_read_behind_an_unknown_extension() -> None:
    """Its frames may mean anything."""
    messages = reader(Extensions(unknown=True))
    assert list(messages.feed(frame(b"a"))) == []
    assert messages.problem == UNKNOWN_EXTENSION


def test_a_burst_of_tiny_messages_is_read_whole_and_one_at_a_time() -> None:
    """Compressed ones may be a few bytes each, and unfold to much more than what came."""
    messages, packed = reader(PACKED), Deflater()
    large = b"m" * 900
    burst = b"".join(packed.frame(large) for _ in range(6000))
    assert len(burst) < 90_000
    tracemalloc.start()
    try:
        read = sum(message == large for message in messages.feed(burst))
        grown = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (read, messages.problem) == (6000, None)
    assert grown < 500_000


def test_what_matters_takes_more_of_one_feed() -> None:
    """It is read, and noted; the rest is for the next one."""
    messages = reader(at_once=20)
    others, one = frame(b"audio"), frame(b"a")
    assert list(messages.feed(others * 21)) == []
    assert messages.unread == len(others)
    assert list(messages.feed(one * 10)) == [b"a"] * 3
    assert messages.unread == 7 * len(one)


def test_so_does_what_unfolds_to_much() -> None:
    """A message of a kilobyte that was compressed counts as two frames."""
    messages, packed = reader(PACKED, at_once=20), Deflater(takes_over=False)
    one = packed.frame(b"audio" + b"x" * 1019)
    assert list(messages.feed(one * 30)) == []
    assert messages.unread == 20 * len(one)
