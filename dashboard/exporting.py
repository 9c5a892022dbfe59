"""Hand out files: CSV and FOCUS, streamed as the database makes them.

A file is never silently cut: where something fails on the way the connection is broken off, so
that the download fails, instead of an error in the last line. It has connections of its own, so
that pages do not wait for it.
"""

from typing import TypeVar

from aiohttp import web

from dashboard import exports
from dashboard.copying import copy_file
from dashboard.errors import DashboardError, ForbiddenError, ParameterError
from dashboard.exports import BYTE_ORDER_MARK, DIALECTS, Dialect, Form
from dashboard.filters import Filter
from dashboard.guarding import VIEWER, note
from dashboard.parsing import parse
from dashboard.queries import Ledger
from dashboard.rendering import SECURITY_HEADERS
from dashboard.snapshot import Snapshot
from dashboard.tables import SORTABLE
from dashboard.views import CLOCK, ZONES

_T = TypeVar("_T", bound=str)

EXPORTS = web.AppKey("exports", Ledger)
CONNECTIONS = 6  # of a large file two, as long as four others could begin
OF_CALLS: tuple[Form, ...] = ("calls", "focus-1.2")

routes = web.RouteTableDef()


@routes.get("/api/usage/export")
@routes.get("/admin/calls.csv")
async def calls(request: web.Request) -> web.StreamResponse:
    """Hand out every call, or with `format=focus-1.2` the charges of each day."""
    return await _export(request, _chosen(request, "format", OF_CALLS, "calls"))


@routes.get("/api/usage/export/summary")
@routes.get("/api/usage/summary.csv")
@routes.get("/admin/users.csv")
async def summary(request: web.Request) -> web.StreamResponse:
    """Hand out the sums of each user."""
    return await _export(request, "summary")


async def _export(request: web.Request, form: Form) -> web.StreamResponse:
    viewer = request[VIEWER]
    if not viewer.may_export:
        raise ForbiddenError
    dialect = _chosen(request, "dialect", DIALECTS, "excel")
    answer = web.StreamResponse(headers=SECURITY_HEADERS | {"X-Accel-Buffering": "no"})
    answer.content_type, answer.charset = "text/csv", "utf-8"
    try:
        async with request.app[EXPORTS].copying() as snapshot:
            wanted = _asked(request, snapshot, form)
            name = exports.file_name(form, wanted)
            await note(request, viewer.name, "export", f"{name} {wanted.query()}".strip())
            answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
            await _stream(request, answer, snapshot, form, dialect, wanted)
    except (DashboardError, ConnectionError):
        if not answer.prepared:
            raise
        if request.transport is not None:  # half a file must not look like a whole one
            request.transport.abort()
    return answer


async def _stream(
    request: web.Request,
    answer: web.StreamResponse,
    snapshot: Snapshot,
    form: Form,
    dialect: Dialect,
    wanted: Filter,
) -> None:
    """Write the file; nothing goes out before the database has begun to answer."""
    change = exports.chunked(dialect)

    async def write(chunk: bytes) -> None:
        if not answer.prepared:
            await answer.prepare(request)
            if dialect == "excel":
                await answer.write(BYTE_ORDER_MARK)
        await answer.write(change(chunk))

    await copy_file(request.app[EXPORTS], snapshot, form, dialect, wanted, write)
    await answer.write_eof()


def _asked(request: web.Request, snapshot: Snapshot, form: Form) -> Filter:
    own = {"dialect", "size", *(("format",) if form in OF_CALLS else ())}
    pairs = [pair for pair in request.query.items() if pair[0] not in own]
    zones, zone = request.app[ZONES], snapshot.report_zone
    refused = {"after": "a file has all rows", "compare": "a file has one range"}
    if form == "focus-1.2":
        zone = zones["UTC"]
        refused["tz"] = "the days of FOCUS are those of UTC"
    return parse(
        pairs,
        now=request.app[CLOCK](),
        report_zone=zone,
        zones=zones,
        columns=SORTABLE if form == "summary" else ("created_at",),
        refused=refused,
    )


def _chosen(request: web.Request, name: str, allowed: tuple[_T, ...], default: _T) -> _T:
    value = request.query.get(name) or default
    for choice in allowed:
        if choice == value:
            return choice
    raise ParameterError(name, f"expected one of {', '.join(allowed)}")
