import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from dashboard.app import create_app
from dashboard.settings import Settings
from dashboard.views import QUESTIONS
from proxy.core.model import LedgerRow
from proxy.ledger import Ledger as Writer
from tests.fakes.rows import MOMENT, ledger_row, unpriced_row

Client = TestClient[web.Request, web.Application]
MakeClient = Callable[[web.Application], Awaitable[Client]]
TOKEN = {"Authorization": "Bearer token-1"}
NOW = MOMENT + timedelta(hours=1)
NEEDED = {
    "/admin/user": "?user=ada",
    "/admin/endpoint": "?endpoint=analyze_homework",
    "/admin/call": f"?call={ledger_row(0).event_id}",
}
ROWS = [
    ledger_row(0),
    ledger_row(1, user_id="bob", endpoint="generate_hint"),
    ledger_row(2, user_id=None, created_at=MOMENT - timedelta(days=2)),
    unpriced_row(3, model="new-model"),
]


async def record(dsn: str, rows: Sequence[LedgerRow]) -> None:
    """Put rows into the ledger."""
    writer = Writer(dsn, report_timezone="UTC")
    await writer.insert(rows)
    await writer.close()


@pytest.fixture
async def client(database: str, tmp_path: Path, aiohttp_client: MakeClient) -> Client:
    """Return a client of a dashboard whose ledger has a few rows."""
    await record(database, ROWS)
    settings = Settings(
        data_dir=tmp_path,
        database_url=database,
        admin_password="correct horse",  # noqa: S106 - no real one
        api_tokens=("token-1",),
    )
    return await aiohttp_client(await asyncio.to_thread(create_app, settings, clock=lambda: NOW))


@pytest.mark.parametrize("path", [question.path for question in QUESTIONS])
async def test_every_page_is_also_json_and_csv(client: Client, path: str) -> None:
    """From the same report; a page without tables has no CSV, and says so."""
    query = NEEDED.get(path, "")
    page = await client.get(path + query, headers=TOKEN)
    assert (page.status, page.content_type) == (200, "text/html"), await page.text()
    document = await client.get(path + ".json" + query, headers=TOKEN)
    assert (document.status, document.content_type) == (200, "application/json")
    assert json.loads(await document.text())["schema"] == "v1"
    table = await client.get(path + ".csv" + query, headers=TOKEN)
    assert table.status == (400 if path == "/admin/exports" else 200)


async def test_users_are_summed_and_totalled(client: Client) -> None:
    """The largest cost first, calls without a user among them."""
    answer = await client.get("/admin/users.json", headers=TOKEN)
    found = await answer.json()
    assert [(row["user_id"], row["calls"], row["cost_usd"]) for row in found["rows"]] == [
        ("ada", 2, "0.000285000001"),
        ("bob", 1, "0.000285000001"),
        (None, 1, "0.000285000001"),
    ]
    assert found["totals"]["calls"] == 4
    assert found["totals"]["cost_usd"] == "0.000855000003"
    assert found["next"] is None


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("sort=shoe_size", "sort"),
        ("range=fortnight", "range"),
        ("from=2026-02-30", "from"),
        ("tz=Mars/Olympus", "tz"),
        ("colour=red", "colour"),
        ("outcome=ok", "outcome"),
        ("size=7", "size"),
        ("after=zzz", "after"),
        ("dialect=klingon", "dialect"),
    ],
)
async def test_a_wrong_parameter_is_named(client: Client, query: str, param: str) -> None:
    """400, in JSON by its name and on a page in words."""
    answer = await client.get(f"/admin/users.json?{query}", headers=TOKEN)
    assert answer.status == 400
    assert (await answer.json())["error"]["param"] == param
    page = await client.get(f"/admin/users?{query}", headers=TOKEN)
    assert page.status == 400
    assert f"{param}: " in await page.text()


async def test_nothing_of_that_name_is_404(client: Client) -> None:
    """A call that is not in the ledger."""
    stranger = ledger_row(9).event_id
    answer = await client.get(f"/admin/call.json?call={stranger}", headers=TOKEN)
    assert answer.status == 404
