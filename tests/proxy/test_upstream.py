"""A link hands an answer on, and is given back where it can be used again."""

import asyncio

import pytest

from proxy.core import headers
from proxy.errors import RelayError
from proxy.framing import AnswerHead
from proxy.upstream import UpstreamLink
from tests.fakes.upstream import Call, Upstream, answer_plainly

GET = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"


class Shelf:
    """Who keeps links."""

    max_head_bytes = 10_000

    def __init__(self) -> None:
        self.links: list[UpstreamLink] = []
        self.faults: list[BaseException] = []
        self.report_fault = self.faults.append

    def keep(self, link: UpstreamLink) -> None:
        """Keep a link."""
        self.links.append(link)

    def forget(self, link: UpstreamLink) -> None:
        """Drop a link."""
        if link in self.links:
            self.links.remove(link)


class Reader:
    """A caller that waits for the end of its answer."""

    def __init__(self) -> None:
        self.body = b""
        self.end: asyncio.Future[RelayError | None] = asyncio.get_running_loop().create_future()

    def connected(self, link: UpstreamLink) -> None:
        """Never asked for a connection."""

    def connect_failed(self, error: RelayError) -> None:
        """Never asked for a connection."""

    def interim(self, head: headers.Head) -> None:
        """Pass over a 1xx head."""

    def switched(self, head: bytes, rest: bytes) -> bytes:
        """Never asked for a tunnel."""
        raise AssertionError(f"nobody asked for a tunnel, and {head + rest!r} came")

    def tunnelled(self, data: bytes) -> bytes:
        """Never asked for a tunnel."""
        raise AssertionError(f"there is no tunnel, and {data!r} came through it")

    def answer(self, head: AnswerHead | None, raw: bytes, body: bytes, *, done: bool) -> None:
        """Keep the body."""
        del head, raw
        self.body += body
        if done:
            self.end.set_result(None)

    def upstream_lost(self, error: RelayError) -> None:
        """Learn why there is no end."""
        self.end.set_result(error)

    def upstream_paused(self) -> None:
        """Have nothing more to write."""

    def upstream_resumed(self) -> None:
        """Have nothing more to write."""


async def called(upstream: Upstream, shelf: Shelf) -> tuple[UpstreamLink, Reader]:
    """Make one call on a new connection, and wait for its end."""
    loop = asyncio.get_running_loop()
    host, _, port = upstream.url.removeprefix("http://").partition(":")
    _, link = await loop.create_connection(lambda: UpstreamLink(shelf), host, int(port))
    reader = Reader()
    link.begin(reader, GET, head_only=False, may_switch=False)
    link.request_sent = True
    await asyncio.wait_for(reader.end, 10)
    return link, reader


async def test_a_link_is_given_back_behind_a_whole_answer() -> None:
    """And serves the next call."""
    shelf = Shelf()
    async with Upstream(answer_plainly) as upstream:
        link, reader = await called(upstream, shelf)
        assert (reader.body, reader.end.result()) == (b"{}", None)
        assert shelf.links == [link]
        again = Reader()
        link.begin(again, GET, head_only=False, may_switch=False)
        link.request_sent = True
        await asyncio.wait_for(again.end, 10)
        assert again.body == b"{}"
        link.close()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "upstream_disconnected"),
        (b"HTTP/1.1 101 Yes\r\n\r\n", "upstream_protocol_error"),
        (b"HTTP/1.1 100 Go on\r\n\r\n" * 101, "upstream_protocol_error"),
    ],
    ids=["cut", "switch", "interim"],
)
async def test_a_link_whose_answer_is_none_is_lost_and_not_given_back(
    answer: bytes, said: str
) -> None:
    """Nobody knows what would come next on it."""
    shelf = Shelf()

    async def script(call: Call) -> None:
        await call.send(answer)
        call.close()

    async with Upstream(script) as upstream:
        link, reader = await called(upstream, shelf)
        error = reader.end.result()
        assert error is not None
        assert error.type == said
        assert (shelf.links, shelf.faults) == ([], [])
        assert link.transport.is_closing()
        await asyncio.sleep(0.01)
