"""The routes: parse, query, render."""

from collections.abc import Callable
from datetime import datetime

from aiohttp import web

from dashboard import rendering
from dashboard.queries import Ledger

LEDGER = web.AppKey("ledger", Ledger)
CLOCK: web.AppKey[Callable[[], datetime]] = web.AppKey("clock")

routes = web.RouteTableDef()


@routes.get("/healthz")
async def healthz(request: web.Request) -> web.Response:
    """Say that the process lives, and whether the database answers."""
    return _json(rendering.health_json(await request.app[LEDGER].health()))


@routes.get("/api/usage/stats")
async def stats(request: web.Request) -> web.Response:
    """Return the sums of today, of this month and of all time."""
    found = await request.app[LEDGER].stats(request.app[CLOCK]())
    return _json(rendering.stats_json(found))


@routes.get("/admin")
async def page(request: web.Request) -> web.Response:
    """Show the same numbers to people."""
    found = await request.app[LEDGER].stats(request.app[CLOCK]())
    return web.Response(text=rendering.stats_page(found), content_type="text/html")


@routes.get("/")
async def front(_request: web.Request) -> web.Response:
    """Lead to the page."""
    return web.Response(status=302, headers={"Location": "/admin"})


def _json(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/json")
