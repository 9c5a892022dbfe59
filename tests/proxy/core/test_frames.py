import tracemalloc
from collections.abc import Iterable
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.frames import NO_CODE, NOT_WEBSOCKET, FrameReader, Piece
from tests.fakes.websocket import BINARY, PING, PONG, close, fragments, frame

LONG, LONGER = b"l" * 300, b"m" * 70_000
STREAM = b"".join(
    (
        frame(b"one"),
        frame(b""),
        fragments([b"a", b"", b"bc"])[0],
        frame(b"still there?", PING),
        *fragments([b"a", b"", b"bc"])[1:],
        frame(LONG, BINARY),
        frame(b"", PONG),
        frame(LONGER),
        *fragments([b"x", b""]),
        close(1001, b"bye"),
        frame(b"too late"),
    )
)
MESSAGES = [b"one", b"", b"abc", LONG, LONGER, b"x"]


def messages(pieces: Iterable[Piece]) -> list[bytes]:
    """Put messages together."""
    whole, kept = [], b""
    for piece in pieces:
        kept += piece.data
        if piece.ends:
            whole.append(kept)
            kept = b""
    assert kept == b""
    return whole


def test_messages_are_found_and_control_frames_passed_over() -> None:
    """Fragments belong together, with a ping between them; behind a close frame is nothing."""
    reader = FrameReader(may_compress=False)
    assert messages(reader.feed(STREAM)) == MESSAGES
    assert (reader.close_code, reader.problem) == (1001, None)


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_any_chunking_gives_the_same_messages(cuts: list[int]) -> None:
    """Cutting at arbitrary places changes nothing, and each message ends with its last byte."""
    edges = [0, *sorted(cuts), len(STREAM)]
    reader = FrameReader(may_compress=False)
    pieces = [p for start, end in pairwise(edges) for p in reader.feed(STREAM[start:end])]
    assert messages(pieces) == MESSAGES
    assert reader.close_code == 1001


MASK = bytes.fromhex("a1b2c3d4")
MASKED = b"".join(
    (
        frame(b"one", mask=MASK),
        frame(b"", mask=bytes(4)),
        frame(b"tw", final=False, mask=MASK),
        frame(b"oooo", 0, mask=bytes.fromhex("01020304")),
        frame(LONGER, mask=MASK),
        close(1000),
    )
)


@given(st.lists(st.integers(0, len(MASKED)), max_size=30))
def test_a_mask_is_taken_off(cuts: list[int]) -> None:
    """Each frame has its own, which goes on where a piece has ended."""
    edges = [0, *sorted(cuts), len(MASKED)]
    reader = FrameReader(may_compress=False, is_masked=True)
    pieces = [p for start, end in pairwise(edges) for p in reader.feed(MASKED[start:end])]
    plain = [piece._replace(data=piece.plain) for piece in pieces]
    assert messages(plain) == [b"one", b"", b"twoooo", LONGER]
    assert Piece(b"as it is", compressed=False, ends=True).plain == b"as it is"


def test_a_message_ends_with_the_last_byte_of_its_last_frame() -> None:
    """Also where that frame is empty and ends a chunk."""
    reader = FrameReader(may_compress=False)
    first, last = fragments([b"x", b""])
    assert [piece.ends for piece in reader.feed(first)] == [False]
    assert [piece.ends for piece in reader.feed(last[:1])] == []
    assert [piece.ends for piece in reader.feed(last[1:])] == [True]


@pytest.mark.parametrize(
    ("payload", "code"),
    [(b"", NO_CODE), (b"\x03", NO_CODE), (b"\x03\xe8", 1000), (b"\x0f\xa0no", 4000)],
)
def test_a_close_frame_has_a_code(payload: bytes, code: int) -> None:
    """Or none, which has a number of its own; its reason is not kept."""
    reader = FrameReader(may_compress=False)
    assert list(reader.feed(frame(payload, 8))) == []
    assert reader.close_code == code


def test_a_close_frame_may_come_byte_by_byte() -> None:
    """It has its code when it is whole, and not before."""
    reader = FrameReader(may_compress=False)
    sent = frame(b"\x03\xe8bye", 8)
    codes = [(list(reader.feed(sent[at : at + 1])), reader.close_code) for at in range(len(sent))]
    assert codes == [([], None)] * (len(sent) - 1) + [([], 1000)]


def test_compressed_messages_are_known_by_their_first_frame() -> None:
    """Where compression was agreed on."""
    reader = FrameReader(may_compress=True)
    pieces = reader.feed(b"".join(fragments([b"a", b"b"], reserved=0x40)) + frame(b"c"))
    assert [piece.compressed for piece in pieces] == [True, True, False]


@pytest.mark.parametrize(
    "bad",
    [
        frame(b"x", reserved=0x40),
        frame(b"x", reserved=0x20),
        frame(b"x", reserved=0x10),
        frame(b"x", 3),
        frame(b"x", 11),
        frame(b"x", 0),
        frame(b"x", mask=b"mask"),
        frame(b"x", PING, final=False),
        frame(b"x" * 126, PING),
        frame(b"x", PING, reserved=0x40),
        frame(b"a", final=False) + frame(b"b"),
        frame(b"a", final=False) + frame(b"b", 0, reserved=0x40),
        b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_what_breaks_the_rules_ends_the_reading(bad: bytes) -> None:
    """What came before it has been read."""
    reader = FrameReader(may_compress=False)
    assert messages(reader.feed(frame(b"good"))) == [b"good"]
    list(reader.feed(bad + frame(b"after")))
    assert reader.problem == NOT_WEBSOCKET
    assert list(reader.feed(frame(b"after"))) == []


def test_what_a_client_says_is_masked() -> None:
    """It is handed on as it came; a frame without a mask is none."""
    reader = FrameReader(may_compress=False, is_masked=True)
    assert messages(reader.feed(frame(b"ab", mask=b"\0\1\0\0"))) == [b"ac"]
    assert list(reader.feed(frame(b"", 8, mask=b"mask"))) == []
    assert reader.close_code == NO_CODE
    reader = FrameReader(may_compress=False, is_masked=True)
    assert list(reader.feed(frame(b"ab"))) == []
    assert reader.problem == NOT_WEBSOCKET


@given(st.lists(st.binary(max_size=80), max_size=20), st.booleans())
def test_no_bytes_make_it_raise_or_keep_much(chunks: list[bytes], compressed: bool) -> None:  # noqa: FBT001
    """Pieces are never more than came."""
    reader = FrameReader(may_compress=compressed)
    pieces = [piece for chunk in chunks for piece in reader.feed(chunk)]
    assert sum(len(piece.data) for piece in pieces) <= sum(map(len, chunks))


@pytest.mark.parametrize(
    "tiny", [frame(b""), frame(b"x"), frame(b"", PING)], ids=["empty", "a byte", "ping"]
)
def test_any_number_of_frames_at_once_is_read_one_after_another(tiny: bytes) -> None:
    """What is kept of them does not grow with their number."""
    reader = FrameReader(may_compress=False)
    stream = tiny * 60_000 + frame(b"last")
    tracemalloc.start()
    try:
        read = sum(1 for _ in islice(reader.feed(stream), 60_000))
        grown = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read == (60_000 if tiny[0] & 0x0F != PING else 1)
    assert grown < 50_000
    assert reader.problem is None


def read_again(reader: FrameReader, data: bytes) -> Iterable[Piece]:
    """Feed what was left unread, until nothing is."""
    while data:
        yield from reader.feed(data)
        assert reader.unread < len(data)  # something was read
        data = data[len(data) - reader.unread :]


@given(st.integers(1, 5), st.lists(st.integers(0, len(STREAM)), max_size=10))
def test_what_one_feed_leaves_is_read_by_the_next(at_once: int, cuts: list[int]) -> None:
    """Whatever a feed may take, and however the bytes are cut."""
    edges = [0, *sorted(cuts), len(STREAM)]
    reader = FrameReader(may_compress=False, at_once=at_once)
    pieces = [p for start, end in pairwise(edges) for p in read_again(reader, STREAM[start:end])]
    assert messages(pieces) == MESSAGES
    assert reader.close_code == 1001


def test_one_feed_takes_so_many_frames() -> None:
    """Control frames too; who has more to do with a piece makes it fewer."""
    reader = FrameReader(may_compress=False, at_once=3)
    stream = frame(b"a") + frame(b"", PING) * 2 + frame(b"b") + frame(b"c")
    assert [piece.data for piece in reader.feed(stream)] == [b"a"]
    assert reader.unread == len(frame(b"b") + frame(b"c"))
    for piece in reader.feed(stream[-reader.unread :]):
        assert piece.data == b"b"
        reader.effort -= 2
    assert reader.unread == len(frame(b"c"))
    assert messages(reader.feed(frame(b"c"))) == [b"c"]
    assert reader.unread == 0


def test_a_compressed_frame_is_read_in_steps() -> None:
    """It may unfold to very much; of what is not compressed a frame is one piece."""
    reader = FrameReader(may_compress=True, at_once=2)
    stream = frame(LONGER, reserved=0x40)
    assert [len(piece.data) for piece in reader.feed(stream)] == [4096, 4096]
    assert reader.unread == len(stream) - 10 - 8192
    assert messages(read_again(reader, stream[-reader.unread :])) == [LONGER[8192:]]
    assert [len(piece.data) for piece in reader.feed(frame(LONGER))] == [len(LONGER)]
