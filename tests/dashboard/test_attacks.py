"""The attacks that a page on the web can expect, each made on the whole application."""

import asyncio
import base64
import json
import re
from urllib.parse import urlencode

import asyncpg
import pytest

from dashboard.access import MOST_FAILURES, MOST_FAILURES_OF_TOKENS
from dashboard.guarding import ACCESS, REGISTER, SESSION_COOKIE
from dashboard.links import paths_of
from dashboard.views import QUESTIONS
from tests.dashboard.conftest import NOW, PASSWORD, ROWS, TOKEN, Client
from tests.dashboard.test_administering import ADMIN

SQL = (
    "'; DROP TABLE user_api_usage; --",
    "ada' OR '1'='1",
    "x') UNION SELECT current_user::text --",
    "\\'; SELECT pg_sleep(60); --",
    "$1",
    "%",
    "_da",
    "1; COMMIT; SELECT 1",
)
EMBEDDED = "/usage/user"  # meant to stand in other pages; it has nothing to press


async def _raw(client: Client, request: str) -> tuple[int, bytes]:
    """Send a request as it stands here, and return the status and the rest of the answer."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(request.replace("\n", "\r\n").encode())
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    await writer.wait_closed()
    return int(answer.split(b" ", 2)[1]), answer


async def _session(client: Client) -> dict[str, str]:
    return {SESSION_COOKIE: await client.app[ACCESS].begin("admin", "admin")}


def _changing(client: Client) -> set[tuple[str, str]]:
    """Return method and path of whatever changes something."""
    return {
        (route.method, route.resource.canonical.replace("{id}", "x"))
        for route in client.app.router.routes()
        if route.method not in {"GET", "HEAD"} and route.resource is not None
    }


async def test_csrf_no_page_elsewhere_changes_anything(client: Client) -> None:
    """Neither by the session's cookie nor by a password that the browser sends by itself."""
    cookies, body = await _session(client), {"name": "mine", "role": "admin"}
    found = _changing(client)
    assert ("POST", "/api/admin/tokens") in found
    for method, path in found - {("POST", "/admin/login")}:
        cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
        for headers in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "x"}):
            answer = await client.request(method, path, json=body, headers=cookie | headers)
            assert answer.status == 403, path
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": f"http://evil.{client.host}:{client.port}"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ):
            answer = await client.request(method, path, json=body, headers=ADMIN | headers)
            assert answer.status == 403, (path, headers)
    kept = await (await client.get("/api/admin/tokens", headers=ADMIN)).json()
    assert kept == {"tokens": []}


async def test_csrf_nothing_is_changed_by_asking(client: Client) -> None:
    """A link or an image does no more than GET."""
    for method, path in _changing(client):
        if path not in {"/admin/login", "/api/admin/tokens"}:
            answer = await client.get(path, headers=ADMIN)
            assert answer.status == 405, (method, path)


async def test_clickjacking_no_answer_can_be_framed(client: Client) -> None:
    """Of all routes, errors too; but the page that is made for it."""
    paths = {
        route.resource.canonical
        for route in client.app.router.routes()
        if route.method == "GET" and route.resource is not None
    }
    assert {"/admin", "/admin/login", EMBEDDED, "/api/usage/export"} <= paths
    for path in (paths - {"/admin/live"}) | {"/nothing", "/admin/users?sort=x"}:
        for headers in (ADMIN, {}):
            answer = await client.get(path, headers=headers, allow_redirects=False)
            policy = answer.headers["Content-Security-Policy"]
            assert "frame-ancestors 'none'" in policy, path
            assert answer.headers["X-Frame-Options"] == "DENY", path
    (_, page), _ = paths_of(client.app[ACCESS].key, "ada", NOW.timestamp() + 60)
    answer = await client.get(page)
    assert answer.headers["Content-Security-Policy"].endswith("frame-ancestors *")
    assert "script-src" not in answer.headers["Content-Security-Policy"]
    assert not re.search("<(form|button|input|script)", await answer.text())


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "/admin\r\nLocation: https://evil.example",
        "/admin?\r\nSet-Cookie: meter_session=x",
        "javascript:alert(1)",
        "/admin/..//evil.example",
        "\t//evil.example",
    ],
)
async def test_open_redirect_a_log_in_leads_nowhere_else(client: Client, elsewhere: str) -> None:
    """Whether the address is in the link to the form or in the form itself."""
    page = await client.get("/admin/login", params={"next": elsewhere})
    text = await page.text()
    assert 'name="next" value="/admin"' in text
    fields = dict(re.findall(r'name="?(csrf)"? value="([^"]*)"', text))
    cookie = {"Cookie": f"meter_login={page.cookies['meter_login'].value}"}
    sent = fields | {"user": "admin", "password": PASSWORD, "next": elsewhere}
    answer = await client.post("/admin/login", data=sent, headers=cookie, allow_redirects=False)
    assert (answer.status, answer.headers.getall("Location")) == (303, ["/admin"])
    assert "x" not in {value.value for value in answer.cookies.values()}


@pytest.mark.parametrize("name", ["host", "target"])
async def test_open_redirect_not_by_the_request_itself(client: Client, name: str) -> None:
    """Neither a Host field nor a target of another site stands in the answer."""
    host, target = ("evil.example", "/") if name == "host" else ("meter", "//evil.example/admin")
    request = f"GET {target} HTTP/1.1\nHost: {host}\nConnection: close\n\n"
    status, answer = await _raw(client, request)
    assert status in {303, 401, 404}
    assert b"evil.example" not in answer.replace(b"next=", b"")


async def _counted(dsn: str) -> tuple[int, int]:
    connection = await asyncpg.connect(dsn)
    row = await connection.fetchrow(
        "SELECT (SELECT count(*) FROM user_api_usage), count(*) FROM pg_class"
    )
    await connection.close()
    assert row is not None
    return row[0], row[1]


@pytest.mark.parametrize("text", SQL, ids=range(len(SQL)))
async def test_sql_injection_a_parameter_is_a_value(
    client: Client, database: str, text: str
) -> None:
    """Of every question: it finds nothing or is refused by its name, at once."""
    before = await _counted(database)
    keys = [
        base64.urlsafe_b64encode(json.dumps(key).encode()).decode()
        for key in (
            [text, "ada"],
            ["0", text],
            [text, None],
            ["+", text],
        )
    ]
    plain = ("user", "endpoint", "model", "tier", "search", "range", "from", "to", "tz", "without")
    more = ("outcome", "sort", "size", "compare", "after", "call", "table", "dialect", "format")
    pairs = [(name, text) for name in plain + more] + [("after", key) for key in keys]
    pairs += [("metadata", f"{text}=x12"), ("metadata", f"course={text}")]
    pairs += [("sort", f"-cost_usd{text}"), (text, "x"), ("tz", f"Europe/Berlin{text}")]
    paths = [f"{question.path}.json" for question in QUESTIONS]
    async with asyncio.timeout(120):
        for path in (*paths, "/api/usage/export", "/api/usage/export/summary"):
            for pair in pairs:
                answer = await client.get(path, params=[pair], headers=TOKEN)
                assert answer.status in {200, 400, 404}, (path, pair, await answer.text())
    for name in ("user", "endpoint", "model", "metadata"):
        asked = f"course={text}" if name == "metadata" else text
        path = "/admin/calls.json"
        found = await (await client.get(path, params={name: asked}, headers=TOKEN)).json()
        assert found["rows"] == []
    searched = await client.get("/admin/users.json", params={"search": text}, headers=TOKEN)
    assert (await searched.json())["rows"] == []
    assert await _counted(database) == before
    assert before[0] == len(ROWS)


@pytest.mark.parametrize(
    "path",
    [
        "/admin/static/..%2fapp.py",
        "/admin/static/%2e%2e%2fapp.py",
        "/admin/static/..%5capp.py",
        "/admin/static/../app.py",
        "/admin/static//etc/passwd",
        "/admin/static/%2fetc%2fpasswd",
        "/admin/static/dashboard.css%00.py",
        "/admin/static/....//app.py",
        "/admin/static/%252e%252e%252fapp.py",
        "/admin/static/",
        "/../../etc/passwd",
    ],
)
async def test_path_traversal_files_are_looked_up_by_name(client: Client, path: str) -> None:
    """Whoever is logged in gets nothing but what is meant to be served."""
    authorization = f"Authorization: {TOKEN['Authorization']}"
    request = f"GET {path} HTTP/1.1\nHost: meter\n{authorization}\nConnection: close\n\n"
    status, answer = await _raw(client, request)
    assert status in {400, 404}
    assert b"import" not in answer
    assert b"root:" not in answer


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/usage/user/..%2fada", 200),
        ("/api/usage/user/%2e%2e%2f%2e%2e%2fadmin%2ftokens", 200),
        ("/api/usage/user/bob/../ada", 200),
        ("/api/usage/user/ada%2f", 200),
        ("/api/usage/user/ada%00", 400),
        ("/api/usage/user/%ff", 200),
        ("/api/usage/user/", 404),
    ],
)
async def test_path_traversal_an_id_in_a_path_is_an_id(
    client: Client, path: str, status: int
) -> None:
    """Slashes and dots in it lead to nobody else, and to no other route."""
    authorization = f"Authorization: {TOKEN['Authorization']}"
    request = f"GET {path} HTTP/1.1\nHost: meter\n{authorization}\nConnection: close\n\n"
    found, answer = await _raw(client, request)
    assert found == status
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    if status == 200:
        assert body["report"] == "user"
        assert body["tables"]["calls"]["rows"] == []


async def test_brute_force_guessing_tokens_has_to_wait(client: Client) -> None:
    """Who has sent one that is right goes on; others from there wait even with one that is."""
    made = await client.post("/api/admin/tokens", json={"name": "ci"}, headers=ADMIN)
    other = {"Authorization": f"Bearer {(await made.json())['token']}"}
    path = "/api/openapi.json"
    assert (await client.get(path, headers=TOKEN)).status == 200
    for number in range(MOST_FAILURES_OF_TOKENS):
        guess = {"Authorization": f"Bearer token-{number + 2}"}
        assert (await client.get(path, headers=guess)).status == 401
    answer = await client.get(path, headers=other)
    assert (answer.status, answer.headers["Retry-After"]) == (429, "60")
    assert (await client.get(path, headers=TOKEN)).status == 200


async def test_brute_force_a_link_cannot_be_guessed_from_another(client: Client) -> None:
    """No character of it can be another one, and no user, day or purpose be put in its place."""
    key = client.app[ACCESS].key
    (_, path), _ = paths_of(key, "ada", NOW.timestamp() + 60)
    link = path.partition("link=")[2]
    body, _, mac = link.partition(".")
    other = base64.urlsafe_b64encode(json.dumps([NOW.timestamp() + 60, "bob"]).encode())
    forged = [f"{other.decode().rstrip('=')}.{mac}", f"{body}.", body, f".{mac}", f"{body}.{body}"]
    flipped = "A" if mac[0] != "A" else "B"
    forged += [f"{body}.{flipped}{mac[1:]}", f"{body}.{mac[:-4]}", f"{body}A.{mac}"]
    for each in forged:
        answer = await client.get(f"/usage/user.json?{urlencode({'link': each})}")
        assert answer.status == 403, each


async def test_brute_force_does_not_fill_the_audit_log(client: Client) -> None:
    """Guesses that are not looked at are told of once, so that nothing older is pushed out."""
    page = await client.get("/admin/login")
    [csrf] = re.findall(r'name="?csrf"? value="([^"]*)"', await page.text())
    cookie = {"Cookie": f"meter_login={page.cookies['meter_login'].value}"}
    sent = {"csrf": csrf, "user": "eve", "password": "guess", "next": ""}
    found = []
    for _ in range(MOST_FAILURES + 10):
        client.session.cookie_jar.clear()
        found.append((await client.post("/admin/login", data=sent, headers=cookie)).status)
    assert found == [401] * MOST_FAILURES + [429] * 10
    entries = await asyncio.to_thread(client.app[REGISTER].audited, limit=100)
    assert [entry.what for entry in entries] == ["login refused", *["login failed"] * MOST_FAILURES]
