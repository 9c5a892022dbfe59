"""Tests of proxy.ledger against a real Postgres: exactly once, exact sums, no row refused."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import fields, replace
from datetime import date, timedelta
from decimal import Decimal
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.core.model import LedgerRow
from proxy.core.pricing import PriceRate
from proxy.core.storing import COLUMNS
from proxy.errors import DatabaseError, DatabaseUnreachableError, ReportTimezoneError
from proxy.ledger import InsertResult, Ledger
from tests.fakes.rows import MOMENT, correction, ledger_row, unavailable_row, unpriced_row

ROLLUPS = ("usage_by_quarter_hour", "usage_by_day", "usage_by_user_day", "usage_by_month")
MORE_ROLLUPS = ("usage_by_answer_day", "usage_by_duration_day")
OTHERS_OUT = """
SELECT pg_terminate_backend(pid)
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


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


async def rollups(reader: asyncpg.Connection) -> list[set[asyncpg.Record]]:
    """Return the rows of all rollups."""
    return [set(await reader.fetch(f"TABLE {name}")) for name in ROLLUPS + MORE_ROLLUPS]


async def table(reader: asyncpg.Connection, query: str) -> list[tuple[object, ...]]:
    """Return what a query finds, as plain tuples."""
    return [tuple(record) for record in await reader.fetch(query)]


async def test_a_row_is_stored_as_it_is(ledger: Ledger, reader: asyncpg.Connection) -> None:
    """Every column holds what the field of its name held."""
    row = ledger_row(retry_count=2, usage_problem="odd", unpriced_reason="none", error_type="e")
    assert await ledger.insert([row]) == InsertResult(inserted=1)
    stored = await reader.fetchrow("SELECT * FROM user_api_usage")
    assert stored is not None
    for field in fields(LedgerRow):
        expected = getattr(row, field.name)
        if field.name in {"metadata", "raw_usage"}:
            expected = json.loads(expected) if isinstance(expected, bytes) else expected
            assert json.loads(stored[field.name]) == expected
        else:
            assert stored[field.name] == expected, field.name


async def test_nothing_is_nothing(ledger: Ledger) -> None:
    """An empty batch needs no database."""
    assert await ledger.insert([]) == InsertResult()


async def test_unknown_is_null_in_rows_and_sums(ledger: Ledger, reader: asyncpg.Connection) -> None:
    """A sum of nothing known is not 0; the first known number begins it."""
    await ledger.insert([unavailable_row(1), unavailable_row(2, outcome="interrupted")])
    query = (
        "SELECT calls, errors, unavailable_calls, unpriced_calls, total_tokens, cost_usd"
        " FROM usage_by_user_day"
    )
    assert await table(reader, query.replace("usage_by_user_day", "ledger_status")) == [
        (2, 1, 2, 0, None, None)
    ]
    row = ledger_row(3)
    await ledger.insert([replace(row, model=unavailable_row().model)])
    assert await table(reader, query) == [(3, 1, 2, 0, 1500, row.cost_usd)]


async def test_calls_are_counted_by_what_is_known_of_them(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """A call whose client hung up is no error; an estimate without a price is unpriced."""
    await ledger.insert(
        [
            ledger_row(1),
            unpriced_row(2, outcome="client_disconnected", usage_source="estimated"),
            unpriced_row(3),
            unavailable_row(4, outcome="upstream_error", status=500),
        ]
    )
    for name in ROLLUPS:
        counts = await table(
            reader,
            f"SELECT calls, errors, unpriced_calls, estimated_calls, unavailable_calls FROM {name}",  # noqa: S608
        )
        assert counts == [(4, 1, 2, 1, 1)], name


async def test_a_row_that_settles_a_call_is_in_the_sums_and_not_counted(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """What is billed later is no second call; what is taken back leaves nothing, also rebuilt."""
    made = unavailable_row(1, usage_problem="usage_deferred")
    whole = unpriced_row(2, settles=made.event_id)
    back = unpriced_row(
        3,
        settles=made.event_id,
        corrects=whole.event_id,
        prompt_tokens=-1200,
        completion_tokens=-300,
        total_tokens=-1500,
        cached_tokens=-1000,
    )
    line = ledger_row(4, settles=made.event_id)
    result = await ledger.insert([made, whole, back, line])
    assert result == InsertResult(inserted=4)
    before = await rollups(reader)
    for name in ROLLUPS:
        counts = await table(
            reader,
            f"SELECT calls, errors, unpriced_calls, estimated_calls, unavailable_calls,"  # noqa: S608
            f" total_tokens, cost_usd FROM {name}",
        )
        assert counts == [(1, 0, 0, 0, 0, 1500, line.cost_usd)], name
    await reader.execute("SELECT rebuild_rollups()")
    assert await rollups(reader) == before


async def test_a_batch_sent_again_changes_nothing(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """After a lost connection nobody knows whether the commit came through."""
    batch = [ledger_row(number) for number in range(100)]
    assert (await ledger.insert(batch)).inserted == 100
    before = await rollups(reader)
    assert (await ledger.insert(batch)).inserted == 0
    assert await rollups(reader) == before


async def test_a_batch_may_be_partly_known_and_hold_a_row_twice(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """Only what is new is counted."""
    await ledger.insert([ledger_row(1)])
    assert (await ledger.insert([ledger_row(n) for n in (1, 2, 3, 3)])).inserted == 2
    assert await reader.fetchval("SELECT calls FROM ledger_status") == 3


async def test_writers_at_once_do_not_deadlock_and_sums_are_exact(
    database: str, reader: asyncpg.Connection
) -> None:
    """Four recorders meet on the same keys, in any order, and on the same rows."""
    rows = [
        ledger_row(n, user_id=f"user-{n % 7}" if n % 5 else None, endpoint=f"e{n % 3}")
        for n in range(1200)
    ]

    async def write(seed: int) -> int:
        writer, mine = Ledger(database, report_timezone="UTC"), rows[:]
        random.Random(seed).shuffle(mine)  # noqa: S311 (nothing secret)
        results = [await writer.insert(mine[k : k + 50]) for k in range(0, len(mine), 50)]
        await writer.close()
        return sum(result.inserted for result in results)

    assert sum(await asyncio.gather(*(write(seed) for seed in range(4)))) == 1200
    expected = sum((row.cost_usd for row in rows if row.cost_usd), Decimal())
    for name in ROLLUPS:
        query = f"SELECT sum(calls), sum(total_tokens), sum(cost_usd) FROM {name}"  # noqa: S608
        assert await table(reader, query) == [(1200, 1200 * 1500, expected)], name


async def test_rollups_made_anew_are_the_same(ledger: Ledger, reader: asyncpg.Connection) -> None:
    """The statement and rebuild_rollups() agree on what every column means."""
    steps = [timedelta(hours=7 * n) for n in range(40)]
    rows = [ledger_row(n, created_at=MOMENT + step) for n, step in enumerate(steps)]
    rows += [
        unavailable_row(n, created_at=MOMENT + step, user_id=None)
        for n, step in enumerate(steps, 40)
    ]
    rows += [unpriced_row(90, usage_source="estimated", outcome="timeout", model=None)]
    await ledger.insert(rows)
    before = await rollups(reader)
    await reader.execute("SELECT rebuild_rollups()")
    assert await rollups(reader) == before


async def test_days_begin_in_the_report_time_zone(
    database: str, reader: asyncpg.Connection
) -> None:
    """A changed zone moves the days of old rows as of new ones."""
    late = MOMENT.replace(hour=23, minute=30)
    utc = Ledger(database, report_timezone="UTC")
    assert not await utc.set_report_timezone()
    await utc.insert([ledger_row(1, created_at=late)])
    berlin = Ledger(database, report_timezone="Europe/Berlin")
    assert await berlin.set_report_timezone()
    assert not await berlin.set_report_timezone()
    await berlin.insert([ledger_row(2, created_at=late), ledger_row(3)])
    days = await table(reader, "SELECT day, calls FROM daily_usage_summary ORDER BY day")
    assert days == [(date(2026, 11, 22), 1), (date(2026, 11, 23), 2)]
    for writer in (utc, berlin):
        await writer.close()


async def test_sums_of_rows_that_are_gone_keep_their_days(
    database: str, ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """A month may be dropped; then no other time zone can be had, and rows go on being taken."""
    await ledger.insert([ledger_row(1)])
    await reader.execute("DELETE FROM user_api_usage")
    berlin = Ledger(database, report_timezone="Europe/Berlin")
    with pytest.raises(ReportTimezoneError, match=r"Europe/Berlin.*cannot be rebuilt"):
        await berlin.set_report_timezone()
    assert (await berlin.insert([ledger_row(2)])).inserted == 1
    assert await table(reader, "SELECT sum(calls) FROM usage_by_user_day") == [(2,)]
    await berlin.close()


async def test_an_unknown_time_zone_changes_nothing(database: str) -> None:
    """The message names it."""
    writer = Ledger(database, report_timezone="Mars/Olympus")
    with pytest.raises(DatabaseError, match="Mars/Olympus"):
        await writer.set_report_timezone()
    await writer.close()


async def test_the_rates_of_a_catalogue_are_kept_once(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """Each start brings the same catalogue again."""
    rates = [
        PriceRate(price_id="m@x", component=name, list_unit_price=Decimal("0.00000015"))
        for name in ("input", "output", "input")
    ]
    for _ in range(2):
        await ledger.store_prices("2026-11-01", rates)
    assert await table(reader, "SELECT * FROM prices ORDER BY component") == [
        ("2026-11-01", "m@x", "input", Decimal("0.00000015")),
        ("2026-11-01", "m@x", "output", Decimal("0.00000015")),
    ]


async def test_rows_of_any_time_have_a_place(ledger: Ledger, reader: asyncpg.Connection) -> None:
    """A clock gone wrong makes no row lost: the default partition takes it."""
    rows = [
        ledger_row(n, created_at=MOMENT.replace(year=year))
        for n, year in enumerate((1971, 2026, 9000))
    ]
    assert (await ledger.insert(rows)).inserted == 3
    assert await reader.fetchval("SELECT default_partition_holds_rows FROM ledger_status")
    assert await ledger.ensure_partitions() == 0


async def test_refused_rows_do_not_hold_up_the_others(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """A row that contradicts itself is handed back with the reason, alone."""
    rows = [ledger_row(number) for number in range(64)]
    rows[17] = replace(rows[17], outcome="exploded")
    rows[40] = replace(rows[40], price_id=None)
    result = await ledger.insert(rows)
    assert result.inserted == await reader.fetchval("SELECT calls FROM ledger_status") == 62
    assert [row for row, _ in result.refused] == [rows[17], rows[40]]
    assert ["outcome_is_known" in why for _, why in result.refused] == [True, False]
    assert "a_cost_names_its_price" in result.refused[1][1]


async def test_a_connection_lost_within_a_batch_is_for_the_caller_to_try_again(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """Postgres was restarted under a batch: nothing of it is there, and then all of it."""
    batch = [ledger_row(1), ledger_row(2)]
    async with reader.transaction():
        await reader.execute("LOCK TABLE usage_by_month")
        attempt = asyncio.ensure_future(ledger.insert(batch))
        await asyncio.sleep(0.2)
        await reader.execute(OTHERS_OUT)
        with pytest.raises(DatabaseUnreachableError, match="the connection was lost"):
            await attempt
    assert await reader.fetchval("SELECT count(*) FROM user_api_usage") == 0
    assert (await ledger.insert(batch)).inserted == 2


async def test_an_insert_waits_for_sums_that_are_made_anew(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """Else its rows would be missed, or counted in the days of the former time zone."""
    async with reader.transaction():
        await reader.execute("SELECT rebuild_rollups()")
        attempt = asyncio.ensure_future(ledger.insert([ledger_row(1)]))
        await asyncio.sleep(0.1)
        assert not attempt.done()
    assert (await attempt).inserted == 1


async def test_a_ledger_without_a_schema_is_an_error(empty_database: str) -> None:
    """Trying again would not help, and no row is to blame."""
    writer = Ledger(empty_database, report_timezone="UTC")
    with pytest.raises(DatabaseError, match="user_api_usage") as caught:
        await writer.insert([ledger_row()])
    assert not isinstance(caught.value, DatabaseUnreachableError)
    await writer.close()


async def test_a_correction_changes_sums_and_is_no_call(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """A call without a price gets one, and is dearer by another correction: rows are only added."""
    row = unpriced_row(1)
    assert await ledger.correct([]) == 0
    await ledger.insert([row, ledger_row(2)])
    priced = correction(
        row, cost_usd=Decimal("0.5"), price_id="p", catalog_version="c", unpriced_change=-1
    )
    assert await ledger.correct([priced]) == 1
    assert await ledger.correct([priced]) == 0
    dearer = correction(row, 2, cost_usd=Decimal("0.25"), price_id="q", catalog_version="d")
    assert await ledger.correct([dearer]) == 1
    query = "SELECT calls, errors, unpriced_calls, cost_usd, total_tokens FROM "
    for _ in range(2):
        for name in ROLLUPS:
            assert await table(reader, query + name) == [(2, 0, 0, Decimal("0.750285000001"), 3000)]
        await reader.execute("SELECT rebuild_rollups()")
    states = "SELECT cost_usd, price_id, catalog_version, corrections FROM corrected_calls"
    assert set(await table(reader, states)) == {
        (Decimal("0.75"), "q", "d", 2),
        (Decimal("0.000285000001"), "gpt-4o-mini@2024-07-18/default", "2026-11-01", 0),
    }
    copied = "SELECT user_id, endpoint, model, metadata FROM calls GROUP BY 1, 2, 3, 4"
    assert await table(reader, copied) == [
        ("ada", "analyze_homework", "gpt-4o-mini-2024-07-18", '{"course": "x12"}')
    ]


async def test_what_comes_after_a_month_was_closed_counts_in_the_first_open_one(
    ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """A late call and a correction; created_at stays what it was."""
    october = MOMENT.replace(month=10)
    in_time, late = ledger_row(1, created_at=october), ledger_row(2, created_at=october)
    await ledger.insert([in_time])
    await reader.execute(
        "INSERT INTO closed_month (month, starts_at, ends_at, report_timezone)"
        " VALUES ('2026-10-01', '2026-10-01Z', '2026-11-01Z', 'UTC')"
    )
    edge = MOMENT.replace(day=1, hour=0)
    await ledger.insert([late, ledger_row(3, created_at=edge)])
    await ledger.correct([correction(in_time, cost_usd=Decimal(-1))])
    one = in_time.cost_usd
    assert one is not None
    for _ in range(2):
        assert await table(
            reader, "SELECT day, calls, cost_usd FROM daily_usage_summary ORDER BY day"
        ) == [(date(2026, 10, 22), 1, one), (date(2026, 11, 1), 2, 2 * one - 1)]
        assert await table(
            reader, "SELECT bucket, calls FROM usage_by_quarter_hour ORDER BY bucket"
        ) == [(october, 1), (edge, 2)]
        await reader.execute("SELECT rebuild_rollups()")
    assert (
        await table(
            reader, "SELECT created_at, accounted_at FROM calls WHERE accounted_at IS NOT NULL"
        )
        == [(october, edge)] * 2
    )


SEALED = """
SELECT
    seal.chain,
    seal.number,
    cardinality(seal.event_ids) AS rows,
    seal.hash = seal_hash(
        coalesce(before.hash, ''), seal.chain, seal.number, seal.sealed_at, seal.content_hash
    ) AS is_chained
FROM seal
LEFT JOIN seal AS before ON before.chain = seal.chain AND before.number = seal.number - 1
ORDER BY 1, 2
"""


async def test_each_batch_is_sealed_and_chained(ledger: Ledger, reader: asyncpg.Connection) -> None:
    """Only rows that are new are in a seal; a batch without any has none."""
    await ledger.insert([ledger_row(1), ledger_row(2)])
    await ledger.insert([ledger_row(2)])
    await ledger.insert([ledger_row(2), ledger_row(3)])
    await ledger.correct([correction(ledger_row(3))])
    assert await table(reader, SEALED) == [(1, 1, 2, True), (1, 2, 1, True), (1, 3, 1, True)]


async def test_writers_at_once_have_chains_of_their_own(
    database: str, reader: asyncpg.Connection
) -> None:
    """More writers than chains: none waits for ever, and every row is sealed once."""

    async def write(number: int) -> None:
        writer = Ledger(database, report_timezone="UTC")
        for k in range(4):
            rows = [ledger_row(number * 100 + k * 10 + n, endpoint=f"e{n}") for n in range(5)]
            await writer.insert(rows)
        await writer.close()

    await asyncio.gather(*(write(number) for number in range(20)))
    sealed = await table(reader, SEALED)
    assert {is_chained for *_, is_chained in sealed} == {True}
    assert await table(
        reader,
        "SELECT count(DISTINCT event_id), count(*) FROM seal, unnest(event_ids) AS event_id",
    ) == [(400, 400)]
    heads = "SELECT sum(number)::integer FROM seal_chain"
    assert await reader.fetchval(heads) == len(sealed) == 80


def test_every_column_is_made_storable() -> None:
    """A new field of LedgerRow needs a column here, in the same order."""
    assert list(COLUMNS) == [field.name for field in fields(LedgerRow)]


HOSTILE_TEXT = st.one_of(
    st.none(),
    st.text(st.characters(exclude_categories=()), max_size=40),
    st.sampled_from(
        ["\0", "\ud800x", "💣" * 9000, "x" * 70_000, "ﷺ" * 2000, "a'); DROP TABLE x--"]
    ),
)
HOSTILE_COUNT = st.one_of(st.none(), st.integers(), st.sampled_from([2**31, 2**63, -1, 10**40]))
HOSTILE_JSON = st.one_of(
    st.none(),
    st.binary(max_size=30),
    st.sampled_from(
        [
            b'{"a":"\\u0000"}',
            b'{"\\ud800":1}',
            b'{"a":1e999999}',
            b'{"a":-1e-999999}',
            b'{"a":' + b"9" * 200_000 + b"}",
            b'{"a":0.' + b"1" * 100_000 + b"}",
            b"[" * 100_000,
            b"[" * 900 + b"]" * 900,
            b'{"a":"\xff"}',
            b'{"a":NaN}',
            b"",
        ]
    ),
)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def hostile_rows(draw: st.DrawFn) -> LedgerRow:
    """Make a row of which every value that somebody else decides on is as bad as can be."""
    names = [name for name in COLUMNS if name.endswith("_tokens")]
    numbers = [*names, "status", "latency_ms", "time_to_first_byte_ms", "retry_count"]
    texts = [
        "user_id", "endpoint", "model", "request_model", "service_tier", "error_type",
        "upstream_request_id", "response_id", "attribution_problem", "usage_problem",
    ]  # fmt: skip
    changes: dict[str, object] = {name: draw(HOSTILE_COUNT) for name in numbers}
    changes |= {name: draw(HOSTILE_TEXT) for name in texts}
    changes |= {name: draw(HOSTILE_COUNT) for name in ("request_bytes", "response_bytes")}
    changes["api_path"] = draw(HOSTILE_TEXT) or ""
    changes["raw_usage"] = draw(HOSTILE_JSON)
    changes["metadata"] = draw(st.none() | st.dictionaries(st.text(), JSON_VALUES, max_size=3))
    changes["cost_usd"] = draw(st.none() | st.decimals())
    number = draw(st.integers(0, 2**60))
    return ledger_row(number, **changes)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(hostile_rows(), max_size=8))
async def test_no_row_is_refused_for_what_others_put_into_it(
    ledger: Ledger, reader: asyncpg.Connection, rows: Sequence[LedgerRow]
) -> None:
    """Clients and upstreams decide on these values; every one of their calls is to have its row."""
    result = await ledger.insert(rows)
    assert result.refused == ()
    ids: set[UUID] = {row.event_id for row in rows}
    query = "SELECT count(*) FROM user_api_usage WHERE event_id = ANY($1::uuid[])"
    assert await reader.fetchval(query, list(ids)) == len(ids)
    before = await rollups(reader)
    await reader.execute("SELECT rebuild_rollups()")
    assert await rollups(reader) == before
