import asyncio
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

import asyncpg
import pytest

from dashboard import copying
from dashboard.errors import TooBusyError
from dashboard.exports import DIALECTS, Dialect
from dashboard.filters import Filter
from dashboard.queries import Ledger
from dashboard.snapshot import Snapshot
from tests.dashboard.conftest import NOW, record
from tests.dashboard.test_exports import ASKED
from tests.fakes.rows import MOMENT, ledger_row

EVERYTHING = ASKED.with_(range="all", first=None)
CALLS = 600  # 20 in a slice, so that there are many


@pytest.fixture
async def dsn(database: str) -> str:
    """Return a ledger of some days."""
    rows = [
        ledger_row(number, created_at=MOMENT - timedelta(minutes=17 * number), user_id=f"+{number}")
        for number in range(CALLS)
    ]
    await record(database, rows)
    return database


async def _file(
    ledger: Ledger, dialect: Dialect, wanted: Filter = EVERYTHING, *, slice_rows: int = 20
) -> list[bytes]:
    async with ledger.copying() as snapshot:
        return await _file_of(ledger, snapshot, dialect, wanted, slice_rows=slice_rows)


async def _file_of(
    ledger: Ledger,
    snapshot: Snapshot,
    dialect: Dialect = "raw",
    wanted: Filter = EVERYTHING,
    *,
    slice_rows: int = 20,
) -> list[bytes]:
    chunks: list[bytes] = []

    async def write(chunk: bytes) -> None:
        chunks.append(chunk)

    count = await copying.copy_file(
        ledger, snapshot, "calls", dialect, wanted, write, slice_rows=slice_rows
    )
    lines = b"".join(chunks).splitlines(keepends=True)
    assert count == len(lines) - 1
    return lines


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_file_of_many_slices_is_that_of_one_statement(dsn: str, dialect: Dialect) -> None:
    """In the same order and with one head, by one connection or by two."""
    ledgers = [Ledger(dsn, connections=count) for count in (1, 2)]
    sliced = [await _file(ledger, dialect) for ledger in ledgers]
    whole = await _file(ledgers[0], dialect, slice_rows=10**6)
    assert sliced == [whole, whole]
    assert len(whole) == CALLS + 1
    for ledger in ledgers:
        await ledger.close()


async def test_what_came_late_is_in_the_slice_of_its_call(dsn: str) -> None:
    """Although it counts in another month than the one it was made in."""
    connection = await asyncpg.connect(dsn)
    late = ledger_row(9999, created_at=MOMENT - timedelta(days=40), user_id="late")
    await record(dsn, [late])
    await connection.execute(
        "UPDATE user_api_usage SET accounted_at = $1 WHERE user_id = 'late'", MOMENT
    )
    await connection.close()
    ledger = Ledger(dsn, connections=2)
    november = ASKED.with_(first=ASKED.first)
    lines = await _file(ledger, "raw", november)
    assert b",late," in lines[1]
    assert len(lines) == CALLS + 2
    await ledger.close()


async def test_both_connections_see_the_same_moment(dsn: str) -> None:
    """A call that comes while a file is made is not in half of it."""
    ledger = Ledger(dsn, connections=2)
    chunks: list[bytes] = []

    async def write(chunk: bytes) -> None:
        if not chunks:
            newest = ledger_row(10**6, created_at=NOW, cost_usd=Decimal(1))
            await record(dsn, [newest])
        chunks.append(chunk)

    async with ledger.copying() as snapshot:
        count = await copying.copy_file(
            ledger, snapshot, "calls", "raw", EVERYTHING, write, slice_rows=20
        )
    assert count == CALLS
    await ledger.close()


async def test_no_file_waits_for_the_second_connection_of_another(dsn: str) -> None:
    """Neither where one of three is taken for it already, nor where no more can be opened."""
    ledger = Ledger(dsn, connections=3)
    async with ledger.copying() as first, ledger.beside(first) as second:
        assert second is not None
        async with ledger.copying() as another, ledger.beside(another) as none:
            assert none is None
            async with asyncio.timeout(30):
                assert len(await _file_of(ledger, another)) == CALLS + 1
    await ledger.close()


async def test_a_file_is_made_by_one_connection_where_a_second_is_refused(dsn: str) -> None:
    """Because the database has no more to give."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE ROLE lonely LOGIN CONNECTION LIMIT 1")
    await connection.execute("GRANT meter_dashboard TO lonely")
    ledger = Ledger(dsn.replace("meter@", "lonely@"), connections=2)
    try:
        lines = await _file(ledger, "raw")
    finally:
        await ledger.close()
        await connection.execute("DROP ROLE lonely")
        await connection.close()
    assert len(lines) == CALLS + 1


async def test_who_waits_too_long_for_a_turn_is_told(dsn: str) -> None:
    """And not kept waiting for as long as the files of others take."""
    ledger = Ledger(dsn, connections=1, room_seconds=0.05)
    async with ledger.copying():
        with pytest.raises(TooBusyError, match="try again"):
            await ledger.health()
    assert (await ledger.health()).newest_call is not None
    await ledger.close()


async def test_who_stops_taking_stops_both_connections(dsn: str) -> None:
    """And is told of it by what it has raised itself."""
    ledger = Ledger(dsn, connections=2)

    async def write(_chunk: bytes) -> None:
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError, match="gone"):
        async with ledger.copying() as snapshot:
            await copying.copy_file(
                ledger, snapshot, "calls", "raw", EVERYTHING, write, slice_rows=20
            )
    async with ledger.copying() as snapshot:
        assert await _slices_are_bounded(snapshot)
    await ledger.close()


async def _slices_are_bounded(snapshot: Snapshot) -> bool:
    bounds: Sequence[object] = await snapshot.bounds(EVERYTHING, rows=20)
    return len(bounds) >= CALLS / 40
