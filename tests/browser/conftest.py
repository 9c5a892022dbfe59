"""A real browser before a real dashboard: Debian's Chromium, driven by Playwright.

Whatever a page logs, asks of another site or throws fails the test that looked at it.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright

from dashboard.app import create_app
from dashboard.settings import Settings
from proxy.core.model import LedgerRow
from proxy.ledger import Ledger
from tests.fakes.rows import ledger_row, unpriced_row

PASSWORD = "correct horse"  # noqa: S105 - no real one
NOW = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
MakeServer = Callable[[web.Application], Awaitable[TestServer]]
Open = Callable[..., AbstractAsyncContextManager[Page]]


@dataclass  # without slots: Playwright keeps a note of its own in it
class Noise:
    """What a page did that it should not."""

    base: str
    heard: list[str] = field(default_factory=list)

    def listen(self, page: Page) -> None:
        """Hear of everything from now on."""
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.heard.append(f"thrown: {error}"))
        page.on("dialog", lambda dialog: self.heard.append(f"dialog: {dialog.message}"))
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and "status of 4" not in message.text:
            self.heard.append(f"{message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.base, "blob:", "data:")):
            self.heard.append(f"asked: {request.url}")


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Return Chromium; skip where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    async with async_playwright() as playwright:
        # Where root runs the tests, as in a container, Chromium has no sandbox of its own.
        found = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        await found.close()


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard, and the ledger that it reads."""

    url: str
    dsn: str

    async def record(self, *rows: LedgerRow) -> None:
        """Put rows into the ledger."""
        writer = Ledger(self.dsn, report_timezone="UTC")
        await writer.insert(rows)
        await writer.close()

    async def execute(self, statement: str) -> None:
        """Change the ledger as the recorder would."""
        connection = await asyncpg.connect(self.dsn)
        await connection.execute(statement)
        await connection.close()


@pytest.fixture
async def dashboard(database: str, tmp_path: Path, aiohttp_server: MakeServer) -> Dashboard:
    """Return a dashboard whose ledger is empty."""
    settings = Settings(data_dir=tmp_path, database_url=database, admin_password=PASSWORD)
    app = await asyncio.to_thread(create_app, settings, clock=lambda: NOW)
    server = await aiohttp_server(app)
    return Dashboard(str(server.make_url("")).rstrip("/"), database)


@pytest.fixture
def open_page(browser: Browser, dashboard: Dashboard) -> Open:
    """Return what opens a page and logs in; options are those of a browser's context."""

    @asynccontextmanager
    async def opened(
        path: str = "/admin", *, logged_in: bool = True, **options: Any
    ) -> AsyncIterator[Page]:
        context = await browser.new_context(base_url=dashboard.url, **options)
        context.set_default_timeout(30_000)
        page = await context.new_page()
        noise = Noise(dashboard.url)
        noise.listen(page)
        await page.goto(path)
        if logged_in:
            await log_in(page)
        yield page
        await context.close()
        assert noise.heard == []

    return opened


async def log_in(page: Page, password: str = PASSWORD) -> None:
    """Fill in the form."""
    await page.get_by_label("User").fill("admin")
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Log in").click()


def month(count: int = 60) -> list[LedgerRow]:
    """Return calls of a month: each of its users makes one more than the one before."""
    endpoints = ("analyze_homework", "generate_hint", "verify_answer")
    rows: list[LedgerRow] = []
    for user in range(count):
        for call in range(1 + user % 5):
            number = len(rows)
            at = NOW - timedelta(days=number % 28, minutes=number)
            named = {"user_id": f"pupil-{user:03}", "endpoint": endpoints[number % 3]}
            make = unpriced_row if number % 29 == 28 else ledger_row
            rows.append(make(number, created_at=at, **named, metadata={"course": f"c{call}"}))
    return rows
