import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.request import urlopen

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from dashboard.access import MOST_FAILURES
from dashboard.app import create_app
from dashboard.settings import Settings

Client = TestClient[web.Request, web.Application]
MakeClient = Callable[[web.Application], Awaitable[Client]]
ADMIN = {"Authorization": f"Basic {b64encode(b'admin:correct horse').decode()}"}
GUESS = {"Authorization": f"Basic {b64encode(b'admin:wrong').decode()}"}
TOKEN = {"Authorization": "Bearer token-1"}


@pytest.fixture
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    """Return settings with a token and a password; the database is the test's, if it has one."""
    names = request.fixturenames
    dsn = (
        request.getfixturevalue("database")
        if "database" in names
        else f"postgresql://u@/d?host={tmp_path}"
    )
    return Settings(
        data_dir=tmp_path,
        database_url=dsn,
        admin_password="correct horse",  # noqa: S106 - no real one
        api_tokens=("token-1",),
    )


@pytest.fixture
async def client(settings: Settings, aiohttp_client: MakeClient) -> Client:
    """Return a client of the application."""
    moment = datetime(2026, 8, 28, 12, tzinfo=UTC)
    return await aiohttp_client(await asyncio.to_thread(create_app, settings, clock=lambda: moment))


async def test_stats_are_read_with_a_token(client: Client, database: str) -> None:
    """JSON, with the security headers."""
    assert database
    answer = await client.get("/api/usage/stats", headers=TOKEN)
    assert answer.status == 200
    assert answer.content_type == "application/json"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert answer.headers["Cache-Control"] == "no-store"
    assert (await answer.json())["as_of"] == "2026-08-28T12:00:00+00:00"


async def test_the_page_is_for_the_admin(client: Client, database: str) -> None:
    """HTTP Basic, as browsers speak it."""
    assert database
    answer = await client.get("/admin", headers=ADMIN)
    assert answer.status == 200
    assert answer.content_type == "text/html"
    assert "API Usage" in await answer.text()


async def test_the_front_leads_to_the_page(client: Client) -> None:
    """Whoever types the bare address finds it."""
    answer = await client.get("/", headers=TOKEN, allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (302, "/admin")


@pytest.mark.parametrize("path", ["/api/usage/stats", "/admin/users.csv", "/no/such/page"])
async def test_strangers_learn_only_what_to_send(client: Client, path: str) -> None:
    """Not even whether a page exists."""
    answer = await client.get(path)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert "METER_API_TOKENS" in await answer.text()
    assert answer.headers["X-Frame-Options"] == "DENY"


async def test_guessing_is_answered_with_a_pause(client: Client) -> None:
    """429, and when to come back."""
    for _ in range(MOST_FAILURES):
        assert (await client.get("/api/usage/stats", headers=GUESS)).status == 401
    answer = await client.get("/api/usage/stats", headers=GUESS)
    assert (answer.status, answer.headers["Retry-After"]) == (429, "60")


async def test_health_needs_no_password(client: Client, database: str) -> None:
    """It is for machines that watch."""
    assert database
    answer = await client.get("/healthz")
    assert (await answer.json())["database"] == "reachable"


@pytest.mark.parametrize("path", ["/healthz", "/api/usage/stats"])
async def test_without_a_database_the_answer_says_so(client: Client, path: str) -> None:
    """503, and the process stays up."""
    for _ in range(2):
        answer = await client.get(path, headers=TOKEN)
        assert answer.status == 503
        error = (await answer.json())["error"]
        assert error["type"] == "database_unavailable"
        assert "metered all the same" in error["message"]


async def test_without_a_database_the_page_says_so_too(client: Client) -> None:
    """In words for people."""
    answer = await client.get("/admin", headers=TOKEN)
    assert answer.status == 503
    assert answer.content_type == "text/html"
    assert "metered all the same" in await answer.text()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/no/such/page", 404), ("POST", "/api/usage/stats", 405)],
)
async def test_what_is_not_there_is_an_error_in_json(
    client: Client, method: str, path: str, status: int
) -> None:
    """With the security headers, like everything."""
    answer = await client.request(method, path, headers=TOKEN)
    assert answer.status == status
    assert "message" in (await answer.json())["error"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("how", ["signal", "end of input"])
def test_the_process_serves_and_ends(tmp_path: Path, how: str) -> None:
    """On SIGTERM, and when the pipe from its supervisor closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        environment = os.environ | {
            "METER_DATA_DIR": str(tmp_path),
            "METER_DATABASE_URL": f"postgresql://u@/d?host={tmp_path}",
            "METER_ADMIN_PASSWORD": "correct horse",
        }
        command = [sys.executable, "-m", "dashboard", "--supervised", "--listen-fd", str(fd)]
        process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            pass_fds=[fd],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        port = listener.getsockname()[1]
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert json.loads(process.stdout.readline())["event"] == "dashboard listens"
        with pytest.raises(OSError, match="503"), urlopen(f"http://127.0.0.1:{port}/healthz"):
            pass
        if how == "signal":
            process.send_signal(signal.SIGTERM)
        else:
            process.stdin.close()
        assert process.wait(20) == 0
