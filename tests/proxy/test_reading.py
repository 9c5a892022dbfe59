"""What is read waits until it has been passed on, and others have their turn meanwhile."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from typing_extensions import override

from proxy.reading import Reading

PATIENCE_SECONDS = 20


class Taking(Reading):
    """A link whose bytes are taken three at a time, and who tells what it sees, in order."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self.active = False
        self.is_broken = False
        self.ended = asyncio.get_running_loop().create_future()
        self._name = name
        self._seen = seen

    @override
    def data_received(self, data: bytes) -> None:
        self._offer(data, self._take)

    def _take(self, data: bytes) -> bytes:
        if self.is_broken:
            raise RuntimeError
        self._seen.append(f"{self._name}{data[:3].decode()}")
        return data[3:]

    @override
    def eof_received(self) -> None:
        self._seen.append(f"{self._name} end")

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(self.take_rest())


@asynccontextmanager
async def linked(name: str, seen: list[str]) -> AsyncIterator[tuple[Taking, socket.socket]]:
    """Yield a link, and its other end."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    theirs.settimeout(0)
    loop = asyncio.get_running_loop()
    transport, link = await loop.create_connection(lambda: Taking(name, seen), sock=ours)
    link.transport = transport
    try:
        yield link, theirs
    finally:
        transport.abort()
        theirs.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await link.ended


async def until(seen: list[str], what: str) -> None:
    """Wait until it has been seen."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while what not in seen:
            await asyncio.sleep(0)


async def test_others_have_their_turn_between_two_portions() -> None:
    """A read of thirty is passed on in ten turns, in order, and its end comes behind it."""
    seen: list[str] = []
    async with linked("a", seen) as (_, a), linked("b", seen) as (_, b):
        a.send(b"0123456789" * 3)
        a.shutdown(socket.SHUT_WR)
        b.send(b"-")
        await until(seen, "a end")
    said = [each for each in seen if each[0] == "a"]
    assert "".join(each[1:] for each in said[:-1]) == "0123456789" * 3
    assert len(said) == 11
    assert 0 < seen.index("b-") < len(seen) - 2


async def test_nothing_is_read_meanwhile() -> None:
    """Neither before what has come is passed on, nor while the other side does not keep up."""
    seen: list[str] = []
    async with linked("a", seen) as (link, a):
        a.send(b"0123456789ABCDEFGHIJKLM")
        await until(seen, "a012")
        a.send(b"x")
        link.pause()
        link.resume()  # there is still something that waits
        await until(seen, "aLM")
        await until(seen, "ax")
        link.pause()
        a.send(b"9abcdef")
        for _ in range(5):
            await asyncio.sleep(0)
        assert seen[-1] == "ax"
        link.resume()
        await until(seen, "a9ab")
        link.pause()
        await until(seen, "af")
        a.send(b"y")
        for _ in range(5):
            await asyncio.sleep(0)
        assert seen[-1] == "af"
        link.resume()
        await until(seen, "ay")


async def test_whoever_ends_it_takes_the_rest() -> None:
    """Once; then there is nothing to go on with."""
    seen: list[str] = []
    async with linked("a", seen) as (link, a):
        a.send(b"012345678")
        await until(seen, "a012")
        assert link.take_rest() == b"345678"
        assert link.take_rest() == b""
        for _ in range(5):
            await asyncio.sleep(0)
        assert seen == ["a012"]


async def test_a_fault_ends_the_link(caplog: pytest.LogCaptureFixture) -> None:
    """As it does where the transport meets it."""
    seen: list[str] = []
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: faults.append(context["exception"])
    )
    async with linked("a", seen) as (link, a):
        a.send(b"012345678")
        await until(seen, "a012")
        link.is_broken = True
        async with asyncio.timeout(PATIENCE_SECONDS):
            await link.ended
    assert [type(fault) for fault in faults] == [RuntimeError]
    assert not caplog.records
