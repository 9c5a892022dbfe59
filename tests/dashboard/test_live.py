import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from dashboard import live
from dashboard.errors import DatabaseUnavailableError, TooManyListenersError

MakeClient = Callable[[web.Application], Awaitable[TestClient[web.Request, web.Application]]]
FIRST = (datetime(2026, 11, 22, 12, tzinfo=UTC), 1)
SECOND = (datetime(2026, 11, 22, 13, tzinfo=UTC), 2)


class _Ledger:
    """Counts how often it is asked, and has a mark that a test can change."""

    def __init__(self) -> None:
        self.mark: live.Mark = FIRST
        self.asked = 0
        self.broken = False

    async def watermark(self) -> live.Mark:
        self.asked += 1
        if self.broken:
            raise DatabaseUnavailableError
        return self.mark


@pytest.fixture
def ledger() -> Iterator[_Ledger]:
    """Return a ledger that can grow."""
    yield _Ledger()  # noqa: PT022 - a fixture like the others


def _application(ledger: _Ledger) -> web.Application:
    app = web.Application()
    app[live.WATCHER] = live.Watcher(ledger.watermark)
    app.on_shutdown.append(app[live.WATCHER].stop)
    app.add_routes(live.routes)
    return app


async def test_a_page_hears_of_the_ledger_at_once_and_when_it_grows(
    ledger: _Ledger, aiohttp_client: MakeClient
) -> None:
    """An event names the newest call, so that a page which shows it has nothing to do."""
    client = await aiohttp_client(_application(ledger))
    async with asyncio.timeout(20), client.get("/admin/live") as answer:
        assert answer.content_type == "text/event-stream"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        first = await answer.content.readuntil(b"\n\n") + await answer.content.readuntil(b"\n\n")
        assert b"event: ledger" in first
        assert b"2026-11-22T12:00:00+00:00" in first
        ledger.mark = SECOND
        assert b"2026-11-22T13:00:00+00:00" in await answer.content.readuntil(b"\n\n")


async def test_many_listeners_ask_once(ledger: _Ledger) -> None:
    """The first whose turn it is asks for all."""
    watcher = live.Watcher(ledger.watermark)
    await asyncio.gather(*(watcher.look() for _ in range(100)))
    assert ledger.asked == 1
    assert watcher.mark == FIRST


async def test_a_database_that_is_away_is_no_news(ledger: _Ledger) -> None:
    """Nor does it end the listening."""
    watcher = live.Watcher(ledger.watermark)
    await watcher.look()
    ledger.broken = True
    await asyncio.sleep(live.LOOK_SECONDS)
    await watcher.look()
    assert watcher.mark == FIRST


async def test_more_listeners_look_less_often_and_there_is_an_end_to_it(ledger: _Ledger) -> None:
    """A hundred open pages are no load, and ten thousand are refused."""
    watcher = live.Watcher(ledger.watermark)
    assert watcher.pause_seconds == 1.0
    held = [watcher.listening() for _ in range(live.MOST_LISTENERS)]
    for each in held:
        each.__enter__()
    assert watcher.pause_seconds == live.MOST_LISTENERS / live.LISTENERS_PER_SECOND
    with pytest.raises(TooManyListenersError), watcher.listening():
        pass
    for each in held:
        each.__exit__(None, None, None)
    assert watcher.pause_seconds == 1.0


async def test_listeners_leave_when_the_dashboard_stops(
    ledger: _Ledger, aiohttp_client: MakeClient
) -> None:
    """At once, as far as anybody can tell."""
    app = _application(ledger)
    client = await aiohttp_client(app)
    async with asyncio.timeout(20), client.get("/admin/live") as answer:
        await answer.content.readuntil(b"\n\n")
        await app[live.WATCHER].stop(app)
        await answer.content.read()
