"""What a client may call a user, an endpoint or a piece of metadata, seen on every route."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from typing_extensions import override

from dashboard import formatting
from dashboard.guarding import ACCESS
from dashboard.links import paths_of
from proxy.core.attribution import AttributionFields, from_headers
from proxy.core.headers import request_pattern
from tests.dashboard.conftest import NOW, TOKEN, Client, record
from tests.fakes.rows import MOMENT, event_id, ledger_row

NAMES = {
    "quotes": "\"double\" 'single' `back` \\ &amp;",
    "element": '"><evil onload=alert(1)></script><evil>',
    "lines": "two\r\nlines\tand\x1fmore",
    "formula": "=cmd|' /C calc'!A0",
    "spaced formula": "  @SUM(1+1)",
    "full width formula": "\uff1d1+1",
    "longest": "-" + "ab" * 127 + "z",  # of what clients send; the ledger takes more
    "right to left": "\u202egpj.exe \u05e9\u05dc\u05d5\u05dd",
    "emoji": "👩‍🏫 🙂",
    "sql": "'; DROP TABLE user_api_usage; --%_$1",
    "path": "../..%2f..\\etc/passwd?a=b#c",
    "template": "{{ 7 * 7 }}{% raw %}",
}
FIELDS = AttributionFields()
LEADS = "=+-@\uff1d\uff0b\uff0d\uff20"


@dataclass(frozen=True, kw_only=True)
class Route:
    """A route, what is asked of it, and where the name stands in the answer."""

    path: str
    asked: tuple[str, ...] = ("user", "endpoint")  # filters that are the name
    more: tuple[tuple[str, str], ...] = ()
    shows: bool = True  # the name is in the rows; otherwise it is a filter alone
    search: bool = False


PAGES = (
    Route(path="/admin"),
    Route(path="/admin/users", search=True),
    Route(path="/admin/user"),
    Route(path="/admin/endpoints", search=True),
    Route(path="/admin/endpoint", asked=("endpoint",)),
    Route(path="/admin/models", shows=False),
    Route(path="/admin/daily", shows=False),
    Route(path="/admin/calls", asked=("user", "endpoint", "metadata"), search=True),
    Route(path="/admin/call", asked=("call",)),
    Route(path="/admin/exports", shows=False),
    Route(path="/admin/pricing", shows=False),
)
DOCUMENTS = (
    *(replace(page, path=f"{page.path}.json") for page in PAGES),
    Route(path="/api/usage/summary", search=True),
    Route(path="/api/usage/endpoint", search=True),
    Route(path="/api/usage/daily", shows=False),
    Route(path="/api/usage/model", shows=False),
    Route(path="/api/usage/user/{user_id}", asked=("endpoint",)),
)
FILES = (
    Route(path="/admin.csv", more=(("table", "users"),)),
    Route(path="/admin.csv", more=(("table", "endpoints"),)),
    Route(path="/admin.csv", more=(("table", "calls"),)),
    Route(path="/admin/users.csv", search=True),
    Route(path="/admin/user.csv", more=(("table", "endpoints"),)),
    Route(path="/admin/user.csv", more=(("table", "calls"),)),
    Route(path="/admin/endpoints.csv", search=True),
    Route(path="/admin/endpoint.csv", asked=("endpoint",), more=(("table", "users"),)),
    Route(path="/admin/models.csv", shows=False),
    Route(path="/admin/daily.csv", shows=False),
    Route(path="/admin/calls.csv", asked=("user", "endpoint", "metadata"), search=True),
    Route(path="/admin/call.csv", asked=("call",)),
    Route(path="/admin/pricing.csv", shows=False),
    Route(path="/api/usage/summary.csv", search=True),
    Route(path="/api/usage/endpoint.csv", search=True),
    Route(path="/api/usage/daily.csv", shows=False),
    Route(path="/api/usage/model.csv", shows=False),
    Route(path="/api/usage/export", asked=("user", "endpoint", "metadata"), search=True),
    Route(path="/api/usage/export", more=(("format", "focus-1.2"),)),
    Route(path="/api/usage/export/summary", search=True),
)
ELSEWHERE = {
    *("/", "/healthz", "/api/usage/stats", "/api/openapi.json", "/admin/live"),  # no names
    *("/admin/login", "/admin/oidc", "/admin/oidc/callback", "/admin/static/{name}"),
    *("/api/admin/tokens", "/api/admin/audit"),  # of accounts
    *("/usage/user", "/usage/user.json"),  # by links, below
    "/admin/exports.csv",  # there is no such table
}


class _Reader(HTMLParser):
    """Collects elements, their attributes and all text."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}

    @override
    def handle_data(self, data: str) -> None:
        self.text += data


def _name(route: Route) -> str:
    return f"{route.path} {urlencode(route.more)}".rstrip()


def _key(name: str) -> str:
    return name.replace("=", "")  # a filter ends a key there


def _number(kind: str) -> int:
    return 100 + list(NAMES).index(kind)


async def _ask(
    client: Client, route: Route, kind: str, *, search: bool = False, **more: str
) -> str:
    """Ask for what is of one name, by filters or by a search, and return the answer."""
    name = NAMES[kind]
    known = {"metadata": f"{_key(name)}={name}", "call": str(event_id(_number(kind)))}
    asked = [("search", name)] if search else [(key, known.get(key, name)) for key in route.asked]
    path = route.path.replace("{user_id}", quote(name, safe=""))
    params = [*asked, *route.more, *more.items()]
    answer = await client.get(path, params=params, headers=TOKEN)
    body = (await answer.read()).decode("utf-8-sig")
    assert answer.status == 200, (path, params, body)
    return body


@pytest.fixture
async def hostile(client: Client, database: str) -> Client:
    """Return a client of a dashboard that knows each name as user, endpoint and metadata."""
    rows = [
        ledger_row(
            _number(kind),
            user_id=name,
            endpoint=name,
            metadata={_key(name): name},
            created_at=MOMENT,
        )
        for kind, name in NAMES.items()
    ]
    await record(database, rows)
    return client


def _strings(found: Any) -> Iterator[str]:
    if isinstance(found, str):
        yield found
    elif isinstance(found, dict | list):
        for value in found.values() if isinstance(found, dict) else found:
            yield from _strings(value)


def _cells(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


async def test_no_route_is_left_out(client: Client) -> None:
    """Whatever is served is looked at here, or holds nothing of a client's."""
    served = {
        route.resource.canonical
        for route in client.app.router.routes()
        if route.method == "GET" and route.resource is not None
    }
    looked_at = {route.path for route in (*PAGES, *DOCUMENTS, *FILES)}
    assert served == looked_at | ELSEWHERE


@pytest.mark.parametrize("route", PAGES, ids=_name)
async def test_a_name_is_text_on_every_page(hostile: Client, route: Route) -> None:
    """Found by filter and by search; no element, no attribute and no script is of its making."""
    for kind, name in NAMES.items():
        for search in {False, route.search}:
            reader = _Reader()
            reader.feed(await _ask(hostile, route, kind, search=search))
            assert "evil" not in reader.elements
            assert not [name for name in reader.attributes if name.startswith("on")]
            assert not route.shows or formatting.text(name) in reader.text, (kind, search)


@pytest.mark.parametrize("route", DOCUMENTS, ids=_name)
async def test_a_name_is_whole_in_every_document(hostile: Client, route: Route) -> None:
    """Found by filter and by search, and nothing else is found with it."""
    for kind, name in NAMES.items():
        for search in {False, route.search}:
            found = json.loads(await _ask(hostile, route, kind, search=search))
            assert not route.shows or name in set(_strings(found)), (kind, search)
            others = set(NAMES.values()) - {name}
            assert not others & set(_strings(found)), (kind, search)


@pytest.mark.parametrize("route", FILES, ids=_name)
async def test_a_name_is_harmless_in_every_file(hostile: Client, route: Route) -> None:
    """As a spreadsheet opens it; as a machine reads it, it is untouched."""
    for kind, name in NAMES.items():
        for search in {False, route.search}:
            safe = _cells(await _ask(hostile, route, kind, search=search))
            raw = _cells(await _ask(hostile, route, kind, search=search, dialect="raw"))
            assert len(safe) == len(raw)
            texts = [cell for row in safe for cell in row if not _is_number(cell)]
            assert not [cell for cell in texts if cell.lstrip()[:1] in (*LEADS,)], kind
            assert not [cell for cell in texts if set(cell) & set("\r\n\t\x1f")], kind
            assert not route.shows or name in {cell for row in raw for cell in row}, (kind, search)


def _is_number(cell: str) -> bool:
    try:
        Decimal(cell)
    except InvalidOperation:
        return False
    return True


@pytest.mark.parametrize("kind", NAMES)
async def test_a_link_shows_a_name_as_text(hostile: Client, kind: str) -> None:
    """To the user of that name, in a frame of somebody else's page."""
    key = hostile.app[ACCESS].key
    (_, page), (_, document) = paths_of(key, NAMES[kind], (NOW + timedelta(days=1)).timestamp())
    reader = _Reader()
    reader.feed(await (await hostile.get(page)).text())
    assert "evil" not in reader.elements
    assert formatting.text(NAMES[kind]) in reader.text
    found = await (await hostile.get(document)).json()
    assert [row["endpoint"] for row in found["tables"]["endpoints"]["rows"]] == [NAMES[kind]]


async def test_a_name_of_ten_kilobytes_is_told_of_and_not_kept(
    client: Client, database: str
) -> None:
    """What the proxy records of it: the call has no user then, and says why."""
    lines = (b"X-Meter-User: ", b"X-Meter-Endpoint: ", b"X-Meter-Metadata-k: ")
    head = b"".join(line + b"=<evil>" * 1500 + b"\r\n" for line in lines)
    pattern = request_pattern(FIELDS.names, FIELDS.metadata_prefixes)
    who = from_headers(pattern.read(b"POST / HTTP/1.1\r\n" + head + b"\r\n").fields, FIELDS)
    told = "x-meter-user: longer than 256 characters; x-meter-endpoint: longer than 256"
    assert (who.user_id, who.endpoint, who.metadata) == (None, None, None)
    assert who.problem is not None
    assert who.problem.startswith(told)
    row = ledger_row(
        99, user_id=None, endpoint=None, metadata=None, attribution_problem=who.problem
    )
    await record(database, [row])
    for path in ("/admin/calls", "/admin/users", "/admin/endpoints", "/api/usage/export"):
        query = "?without=user&without=endpoint"
        answer = await client.get(path + query, headers=TOKEN)
        assert answer.status == 200
        assert "evil" not in await answer.text()
    call = await client.get(f"/admin/call?call={row.event_id}", headers=TOKEN)
    assert told in await call.text()
