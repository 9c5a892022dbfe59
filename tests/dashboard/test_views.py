import json
from base64 import b64encode

import pytest

from dashboard.views import QUESTIONS
from tests.dashboard.conftest import PASSWORD, TOKEN, Client
from tests.fakes.rows import ledger_row

NEEDED = {
    "/admin/user": "?user=ada",
    "/admin/endpoint": "?endpoint=analyze_homework",
    "/admin/call": f"?call={ledger_row(0).event_id}",
}


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


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/api/usage/stats?range=7d", "range"),
        ("/api/admin/audit?limit=5", "limit"),
        ("/api/admin/tokens?name=ci", "name"),
        ("/api/usage/daily?call=1", "call"),
        ("/api/usage/daily?dialect=raw", "dialect"),
        ("/admin/users.json?table=users", "table"),
        ("/admin/daily.csv?call=1", "call"),
        ("/api/usage/export/summary?format=focus-1.2", "format"),
    ],
)
async def test_what_a_route_would_not_look_at_is_named(
    client: Client, path: str, param: str
) -> None:
    """Or it would be taken for an answer to what was asked."""
    credentials = b64encode(f"admin:{PASSWORD}".encode()).decode()
    answer = await client.get(path, headers={"Authorization": f"Basic {credentials}"})
    assert answer.status == 400
    assert (await answer.json())["error"]["param"] == param
