import re
from dataclasses import replace
from datetime import UTC, date, datetime
from html import unescape
from urllib.parse import unquote
from zoneinfo import ZoneInfo

import aiohttp
import pytest

from dashboard.errors import ParameterError
from dashboard.filters import OFFSET, Filter
from dashboard.hiding import demand_blind, hidden
from dashboard.report import Column, Freshness, Report, Table
from dashboard.roles import ROLES
from tests.dashboard.conftest import PASSWORD, Client, record
from tests.fakes.rows import ledger_row

MOST_PAGES = 300

ASKED = Filter(
    range="today",
    first=date(2026, 8, 28),
    last=date(2026, 8, 28),
    zone=ZoneInfo("UTC"),
    report_zone=ZoneInfo("UTC"),
)
USERS = Table(
    name="users",
    title="Users",
    columns=tuple(
        Column(name=name, title=name, kind="text") for name in ("user_id", "model", "metadata")
    ),
    rows=(("ada", "m", '{"name": "Ada"}'), (None, "m", None)),
    next_after=("-1", "0ada"),
)
REPORT = Report(
    name="users",
    title="Users",
    filter=ASKED,
    freshness=Freshness(
        as_of=datetime(2026, 8, 28, tzinfo=UTC), newest_call=None, report_timezone="UTC"
    ),
    tables=(USERS, replace(USERS, name="other", columns=USERS.columns[1:2], rows=(("m",),))),
)


def test_users_have_pseudonyms_and_nothing_else_names_them() -> None:
    """Neither metadata nor the key of the next page; a call without a user stays one."""
    report = hidden(REPORT, lambda user: user.upper())
    users, other = report.tables
    assert users.rows == (("ADA", "m", None), (None, "m", None))
    assert users.next_after == (OFFSET, "2")
    assert other == REPORT.tables[1]


def test_pages_go_on_by_number() -> None:
    """From where this one began."""
    asked = replace(REPORT, filter=ASKED.with_(after=(OFFSET, "50")))
    assert hidden(asked, str.upper).tables[0].next_after == (OFFSET, "52")


@pytest.mark.parametrize(
    "changes",
    [
        {"users": ("ada",)},
        {"metadata": (("user", "ada"),)},
        {"search": "ada"},
        {"sort": "-name"},
        {"after": ("-1", "0ada")},
        {"after": ("INFINITY", "0ada")},
        {"after": ("20261122", "0ada")},
    ],
    ids=["user", "metadata", "search", "order", "page", "unknown sums", "a day or a sum"],
)
def test_nothing_can_be_asked_that_tells_who_somebody_is(changes: dict[str, object]) -> None:
    """By asking often enough a name could be found out."""
    with pytest.raises(ParameterError, match="pseudonyms"):
        demand_blind(ASKED.with_(**changes), finds_users=True)
    demand_blind(ASKED.with_(after=(OFFSET, "50")), finds_users=True)
    demand_blind(ASKED.with_(search="hint", sort="name"), finds_users=False)  # of endpoints


NAMED = "ada.lovelace@example.org"
FIRST_PAGES = ("/admin", "/admin/exports", "/api/openapi.json", "/api/usage/summary")


@pytest.mark.parametrize("role", ROLES)
async def test_every_link_leads_on_and_a_viewer_to_nobodys_name(
    client: Client, database: str, role: str
) -> None:
    """From page to page, to files and JSON: titles, cells, fields and addresses."""
    row = ledger_row(7, user_id=NAMED, metadata={"mail": NAMED}, attribution_problem=NAMED)
    await record(database, [row, ledger_row(8, user_id=NAMED, endpoint="hint")])
    reader = await _token(client, role)
    seen, waiting = set[str](), list(FIRST_PAGES)
    while waiting and len(seen) < MOST_PAGES:
        path = waiting.pop(0)
        answer = await client.get(path, headers=reader, allow_redirects=False)
        text = await answer.text()
        assert answer.status == 200, (path, text)
        named = NAMED in f"{unquote(path)}{text}{answer.headers}"
        assert not named or role != "viewer", path
        for link in re.findall(r'href="(/[^"]*)"', text):
            address = unescape(link)
            kind = re.sub(r"=[^&]*", "", address)  # pages that differ by values alone are one
            if kind not in seen and not address.startswith(("/admin/static", "/admin/logout")):
                seen.add(kind)
                waiting.append(address)
    assert {"/admin/users", "/admin/models.csv", "/admin/calls.json", "/admin/call?call"} <= seen
    assert ("/admin/user?user" in seen) is (role != "viewer")


@pytest.mark.parametrize(
    "path",
    [
        "/admin/users?search=ada.",
        "/admin/users.json?sort=name",
        "/admin/calls?search=ada.",
        "/admin/calls.json?metadata=mail%3Dada.lovelace@example.org",
        "/admin/endpoints.json?user=ada.lovelace@example.org",
        "/admin/user?user=ada.lovelace@example.org",
        "/api/usage/user/ada.lovelace@example.org",
        "/api/usage/export",
        "/api/usage/export/summary",
        "/api/usage/summary.csv",
        "/admin/calls.csv",
        "/admin/users.csv",
        "/api/admin/audit",
        "/api/admin/tokens",
    ],
)
async def test_a_question_that_would_tell_is_refused_whoever_exists(
    client: Client, database: str, path: str
) -> None:
    """With the same words for somebody who is there and for somebody who is not."""
    viewer = await _token(client, "viewer")
    before = await (await client.get(path, headers=viewer)).text()
    await record(database, [ledger_row(7, user_id=NAMED, metadata={"mail": NAMED})])
    answer = await client.get(path, headers=viewer)
    assert answer.status in {400, 403}
    assert await answer.text() == before
    assert NAMED not in before


async def _token(client: Client, role: str) -> dict[str, str]:
    admin = {"Authorization": aiohttp.encode_basic_auth("admin", PASSWORD)}
    asked = {"name": "t", "role": role}
    made = await client.post("/api/admin/tokens", json=asked, headers=admin)
    return {"Authorization": f"Bearer {(await made.json())['token']}"}
