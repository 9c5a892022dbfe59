"""Tests of proxy.database against a real Postgres."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from proxy.database import connect, prepare, redacted
from proxy.errors import DatabaseError, DatabaseUnreachableError
from tests.conftest import at


async def test_the_schema_is_applied_once(empty_database: str) -> None:
    """A second start finds the work done."""
    assert await prepare(empty_database)
    assert not await prepare(empty_database)


async def test_starters_may_come_together(empty_database: str) -> None:
    """A fleet that starts at once applies the schema once."""
    applied = await asyncio.gather(*(prepare(empty_database) for _ in range(4)))
    assert sorted(applied) == [False, False, False, True]


async def test_the_schema_may_be_applied_over_itself(empty_database: str) -> None:
    """A new version of the file meets the tables of the old one."""
    await prepare(empty_database)
    connection = await asyncpg.connect(empty_database)
    await connection.execute("DELETE FROM schema_applied")
    await connection.close()
    assert await prepare(empty_database)


async def test_a_server_that_is_too_old_is_named(database: str) -> None:
    """The message says which version was found and which is needed."""
    with pytest.raises(DatabaseError, match=r"Postgres 1\d is too old: .* Postgres 99 or newer"):
        await prepare(database, minimum_version=99)


async def test_a_server_that_does_not_listen_is_unreachable() -> None:
    """The message says where, and holds no password."""
    with pytest.raises(DatabaseUnreachableError, match=r"127\.0\.0\.1:9/ledger") as caught:
        await connect("postgresql://someone:hunter2@127.0.0.1:9/ledger")
    assert "hunter2" not in str(caught.value)
    assert "METER_DATABASE_URL" in str(caught.value)


async def test_a_missing_socket_is_unreachable(tmp_path: Path) -> None:
    """An embedded server that is being started again is one to try again."""
    with pytest.raises(DatabaseUnreachableError):
        await connect(f"postgresql://meter@/postgres?host={tmp_path}")


async def test_a_database_that_does_not_exist_is_named(database: str) -> None:
    """The message says what to do; trying again would not help."""
    with pytest.raises(DatabaseError, match='"nowhere" does not exist; make it') as caught:
        await connect(at(database, "nowhere"))
    assert not isinstance(caught.value, DatabaseUnreachableError)


@pytest.mark.parametrize(
    "dsn",
    ["postgresql://u:hunter2@host:hunter2/db", "mysql://u:hunter2@host/db", "host=h pass=hunter2"],
)
async def test_an_unreadable_address_is_not_repeated(dsn: str) -> None:
    """What cannot be read may be a password in the wrong place."""
    with pytest.raises(DatabaseError, match="METER_DATABASE_URL cannot be read") as caught:
        await connect(dsn)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("postgresql://u:p@db.example:5433/ledger?sslmode=require", "db.example:5433/ledger"),
        ("postgresql://u:p%40ss@a:1,b:2/ledger", "a:1,b:2/ledger"),
        ("postgresql://meter@/postgres?host=/run/pg", "/run/pg/postgres"),
        ("postgresql:///ledger?password=p", "localhost/ledger"),
        ("postgresql://[u:p@/ledger", "an unreadable address"),
        ("host=h password=p", "an unreadable address"),
    ],
)
def test_a_redacted_address_says_where_and_nothing_else(dsn: str, expected: str) -> None:
    """User, password and options do not get into logs."""
    assert redacted(dsn) == expected
