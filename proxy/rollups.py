"""Check the rollups: whether they hold what the rows of the ledger add up to.

What each should hold is made anew by the recount functions of schema.sql, a month at a time, in the
same snapshot as the sums that are kept, and both are compared row by row. Longer spans are compared
with their days. A month whose rows are gone keeps its sums, and is left out.
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

# Of the report time zone. Days of a month whose rows are gone are left out.
_MONTHS = """
SELECT DISTINCT
    greatest(date_trunc('month', day::timestamp)::date, $1) AS first,
    least((date_trunc('month', day::timestamp) + interval '1 month')::date, $2) AS past
FROM days
WHERE day >= $1
    AND day < $2
    AND NOT EXISTS (
        SELECT
        FROM retired_month
        WHERE day_begins(day) < retired_month.counted_past
            AND day_begins(day + 1) > retired_month.counted_since
    )
ORDER BY 1
"""

_SPANS = """
SELECT span, start, past
FROM spans
WHERE start >= $1 AND start < $2
ORDER BY start, past
"""

# What is kept and should not be, and what should be kept and is not; both sides of one row have the
# same key, the columns before `calls` or `users`.
_BY_DAY: Mapping[str, str] = {
    "usage_by_day": """
        SELECT true AS is_kept, * FROM (
            SELECT * FROM usage_by_day WHERE day >= $1 AND day < $2
            EXCEPT SELECT * FROM recount_days(day_begins($1), day_begins($2))
        ) AS kept
        UNION ALL
        SELECT false, * FROM (
            SELECT * FROM recount_days(day_begins($1), day_begins($2))
            EXCEPT SELECT * FROM usage_by_day WHERE day >= $1 AND day < $2
        ) AS counted
    """,
    "usage_by_user_day": """
        SELECT true AS is_kept, * FROM (
            SELECT * FROM usage_by_user_day WHERE day >= $1 AND day < $2
            EXCEPT SELECT * FROM recount_user_days(day_begins($1), day_begins($2))
        ) AS kept
        UNION ALL
        SELECT false, * FROM (
            SELECT * FROM recount_user_days(day_begins($1), day_begins($2))
            EXCEPT SELECT * FROM usage_by_user_day WHERE day >= $1 AND day < $2
        ) AS counted
    """,
    "usage_by_answer_day": """
        SELECT true AS is_kept, * FROM (
            SELECT * FROM usage_by_answer_day WHERE day >= $1 AND day < $2
            EXCEPT SELECT * FROM recount_answer_days(day_begins($1), day_begins($2))
        ) AS kept
        UNION ALL
        SELECT false, * FROM (
            SELECT * FROM recount_answer_days(day_begins($1), day_begins($2))
            EXCEPT SELECT * FROM usage_by_answer_day WHERE day >= $1 AND day < $2
        ) AS counted
    """,
    "usage_by_duration_day": """
        SELECT true AS is_kept, * FROM (
            SELECT * FROM usage_by_duration_day WHERE day >= $1 AND day < $2
            EXCEPT SELECT * FROM recount_duration_days(day_begins($1), day_begins($2))
        ) AS kept
        UNION ALL
        SELECT false, * FROM (
            SELECT * FROM recount_duration_days(day_begins($1), day_begins($2))
            EXCEPT SELECT * FROM usage_by_duration_day WHERE day >= $1 AND day < $2
        ) AS counted
    """,
    "usage_by_quarter_hour": """
        WITH edge AS (
            SELECT
                date_bin('15 minutes', day_begins($1) + interval '899.999999 s', 'epoch') AS since,
                date_bin('15 minutes', day_begins($2), 'epoch') AS past
        )
        SELECT true AS is_kept, * FROM (
            SELECT usage_by_quarter_hour.*
            FROM usage_by_quarter_hour, edge
            WHERE bucket >= since AND bucket < past
            EXCEPT SELECT counted.* FROM edge, recount_quarter_hours(since, past) AS counted
        ) AS kept
        UNION ALL
        SELECT false, * FROM (
            SELECT counted.* FROM edge, recount_quarter_hours(since, past) AS counted
            EXCEPT
            SELECT usage_by_quarter_hour.*
            FROM usage_by_quarter_hour, edge
            WHERE bucket >= since AND bucket < past
        ) AS counted
    """,
    "usage_by_month": """
        WITH edge AS (
            SELECT
                date_trunc('month', day_begins($1) AT TIME ZONE 'UTC')::date AS since,
                date_trunc('month', day_begins($2) AT TIME ZONE 'UTC')::date AS past
        )
        SELECT true AS is_kept, * FROM (
            SELECT usage_by_month.*
            FROM usage_by_month, edge
            WHERE month BETWEEN since AND past
            EXCEPT SELECT counted.* FROM edge, recount_months(since, past) AS counted
        ) AS kept
        UNION ALL
        SELECT false, * FROM (
            SELECT counted.* FROM edge, recount_months(since, past) AS counted
            EXCEPT
            SELECT usage_by_month.*
            FROM usage_by_month, edge
            WHERE month BETWEEN since AND past
        ) AS counted
    """,
}
_BY_SPAN: Mapping[str, str] = {
    "usage_by_user_span": """
        SELECT true AS is_kept, * FROM (
            SELECT * FROM usage_by_user_span WHERE span = $1 AND start = $2
            EXCEPT SELECT * FROM recount_user_span($1, $2, $3)
        ) AS kept
        UNION ALL
        SELECT false, * FROM (
            SELECT * FROM recount_user_span($1, $2, $3)
            EXCEPT SELECT * FROM usage_by_user_span WHERE span = $1 AND start = $2
        ) AS counted
    """,
    "usage_by_feature_span": """
        SELECT true AS is_kept, * FROM (
            SELECT * FROM usage_by_feature_span WHERE span = $1 AND start = $2
            EXCEPT SELECT * FROM recount_feature_span($1, $2, $3)
        ) AS kept
        UNION ALL
        SELECT false, * FROM (
            SELECT * FROM recount_feature_span($1, $2, $3)
            EXCEPT SELECT * FROM usage_by_feature_span WHERE span = $1 AND start = $2
        ) AS counted
    """,
}


_OF_USERS: Mapping[str, str] = {
    "usage_by_day_users": """
        SELECT true AS is_kept, day, endpoint, block, bit_count(users) AS users, md5(users::text)
        FROM (
            SELECT * FROM usage_by_day_users WHERE day >= $2 AND day < $3 AND $1 = 'users'
            EXCEPT SELECT * FROM recount_day_users($2, $3)
        ) AS kept
        UNION ALL
        SELECT false, day, endpoint, block, bit_count(users), md5(users::text) FROM (
            SELECT * FROM recount_day_users($2, $3)
            EXCEPT SELECT * FROM usage_by_day_users WHERE day >= $2 AND day < $3
        ) AS counted
    """,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Days of the report time zone, half-open; the widest by default."""

    first: date = date.min
    past: date = date.max


async def findings(dsn: str, period: Period) -> AsyncIterator[str]:
    """Yield a sentence for each sum that is not that of its rows."""
    connection = await connect(dsn, statement_seconds=_STATEMENT_SECONDS)
    try:
        for month in await connection.fetch(_MONTHS, period.first, period.past):
            # One snapshot for sums and rows; a new one for each month, so that none lasts long.
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                async for finding in _of_month(connection, month["first"], month["past"]):
                    yield finding
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
        raise translated(exc, dsn) from exc
    finally:
        connection.terminate()


async def _of_month(connection: asyncpg.Connection, first: date, past: date) -> AsyncIterator[str]:
    for table, query in _BY_DAY.items():
        for finding in _sentences(table, await connection.fetch(query, first, past)):
            yield finding
    for span in await connection.fetch(_SPANS, first, past):
        for table, query in (_OF_USERS if span["span"] == "users" else _BY_SPAN).items():
            if table == "usage_by_feature_span" and span["span"] in {"day", "pentad"}:
                continue
            for finding in _sentences(table, await connection.fetch(query, *span)):
                yield finding


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
