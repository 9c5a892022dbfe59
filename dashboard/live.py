"""Tell open pages that the ledger has grown, by server-sent events; what has come they fetch.

However many listen, the ledger is asked at most twice a second, and not at all if nobody does: of
those who wait, the first whose turn it is asks for all. More listeners are told to look less often.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime

from aiohttp import web

from dashboard.errors import DatabaseUnavailableError, TooManyListenersError
from dashboard.rendering import SECURITY_HEADERS

LOOK_SECONDS = 0.5
SILENCE_SECONDS = 15.0  # after which a comment keeps the connection open
LIFE_SECONDS = 900.0  # then the browser comes again, and shows again who it is
MOST_LISTENERS = 500
LISTENERS_PER_SECOND = 20  # that may look again within one second

Mark = tuple[datetime | None, *tuple[object, ...]]  # the newest call, and whatever else may change


class Watcher:
    """Knows whether anything has come since."""

    def __init__(
        self, ask: Callable[[], Awaitable[Mark]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = asyncio.Lock()
        self._asked = float("-inf")
        self._stopped = False
        self._listeners = 0
        self.mark: Mark | None = None  # None: nobody has asked yet, or nobody could answer

    @property
    def pause_seconds(self) -> float:
        """Return how long a page should wait between two looks."""
        return max(1.0, self._listeners / LISTENERS_PER_SECOND)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Count one more listener; raise TooManyListenersError if there are enough."""
        if self._listeners >= MOST_LISTENERS:
            raise TooManyListenersError
        self._listeners += 1
        try:
            yield
        finally:
            self._listeners -= 1

    async def look(self) -> None:
        """Ask the ledger, unless somebody has done so just now."""
        async with self._lock:
            if self._clock() - self._asked < LOOK_SECONDS * 0.9:
                return
            with contextlib.suppress(DatabaseUnavailableError):  # the page itself says so
                self.mark = await self._ask()
            self._asked = self._clock()

    async def changed(self, seen: Mark | None) -> bool:
        """Wait for news, for a while; False: there are none."""
        deadline = self._clock() + SILENCE_SECONDS
        while not self._stopped and self._clock() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()
            if self.mark != seen:
                return True
        return False

    @property
    def stopped(self) -> bool:
        """Whether everybody is to leave."""
        return self._stopped

    async def stop(self, _app: web.Application) -> None:
        """Let everybody leave, half a second later at most."""
        self._stopped = True


WATCHER = web.AppKey("watcher", Watcher)
routes = web.RouteTableDef()


@routes.get("/admin/live")
async def live(request: web.Request) -> web.StreamResponse:
    """Send an event whenever something has come, and one at the beginning."""
    watcher = request.app[WATCHER]
    with watcher.listening():
        await watcher.look()
        answer = web.StreamResponse(headers={**SECURITY_HEADERS, "X-Accel-Buffering": "no"})
        answer.content_type = "text/event-stream"
        await answer.prepare(request)
        with contextlib.suppress(ConnectionResetError):
            await _tell(answer, watcher)
        return answer


async def _tell(answer: web.StreamResponse, watcher: Watcher) -> None:
    leaving = time.monotonic() + LIFE_SECONDS
    seen = watcher.mark
    await answer.write(b"retry: 2000\n\n" + _event(watcher, seen))
    while not watcher.stopped and time.monotonic() < leaving:
        if await watcher.changed(seen):
            seen = watcher.mark
            await answer.write(_event(watcher, seen))
        else:
            await answer.write(b": nothing new\n\n")


def _event(watcher: Watcher, mark: Mark | None) -> bytes:
    newest = mark[0] if mark else None
    data = {"newest_call": newest and newest.isoformat(), "pause": watcher.pause_seconds}
    return f"event: ledger\ndata: {json.dumps(data)}\n\n".encode()
