import asyncio
from base64 import b64encode

import pytest

from dashboard.access import MOST_FAILURES
from dashboard.guarding import REGISTER
from tests.dashboard.conftest import TOKEN, Client


@pytest.mark.parametrize(
    "path",
    [
        "/admin/static/../admin/users.json",
        "/admin/static/%2e%2e/admin/users.json",
        "/admin/static/..%2fadmin/users.json",
        "/usage/../admin/users.json",
        "/admin/oidc/../users.json",
        "//admin/users.json",
        "/admin/login/../users.json",
        "/admin/users.json;/healthz",
        "/healthz/../admin/users.json",
    ],
)
async def test_path_traversal_leads_nobody_past_the_door(client: Client, path: str) -> None:
    """Whatever the path looks like, nothing of the ledger is in the answer."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: meter\r\nConnection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    await writer.wait_closed()
    assert not answer.startswith(b"HTTP/1.1 200")
    assert b"cost_usd" not in answer


async def test_a_page_is_asked_for_and_the_form_is_led_to(client: Client) -> None:
    """A program is told what to send."""
    page = await client.get("/", allow_redirects=False)
    assert (page.status, page.headers["Location"]) == (303, "/admin/login")
    answer = await client.get("/admin.json", allow_redirects=False)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")


async def test_a_token_needs_no_form(client: Client) -> None:
    """No browser sends it by itself: what is refused here is only that there is no such method."""
    answer = await client.post("/admin/users", headers=TOKEN)
    assert answer.status == 405


async def test_brute_force_by_http_basic_is_in_the_audit_log(client: Client) -> None:
    """Each guess, and that there were too many; not the guesses, nor a token that is wrong."""
    for number in range(MOST_FAILURES + 3):
        credentials = b64encode(f"admin:guess-{number}".encode()).decode()
        await client.get("/api/usage/stats", headers={"Authorization": f"Basic {credentials}"})
    await client.get("/api/usage/stats", headers={"Authorization": "Bearer guess"})
    noted = await asyncio.to_thread(client.app[REGISTER].audited, limit=20)
    assert [entry.what for entry in noted] == ["login refused", *["login failed"] * MOST_FAILURES]
    assert {entry.who for entry in noted} == {"admin"}
    assert not any("guess" in f"{entry}" for entry in noted)
