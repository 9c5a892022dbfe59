"""Show a user their own numbers, by a signed link: JSON, and a page for other sites' frames."""

from aiohttp import web

from dashboard import rendering
from dashboard.errors import ForbiddenError
from dashboard.guarding import ACCESS
from dashboard.links import user_of
from dashboard.parsing import parse
from dashboard.report import Report
from dashboard.reporting import Reporter
from dashboard.views import CLOCK, LEDGER, ZONES

# A page without a form or a button has nothing that a frame around it could make somebody press.
EMBEDDED = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; frame-ancestors *",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
_ASKED_BY_RANGE = ("range", "from", "to", "tz")

routes = web.RouteTableDef()


@routes.get("/usage/user")
async def page(request: web.Request) -> web.Response:
    """Show the numbers of whoever the link is for."""
    text = rendering.own_page(await _report(request))
    return web.Response(text=text, content_type="text/html", headers=EMBEDDED)


@routes.get("/usage/user.json")
async def document(request: web.Request) -> web.Response:
    """Return the same as JSON."""
    text = rendering.to_json(await _report(request))
    return web.Response(text=text, content_type="application/json")


async def _report(request: web.Request) -> Report:
    now = request.app[CLOCK]()
    link = request.query.get("link", "")
    user = user_of(request.app[ACCESS].key, link, now=now.timestamp())
    if user is None:
        raise ForbiddenError("This link is not good, or not any more: ask for a new one.")
    pairs = [pair for pair in request.query.items() if pair[0] != "link"]
    refused = {name: "a link has a range and nothing else" for name, _ in pairs}
    async with request.app[LEDGER].snapshot() as snapshot:
        wanted = parse(
            [*pairs, ("user", user)],
            now=now,
            report_zone=snapshot.report_zone,
            zones=request.app[ZONES],
            refused={name: why for name, why in refused.items() if name not in _ASKED_BY_RANGE},
        )
        return await Reporter(snapshot, now=now).own(wanted)
