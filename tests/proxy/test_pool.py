"""Where an upstream is, whom it is believed to be, which connections to it are kept."""

import asyncio
import ssl
from collections.abc import Coroutine
from dataclasses import astuple
from pathlib import Path

import pytest
import trustme

from proxy.errors import RelayError
from proxy.pool import Address, Pool
from proxy.upstream import UpstreamLink
from tests.fakes.relay import Wire, running_worker
from tests.fakes.upstream import Call, Upstream, answer_plainly

GET = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.openai.com", ("api.openai.com", 443, True, b"api.openai.com", b"")),
        ("http://[::1]:99/a/b", ("::1", 99, False, b"[::1]:99", b"/a/b")),
        ("http://10.0.0.7/", ("10.0.0.7", 80, False, b"10.0.0.7", b"")),
    ],
)
def test_an_address_is_read_from_a_url(url: str, expected: tuple[object, ...]) -> None:
    """Host is told as it stands there."""
    assert astuple(Address.of(url)) == expected


class Waiting:
    """A caller that waits for a connection."""

    def __init__(self) -> None:
        self.link: asyncio.Future[UpstreamLink] = asyncio.get_running_loop().create_future()

    def connected(self, link: UpstreamLink) -> None:
        """Take a new connection."""
        self.link.set_result(link)

    def connect_failed(self, error: RelayError) -> None:
        """Learn that there is none."""
        self.link.set_exception(error)


async def connection(pool: Pool) -> UpstreamLink:
    """Return a new connection of a pool."""
    waiting = Waiting()
    pool.connect(waiting)  # type: ignore[arg-type]  # it never makes a call
    return await asyncio.wait_for(waiting.link, 5)


def pool_of(upstream: Upstream) -> Pool:
    """Return a pool of connections."""
    tasks: set[object] = set()
    loop = asyncio.get_running_loop()

    def spawn(work: Coroutine[None, None, None]) -> object:
        tasks.add(loop.create_task(work))
        return work

    def report(exc: BaseException) -> None:
        raise exc

    return Pool(
        Address.of(upstream.url),
        spawn=spawn,
        report_fault=report,
        tls=None,
        connect_timeout_seconds=5,
        keep_seconds=10,
    )


async def test_the_newest_connection_is_used_first_and_the_oldest_closed() -> None:
    """So that a burst's connections go away again."""
    async with Upstream() as upstream:
        pool = pool_of(upstream)
        old, new = await connection(pool), await connection(pool)
        pool.keep(old)
        pool.keep(new)
        now = asyncio.get_running_loop().time()
        old.idle_since -= 11
        assert pool.take() is new
        pool.keep(new)
        pool.sweep(now)
        assert old.transport.is_closing()
        assert pool.take() is new
        assert pool.take() is None
        pool.keep(new)
        pool.close()
        assert new.transport.is_closing()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("end", ["closing", "speaks", "closed by the upstream"])
async def test_a_connection_on_its_way_out_is_not_handed_out(end: str) -> None:
    """Neither one that is closing, nor one whose upstream spoke unasked."""
    calls: list[asyncio.StreamWriter] = []

    async def note(call: Call) -> None:
        await answer_plainly(call)

    async with Upstream(note) as upstream:
        pool = pool_of(upstream)
        link = await connection(pool)
        pool.keep(link)
        await asyncio.sleep(0.01)
        calls += upstream._writers  # noqa: SLF001
        if end == "closing":
            link.transport.close()
        elif end == "speaks":
            calls[0].write(b"HTTP/1.1 408 Too Late\r\n\r\n")
        else:
            calls[0].close()
        if end != "closing":
            await asyncio.sleep(0.02)
        assert pool.take() is None
        assert link.transport.is_closing()


async def test_an_upstream_is_checked_to_be_who_it_is(tmp_path: Path) -> None:
    """By a certificate of an authority that is trusted, for its name."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    async with (
        asyncio.timeout(20),
        Upstream(tls=context) as upstream,
        running_worker(tmp_path, upstream.url, upstream_ca_file=trusted) as worker,
    ):
        wire = await Wire.to(worker.port)
        for _ in range(2):
            await wire.send(GET)
            assert (await wire.answer())[1] == b"{}"
        await wire.close()
        assert upstream.connections == 1


@pytest.mark.parametrize("wrong", ["authority", "name"])
async def test_an_upstream_that_is_someone_else_gets_no_call(tmp_path: Path, wrong: str) -> None:
    """It is told as 502; nothing was sent, least of all the key."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1" if wrong == "authority" else "other").configure_cert(context)
    trusted = tmp_path / "ca.pem"
    (trustme.CA() if wrong == "authority" else authority).cert_pem.write_to_path(str(trusted))
    async with (
        asyncio.timeout(20),
        Upstream(tls=context) as upstream,
        running_worker(tmp_path, upstream.url, upstream_ca_file=trusted) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(GET)
        head, body = await wire.answer()
        await wire.close()
        assert head.startswith(b"HTTP/1.1 502 ")
        assert b"no TLS connection to 127.0.0.1" in body
        assert upstream.calls == []
        assert (await worker.closed_once("upstream_error")).error_type == "upstream_unreachable"


async def test_a_connection_that_takes_too_long(tmp_path: Path) -> None:
    """It is told as 504: whoever accepts and never says hello is not waited for."""
    settings = {"upstream_ca_file": tmp_path / "ca.pem"}
    trustme.CA().cert_pem.write_to_path(str(settings["upstream_ca_file"]))

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with (
        asyncio.timeout(20),
        running_worker(
            tmp_path,
            url,
            upstream_ca_file=tmp_path / "ca.pem",
            upstream_connect_timeout_seconds=0.2,
        ) as worker,
    ):
        wire = await Wire.to(worker.port)
        await wire.send(GET)
        head, _ = await wire.answer()
        await wire.close()
        assert head.startswith(b"HTTP/1.1 504 ")
        await worker.closed_once("timeout")
    server.close()
    await asyncio.sleep(0.01)
