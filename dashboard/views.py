"""The routes: parse, query, report, render; each page also as JSON and as CSV."""

from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID
from zoneinfo import ZoneInfo

from aiohttp import web
from aiohttp.typedefs import Handler

from dashboard import openapi, rendering, tables
from dashboard.errors import ParameterError
from dashboard.filters import Filter
from dashboard.guarding import ACCESS, VIEWER, demand_no_parameters
from dashboard.hiding import demand_blind, hidden
from dashboard.parsing import parse
from dashboard.queries import Ledger
from dashboard.report import Report, Table
from dashboard.reporting import Reporter
from dashboard.signing import pseudonym
from dashboard.suggesting import Names, Suggester

LEDGER = web.AppKey("ledger", Ledger)
CLOCK: web.AppKey[Callable[[], datetime]] = web.AppKey("clock")
SUGGESTER = web.AppKey("suggester", Suggester)
ZONES: web.AppKey[Mapping[str, ZoneInfo]] = web.AppKey("zones")

DIALECTS = ("excel", "raw")
FORMS = {"": "html", ".json": "json", ".csv": "csv"}

_BY_CALL = dict.fromkeys(
    ("outcome", "metadata"), "sums know nothing of it; calls and their exports can be filtered"
)
_LISTING_USERS = ("/admin/users", "/admin/calls", "/api/usage/summary")  # by their search
_WHOLE = _BY_CALL | dict.fromkeys(("after", "size"), "there is but one page of this")
_OF_ENDPOINT = dict.fromkeys(
    ("tier", "user", "model"), "how calls of an endpoint ended is not known by it"
)
_UNSEARCHED = _WHOLE | dict.fromkeys(("search",), "expected on the pages that list something")

routes = web.RouteTableDef()
Answer = Callable[[Reporter, Filter, web.Request], Awaitable[Report]]


@routes.get("/healthz")
async def healthz(request: web.Request) -> web.Response:
    """Say that the process lives, and whether the database answers."""
    return _json(rendering.health_json(await request.app[LEDGER].health()))


@routes.get("/api/usage/stats")
async def stats(request: web.Request) -> web.Response:
    """Return the sums of today, of this month and of all time."""
    demand_no_parameters(request)
    found = await request.app[LEDGER].stats(request.app[CLOCK]())
    return _json(rendering.stats_json(found))


@routes.get("/api/openapi.json")
async def description(_request: web.Request) -> web.Response:
    """Describe the usage API."""
    return _json(openapi.document(version=rendering.SCHEMA))


@routes.get("/")
async def front(_request: web.Request) -> web.Response:
    """Lead to the page."""
    return web.Response(status=302, headers={"Location": "/admin"})


@asynccontextmanager
async def asking(
    request: web.Request,
    *,
    columns: Iterable[str] = (),
    refused: Mapping[str, str] | None = None,
    own: Container[str] = (),
) -> AsyncIterator[tuple[Filter, Reporter]]:
    """Open a snapshot of the ledger, and read what is asked of it; `own` is the view's to read."""
    now = request.app[CLOCK]()
    async with request.app[LEDGER].snapshot() as snapshot:
        pairs = [pair for pair in request.query.items() if pair[0] not in own]
        if "user_id" in request.match_info:
            pairs.append(("user", request.match_info["user_id"]))
        wanted = parse(
            pairs,
            now=now,
            report_zone=snapshot.report_zone,
            zones=request.app[ZONES],
            columns=columns,
            refused=refused,
        )
        if not request[VIEWER].sees_users:
            demand_blind(wanted, finds_users=request.path.startswith(_LISTING_USERS))
        yield wanted, Reporter(snapshot, now=now)


def answering(question: "Question", form: str) -> Handler:
    """Return the handler that answers one question in one form."""

    async def handler(request: web.Request) -> web.StreamResponse:
        raw = _choice(request, "dialect", DIALECTS, "excel") == "raw"
        columns, refused = question.columns, question.refused
        own = {*question.own, *(("dialect", "table") if form == "csv" else ())}
        async with asking(request, columns=columns, refused=refused, own=own) as (wanted, reporter):
            report = await question.answer(reporter, wanted, request)
        options = await request.app[SUGGESTER].names() if form == "html" else {}
        return rendered(request, report, form, raw=raw, options=options)

    return handler


def rendered(
    request: web.Request, report: Report, form: str, *, raw: bool, options: Names
) -> web.Response:
    """Return a report in the form that was asked for, and as far as the viewer may see it."""
    viewer = request[VIEWER]
    if not viewer.sees_users:
        key = request.app[ACCESS].key
        report = hidden(report, lambda user: pseudonym(key, user))
    if form == "json":
        return _json(rendering.to_json(report))
    if form == "csv":
        table = _chosen_table(request, report)
        name = f"{report.name}-{table.name}_{_days(report.filter)}_{rendering.SCHEMA}.csv"
        return web.Response(
            text=rendering.to_csv(table, raw=raw),
            content_type="text/csv",
            charset="utf-8",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )
    return web.Response(text=rendering.to_html(report, viewer, options), content_type="text/html")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question that can be asked, and where."""

    path: str
    answer: Answer
    columns: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    own: tuple[str, ...] = ()  # parameters that are no filter


QUESTIONS = (
    Question(
        path="/admin", answer=lambda ask, wanted, _: ask.overview(wanted), refused=_UNSEARCHED
    ),
    Question(
        path="/admin/users",
        answer=lambda ask, wanted, _: ask.users(wanted),
        columns=tables.SORTABLE,
        refused=_BY_CALL,
    ),
    Question(
        path="/admin/user", answer=lambda ask, wanted, _: ask.user(wanted), refused=_UNSEARCHED
    ),
    Question(
        path="/admin/endpoints",
        answer=lambda ask, wanted, _: ask.endpoints(wanted),
        columns=tables.SORTABLE,
        refused=_WHOLE,
    ),
    Question(
        path="/admin/endpoint",
        answer=lambda ask, wanted, _: ask.endpoint(wanted),
        refused=_UNSEARCHED | _OF_ENDPOINT,
    ),
    Question(
        path="/admin/models",
        answer=lambda ask, wanted, _: ask.models(wanted),
        columns=tables.SORTABLE,
        refused=_WHOLE,
    ),
    Question(
        path="/admin/daily",
        answer=lambda ask, wanted, _: ask.daily(wanted),
        columns=tables.SORTABLE,
        refused=_UNSEARCHED,
    ),
    Question(
        path="/admin/calls",
        answer=lambda ask, wanted, _: ask.calls(wanted),
        columns=("created_at",),
    ),
    Question(
        path="/admin/call",
        answer=lambda ask, wanted, request: ask.call(wanted, _event_id(request)),
        own=("call",),
    ),
    Question(path="/admin/pricing", answer=lambda ask, wanted, _: ask.pricing(wanted)),
    Question(
        path="/admin/exports",
        answer=lambda ask, wanted, _: ask.exports(wanted),
        columns=(*tables.SORTABLE, "created_at"),
    ),
)


_OF_USER = Question(
    path="/api/usage/user/{user_id}",
    answer=lambda ask, wanted, _: ask.user(wanted),
    refused=_UNSEARCHED,
)

# The usage API: the same questions, in JSON by themselves.
API = {
    "/api/usage/summary": "/admin/users",
    "/api/usage/endpoint": "/admin/endpoints",
    "/api/usage/daily": "/admin/daily",
    "/api/usage/model": "/admin/models",
}


def add_pages(app: web.Application) -> None:
    """Serve each question as page, as JSON and as CSV, and the usage API."""
    by_path = {question.path: question for question in QUESTIONS}
    for path, page in API.items():
        app.router.add_get(path, answering(by_path[page], "json"))
        if page != "/admin/users":  # that file is streamed
            app.router.add_get(f"{path}.csv", answering(by_path[page], "csv"))
    app.router.add_get("/api/usage/user/{user_id:(?s:.+)}", answering(_OF_USER, "json"))
    for question in QUESTIONS:
        for suffix, form in FORMS.items():
            app.router.add_get(question.path + suffix, answering(question, form))


def _days(wanted: Filter) -> str:
    """Return range and zone as a part of a file's name."""
    first = "beginning" if wanted.first is None else wanted.first.isoformat()
    return f"{first}_{wanted.last.isoformat()}_{wanted.zone.key.replace('/', '-')}"


def _chosen_table(request: web.Request, report: Report) -> Table:
    name = request.query.get("table", report.tables[0].name if report.tables else "")
    try:
        return report.table(name)
    except KeyError:
        names = ", ".join(table.name for table in report.tables) or "none, it is no report"
        raise ParameterError("table", f"expected one of {names}") from None


def _event_id(request: web.Request) -> UUID:
    try:
        return UUID(request.query.get("call", ""))
    except ValueError:
        raise ParameterError("call", "expected the event_id of a call") from None


def _choice(request: web.Request, name: str, allowed: tuple[str, ...], default: str) -> str:
    value = request.query.get(name, default)
    if value not in allowed:
        raise ParameterError(name, f"expected one of {', '.join(allowed)}")
    return value


def _json(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/json")
