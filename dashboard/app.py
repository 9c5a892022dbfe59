"""The dashboard put together: routes, access, error answers, and its life as a process."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, available_timezones

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from dashboard import rendering
from dashboard.access import Access
from dashboard.errors import (
    ConfigurationError,
    DatabaseUnavailableError,
    NotFoundError,
    ParameterError,
    TooManyAttemptsError,
    TooSlowError,
)
from dashboard.passwords import password_hash
from dashboard.queries import Ledger
from dashboard.settings import Settings
from dashboard.views import CLOCK, LEDGER, ZONES, add_pages, routes

ACCESS = web.AppKey("access", Access)
OPEN_PATHS = frozenset({"/healthz"})
STDIN = 0

_WHAT_TO_SEND = (
    "send Authorization: Bearer with one of METER_API_TOKENS, or HTTP Basic with the admin's "
    "user and password"
)
_log = structlog.get_logger()


def create_app(
    settings: Settings,
    *,
    clock: Callable[[], datetime],
    monotonic: Callable[[], float] = time.monotonic,
) -> web.Application:
    """Return the application; it connects to the database only when asked something."""
    app = web.Application(middlewares=[_guarded, _explained, _protected])
    app[LEDGER] = Ledger(settings.database_url)
    app[CLOCK] = clock
    app[ACCESS] = Access(
        user=settings.admin_user,
        hashed=password_hash(settings),
        tokens=settings.api_tokens,
        clock=monotonic,
    )
    app[ZONES] = {name: ZoneInfo(name) for name in sorted(available_timezones())}
    app.add_routes(routes)
    add_pages(app)
    app.on_cleanup.append(_close)
    return app


async def _close(app: web.Application) -> None:
    await app[LEDGER].close()


def run_dashboard(settings: Settings, *, listen_fd: int | None, supervised: bool) -> None:
    """Serve until SIGTERM or SIGINT, or until the supervisor is gone."""
    app = create_app(settings, clock=lambda: datetime.fromtimestamp(time.time(), UTC))
    asyncio.run(_serve(app, settings, listen_fd=listen_fd, supervised=supervised))


async def _serve(
    app: web.Application, settings: Settings, *, listen_fd: int | None, supervised: bool
) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if supervised:
        loop.add_reader(STDIN, _at_end_of_input, stop)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=3.0)
    await runner.setup()
    try:
        await _listen(_site(runner, settings, listen_fd), settings)
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


@web.middleware
async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Put the security headers on every answer."""
    try:
        answer = await handler(request)
    except web.HTTPException as exc:
        answer = _error(request, exc.status, exc.reason, error_type="not_found")
        answer.headers.update({"Allow": exc.headers["Allow"]} if "Allow" in exc.headers else {})
    answer.headers.update(rendering.SECURITY_HEADERS)
    return answer


@web.middleware
async def _explained(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn our own errors into answers that say what to do."""
    try:
        return await handler(request)
    except DatabaseUnavailableError as exc:
        _log.warning("database unavailable", problem=str(exc), cause=exc.cause)
        answer = _error(request, 503, str(exc), error_type="database_unavailable")
        answer.headers["Retry-After"] = "2"
    except TooSlowError as exc:
        answer = _error(request, 503, str(exc), error_type="too_slow")
    except NotFoundError as exc:
        answer = _error(request, 404, str(exc), error_type="not_found")
    except ParameterError as exc:
        answer = _error(request, 400, str(exc), error_type="invalid_parameter", param=exc.parameter)
    except TooManyAttemptsError as exc:
        answer = _error(request, 429, str(exc), error_type="too_many_attempts")
        answer.headers["Retry-After"] = "60"
    return answer


@web.middleware
async def _protected(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let nobody read who has not said who they are."""
    authorization = request.headers.get("Authorization", "")
    address = request.remote or ""
    if request.path in OPEN_PATHS or await request.app[ACCESS].allows(
        authorization, address=address
    ):
        return await handler(request)
    answer = _error(request, 401, _WHAT_TO_SEND, error_type="unauthorized")
    answer.headers["WWW-Authenticate"] = 'Basic realm="openai-meter", charset="UTF-8"'
    return answer


def _error(
    request: web.Request, status: int, message: str, *, error_type: str, param: str | None = None
) -> web.Response:
    if request.path.startswith("/admin") and not request.path.endswith((".json", ".csv")):
        return web.Response(
            status=status, text=rendering.message_page(message), content_type="text/html"
        )
    text = rendering.error_json(message, error_type=error_type, param=param)
    return web.Response(status=status, text=text, content_type="application/json")
