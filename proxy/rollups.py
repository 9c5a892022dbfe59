"""Check the rollups: whether they hold what the rows of the ledger add up to; make them anew.

What each should hold is made anew by the recount functions of schema.sql, a month at a time, in the
same snapshot as the sums that are kept, and both are compared row by row: in every month that has
rows, or sums in any of the tables. Longer spans are compared with their days, and packed sums with
what they were packed of. Days whose rows are gone keep their sums, and are left out.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import date

import asyncpg

from proxy.database import connect, translated

_STATEMENT_SECONDS = 3600.0
_MOST_OF_A_TABLE = 20  # findings, of one table and month
_NOT_SET = "NULL"
_Key = tuple[tuple[str, object], ...]

# Days of the report time zone, by month: wherever there are rows, or sums in any table. Days whose
# rows are gone are left out, so that a month may come in pieces.
_MONTHS = """
WITH RECURSIVE zone AS (
    SELECT value AS name FROM meter_settings WHERE name = 'report_timezone'
),
inserted (month) AS (
    SELECT date_trunc('month', min(created_at) AT TIME ZONE zone.name)::date
    FROM user_api_usage, zone
    WHERE created_at >= day_begins($1) AND created_at < day_begins($2)
    GROUP BY zone.name
    UNION ALL
    SELECT (
        SELECT date_trunc('month', min(created_at) AT TIME ZONE zone.name)::date
        FROM user_api_usage
        WHERE created_at >= day_begins((inserted.month + interval '1 month')::date)
            AND created_at < day_begins($2)
    )
    FROM inserted, zone
    WHERE inserted.month IS NOT NULL
),
named (day) AS (
    SELECT month FROM inserted
    UNION
    SELECT (accounted_at AT TIME ZONE zone.name)::date
    FROM user_api_usage, zone
    WHERE accounted_at >= day_begins($1) AND accounted_at < day_begins($2)
    UNION
    SELECT (bucket AT TIME ZONE zone.name)::date
    FROM usage_by_quarter_hour, zone
    WHERE bucket >= day_begins($1) AND bucket < day_begins($2)
    UNION
    SELECT day FROM usage_by_day WHERE day >= $1 AND day < $2
    UNION
    SELECT day FROM usage_by_user_day WHERE day >= $1 AND day < $2
    UNION
    SELECT day FROM usage_by_answer_day WHERE day >= $1 AND day < $2
    UNION
    SELECT day FROM usage_by_duration_day WHERE day >= $1 AND day < $2
),
month AS (
    SELECT DISTINCT date_trunc('month', day::timestamp)::date AS first
    FROM named
    WHERE day IS NOT NULL
),
checked AS (
    SELECT month.first AS month, days.day::date AS day
    FROM month
    CROSS JOIN generate_series(
        greatest(month.first, $1)::timestamp,
        least(month.first + interval '1 month', $2::timestamp) - interval '1 day',
        interval '1 day'
    ) AS days (day)
    WHERE NOT is_retired(day_begins(days.day::date), day_begins(days.day::date + 1))
)
SELECT min(day) AS first, max(day) + 1 AS past
FROM (
    SELECT month, day, day - row_number() OVER (PARTITION BY month ORDER BY day)::integer AS piece
    FROM checked
) AS numbered
GROUP BY month, piece
ORDER BY 1
"""

_MONTHS_OF_SPANS = """
SELECT DISTINCT
    greatest(date_trunc('month', start::timestamp)::date, $1) AS first,
    least((date_trunc('month', start::timestamp) + interval '1 month')::date, $2) AS past
FROM usage_span
WHERE start >= $1 AND start < $2
ORDER BY 1
"""

_SPANS = """
SELECT span, start, past
FROM usage_span
WHERE start >= $1
    AND start < $2
    AND NOT (span = 'hours' AND is_retired(day_begins(start), day_begins(past)))
ORDER BY start, past, span
"""

_REBUILD = """
SELECT rebuild_rollups($1, $2)
"""

# Each begins with what is kept and what should be, of the same columns. The key of a row are those
# before `calls` or `users`.
_BY_DAY: Mapping[str, str] = {
    "usage_by_day": """
        WITH kept AS (SELECT * FROM usage_by_day WHERE day >= $1 AND day < $2),
        counted AS (SELECT * FROM recount_days(day_begins($1), day_begins($2)))
    """,
    "usage_by_user_day": """
        WITH kept AS (SELECT * FROM usage_by_user_day WHERE day >= $1 AND day < $2),
        counted AS (SELECT * FROM recount_user_days(day_begins($1), day_begins($2)))
    """,
    "usage_by_answer_day": """
        WITH kept AS (SELECT * FROM usage_by_answer_day WHERE day >= $1 AND day < $2),
        counted AS (SELECT * FROM recount_answer_days(day_begins($1), day_begins($2)))
    """,
    "usage_by_duration_day": """
        WITH kept AS (SELECT * FROM usage_by_duration_day WHERE day >= $1 AND day < $2),
        counted AS (SELECT * FROM recount_duration_days(day_begins($1), day_begins($2)))
    """,
    "usage_by_quarter_hour": """
        WITH edge AS (
            SELECT
                date_bin('15 minutes', day_begins($1) + interval '899.999999 s', 'epoch') AS since,
                date_bin('15 minutes', day_begins($2), 'epoch') AS past
        ),
        kept AS (
            SELECT usage_by_quarter_hour.*
            FROM usage_by_quarter_hour, edge
            WHERE bucket >= since AND bucket < past
        ),
        counted AS (SELECT sums.* FROM edge, recount_quarter_hours(since, past) AS sums)
    """,
}
# Whole months (UTC), of sums that outlive rows.
_BY_MONTH: Mapping[str, str] = {
    "usage_by_month": """
        WITH edge AS (
            SELECT
                date_trunc('month', day_begins($1) AT TIME ZONE 'UTC')::date AS since,
                date_trunc(
                    'month', (day_begins($2) - interval '1 microsecond') AT TIME ZONE 'UTC'
                )::date AS past
        ),
        kept AS (
            SELECT usage_by_month.* FROM usage_by_month, edge WHERE month BETWEEN since AND past
        ),
        counted AS (SELECT sums.* FROM edge, recount_months(since, past) AS sums)
    """,
}
_SPAN_USERS = """
        WITH kept AS (
            SELECT span, start, past, users
            FROM usage_span
            WHERE span = $1 AND start = $2 AND past = $3
        ),
        counted AS (
            SELECT $1::text, $2::date, $3::date, count(DISTINCT user_id)
"""
_BY_SPAN: Mapping[str, str] = {
    "usage_span": f"""{_SPAN_USERS}
            FROM usage_by_user_span
            WHERE span = $1 AND start = $2
        )
    """,
    "usage_by_user_span": """
        WITH kept AS (SELECT * FROM usage_by_user_span WHERE span = $1 AND start = $2),
        counted AS (SELECT * FROM recount_user_span($1, $2, $3))
    """,
    "usage_by_feature_span": """
        WITH kept AS (SELECT * FROM usage_by_feature_span WHERE span = $1 AND start = $2),
        counted AS (SELECT * FROM recount_feature_span($1, $2, $3))
    """,
}
_OF_USERS: Mapping[str, str] = {
    "usage_span": f"""{_SPAN_USERS}
            FROM usage_by_user_day
            WHERE day >= $2 AND day < $3
        )
    """,
    "usage_by_day_users": """
        WITH kept AS (
            SELECT day, endpoint, block, bit_count(users) AS users, md5(users::text) AS md5
            FROM usage_by_day_users
            WHERE day >= $2 AND day < $3 AND $1 = 'users'
        ),
        counted AS (
            SELECT day, endpoint, block, bit_count(users), md5(users::text)
            FROM recount_day_users($2, $3)
        )
    """,
}
_PACKED_KEY = "start, past, hour, is_total, endpoint, model, block"
_PACKED: Mapping[str, str] = {
    "usage_packed_span": f"""
        WITH kept AS (
            SELECT {_PACKED_KEY}, octet_length(users) / 2 AS users, md5(packed::text) AS md5
            FROM usage_packed_span AS packed
            WHERE start = $2 AND past = $3 AND (hour IS NOT NULL) = ($1 = 'hours')
        ),
        counted AS (
            SELECT {_PACKED_KEY}, octet_length(users) / 2, md5(packed::text)
            FROM packed_sums($2, $3, CASE $1 WHEN 'hours' THEN 'rows' ELSE 'days' END) AS packed
        )
    """  # noqa: S608 - only columns are put in
}
_DIFFERENCE = """
SELECT true AS is_kept, * FROM (TABLE kept EXCEPT TABLE counted) AS surplus
UNION ALL
SELECT false, * FROM (TABLE counted EXCEPT TABLE kept) AS missing
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Days of the report time zone, half-open; the widest by default."""

    first: date = date.min
    past: date = date.max


async def findings(dsn: str, period: Period) -> AsyncIterator[str]:
    """Yield a sentence for each sum that is not that of its rows."""
    connection = await connect(dsn, statement_seconds=_STATEMENT_SECONDS)
    days = (period.first, period.past)
    try:
        # One snapshot for sums and rows; a new one for each month, so that none lasts long.
        for month in await connection.fetch(_MONTHS, *days):
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                for finding in await _compared(connection, _BY_DAY, *month):
                    yield finding
        for finding in await _compared(connection, _BY_MONTH, *days):
            yield finding
        for month in await connection.fetch(_MONTHS_OF_SPANS, *days):
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                for span in await connection.fetch(_SPANS, *month):
                    for finding in await _compared(connection, _of_span(span["span"]), *span):
                        yield finding
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
        raise translated(exc, dsn) from exc
    finally:
        connection.terminate()


async def rebuild(dsn: str, period: Period) -> None:
    """Make the sums of some days anew; raise DatabaseError where their rows are gone."""
    days = (
        None if period.first == date.min else period.first,
        None if period.past == date.max else period.past,
    )
    connection = await connect(dsn, statement_seconds=_STATEMENT_SECONDS)
    try:
        await connection.execute(_REBUILD, *days, timeout=_STATEMENT_SECONDS)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
        raise translated(exc, dsn) from exc
    finally:
        connection.terminate()


async def _compared(
    connection: asyncpg.Connection, queries: Mapping[str, str], *values: object
) -> list[str]:
    return [
        finding
        for table, query in queries.items()
        for finding in _sentences(table, await connection.fetch(query + _DIFFERENCE, *values))
    ]


def _of_span(span: str) -> Mapping[str, str]:
    """Return what there is to compare of a span; features are folded from the dekad on."""
    if span == "users":
        return _OF_USERS
    if span in {"packed", "hours"}:
        return _PACKED
    if span in {"day", "pentad"}:
        return {table: _BY_SPAN[table] for table in ("usage_span", "usage_by_user_span")}
    return _BY_SPAN


def _sentences(table: str, rows: Iterable[asyncpg.Record]) -> list[str]:
    """Return what differs, row by row; at most so many that they can be read."""
    sides: dict[_Key, dict[bool, dict[str, object]]] = {}
    for row in rows:
        columns = dict(row)
        is_kept = columns.pop("is_kept")
        values = next(name for name in columns if name in {"calls", "users"})
        key = tuple(list(columns.items())[: list(columns).index(values)])
        sides.setdefault(key, {})[is_kept] = columns
    found = [_sentence(table, key, pair) for key, pair in sides.items()]
    if len(found) <= _MOST_OF_A_TABLE:
        return found
    return [*found[:_MOST_OF_A_TABLE], f"{table}: {len(found) - _MOST_OF_A_TABLE} more rows differ"]


def _sentence(table: str, key: _Key, pair: Mapping[bool, Mapping[str, object]]) -> str:
    where = ", ".join(f"{name} {_shown(value)}" for name, value in key)
    kept, counted = pair.get(True), pair.get(False)
    if kept is None:
        return f"{table} has no sums for {where}, and the ledger has rows for them"
    if counted is None:
        return f"{table} has sums for {where}, and the ledger has no rows for them"
    differing = ", ".join(
        f"{name} is {_shown(value)} and should be {_shown(counted[name])}"
        for name, value in kept.items()
        if value != counted[name]
    )
    return f"{table}, {where}: {differing}"


def _shown(value: object) -> str:
    return _NOT_SET if value is None else str(value)
