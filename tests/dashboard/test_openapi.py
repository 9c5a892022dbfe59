import json
from base64 import b64encode
from typing import Any

from dashboard.openapi import document
from dashboard.parsing import PARAMETERS
from tests.dashboard.conftest import PASSWORD, TOKEN, Client

ADMIN = {"Authorization": f"Basic {b64encode(f'admin:{PASSWORD}'.encode()).decode()}"}


DAYS = {"from": "2026-11-20", "to": "2026-11-21"}
VALUES = {**DAYS, "tz": "Europe/Berlin", "sort": "-calls", "metadata": "key=value"}


def _paths() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(document(version="v1"))["paths"]
    return found


async def test_the_description_is_served(client: Client) -> None:
    """To those who may read."""
    assert (await client.get("/api/openapi.json")).status == 401
    answer = await client.get("/api/openapi.json", headers=TOKEN)
    assert (await answer.json())["openapi"] == "3.1.0"


async def test_whatever_is_described_is_there(client: Client) -> None:
    """And nothing under /api that is not described."""
    routes = {
        (route.method.lower(), route.resource.canonical)
        for route in client.app.router.routes()
        if route.resource is not None and route.resource.canonical.startswith("/api/")
    }
    described = {(method, path) for path, methods in _paths().items() for method in methods}
    ours = {(method, path.replace(":.+", "")) for method, path in routes if method != "head"}
    assert described == ours - {("get", "/api/openapi.json")}


def test_every_parameter_is_known() -> None:
    """A name that is described and refused would be a trap."""
    own = {"dialect", "format", "user_id", "id"}
    for path, methods in _paths().items():
        for operation in methods.values():
            names = {parameter["name"] for parameter in operation["parameters"]}
            assert names <= {*PARAMETERS, *own}, path


async def test_every_value_that_is_described_is_taken(client: Client) -> None:
    """One after another: none is refused, whichever route it is."""
    for path, methods in _paths().items():
        for parameter in methods.get("get", {"parameters": []})["parameters"]:
            name, values = parameter["name"], parameter["schema"].get("enum", [])
            if parameter["in"] == "path" or name == "after":
                continue
            for value in values or [VALUES.get(name, "a")]:
                asked = {name: value} | (DAYS if value == "custom" else {})
                if path == "/api/usage/export" and name == "sort":
                    asked = {"sort": "-created_at"}
                answer = await client.get(path.format(user_id="ada"), params=asked, headers=TOKEN)
                assert answer.status == 200, (path, asked, await answer.text())


async def test_what_is_sent_is_described(client: Client) -> None:
    """Members as they are read: the required ones alone are enough, and others are refused."""
    for path, sent in (("/api/admin/tokens", {"name": "ci"}), ("/api/admin/links", {"user": "a"})):
        operation = _paths()[path]["post"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        assert schema["required"] == list(sent)
        answer = await client.post(path, json=sent, headers=ADMIN)
        assert str(answer.status) in operation["responses"]
        wrong: dict[str, object] = {name: {} for name in schema["properties"]}
        assert (await client.post(path, json=wrong, headers=ADMIN)).status == 400
