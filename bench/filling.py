"""Fill a ledger with a year of calls, straight into partitions, sums and seals; keep it at hand.

    .venv/bin/python bench/filling.py /tmp/ledger --rows 20000000

Rows go into the partitions beside the trigger, which would add each of them to the sums; the sums
are made afterwards, by the functions of schema.sql that count anew, and so are seals and spans.
What comes of it is a ledger as any other: `openai-meter verify` finds nothing. A day has a third of
the users, who make some calls each, most of them with the one model that a feature has.

The Postgres runs until the file `stop` appears in the directory, or as long as `--seconds` say.
"""

import argparse
import asyncio
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import asyncpg

from proxy.database import prepare
from proxy.embedded import EmbeddedPostgres
from proxy.resources import resource

DAYS = 365
WRITERS = 2
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
SETTINGS = {
    "shared_buffers": f"{MEMORY * 2 // 5 // 2**20}MB",  # at most so much, says PostgreSQL's manual
    "fsync": "off",
    "full_page_writes": "off",
    "max_wal_size": "2GB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "maintenance_work_mem": "512MB",
}

_PARTITION = """
CREATE TABLE IF NOT EXISTS user_api_usage_{name} PARTITION OF user_api_usage
FOR VALUES FROM ('{first} 00:00+00') TO ('{past} 00:00+00')
"""
# Made once all rows are there, by schema.sql, which makes what is missing.
_LATER = """
DROP INDEX user_api_usage_of_user, user_api_usage_in_time, user_api_usage_of_response
"""
_PRICES = """
INSERT INTO price_rate (catalog_version, price_id, component, list_unit_price)
VALUES
    ('bench', 'gpt-5.4-mini@start/default/short', 'input', 0.00000075),
    ('bench', 'gpt-5.4-mini@start/default/short', 'cached_input', 0.000000075),
    ('bench', 'gpt-5.4-mini@start/default/short', 'output', 0.0000045)
ON CONFLICT DO NOTHING
"""
_DAY = """
INSERT INTO user_api_usage_{name} (
    event_id, created_at, user_id, endpoint, api_path, operation_name, upstream, model,
    request_model, service_tier, prompt_tokens, completion_tokens, total_tokens, cached_tokens,
    cache_write_tokens, reasoning_tokens, cost_usd, list_cost_usd, tool_cost_usd, price_id,
    catalog_version, usage_source, status, outcome, stream, latency_ms, time_to_first_byte_ms,
    upstream_request_id, response_id, metadata, retry_count, request_bytes, response_bytes
)
SELECT
    (
        lpad(to_hex(floor(extract(epoch FROM moment) * 1000)::bigint), 12, '0')
        || '7000' || '8' || lpad(to_hex(number), 15, '0')
    )::uuid,
    date_trunc('milliseconds', moment),
    'user-' || person,
    (ARRAY['analyze_homework', 'generate_hint', 'verify_answer', 'chat_response', 'validate_image'])
        [feature],
    '/v1/chat/completions', 'chat', 'api.openai.com',
    (ARRAY['gpt-5.4-mini-2026-03-17', 'gpt-5.4-2026-03-17', 'gpt-4o-mini-2024-07-18'])
        [1 + CASE WHEN chance < 0.1 THEN (feature + 1) % 3 ELSE feature % 3 END],
    'gpt-5.4-mini', 'default', input, output, input + output, input / 2, 0, output / 3,
    (input - input / 2) * 0.00000075 + input / 2 * 0.000000075 + output * 0.0000045,
    (input - input / 2) * 0.00000075 + input / 2 * 0.000000075 + output * 0.0000045,
    0, 'gpt-5.4-mini@start/default/short', 'bench', 'reported',
    CASE WHEN chance > 0.99 THEN 500 ELSE 200 END,
    CASE WHEN chance > 0.99 THEN 'upstream_error' ELSE 'ok' END, chance < 0.5,
    200 + (8000 * chance)::int, 100 + (900 * chance)::int,
    'req_' || md5(number::text), 'chatcmpl-' || md5(number::text),
    jsonb_build_object('course', 'c' || number % 50), 0, 800, 2000
FROM (
    SELECT
        number,
        $1::timestamptz + (number * interval '1 day' / $2::bigint) AS moment,
        3 * floor(power(random(), 2) * $3::bigint / 3)::bigint + $4::bigint % 3 AS person,
        1 + floor(random() * 5)::int AS feature,
        random() AS chance,
        (500 + random() * 3000)::bigint AS input,
        (50 + random() * 900)::bigint AS output
    FROM generate_series(0, $2::bigint - 1) AS number
    OFFSET 0  -- each chance is taken once
) AS made
WHERE moment <= now()
"""

_SUMS = (
    """
    INSERT INTO usage_by_quarter_hour
    SELECT * FROM recount_quarter_hours(day_begins($1), day_begins($2))
    """,
    "INSERT INTO usage_by_day SELECT * FROM recount_days(day_begins($1), day_begins($2))",
    # As they lie in the table: of days that are over by user, today's as calls came.
    """
    INSERT INTO usage_by_user_day
    SELECT * FROM recount_user_days(day_begins($1), day_begins($2))
    ORDER BY day, CASE WHEN day < current_date THEN user_id END, first_call
    """,
    """
    INSERT INTO usage_by_answer_day
    SELECT * FROM recount_answer_days(day_begins($1), day_begins($2))
    """,
    """
    INSERT INTO usage_by_duration_day
    SELECT * FROM recount_duration_days(day_begins($1), day_begins($2))
    """,
)
_SUMS_OF_MONTHS = """
INSERT INTO usage_by_month
SELECT * FROM recount_months('2000-01-01', '2100-01-01')
"""


async def fill(dsn: str, rows: int, users: int, tell: Callable[[str], None] = print) -> date:
    """Make the rows of a year up to today; return its first day."""
    await prepare(dsn)
    begun = time.monotonic()
    first = datetime.fromtimestamp(time.time(), UTC).date() - timedelta(days=DAYS - 1)
    days = [first + timedelta(days=distance) for distance in range(DAYS)]
    connection = await asyncpg.connect(dsn)
    try:
        for month in months(days):
            past = (month + timedelta(days=31)).replace(day=1)
            await connection.execute(
                _PARTITION.format(name=f"{month:%Y_%m}", first=month, past=past)
            )
        await connection.execute(_LATER)
        await connection.execute(_PRICES)
        async with asyncio.TaskGroup() as writers:
            for number in range(WRITERS):
                mine = [day for day in days if day.month % WRITERS == number]
                writers.create_task(_write(dsn, mine, rows // DAYS, users))
        tell(f"{rows:,} rows after {time.monotonic() - begun:.0f} s")
        async with asyncio.TaskGroup() as summers:
            for number in range(WRITERS):
                summers.create_task(_sum(dsn, months(days)[number::WRITERS]))
        await connection.execute(_SUMS_OF_MONTHS)
        tell(f"sums after {time.monotonic() - begun:.0f} s")
        await finish(
            connection, lambda done: tell(f"{done} after {time.monotonic() - begun:.0f} s")
        )
    finally:
        await connection.close()
    return first


async def finish(connection: asyncpg.Connection, tell: Callable[[str], None]) -> None:
    """Fold and pack spans, make indexes and seals; of a finished ledger change nothing."""
    while await connection.fetchval("SELECT fold_span()"):
        pass
    tell("spans")
    while await connection.fetchval("SELECT pack_span()"):
        pass
    tell("packed sums")
    await connection.execute(resource("schema.sql").read_text(encoding="utf-8"))
    tell("indexes and seals")
    await connection.execute("VACUUM (FREEZE, ANALYZE)")
    size = await connection.fetchval("SELECT pg_database_size(current_database())")
    tell(f"{size / 1e9:.1f} GB")


def months(days: list[date]) -> list[date]:
    """Return the first days of the months that days lie in."""
    return sorted({day.replace(day=1) for day in days})


async def _write(dsn: str, days: list[date], rows: int, users: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for day in days:
            moment = datetime.combine(day, datetime.min.time(), UTC)
            await connection.execute(
                _DAY.format(name=f"{day:%Y_%m}"), moment, rows, users, day.toordinal()
            )
    finally:
        await connection.close()


async def _sum(dsn: str, wanted: list[date]) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("SET work_mem = '256MB'")
        for month in wanted:
            past = (month + timedelta(days=31)).replace(day=1)
            for statement in _SUMS:
                await connection.execute(statement, month, past)
    finally:
        await connection.close()


@contextmanager
def ledger(directory: Path | None, rows: int, users: int) -> Iterator[tuple[str, date]]:
    """Start a Postgres with a filled ledger, a new one if need be; yield its DSN and first day.

    Without a directory it is a new one that is removed afterwards.
    """
    place = directory or Path(tempfile.mkdtemp(prefix="meter-bench-", dir="/tmp"))
    place.mkdir(exist_ok=True)
    place.chmod(0o755)
    filled = place / "filled.json"
    server = EmbeddedPostgres(place / "postgres", settings=SETTINGS)
    dsn = server.start()
    try:
        if filled.exists():
            first = date.fromisoformat(json.loads(filled.read_text(encoding="ascii"))["first"])
        else:
            first = asyncio.run(fill(dsn, rows, users))
            filled.write_text(json.dumps({"first": str(first)}), encoding="ascii")
        (place / "dsn").write_text(dsn, encoding="ascii")
        yield dsn, first
    finally:
        server.stop()
        if directory is None:
            shutil.rmtree(place)


def main() -> None:
    """Fill, and hold it ready."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=3600)
    options = parser.parse_args()
    stop = options.directory / "stop"
    with ledger(options.directory, options.rows, options.users) as (dsn, _):
        print(dsn, flush=True)
        until = time.monotonic() + options.seconds
        while time.monotonic() < until and not stop.exists():
            time.sleep(1)


if __name__ == "__main__":
    main()
