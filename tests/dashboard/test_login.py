import asyncio
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import CookieJar, web
from aiohttp.test_utils import TestClient

from dashboard.access import MOST_FAILURES
from dashboard.app import create_app
from dashboard.guarding import ACCESS, SESSION_COOKIE
from dashboard.login import LOGIN_COOKIE, ours
from dashboard.register import Register
from dashboard.settings import Settings

Client = TestClient[web.Request, web.Application]
MakeClient = Callable[..., Awaitable[Client]]
PASSWORD = "correct horse"  # noqa: S105 - no real one
BASIC = {"Authorization": f"Basic {b64encode(f'admin:{PASSWORD}'.encode()).decode()}"}


@pytest.fixture
async def client(database: str, tmp_path: Path, aiohttp_client: MakeClient) -> Client:
    """Return a browser without JavaScript, and nobody logged in."""
    settings = Settings(data_dir=tmp_path, database_url=database, admin_password=PASSWORD)
    moment = datetime.now(UTC)  # noqa: TID251 - cookies live by the browser's clock
    app = await asyncio.to_thread(create_app, settings, clock=lambda: moment)
    return await aiohttp_client(app, cookie_jar=CookieJar(unsafe=True))


async def _fields(client: Client, path: str = "/admin/login") -> dict[str, str]:
    page = await (await client.get(path)).text()
    return dict(re.findall(r'name="?(csrf|next)"? value="([^"]*)"', page))


async def _log_in(client: Client, password: str = PASSWORD, **changes: str) -> int:
    fields = await _fields(client) | {"user": "admin", "password": password} | changes
    answer = await client.post("/admin/login", data=fields, allow_redirects=False)
    return answer.status


def _session(client: Client) -> str | None:
    found = client.session.cookie_jar.filter_cookies(client.make_url("/admin"))
    return found[SESSION_COOKIE].value if SESSION_COOKIE in found else None


async def test_whoever_wants_a_page_logs_in_and_gets_it(client: Client) -> None:
    """With its parameters; the cookie is for this site and not for scripts."""
    asked = await client.get("/admin/users?range=7d&user=a%26b", allow_redirects=False)
    assert asked.status == 303
    location = asked.headers["Location"]
    assert location == "/admin/login?next=%2Fadmin%2Fusers%3Frange%3D7d%26user%3Da%2526b"
    fields = await _fields(client, location)
    fields["next"] = fields["next"].replace("&amp;", "&")
    answer = await client.post(
        "/admin/login",
        data=fields | {"user": "admin", "password": PASSWORD},
        allow_redirects=False,
    )
    assert (answer.status, answer.headers["Location"]) == (303, "/admin/users?range=7d&user=a%26b")
    cookie = answer.cookies[SESSION_COOKIE]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")
    assert (await client.get("/admin/users?range=7d")).status == 200


async def test_log_out_ends_the_session_itself(client: Client) -> None:
    """A cookie that somebody has copied is worth nothing then."""
    assert await _log_in(client) == 303
    stolen = _session(client)
    assert stolen is not None
    viewer = await client.app[ACCESS].viewer("", stolen, address="")
    csrf = "" if viewer is None else viewer.csrf
    answer = await client.post("/admin/logout", data={"csrf": csrf}, allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (303, "/admin/login")
    assert _session(client) is None
    cookie = {"Cookie": f"{SESSION_COOKIE}={stolen}"}
    assert (await client.get("/admin", headers=cookie, allow_redirects=False)).status == 303


async def test_session_fixation_a_session_that_was_there_before_is_not_taken(
    client: Client,
) -> None:
    """Neither one that an attacker made up nor one that an attacker has."""
    client.session.cookie_jar.update_cookies({SESSION_COOKIE: "chosen-by-an-attacker"})
    assert await _log_in(client) == 303
    first = _session(client)
    assert first not in {None, "chosen-by-an-attacker"}
    assert await _log_in(client) == 303
    assert _session(client) != first


async def test_csrf_a_form_of_another_site_changes_nothing(client: Client) -> None:
    """Without the token, with one of another session, from another origin."""
    assert await _log_in(client) == 303
    _, other = client.app[ACCESS].invitation()
    for data in ({}, {"csrf": ""}, {"csrf": other}):
        answer = await client.post("/admin/logout", data=data, allow_redirects=False)
        assert answer.status == 403
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = await client.post("/admin/logout", headers=headers | BASIC, allow_redirects=False)
        assert answer.status == 403
    assert (await client.get("/admin")).status == 200


async def test_csrf_nobody_is_logged_in_by_another_site(client: Client) -> None:
    """The form has to come from our page, in this browser."""
    assert await _log_in(client, csrf="made up") == 400
    fields = await _fields(client)
    client.session.cookie_jar.clear(lambda cookie: cookie.key == LOGIN_COOKIE)
    data = fields | {"user": "admin", "password": PASSWORD}
    assert (await client.post("/admin/login", data=data, allow_redirects=False)).status == 400
    assert _session(client) is None


async def test_clickjacking_no_page_can_be_framed(client: Client) -> None:
    """Not the form either."""
    for path in ("/admin/login", "/admin"):
        answer = await client.get(path, headers=BASIC)
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/admin//evil.example",
        "/admin/../../evil",
        "/admin\r\nLocation: https://evil.example",
        "javascript:alert(1)",
        "/admin@evil.example",
        "admin",
        "/adminevil",
    ],
)
def test_open_redirect_only_our_own_pages_are_led_to(elsewhere: str) -> None:
    """Anything else leads to the first one."""
    assert ours(elsewhere) == "/admin"


@pytest.mark.parametrize("own", ["/admin", "/admin/users", "/admin/users?user=%F0%9F&range=7d"])
def test_our_own_pages_are_led_to(own: str) -> None:
    """With their parameters."""
    assert ours(own) == own


async def test_brute_force_waits(client: Client, tmp_path: Path) -> None:
    """After some failures even the right password has to, and the audit log tells of it."""
    for _ in range(MOST_FAILURES):
        assert await _log_in(client, "guess") == 401
    assert await _log_in(client) == 429
    noted = await asyncio.to_thread(Register(tmp_path).audited, limit=10)
    assert [entry.what for entry in noted] == ["login refused", *["login failed"] * MOST_FAILURES]
    assert {entry.who for entry in noted} == {"admin"}
    assert not any("guess" in f"{entry}" for entry in noted)
