import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.inflating import (
    FLOOR_BYTES,
    TOO_LARGE,
    UNDECODABLE,
    Extensions,
    Inflater,
    extensions_of,
)
from tests.fakes.websocket import Deflater, switched

MESSAGES = (b'{"type":"a"}', b'{"type":"b"}' * 30_000, b"", b'{"type":"a"}')


def inflated(inflater: Inflater, data: bytes) -> bytes:
    """Return a message that comes in one piece."""
    return b"".join(inflater.feed(data, ends=True))


@pytest.mark.parametrize(
    ("fields", "agreed"),
    [
        (b"", Extensions()),
        (b"Sec-WebSocket-Extensions: \r\n", Extensions()),
        (b"sec-websocket-extensions:Permessage-Deflate\r\n", Extensions(deflates=True)),
        (
            b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=12\r\n",
            Extensions(deflates=True),
        ),
        (
            (
                b"Sec-WebSocket-Extensions: permessage-deflate ; client_no_context_takeover;"
                b" server_no_context_takeover\r\n"
            ),
            Extensions(deflates=True, takes_over=False, client_takes_over=False),
        ),
        (b"Sec-WebSocket-Extensions: permessage-deflate, x-odd\r\n", Extensions(unknown=True)),
        (b"Sec-WebSocket-Extensions: x-\xff\r\n", Extensions(unknown=True)),
        (
            b"Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Extensions: x\r\n",
            Extensions(unknown=True),
        ),
    ],
)
def test_what_the_upstream_agreed_to(fields: bytes, agreed: Extensions) -> None:
    """In any spelling; what is not known may mean anything."""
    assert extensions_of(switched(b"X-Before: sec-websocket-extensions: x\r\n" + fields)) == agreed


@pytest.mark.parametrize("takes_over", [True, False])
def test_messages_are_inflated(takes_over: bool) -> None:  # noqa: FBT001
    """Whether each has a history of its own or all share one."""
    deflater = Deflater(takes_over=takes_over)
    inflater = Inflater(takes_over=takes_over, max_bytes=1 << 20)
    assert [inflated(inflater, deflater.message(message)) for message in MESSAGES] == [*MESSAGES]
    assert inflater.problem is None


def test_a_message_may_come_in_pieces() -> None:
    """Of a byte each."""
    packed = Deflater().message(MESSAGES[1])
    inflater = Inflater(takes_over=True, max_bytes=1 << 20)
    steps = [
        step
        for place in range(len(packed))
        for step in inflater.feed(packed[place : place + 1], ends=place == len(packed) - 1)
    ]
    assert b"".join(steps) == MESSAGES[1]


def test_a_last_block_begins_a_new_history() -> None:
    """RFC 7692 section 7.2.3.4: "Hello" in a block that says it is the last one."""
    inflater = Inflater(takes_over=True, max_bytes=100)
    last = bytes.fromhex("f348cdc9c90700") + b"\x00"
    assert inflated(inflater, last) == b"Hello"
    assert inflated(inflater, last) == b"Hello"
    assert inflater.problem is None


def test_a_bomb_is_not_unfolded() -> None:
    """What shares its history cannot be read any more; what does not, can."""
    bomb = zlib.compressobj(wbits=-15)
    packed = bomb.compress(bytes(1 << 20)) + bomb.flush(zlib.Z_SYNC_FLUSH)[:-4]
    sharing = Inflater(takes_over=True, max_bytes=1000)
    assert len(inflated(sharing, packed)) <= 1000
    assert sharing.problem == TOO_LARGE
    assert inflated(sharing, Deflater().message(b"x")) == b""
    alone = Inflater(takes_over=False, max_bytes=1000)
    inflated(alone, packed)
    assert alone.problem == TOO_LARGE
    assert inflated(alone, Deflater().message(b"x")) == b"x"
    assert alone.problem is None


def test_a_message_that_unfolds_to_very_much_is_taken_for_a_bomb() -> None:
    """Whatever its bound is: silence of minutes may be large, but not this large."""
    packed = zlib.compressobj(wbits=-15)
    bomb = packed.compress(bytes(40 << 20)) + packed.flush(zlib.Z_SYNC_FLUSH)[:-4]
    inflater = Inflater(takes_over=True, max_bytes=1 << 26)
    assert FLOOR_BYTES < len(inflated(inflater, bomb)) < 24 << 20
    assert inflater.problem == TOO_LARGE


def test_what_is_not_deflated_ends_the_reading() -> None:
    """From the first fault on nothing comes out."""
    inflater = Inflater(takes_over=True, max_bytes=1000)
    assert inflated(inflater, b"\xff\xff\xff") == b""
    assert inflater.problem == UNDECODABLE


@given(st.lists(st.tuples(st.binary(max_size=60), st.booleans()), max_size=12), st.booleans())
def test_no_bytes_make_it_raise(pieces: list[tuple[bytes, bool]], takes_over: bool) -> None:  # noqa: FBT001
    """And no message unfolds beyond its bound."""
    inflater = Inflater(takes_over=takes_over, max_bytes=500)
    size = 0
    for data, ends in pieces:
        size += sum(map(len, inflater.feed(data, ends=ends)))
        assert size <= 500
        size = 0 if ends else size
