from base64 import b64encode
from datetime import datetime, timedelta

import pytest

from tests.dashboard.conftest import PASSWORD, TOKEN, Client

ADMIN = {"Authorization": f"Basic {b64encode(f'admin:{PASSWORD}'.encode()).decode()}"}
ROUTES = [
    ("GET", "/api/admin/tokens"),
    ("POST", "/api/admin/tokens"),
    ("DELETE", "/api/admin/tokens/x"),
    ("POST", "/api/admin/links"),
    ("GET", "/api/admin/audit"),
    ("POST", "/api/admin/migrate-usage-tracking"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_only_an_admin_changes_access(client: Client, method: str, path: str) -> None:
    """A token that reads is told so; a stranger is asked who it is."""
    assert (await client.request(method, path, headers=TOKEN)).status == 403
    assert (await client.request(method, path)).status == 401


async def test_a_token_is_made_used_and_revoked(client: Client) -> None:
    """It is shown once, and the audit log tells of it without it."""
    asked = {"name": "ci", "role": "viewer", "days": 7}
    made = await client.post("/api/admin/tokens", json=asked, headers=ADMIN)
    assert made.status == 201
    told = await made.json()
    token = told["token"]
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await client.get("/api/usage/daily", headers=bearer)).status == 200
    [kept] = (await (await client.get("/api/admin/tokens", headers=ADMIN)).json())["tokens"]
    assert (kept["name"], kept["role"], kept["revoked_at"]) == ("ci", "viewer", None)
    assert (told["id"], told["expires_at"]) == (kept["id"], kept["expires_at"])
    gone = await client.delete(f"/api/admin/tokens/{told['id']}", headers=ADMIN)
    assert gone.status == 204
    assert (await client.get("/api/usage/daily", headers=bearer)).status == 401
    audit = await (await client.get("/api/admin/audit", headers=ADMIN)).text()
    assert token not in audit
    assert "token made" in audit
    assert "token revoked" in audit


async def test_a_viewer_sees_pseudonyms_and_takes_no_files(client: Client) -> None:
    """On pages and in JSON; the same one for the same user."""
    asked = {"name": "tv", "role": "viewer"}
    made = await client.post("/api/admin/tokens", json=asked, headers=ADMIN)
    bearer = {"Authorization": f"Bearer {(await made.json())['token']}"}
    found = await (await client.get("/api/usage/summary", headers=bearer)).json()
    names = [row["user_id"] for row in found["rows"]]
    assert [name and name[:5] for name in names] == ["user-", "user-", None]
    for path in ("/admin", "/admin/users", "/admin/calls", "/admin/calls.json"):
        answer = await client.get(path, headers=bearer)
        assert answer.status == 200, path
        text = await answer.text()
        assert ">ada<" not in text
        assert '"ada"' not in text
    for path in ("/api/usage/export", "/api/usage/export/summary", "/admin/users.csv"):
        assert (await client.get(path, headers=bearer)).status == 403
    assert (await client.get("/api/usage/user/ada", headers=bearer)).status == 400


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("tokens", {"name": ""}, "name"),
        ("tokens", {"name": "a", "role": "emperor"}, "role"),
        ("tokens", {"name": "a", "days": 0}, "days"),
        ("tokens", {"name": "a", "scopes": ["all"]}, "scopes"),
        ("tokens", {"name": "a", "scopes": ["user:ada"], "role": "viewer"}, "scopes"),
        ("tokens", {"name": "a", "scope": ["usage:read"]}, "scope"),
        ("tokens", [], "body"),
        ("links", {}, "user"),
        ("links", {"user": ""}, "user"),
        ("links", {"user": "ada", "days": 4000}, "days"),
        ("links", {"user": "ada", "day": 4}, "day"),
    ],
)
async def test_what_is_wrong_is_named(client: Client, path: str, body: object, param: str) -> None:
    """400, by the name of the member."""
    answer = await client.post(f"/api/admin/{path}", json=body, headers=ADMIN)
    assert answer.status == 400
    assert (await answer.json())["error"]["param"] == param


async def test_times_are_those_of_the_usage_api(client: Client) -> None:
    """In UTC, and readable."""
    made = await client.post("/api/admin/links", json={"user": "ada", "days": 2}, headers=ADMIN)
    expires_at = datetime.fromisoformat((await made.json())["expires_at"])
    [entry] = (await (await client.get("/api/admin/audit", headers=ADMIN)).json())["entries"]
    at = datetime.fromisoformat(entry["at"])
    assert (entry["what"], entry["detail"]) == ("link made", "'ada' for 2 days")
    assert timedelta(days=2) - timedelta(seconds=9) < expires_at - at <= timedelta(days=2)
    assert at.utcoffset() == timedelta(0)


async def test_migrating_twice_changes_nothing(client: Client) -> None:
    """The schema of these tests is up to date."""
    for _ in range(2):
        answer = await client.post("/api/admin/migrate-usage-tracking", headers=ADMIN)
        assert answer.status == 200, await answer.text()
        assert (await answer.json())["applied"] is False


FILES = {"/api/usage/export", "/api/usage/export/summary", "/admin/users.csv", "/admin/calls.csv"}
READ = {"/admin", "/admin.json", "/admin/endpoints.csv", "/api/usage/stats", "/admin/calls"}
OF_ADA = {"/api/usage/user/ada"}
OTHERS = {"/api/usage/user/bob", "/api/usage/user/ada%2Fx"}


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        ([], READ | FILES | OF_ADA | OTHERS | {"/api/admin/audit", "/api/admin/tokens"}),
        (["usage:read"], READ | OF_ADA | OTHERS),
        (["exports:read"], FILES),
        (["user:ada"], OF_ADA),
        (["exports:read", "user:ada"], FILES | OF_ADA),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
async def test_a_token_opens_what_its_scopes_name(
    client: Client, scopes: list[str], allowed: set[str]
) -> None:
    """And nothing else, an admin's neither."""
    asked = {"name": "ci", "role": "admin", "scopes": scopes}
    made = await (await client.post("/api/admin/tokens", json=asked, headers=ADMIN)).json()
    bearer = {"Authorization": f"Bearer {made['token']}"}
    for path in READ | FILES | OF_ADA | OTHERS | {"/api/admin/audit", "/api/admin/tokens"}:
        answer = await client.get(path, headers=bearer)
        assert answer.status == (200 if path in allowed else 403), path
    assert (await client.get("/api/openapi.json", headers=bearer)).status == 200
    for query in ("user=bob", "user=bob&without=user"):
        answer = await client.get(f"/api/usage/user/ada?{query}", headers=bearer)
        assert answer.status in {400, 403}, query
    links = await client.post("/api/admin/links", json={"user": "ada"}, headers=bearer)
    assert links.status == (403 if scopes else 201)
    [kept] = (await (await client.get("/api/admin/tokens", headers=ADMIN)).json())["tokens"]
    assert kept["scopes"] == scopes
