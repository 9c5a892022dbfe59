from pathlib import Path

import asyncpg
import pytest

from dashboard.errors import DatabaseUnavailableError
from dashboard.hands import Connection
from dashboard.pooling import Pool
from dashboard.queries import Ledger
from dashboard.together import together
from tests.dashboard.conftest import ROWS, record
from tests.fakes.pooler import pooled

PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT 1'"


async def test_a_statement_stays_prepared_on_a_connection_of_the_servers_own(database: str) -> None:
    """It is parsed once."""
    pool = Pool(database, connections=1)
    for _ in range(2):
        async with pool.taken() as connection:
            assert await connection.fetchval("SELECT 1") == 1
            assert await connection.fetchval(PREPARED) == 1
    await pool.close()


async def test_nothing_stays_prepared_behind_a_pooler(database: str, open_directory: Path) -> None:
    """Each transaction may meet another connection of the server."""
    await record(database, ROWS)
    async with pooled(database, open_directory) as dsn:
        pool = Pool(dsn, connections=1)
        async with pool.taken() as connection:
            assert await connection.fetchval("SELECT 1") == 1
            assert await connection.fetchval(PREPARED) == 0
        await pool.close()
        ledger = Ledger(dsn)

        async def calls() -> int:
            async with ledger.snapshot() as snapshot:
                await snapshot.take_another()
                return (await snapshot.periods(ROWS[0].created_at.date()))[-1].calls

        for _ in range(5):
            assert await together(*(calls() for _ in range(6))) == [len(ROWS)] * 6
        await ledger.close()


async def test_a_statement_that_is_not_there_any_more_is_prepared_again(database: str) -> None:
    """As after a pooler has come to stand in between: one question fails, the next does not."""
    pool = Pool(database, connections=1)
    async with pool.taken() as connection:
        await connection.fetchval("SELECT 1")
        await connection.execute("DEALLOCATE ALL")
    with pytest.raises(asyncpg.InvalidSQLStatementNameError):
        await _one(pool)
    assert await _one(pool) == 1
    await pool.close()


async def test_a_view_that_was_made_anew_is_asked_again(database: str) -> None:
    """An upgrade may come while pages are read."""
    owner = await asyncpg.connect(database)
    await owner.execute("CREATE VIEW thing AS SELECT 1 AS found")
    pool = Pool(database, connections=1)
    async with pool.taken() as connection:
        assert await connection.fetchval("SELECT found FROM thing") == 1
    await owner.execute("DROP VIEW thing; CREATE VIEW thing AS SELECT text 'a' AS found")
    with pytest.raises(asyncpg.InvalidCachedStatementError):
        async with pool.taken() as connection, connection.transaction():
            await connection.fetchval("SELECT found FROM thing")
    async with pool.taken() as connection, connection.transaction():
        assert await connection.fetchval("SELECT found FROM thing") == "a"
    await owner.close()
    await pool.close()


@pytest.mark.parametrize(
    ("dsn", "cause"),
    [
        ("postgresql://127.0.0.1:1/x", "ConnectionRefusedError"),
        ("postgresql://u:secret@[oops/x", "METER_DATABASE_URL cannot be read"),
    ],
)
async def test_where_there_is_no_database_it_is_said(dsn: str, cause: str) -> None:
    """Without its password."""
    with pytest.raises(DatabaseUnavailableError) as refused:
        await _one(Pool(dsn, connections=1))
    assert cause in str(refused.value.cause)
    assert "secret" not in str(refused.value.cause)


async def _one(pool: Pool) -> int:
    async with pool.taken() as connection:
        return await _ask(connection)


async def _ask(connection: Connection) -> int:
    return int(await connection.fetchval("SELECT 1"))
