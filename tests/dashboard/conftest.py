"""A dashboard whose ledger has a few rows, and the clients that ask it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from dashboard.app import create_app
from dashboard.asking import Row
from dashboard.settings import Settings
from proxy.core.model import LedgerRow
from proxy.ledger import Ledger as Writer
from tests.fakes.rows import MOMENT, ledger_row, unpriced_row

Client = TestClient[web.Request, web.Application]
MakeClient = Callable[..., Awaitable[Client]]
TOKEN = {"Authorization": "Bearer token-1"}
PASSWORD = "correct horse"  # noqa: S105 - no real one
NOW = MOMENT + timedelta(hours=1)
ROWS = [
    ledger_row(0),
    ledger_row(1, user_id="bob", endpoint="generate_hint"),
    ledger_row(2, user_id=None, created_at=MOMENT - timedelta(days=2)),
    unpriced_row(3, model="new-model"),
]


async def record(dsn: str, rows: Sequence[LedgerRow], *, report_timezone: str = "UTC") -> None:
    """Put rows into the ledger."""
    writer = Writer(dsn, report_timezone=report_timezone)
    await writer.insert(rows)
    await writer.close()


Called = tuple[str | None, str, int, str | None]


def calls_of_day(midnight: datetime, calls: Sequence[Called]) -> list[LedgerRow]:
    """Return rows of calls: who made them, where, at which hour, and of which model."""
    return [
        ledger_row(
            number,
            user_id=user,
            endpoint=endpoint,
            created_at=midnight + timedelta(hours=hour),
            model=model,
        )
        for number, (user, endpoint, hour, model) in enumerate(calls)
    ]


class Asking:
    """A database, and what it was asked for."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection
        self.asked: list[str] = []

    async def fetch(self, statement: str, *values: object) -> list[Row]:
        """Answer, and note it."""
        self.asked.append(statement)
        return [dict(row) for row in await self._connection.fetch(statement, *values)]


async def fold(dsn: str, most: int) -> None:
    """Fold and pack days that are over, as the recorder does every minute; so many at most."""
    connection = await asyncpg.connect(dsn)
    for _ in range(most):
        if await connection.fetchval("SELECT coalesce(fold_span(), pack_span())") is None:
            break
    await connection.close()


async def empty(dsn: str, zone: str) -> None:
    """Take away what an example before has left."""
    connection = await asyncpg.connect(dsn)
    tables = await connection.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND (tablename LIKE 'usage_%'"
        " OR tablename = 'user_api_usage')"
    )
    names = ", ".join(row["tablename"] for row in tables)
    await connection.execute(f"TRUNCATE {names} CASCADE")
    await connection.execute("SELECT set_report_timezone($1)", zone)
    await connection.close()


@pytest.fixture
async def client(database: str, tmp_path: Path, aiohttp_client: MakeClient) -> Client:
    """Return a client of a dashboard whose ledger has a few rows."""
    await record(database, ROWS)
    settings = Settings(
        data_dir=tmp_path,
        database_url=database,
        admin_password=PASSWORD,
        api_tokens=("token-1",),
    )
    return await aiohttp_client(await asyncio.to_thread(create_app, settings, clock=lambda: NOW))
