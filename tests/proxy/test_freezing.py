"""Tests of proxy.freezing: a closed month stays as it was, to the byte."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import asyncpg
import pytest

from proxy.errors import ClosingError, DatabaseError
from proxy.freezing import Months
from proxy.ledger import Ledger
from tests.fakes.rows import correction, ledger_row

OCTOBER, SEPTEMBER = date(2025, 10, 1), date(2025, 9, 1)
EDGE = datetime(2025, 11, 1, tzinfo=UTC)
TICK = timedelta(milliseconds=1)
SUMS = "SELECT month::text, sum(calls), sum(cost_usd) FROM monthly_usage_summary GROUP BY 1"
HEAD = (
    "event_id,created_at,accounted_at,user_id,endpoint,operation_name,api_path,upstream,model,"
    "request_model,service_tier,status,outcome,usage_source,prompt_tokens,completion_tokens,"
    "total_tokens,cached_tokens,cache_write_tokens,reasoning_tokens,audio_prompt_tokens,"
    "audio_completion_tokens,cost_usd,tool_cost_usd,list_cost_usd,price_id,catalog_version,"
    "unpriced_reason,corrects,correction_number,settles,metadata"
)


@pytest.fixture
async def ledger(database: str) -> AsyncIterator[Ledger]:
    """Return a writer to an empty ledger."""
    writer = Ledger(database, report_timezone="UTC")
    yield writer
    await writer.close()


@pytest.fixture
async def reader(database: str) -> AsyncIterator[asyncpg.Connection]:
    """Return a connection to look at the ledger with."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def exported(dsn: str, month: date = OCTOBER) -> bytes:
    """Return the export of a month."""
    chunks: list[bytes] = []
    await Months(dsn).export(month, chunks.append)
    return b"".join(chunks)


async def sums(reader: asyncpg.Connection) -> dict[str, tuple[int, Decimal]]:
    """Return calls and cost of each month."""
    return {row[0]: (row[1], row[2]) for row in await reader.fetch(SUMS)}


async def test_a_closed_month_is_the_same_bytes_for_ever(
    database: str, ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """Late calls and corrections count in the next month, whatever day they are of."""
    last = ledger_row(1, created_at=EDGE - TICK, user_id="=cmd", metadata={"a": 'x,"y"\n'})
    await ledger.insert([last, ledger_row(2, created_at=EDGE)])
    closed = await Months(database).close(OCTOBER)
    assert (closed.starts_at, closed.ends_at) == (datetime(2025, 10, 1, tzinfo=UTC), EDGE)
    assert (closed.export_rows, closed.cost_usd) == (1, last.cost_usd)
    before, october = await exported(database), (await sums(reader))["2025-10-01"]
    assert hashlib.sha256(before).hexdigest() == closed.export_sha256
    assert before.decode() == (
        f"{HEAD}\n{last.event_id},2025-10-31T23:59:59.999Z,,'=cmd,analyze_homework,chat,"
        "/v1/chat/completions,api.openai.com,gpt-4o-mini-2024-07-18,gpt-4o-mini,default,200,ok,"
        "reported,1200,300,1500,1000,,0,,,0.000285000001,,,gpt-4o-mini@2024-07-18/default,"
        '2026-11-01,,,,,"{""a"": ""x,\\""y\\""\\n""}"\n'
    )
    await ledger.insert([ledger_row(3, created_at=EDGE - TICK)])
    await ledger.correct([correction(last, cost_usd=Decimal(1))])
    assert await exported(database) == before
    assert [finding async for finding in Months(database).findings()] == []
    for _ in range(2):
        found = await sums(reader)
        assert found["2025-10-01"] == october
        assert found["2025-11-01"] == (2, 2 * (last.cost_usd or 0) + 1)
        await reader.execute("SELECT rebuild_rollups()")
    november = await Months(database).close(date(2025, 11, 1))
    assert (november.starts_at, november.export_rows) == (EDGE, 3)
    lines = (await exported(database, date(2025, 11, 1))).decode().splitlines()[1:]
    assert [line.split(",")[1:3] for line in lines] == [
        ["2025-10-31T23:59:59.999Z", "2025-11-01T00:00:00.000Z"],
        ["2025-10-31T23:59:59.999Z", "2025-11-01T00:00:00.000Z"],
        ["2025-11-01T00:00:00.000Z", ""],
    ]


@pytest.mark.parametrize(
    ("zone", "ends_at"),
    [
        ("Europe/Berlin", datetime(2025, 10, 31, 23, tzinfo=UTC)),  # an hour longer than 31 days
        ("Asia/Kathmandu", datetime(2025, 10, 31, 18, 15, tzinfo=UTC)),
        ("America/St_Johns", datetime(2025, 11, 1, 2, 30, tzinfo=UTC)),
    ],
)
async def test_a_month_ends_where_reports_say_so(
    database: str, reader: asyncpg.Connection, zone: str, ends_at: datetime
) -> None:
    """To the millisecond, in the report time zone."""
    ledger = Ledger(database, report_timezone=zone)
    await ledger.set_report_timezone()
    rows = [ledger_row(1, created_at=ends_at - TICK), ledger_row(2, created_at=ends_at)]
    await ledger.insert(rows)
    closed = await Months(database).close(OCTOBER)
    assert (closed.ends_at, closed.export_rows, closed.report_timezone) == (ends_at, 1, zone)
    await ledger.insert([ledger_row(3, created_at=ends_at - TICK)])
    await ledger.close()
    found = await sums(reader)
    assert {month: calls for month, (calls, _) in found.items()} == {
        "2025-10-01": 1,
        "2025-11-01": 2,
    }


async def test_a_month_that_was_changed_is_found(
    database: str, ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """Its bytes are not those that were reported."""
    await ledger.insert([ledger_row(1, created_at=EDGE - TICK)])
    await Months(database).close(OCTOBER)
    await reader.execute("UPDATE user_api_usage SET cost_usd = 7")
    (finding,) = [finding async for finding in Months(database).findings(OCTOBER)]
    assert finding.startswith("2025-10 is not as it was closed: its export has SHA-256 ")
    with pytest.raises(ClosingError, match="2025-10 is not as it was closed"):
        await exported(database)


async def test_months_are_closed_in_order(database: str, ledger: Ledger) -> None:
    """Else what is late would count in a month that is reported already."""
    september = datetime(2025, 9, 5, tzinfo=UTC)
    await ledger.insert([ledger_row(1, created_at=september)])
    months = Months(database)
    with pytest.raises(ClosingError, match="2025-09 is open and has rows"):
        await months.close(OCTOBER)
    with pytest.raises(ClosingError, match="2025-09 is not closed"):
        await exported(database, SEPTEMBER)
    await months.close(SEPTEMBER)
    await months.close(OCTOBER)
    with pytest.raises(ClosingError, match="2025-09 is closed since"):
        await months.close(SEPTEMBER)
    with pytest.raises(ClosingError, match="2025-10 is closed already"):
        await months.close(date(2025, 8, 1))
    with pytest.raises(ClosingError, match="2999-01 is not over yet"):
        await months.close(date(2999, 1, 1))
    assert [closed.month for closed in await months.all()] == [SEPTEMBER, OCTOBER]


async def test_closing_that_was_interrupted_is_done_again(
    database: str, ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """The month was frozen, its hash was not there yet; what came in between counts later."""
    await ledger.insert([ledger_row(1, created_at=EDGE - TICK)])
    first = await Months(database).close(OCTOBER)
    await reader.execute("UPDATE closed_month SET export_sha256 = NULL")
    await ledger.insert([ledger_row(2, created_at=EDGE - TICK)])
    assert [finding async for finding in Months(database).findings()] == [
        "2025-10: closing it was interrupted, close it again"
    ]
    assert await Months(database).close(OCTOBER) == first


async def test_what_is_being_inserted_is_in_the_month_or_after_it(
    database: str, reader: asyncpg.Connection
) -> None:
    """Closing waits for those who have begun, and they for it: no row is in neither or both."""

    async def write(number: int) -> None:
        ledger = Ledger(database, report_timezone="UTC")
        for k in range(12):
            await ledger.insert([ledger_row(100 * number + k, created_at=EDGE - TICK)])
        await ledger.close()

    writers = asyncio.gather(*(write(number) for number in range(4)))
    await asyncio.sleep(0.1)
    closed = await Months(database).close(OCTOBER)
    await writers
    assert [finding async for finding in Months(database).findings()] == []
    calls = {month: calls for month, (calls, _) in (await sums(reader)).items()}
    assert calls.get("2025-10-01", 0) == closed.export_rows
    assert sum(calls.values()) == 48


async def test_a_month_that_was_let_go_of_keeps_its_hash(
    database: str, ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """It cannot be shown any more, and is no finding."""
    await ledger.insert([ledger_row(1, created_at=EDGE - TICK)])
    await Months(database).close(OCTOBER)
    await reader.execute("DELETE FROM user_api_usage")
    await reader.execute(
        "INSERT INTO retired_month (month, rows, counted_since, counted_past)"
        " VALUES ('2025-10-01', 1, '2025-10-01Z', '2025-11-01Z')"
    )
    assert [finding async for finding in Months(database).findings()] == []
    assert [closed.is_retired for closed in await Months(database).all()] == [True]


async def test_a_ledger_that_is_not_there_is_an_error(empty_database: str) -> None:
    """In our words."""
    with pytest.raises(DatabaseError, match="closed_month"):
        await Months(empty_database).all()
