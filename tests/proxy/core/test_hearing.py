import json
import sys

import pytest

from proxy.core.hearing import MAX_WAITING, ClientReader
from proxy.core.inflating import Extensions
from tests.fakes.websocket import Deflater, frame

ASKS = b"response.create"
MASK = b"\x0a\x0b\x0c\x0d"


def said(**members: object) -> bytes:
    """Return what a client says, as it stands in a message."""
    return json.dumps(members).encode()


def reader(
    asks: bytes = ASKS,
    extensions: Extensions = Extensions(),  # noqa: B008
    at_once: int = sys.maxsize,
) -> ClientReader:
    """Return a reader of requests of a kilobyte."""
    return ClientReader(asks, extensions, max_bytes=1000, at_once=at_once)


def masked(data: bytes, opcode: int = 1, reserved: int = 0) -> bytes:
    """Return a frame of a client's."""
    return frame(data, opcode, reserved=reserved, mask=MASK)


def test_models_are_told_in_the_order_of_the_requests() -> None:
    """Other things that a client says are none, and a request may name no model."""
    client = reader()
    for message in (
        said(type="response.create", model="a", input="x" * 500),
        said(type="response.cancel", model="b"),
        said(model="c", type="response.create"),
        said(type="response.create"),
        said(type="response.create", model=7),
        said(input=["x"], type="other", model="d"),
    ):
        client.feed(masked(message))
    assert [client.next_model() for _ in range(5)] == ["a", "c", None, None, None]


def test_a_request_that_cannot_be_read_is_one_all_the_same() -> None:
    """It is answered as well, by an error."""
    client = reader()
    client.feed(masked(b'{"type":"response.create",]') + masked(said(type="x"), opcode=2))
    client.feed(masked(said(type="response.create", model="a")))
    assert [client.next_model(), client.next_model()] == [None, "a"]


def test_nothing_is_told_where_a_request_was_missed() -> None:
    """It might be the next one."""
    client = reader()
    client.feed(masked(said(type="response.create", model="a")))
    client.feed(masked(said(type="response.create", input="x" * 1000)))
    assert client.next_model() is None


@pytest.mark.parametrize("takes_over", [True, False])
def test_compressed_requests_are_read(takes_over: bool) -> None:  # noqa: FBT001
    """Whether the client begins each message afresh is agreed on for it alone."""
    client = reader(extensions=Extensions(deflates=True, client_takes_over=takes_over))
    packed = Deflater(takes_over=takes_over)
    for model in ("a", "b"):
        text = packed.message(said(type="response.create", model=model))
        client.feed(masked(text, reserved=0x40))
    assert [client.next_model(), client.next_model()] == ["a", "b"]


@pytest.mark.parametrize("asks", [ASKS, b""])
def test_a_client_that_closes_is_noticed(asks: bytes) -> None:
    """Whether or not its requests are read."""
    client = reader(asks)
    client.feed(masked(said(type="response.create", model="a")))
    before = client.has_closed
    client.feed(masked((1000).to_bytes(2), opcode=8))
    assert (before, client.has_closed) == (False, True)
    assert client.next_model() == ("a" if asks else None)


def test_what_waits_is_bounded() -> None:
    """A client that asks and asks is not remembered for ever."""
    client = reader()
    for number in range(MAX_WAITING + 10):
        client.feed(masked(said(type="response.create", model=str(number))))
    assert client.next_model() == "10"


@pytest.mark.parametrize("asks", [ASKS, b""], ids=["requests", "none"])
def test_one_feed_takes_so_many_frames(asks: bytes) -> None:
    """The rest is to come again; nothing is unread otherwise."""
    client = reader(asks, at_once=4)
    ping = masked(b"", 9)
    client.feed(ping * 3)
    assert client.unread == 0
    client.feed(ping * 10 + masked(b"\x03\xe8", 8))
    assert client.unread == 6 * len(ping) + len(masked(b"\x03\xe8", 8))
    assert not client.has_closed
