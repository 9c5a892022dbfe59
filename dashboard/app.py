"""The dashboard put together: routes, access, and its life as a process."""

import asyncio
import gc
import os
import signal
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, available_timezones

import structlog
import uvloop
from aiohttp import web

from dashboard import administering, exporting, live, login, sharing, signon, statics, views
from dashboard.access import Access
from dashboard.administering import OWNER_DSN, PUBLIC_URL
from dashboard.errors import ConfigurationError
from dashboard.exporting import CONNECTIONS, EXPORTS
from dashboard.guarding import ACCESS, REGISTER, SECURE, explained, guarded, protected
from dashboard.passwords import password_hash
from dashboard.queries import Ledger
from dashboard.register import Register
from dashboard.settings import Settings
from dashboard.suggesting import Suggester
from dashboard.views import CLOCK, LEDGER, SUGGESTER, ZONES

STDIN = 0
LINE_BYTES = 65_536  # of a request: an address may hold 8 kB of metadata, escaped

_log = structlog.get_logger()


def create_app(
    settings: Settings,
    *,
    clock: Callable[[], datetime],
    monotonic: Callable[[], float] = time.monotonic,
) -> web.Application:
    """Return the application; it connects to the database only when asked something."""
    app = web.Application(middlewares=[guarded, explained, protected])
    register = Register(settings.data_dir)
    reader = settings.dashboard_database_url or settings.database_url
    app[LEDGER] = Ledger(reader)
    app[OWNER_DSN] = settings.database_url
    app[PUBLIC_URL] = (settings.dashboard_url or "").rstrip("/")
    app[CLOCK] = clock
    app[ACCESS] = Access(
        user=settings.admin_user,
        hashed=password_hash(settings),
        tokens=settings.api_tokens,
        register=register,
        clock=monotonic,
        now=lambda: clock().timestamp(),
    )
    app[EXPORTS] = Ledger(reader, connections=CONNECTIONS)
    app[REGISTER] = register
    signon.add_sign_on(app, settings, clock=monotonic)
    app[SECURE] = settings.base_url.startswith("https:")
    app[ZONES] = {name: ZoneInfo(name) for name in sorted(available_timezones())}
    app[SUGGESTER] = Suggester(app[LEDGER].names, clock=monotonic)
    app[live.WATCHER] = live.Watcher(app[LEDGER].watermark)
    app.on_shutdown.append(app[live.WATCHER].stop)
    for more in (exporting, administering, sharing, views, login, signon, live, statics):
        app.add_routes(more.routes)
    views.add_pages(app)
    app.on_cleanup.append(_close)
    return app


async def _close(app: web.Application) -> None:
    await app[LEDGER].close()
    await app[EXPORTS].close()


def run_dashboard(settings: Settings, *, listen_fd: int | None, supervised: bool) -> None:
    """Serve until SIGTERM or SIGINT, or until the supervisor is gone."""
    app = create_app(settings, clock=lambda: datetime.fromtimestamp(time.time(), UTC))
    spare_the_collector()
    uvloop.run(_serve(app, settings, listen_fd=listen_fd, supervised=supervised))


def spare_the_collector() -> None:
    """Leave what lives for ever out of collections, and collect less often.

    A page makes thousands of rows and leaves few cycles: reference counts free the rows. Half as
    often as this, what cycles hold on to until then took 18 MB more.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 5)


async def _serve(
    app: web.Application, settings: Settings, *, listen_fd: int | None, supervised: bool
) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if supervised:
        loop.add_reader(STDIN, _at_end_of_input, stop)
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=3.0,
        max_line_size=LINE_BYTES,
        max_field_size=LINE_BYTES,  # the Referer repeats an address
    )
    await runner.setup()
    try:
        await _listen(_site(runner, settings, listen_fd), settings)
        await asyncio.to_thread(app[REGISTER].note_address, settings.base_url)
        _log.info("dashboard listens", address=settings.dashboard_listen)
        await stop.wait()
    finally:
        await runner.cleanup()


async def _listen(site: web.BaseSite, settings: Settings) -> None:
    try:
        await site.start()
    except OSError as exc:
        reason = os.strerror(exc.errno) if exc.errno else str(exc)
        raise ConfigurationError(
            f"METER_DASHBOARD_LISTEN: cannot listen on {settings.dashboard_listen}: {reason}; "
            "choose another address"
        ) from exc


def _at_end_of_input(stop: asyncio.Event) -> None:
    if not os.read(STDIN, 64):
        stop.set()


def _site(runner: web.AppRunner, settings: Settings, listen_fd: int | None) -> web.BaseSite:
    if listen_fd is not None:
        return web.SockSite(runner, socket.socket(fileno=listen_fd))
    host, port = settings.address
    return web.TCPSite(runner, host, port)
