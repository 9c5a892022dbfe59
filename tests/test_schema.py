"""Tests of schema.sql: what the proxy writes and the dashboard reads is what is there."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest

from proxy.core.model import Correction, LedgerRow, Outcome, UsageSource
from proxy.database import prepare
from proxy.embedded import EmbeddedPostgres
from proxy.ledger import Ledger
from proxy.rollups import Period, findings
from tests.conftest import at
from tests.fakes.rows import ledger_row, unavailable_row

OF_THE_DATABASE = {"recorded_at", "accounted_at"}  # not made from a call
VIEWS = {
    "calls": "event_id",
    "corrected_calls": "event_id",
    "quarter_hours": "bucket",
    "days": "day",
    "user_days": "day",
    "answer_days": "day",
    "duration_days": "day",
    "spans": "span",
    "user_spans": "span",
    "feature_spans": "span",
    "day_users": "day",
    "user_numbers": "user_id",
    "packed_spans": "start",
    "user_usage_summary": "user_id",
    "monthly_usage_summary": "month",
    "endpoint_usage_summary": "endpoint",
    "daily_usage_summary": "day",
    "ledger_status": "calls",
    "open_objects": "object_id",
    "metering_gaps": "started_at",
    "prices": "catalog_version",
}
ROLLUPS = (
    "usage_by_quarter_hour",
    "usage_by_day",
    "usage_by_user_day",
    "usage_by_month",
    "usage_by_answer_day",
    "usage_by_duration_day",
)
DATA = Path(__file__).parent / "data"
OLD_ROWS = """
INSERT INTO user_api_usage (
    event_id, created_at, user_id, api_path, operation_name, upstream, usage_source, outcome,
    prompt_tokens, cost_usd, price_id, catalog_version
)
VALUES
    (gen_random_uuid(), now(), 'ada', '/', 'chat', 'x', 'reported', 'ok', 5, 0.5, 'p', 'c'),
    (gen_random_uuid(), '2001-01-01Z', 'bob', '/', 'x', 'x', 'unavailable', 'ok', NULL, NULL,
    NULL, NULL)
"""
DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    """Return a connection to a database with the schema in it."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def columns(connection: asyncpg.Connection, relation: str) -> list[str]:
    """Return the names of the columns of a table or view."""
    query = """
    SELECT attname
    FROM pg_attribute
    WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum
    """
    return [record["attname"] for record in await connection.fetch(query, relation)]


async def test_the_table_has_the_fields_of_a_row(connection: asyncpg.Connection) -> None:
    """What the recorder knows has a column, and each column somebody who fills it."""
    names = {field.name for row in (LedgerRow, Correction) for field in fields(row)}
    assert set(await columns(connection, "user_api_usage")) == names | OF_THE_DATABASE


async def test_every_column_counts_in_the_digest_of_its_row(
    connection: asyncpg.Connection,
) -> None:
    """A column that it left out could be changed unseen; a new one joins the last group there."""
    source = await connection.fetchval("SELECT prosrc FROM pg_proc WHERE proname = 'row_digest'")
    for column in await columns(connection, "user_api_usage"):
        assert re.search(rf"usage\.{column}\b", source), column


async def test_every_sum_is_kept_everywhere(connection: asyncpg.Connection) -> None:
    """They are written out in many places; one that is forgotten would be NULL, or another's."""
    sums = (await columns(connection, "usage_by_quarter_hour"))[5:]
    for table in ("day", "user_day", "user_span", "feature_span"):
        names = await columns(connection, f"usage_by_{table}")
        assert names[names.index("calls") :] == sums
    packed = await columns(connection, "usage_packed_span")
    scales = {"cost_scale", "tool_cost_scale"}
    assert set(packed[packed.index("calls") :]) == {*sums, *scales}
    assert await columns(connection, "packed_spans") == packed
    months = (await columns(connection, "usage_by_month"))[1:]
    assert months == [name for name in sums if name in months]
    source = await connection.fetchval(
        "SELECT prosrc FROM pg_proc WHERE proname = 'add_to_rollups'"
    )
    for name in sums:
        added = len(re.findall(rf"^\s+{name} =", source, re.MULTILINE))
        assert added == (4 if name in months else 3) + (name == "calls") * 2, name


async def test_every_column_of_the_ledger_is_explained(connection: asyncpg.Connection) -> None:
    """Finance reads the database with tools that show these comments."""
    query = """
    SELECT attname
    FROM pg_attribute
    WHERE
        attrelid = 'user_api_usage'::regclass
        AND attnum > 0
        AND col_description(attrelid, attnum) IS NULL
    """
    assert await connection.fetch(query) == []


async def test_the_dashboard_sees_every_column_but_the_raw_usage(
    connection: asyncpg.Connection,
) -> None:
    """The raw object is for auditors."""
    expected = set(await columns(connection, "user_api_usage")) - {"raw_usage"}
    assert set(await columns(connection, "calls")) == expected


@pytest.mark.parametrize("view", VIEWS)
async def test_views_begin_with_their_key(connection: asyncpg.Connection, view: str) -> None:
    """The names of the columns are a contract."""
    names = await columns(connection, view)
    assert names[0] == VIEWS[view]
    if view.endswith("_summary"):
        assert {
            "calls", "errors", "unpriced_calls", "estimated_calls", "unavailable_calls",
            "prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens",
            "reasoning_tokens", "cost_usd", "first_call", "last_call",
        } <= set(names)  # fmt: skip


async def test_the_four_summaries_add_up(connection: asyncpg.Connection, database: str) -> None:
    """Each of them holds every call once."""
    ledger = Ledger(database, report_timezone="UTC")
    rows = [
        ledger_row(n, user_id=f"u{n % 3}" if n % 4 else None, endpoint=f"e{n % 2}")
        for n in range(24)
    ]
    rows += [ledger_row(99, created_at=datetime(2026, 12, 1, tzinfo=UTC))]
    await ledger.insert(rows)
    await ledger.close()
    cost = sum(row.cost_usd for row in rows if row.cost_usd)
    for view in (name for name in VIEWS if name.endswith("_summary")):
        query = f"SELECT sum(calls), sum(total_tokens), sum(cost_usd) FROM {view}"  # noqa: S608
        found = await connection.fetchrow(query)
        assert found is not None
        assert tuple(found) == (25, 25 * 1500, cost), view
    users = "SELECT endpoint, users FROM endpoint_usage_summary ORDER BY endpoint"
    assert [tuple(row) for row in await connection.fetch(users)] == [
        ("analyze_homework", 1),
        ("e0", 3),
        ("e1", 3),
    ]


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"usage_source": "guessed"}, "usage_source_is_known"),
        ({"outcome": "exploded"}, "outcome_is_known"),
        ({"price_id": None}, "a_cost_names_its_price"),
        ({"catalog_version": None}, "a_cost_names_its_price"),
        ({"usage_source": "unavailable"}, "unavailable_usage_is_null"),
    ],
)
async def test_what_must_never_be_true_is_refused(
    database: str, changes: dict[str, object], check: str
) -> None:
    """The constraint is named, and so is its reason."""
    ledger = Ledger(database, report_timezone="UTC")
    result = await ledger.insert([ledger_row(1, **changes)])
    await ledger.close()
    assert [check in why for _, why in result.refused] == [True]


@pytest.mark.parametrize("value", [*Outcome])
async def test_every_outcome_is_allowed(database: str, value: Outcome) -> None:
    """The model and the check say the same."""
    ledger = Ledger(database, report_timezone="UTC")
    rows = [ledger_row(n, outcome=value.value) for n, _ in enumerate(UsageSource)]
    assert (await ledger.insert(rows)).inserted == len(rows)
    await ledger.close()


async def test_only_a_correction_may_be_negative(connection: asyncpg.Connection) -> None:
    """A correction is a row of its own that refers to the old one."""
    insert = """
    INSERT INTO user_api_usage (
        event_id, created_at, api_path, operation_name, upstream, usage_source, outcome,
        prompt_tokens, corrects
    )
    VALUES (gen_random_uuid(), now(), '/', 'chat', 'x', 'reported', 'ok', -5, $1)
    """
    with pytest.raises(asyncpg.CheckViolationError, match="only_corrections_are_negative"):
        await connection.execute(insert, None)
    await connection.execute(insert, ledger_row(1).event_id)
    await connection.execute("SELECT rebuild_rollups()")
    found = await connection.fetchrow("SELECT calls, prompt_tokens FROM user_usage_summary")
    assert found is not None
    assert tuple(found) == (0, -5)


async def test_a_month_takes_its_rows_out_of_the_default_partition(
    connection: asyncpg.Connection, database: str
) -> None:
    """Nobody has called for months ahead; rows have come all the same, and keep coming."""
    far = datetime.now(UTC) + timedelta(days=31 * 8)  # noqa: TID251
    ledger = Ledger(database, report_timezone="UTC")
    await ledger.insert([ledger_row(1, created_at=far), ledger_row(2)])
    default = "SELECT count(*) FROM user_api_usage_default"
    assert await connection.fetchval(default) == 1
    assert await connection.fetchval("SELECT ensure_partitions(12)") == 9
    assert await connection.fetchval("SELECT ensure_partitions(12)") == 0
    assert await connection.fetchval(default) == 0
    again = [ledger_row(1, created_at=far), ledger_row(3, created_at=far)]
    assert (await ledger.insert(again)).inserted == 1
    assert await connection.fetchval("SELECT count(*) FROM calls") == 3
    await ledger.close()


async def test_partitions_may_be_made_by_many_while_rows_come(database: str) -> None:
    """Every recorder calls for them once a day."""
    connections = [await asyncpg.connect(database) for _ in range(4)]
    ledger = Ledger(database, report_timezone="UTC")
    far = datetime.now(UTC) + timedelta(days=31 * 5)  # noqa: TID251

    async def write() -> int:
        results = [
            await ledger.insert([ledger_row(number, created_at=far)]) for number in range(60)
        ]
        return sum(result.inserted for result in results)

    made = asyncio.gather(*(c.fetchval("SELECT ensure_partitions(24)") for c in connections))
    inserted, counts = await asyncio.gather(write(), made)
    assert (inserted, sorted(counts)) == (60, [0, 0, 0, 21])
    assert await connections[0].fetchval("SELECT count(*) FROM user_api_usage") == 60
    for connection in connections:
        await connection.close()
    await ledger.close()


async def test_rollups_that_outlive_the_ledger_are_not_rebuilt(
    connection: asyncpg.Connection, database: str
) -> None:
    """Sums of dropped partitions could not be made again: keep them."""
    ledger = Ledger(database, report_timezone="UTC")
    await ledger.insert([ledger_row(1)])
    await ledger.close()
    await connection.execute("DELETE FROM user_api_usage")
    with pytest.raises(asyncpg.PostgresError, match="reach back further than the ledger"):
        await connection.execute("SELECT rebuild_rollups()")
    assert await connection.fetchval("SELECT calls FROM ledger_status") == 1


async def test_the_dashboard_may_read_views_and_nothing_else(
    connection: asyncpg.Connection,
) -> None:
    """Whatever is wrong with the dashboard, it cannot change the ledger or see raw usage."""
    role = await connection.fetchval("SELECT dashboard_role()")
    assert role == "meter_dashboard"
    for view in VIEWS:
        async with connection.transaction(readonly=True):
            await connection.execute("SET LOCAL ROLE meter_dashboard")
            await connection.execute(f"SELECT count(*) FROM {view}")  # noqa: S608
    forbidden = [
        "SELECT raw_usage FROM user_api_usage",
        "SELECT calls FROM usage_by_user_day",
        "DELETE FROM user_days",
        "SELECT set_report_timezone('Asia/Tokyo')",
        "CREATE TABLE mine ()",
    ]
    for statement in forbidden:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            # One message is one transaction.
            await connection.execute(f"SET LOCAL ROLE meter_dashboard; {statement}")


@pytest.fixture(params=[None, DEBIAN_15], ids=["newest", "15"])
def server(request: pytest.FixtureRequest, open_directory: Path) -> Iterator[str]:
    """Return the DSN of a server of its own, of the newest and of the oldest version we take."""
    if request.param and not request.param.is_dir():
        pytest.skip(f"no Postgres in {request.param}")
    settings = {"fsync": "off"}
    server = EmbeddedPostgres(open_directory, binaries=request.param, settings=settings)
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.mark.parametrize("rights", ["CREATEROLE", "NOCREATEROLE"])
async def test_the_owner_need_not_be_an_administrator(server: str, rights: str) -> None:
    """With the right to make roles the dashboard gets its own; without, it reads as the owner."""
    administrator = await asyncpg.connect(server)
    await administrator.execute(f"CREATE ROLE owner LOGIN {rights}")
    await administrator.execute("CREATE DATABASE ledger OWNER owner")
    await administrator.close()
    dsn = at(server.replace("meter@", "owner@"), "ledger")
    assert await prepare(dsn)
    connection = await asyncpg.connect(dsn)
    role = await connection.fetchval("SELECT dashboard_role()")
    assert role == ("meter_dashboard" if rights == "CREATEROLE" else None)
    async with connection.transaction(readonly=True):
        if role:
            await connection.execute("SET LOCAL ROLE meter_dashboard")
        assert await connection.fetchval("SELECT calls FROM ledger_status") == 0
    await connection.close()
    ledger = Ledger(dsn, report_timezone="Europe/Berlin")
    assert await ledger.set_report_timezone()
    assert (await ledger.insert([ledger_row(1), ledger_row(1)])).inserted == 1
    await ledger.close()


async def test_a_ledger_from_before_tool_fees_is_brought_up_to_date(
    empty_database: str, database: str
) -> None:
    """Its rows and sums stay; the new columns and the wider check are there, as in a new one."""
    old = await asyncpg.connect(empty_database)
    await old.execute((DATA / "schema_before_tool_fees.sql").read_text(encoding="utf-8"))
    await old.execute(OLD_ROWS)
    await old.execute("SELECT rebuild_rollups()")
    before = await old.fetch("SELECT * FROM usage_by_user_day ORDER BY user_id")
    assert await prepare(empty_database)
    after = await old.fetch("SELECT * FROM usage_by_user_day ORDER BY user_id")
    assert [tuple(row) for row in after] == [(*row, None) for row in before]
    assert len(before) == 2

    ledger = Ledger(empty_database, report_timezone="UTC")
    free = {"cost_usd": Decimal(0), "price_id": "free", "catalog_version": "1"}
    rows = [
        ledger_row(1, tool_cost_usd=Decimal("0.02"), billed_units=b"[]"),
        unavailable_row(2, **free),
        unavailable_row(3, **free, created_at=datetime(1999, 1, 1, tzinfo=UTC)),
    ]
    assert (await ledger.insert(rows)).inserted == 3
    await ledger.close()
    sums = await old.fetchrow("SELECT calls, unavailable_calls, tool_cost_usd FROM ledger_status")
    assert sums is not None
    assert tuple(sums) == (5, 1, Decimal("0.02"))
    kept = await old.fetch("SELECT * FROM usage_by_user_day ORDER BY day, user_id, endpoint")
    await old.execute("SELECT rebuild_rollups()")
    assert (
        await old.fetch("SELECT * FROM usage_by_user_day ORDER BY day, user_id, endpoint") == kept
    )

    sealed = "SELECT count(*) FROM seal, unnest(event_ids)"
    assert await old.fetchval(sealed) == 5
    unlike = """
    SELECT count(*)
    FROM seal
    CROSS JOIN unnest(event_ids) WITH ORDINALITY AS of_row (event_id, place)
    JOIN user_api_usage AS usage USING (event_id)
    WHERE row_digest(usage) <> substr(digests, (16 * place - 15)::integer, 16)
    """
    assert await old.fetchval(unlike) == 0

    new = await asyncpg.connect(database)
    for relation in ("user_api_usage", "user_api_usage_default", *ROLLUPS, *VIEWS):
        assert await columns(old, relation) == await columns(new, relation)
    checks = "SELECT conname FROM pg_constraint WHERE contype = 'c' ORDER BY 1"
    assert set(await old.fetch(checks)) == set(await new.fetch(checks))
    await old.close()
    await new.close()


async def test_a_ledger_of_the_previous_release_is_brought_up_to_date(
    empty_database: str, database: str
) -> None:
    """Its rows are in the new rollups too; a recorder of that release waits for its upgrade."""
    old = await asyncpg.connect(empty_database)
    former = (DATA / "schema_before_the_rollup_trigger.sql").read_text(encoding="utf-8")
    await old.execute(former)
    await old.execute(OLD_ROWS)
    await old.execute("SELECT set_report_timezone('Asia/Kolkata')")
    await old.execute("SELECT rebuild_rollups()")
    assert await prepare(empty_database)
    ledger = Ledger(empty_database, report_timezone="Asia/Kolkata")
    assert (await ledger.insert([ledger_row(1)])).inserted == 1
    await ledger.close()
    kept = [set(await old.fetch(f"TABLE {name}")) for name in ROLLUPS]
    assert [len(sums) for sums in kept[:3]] == [3, 3, 3]
    await old.execute("SELECT rebuild_rollups()")
    assert [set(await old.fetch(f"TABLE {name}")) for name in ROLLUPS] == kept

    insert = """
    INSERT INTO usage_by_user_day VALUES (now(), '', '', '', 1, 0, 0, 0, 0)
    ON CONFLICT ON CONSTRAINT usage_by_user_day_key DO NOTHING
    """
    with pytest.raises(asyncpg.UndefinedObjectError, match="usage_by_user_day_key"):
        await old.execute(insert)
    new = await asyncpg.connect(database)
    shape = """
    SELECT kind, name
    FROM (
        SELECT 'constraint' AS kind, conname AS name FROM pg_constraint
        UNION ALL SELECT 'relation', relname FROM pg_class WHERE relname NOT LIKE 'pg_toast%'
        UNION ALL SELECT 'trigger', tgname FROM pg_trigger
        UNION ALL SELECT 'function', oid::regprocedure::text FROM pg_proc
    ) AS object
    ORDER BY kind, name
    """
    assert await old.fetch(shape) == await new.fetch(shape)
    for relation in ("user_api_usage", "user_api_usage_default", *ROLLUPS, *VIEWS):
        assert await columns(old, relation) == await columns(new, relation)
    await old.close()
    await new.close()


@pytest.mark.parametrize("former", ["before_the_rollup_trigger", "before_tool_fees"])
async def test_the_sums_of_a_former_ledger_are_packed(empty_database: str, former: str) -> None:
    """All that is over, as soon as it is folded."""
    old = await asyncpg.connect(empty_database)
    await old.execute((DATA / f"schema_{former}.sql").read_text(encoding="utf-8"))
    await old.execute(OLD_ROWS)
    await old.execute("SELECT rebuild_rollups()")
    await prepare(empty_database)
    ledger = Ledger(empty_database, report_timezone="UTC")
    while await ledger.fold_span():
        pass
    assert [packed async for packed in ledger.pack_spans()] == [
        "day 2001-01-01 packed",
        "pentad 2001-01-01 packed",
        "dekad 2001-01-01 packed",
        "month 2001-01-01 packed",
        "quarter 2001-01-01 packed",
        "year 2001-01-01 packed",
        "users 2001-01-01 hours",
    ]
    await ledger.close()
    assert [finding async for finding in findings(empty_database, Period())] == []
    tiles = "SELECT kind, start, past FROM packed_between('-infinity', 'infinity')"
    first, *others = [tuple(row) for row in await old.fetch(tiles)]
    assert first == ("packed", date(2001, 1, 1), date(2002, 1, 1))
    assert [kind for kind, _, _ in others] == ["open"]
    await old.close()


async def test_a_cost_of_which_a_part_is_unknown_is_not_taken_for_complete(
    connection: asyncpg.Connection, database: str
) -> None:
    """And a free call is not taken for one whose usage is missing."""
    ledger = Ledger(database, report_timezone="UTC")
    free = {"cost_usd": Decimal(0), "price_id": "free", "catalog_version": "1"}
    rows = [ledger_row(1, unpriced_reason="unknown_tool_fee"), unavailable_row(2, **free)]
    assert (await ledger.insert(rows)).inserted == 2
    await ledger.close()
    query = "SELECT calls, unpriced_calls, unavailable_calls FROM ledger_status"
    for _ in range(2):
        found = await connection.fetchrow(query)
        assert found is not None
        assert tuple(found) == (2, 1, 0)
        await connection.execute("SELECT rebuild_rollups()")
