"""The SELECTs: from the views of schema.sql alone, put together from constants at import.

All questions about sums are one question: which cells, grouped by what, in which order, from where
on. The cells come from the coarsest rows that can answer: `hours` know every zone and no user,
`days` only the report time zone, `users` and the longer `spans` and `features` know users, and the
rows of the ledger themselves know everything. A range of another zone is whole days of the report's
and, at both ends, less than a day of rows or quarters of hours: `pieces` of both. Who is active is
counted from sets of users, a day each. So there is one statement for each source and each set of
keys, and every page, JSON, CSV and export reads through it. Values are
parameters, always the same ones in the same places (see `PLACES`); nothing that a client sent is
ever a part of a statement.
"""

from typing import Literal, get_args

Source = Literal[
    "hours", "days", "users", "spans", "features", "calls", "day_pieces", "pieces", "feature_pieces"
]  # fmt: skip
Key = Literal["user_id", "endpoint", "model", "service_tier", "day"]

SUMS = (
    "calls", "errors", "unpriced_calls", "estimated_calls", "unavailable_calls", "prompt_tokens",
    "cached_tokens", "cache_write_tokens", "completion_tokens", "reasoning_tokens",
    "audio_prompt_tokens", "audio_completion_tokens", "total_tokens", "cost_usd", "tool_cost_usd",
    "first_call", "last_call",
)  # fmt: skip

# What the parameters of all statements are.
PLACES = (
    "start", "end", "zone", "first", "last", "users", "endpoints", "models", "tiers", "outcomes",
    "without", "metadata_keys", "metadata_values", "search", "search_in",
)  # fmt: skip

BEGIN = """
SELECT
    set_config('role', coalesce(dashboard_role(), 'none'), true),
    set_config('statement_timeout', $1, true),
    set_config('work_mem', '64MB', true),  -- sums of all users stay in memory
    set_config('jit', 'off', true)  -- to compile a statement takes longer than to run it
"""

EXPORTED = "SELECT pg_export_snapshot() AS name"

STATUS = """
SELECT last_call, report_timezone
FROM ledger_status
"""

# Differs as soon as a row has come, a correction too.
WATERMARK = """
SELECT last_call, calls, total_tokens, cost_usd
FROM ledger_status
"""

# Without calls a sum is 0; with calls it is NULL as long as none of them is known.
PERIODS = """
WITH period (place, name, since) AS (
    VALUES
        (1, 'today', $1::date),
        (2, 'month', date_trunc('month', $1::timestamp)::date),
        (3, 'overall', NULL)
)
SELECT
    period.name,
    period.since,
    coalesce(sum(calls), 0)::bigint AS calls,
    coalesce(sum(errors), 0)::bigint AS errors,
    (
        SELECT count(DISTINCT user_id)
        FROM spans_between(coalesce(period.since, '-infinity'), 'infinity') AS part
        JOIN user_spans USING (span, start)
    ) AS active_users,
    coalesce(sum(unpriced_calls), 0)::bigint AS unpriced_calls,
    coalesce(sum(estimated_calls), 0)::bigint AS estimated_calls,
    coalesce(sum(unavailable_calls), 0)::bigint AS unavailable_calls,
    CASE WHEN count(day) = 0 THEN 0 ELSE sum(prompt_tokens) END::bigint AS prompt_tokens,
    CASE WHEN count(day) = 0 THEN 0 ELSE sum(completion_tokens) END::bigint AS completion_tokens,
    CASE WHEN count(day) = 0 THEN 0 ELSE sum(cached_tokens) END::bigint AS cached_tokens,
    CASE WHEN count(day) = 0 THEN 0 ELSE sum(total_tokens) END::bigint AS total_tokens,
    CASE WHEN count(day) = 0 THEN 0 ELSE sum(cost_usd) END AS cost_usd
FROM period
LEFT JOIN days ON period.since IS NULL OR days.day >= period.since
GROUP BY period.place, period.name, period.since
ORDER BY period.place
"""

_SUMMED = """
    prompt_tokens, cached_tokens, cache_write_tokens, completion_tokens, reasoning_tokens,
    audio_prompt_tokens, audio_completion_tokens, total_tokens, cost_usd, tool_cost_usd
"""

# Every source refers to every parameter, because Postgres wants to know the type of each. One that
# a source cannot honour has to be NULL there; `queries` sees to that.
_WHERE = """
    ($7::text[] IS NULL OR endpoint = ANY ($7))
    AND ($8::text[] IS NULL OR model = ANY ($8))
    AND NOT ('endpoint' = ANY ($11::text[]) AND endpoint IS NOT NULL)
    AND NOT ('model' = ANY ($11) AND model IS NOT NULL)
    AND (
        $14::text IS NULL
        OR strpos(
            lower(
                CASE $15::text
                    WHEN 'endpoint' THEN endpoint
                    WHEN 'model' THEN model
                    {user}
                END
            ),
            lower($14)
        ) > 0
    )
"""
_WHERE_USER = """
    AND ($6::text[] IS NULL OR user_id = ANY ($6))
    AND NOT ('user' = ANY ($11::text[]) AND user_id IS NOT NULL)
"""
_OF_USER = "WHEN 'user' THEN user_id"
_OF_CALL = (
    "WHEN 'user' THEN user_id "
    "WHEN 'any' THEN concat_ws(' ', user_id, endpoint, model, response_id, upstream_request_id)"
)

_IN_DAYS = "day >= coalesce($4::date, '-infinity') AND day <= $5::date"
_UNUSED_TIME = "AND ($1::timestamptz IS NULL OR $2::timestamptz IS NOT NULL OR $3::text IS NULL)"
_UNUSED_DAYS = "AND ($4::date IS NULL OR $5::date IS NOT NULL)"
_UNUSED_CALLS = "AND $10::text[] IS NULL AND $12::text[] IS NULL AND $13::text[] IS NULL"

# What was admitted in the range, and what came late for a closed month and counts now: one OR
# could use no index.
IN_TIME = """
    created_at >= coalesce($1::timestamptz, '-infinity') AND created_at < $2::timestamptz
    AND accounted_at IS NULL
"""
LATE = "accounted_at >= coalesce($1::timestamptz, '-infinity') AND accounted_at < $2::timestamptz"

ROWS_WHERE = f"""
    $3::text IS NOT NULL {_UNUSED_DAYS}
    AND ($9::text[] IS NULL OR service_tier = ANY ($9))
    AND ($10::text[] IS NULL OR outcome = ANY ($10))
    AND (
        $12::text[] IS NULL
        OR NOT EXISTS (
            SELECT
            FROM unnest($12::text[], $13::text[]) AS wanted (name, value)
            WHERE metadata ->> wanted.name IS DISTINCT FROM wanted.value
        )
    )
    AND {_WHERE.format(user=_OF_CALL)} {_WHERE_USER}
"""

_COUNTED = f"""
    calls, errors, unpriced_calls, estimated_calls, unavailable_calls, {_SUMMED}
"""
_ROW_CELL = f"""
SELECT
    (counted_at AT TIME ZONE $3::text)::date AS day, user_id, endpoint, model, service_tier,
    {_COUNTED}, created_at AS first_call, created_at AS last_call
FROM counted_usage
"""
_FOLDED = f"""
    AND $9::text[] IS NULL {_UNUSED_TIME} {_UNUSED_CALLS}
    AND {_WHERE.format(user=_OF_USER)} {_WHERE_USER}
"""

_SPAN = f"""
    AND $7::text[] IS NULL AND $8::text[] IS NULL AND $9::text[] IS NULL
    AND ($14::text IS NULL OR strpos(lower(user_id), lower($14)) > 0)
    AND $15::text IS NOT NULL {_UNUSED_TIME} {_UNUSED_CALLS} {_WHERE_USER}
"""

# What is folded and what is open are read apart: joined with both at once, each folded span would
# also read the first of its days, only to throw it away.
_CELLS: dict[Source, str] = {
    "hours": f"""
SELECT
    (bucket AT TIME ZONE $3::text)::date AS day, NULL::text AS user_id, endpoint, model,
    service_tier, {_COUNTED}, first_call, last_call
FROM quarter_hours
WHERE bucket >= coalesce($1::timestamptz, '-infinity')
    AND bucket < $2::timestamptz
    AND ($9::text[] IS NULL OR service_tier = ANY ($9))
    AND $6::text[] IS NULL {_UNUSED_DAYS} {_UNUSED_CALLS}
    AND {_WHERE.format(user="")}
""",
    "days": f"""
SELECT
    day, NULL::text AS user_id, endpoint, model, service_tier, {_COUNTED}, first_call, last_call
FROM days
WHERE {_IN_DAYS}
    AND ($9::text[] IS NULL OR service_tier = ANY ($9))
    AND $6::text[] IS NULL {_UNUSED_TIME} {_UNUSED_CALLS}
    AND {_WHERE.format(user="")}
""",
    "users": f"""
SELECT
    day, user_id, endpoint, model, NULL::text AS service_tier, {_COUNTED}, first_call, last_call
FROM user_days
WHERE {_IN_DAYS} {_FOLDED}
""",
    "features": f"""
WITH part AS MATERIALIZED (
    SELECT span, start FROM spans_between($4::date, $5::date + 1, by_feature => true)
)
SELECT
    NULL::date AS day, user_id, endpoint, model, NULL::text AS service_tier, {_COUNTED},
    first_call, last_call
FROM part
JOIN feature_spans USING (span, start)
WHERE feature_spans.span <> 'open' {_FOLDED}
UNION ALL
SELECT
    NULL::date AS day, user_id, endpoint, model, NULL::text AS service_tier, {_COUNTED},
    first_call, last_call
FROM part
JOIN user_days ON day = start
WHERE span = 'open' {_FOLDED}
""",
    "spans": f"""
WITH part AS MATERIALIZED (
    SELECT span, start FROM spans_between($4::date, $5::date + 1)
)
SELECT
    NULL::date AS day, user_id, NULL::text AS endpoint, NULL::text AS model,
    NULL::text AS service_tier, {_COUNTED}, first_call, last_call
FROM part
JOIN user_spans USING (span, start)
WHERE user_spans.span <> 'open' {_SPAN}
UNION ALL
SELECT
    NULL::date AS day, user_id, NULL::text AS endpoint, NULL::text AS model,
    NULL::text AS service_tier, {_COUNTED}, first_call, last_call
FROM part
JOIN user_days ON day = start
WHERE span = 'open' {_SPAN}
""",
    "day_pieces": "",
    "pieces": "",
    "feature_pieces": "",
    "calls": f"""
{_ROW_CELL}
WHERE {IN_TIME} AND {ROWS_WHERE}
UNION ALL
{_ROW_CELL}
WHERE {LATE} AND {ROWS_WHERE}
""",
}

# The days from $4 to $5 are those of the report time zone, $3; what lies in the range before and
# after them is read row by row. Either may be nothing. Where clocks are put back a day may have two
# midnights: its date decides, and the hours are for the index.
_DATE = "({moment} AT TIME ZONE $3::text)::date"
_EDGES = (
    f"""
    {{moment}} >= $1::timestamptz
    AND {{moment}} < least($2::timestamptz, timezone($3, $4::date::timestamp) + interval '3 hours')
    AND {_DATE} < $4
    """,
    f"""
    {{moment}} >= greatest($1, timezone($3, ($5::date + 1)::timestamp) - interval '3 hours')
    AND {{moment}} < $2
    AND {_DATE} > $5 AND {_DATE} >= $4
    """,
)
_EDGE_ROWS = tuple(
    f"{edge.format(moment=moment)} {unless_late}"
    for edge in _EDGES
    for moment, unless_late in (
        ("created_at", "AND accounted_at IS NULL"),
        ("accounted_at", ""),
    )
)
_EDGE_WHERE = f"""
    AND $9::text[] IS NULL AND $10::text[] IS NULL AND $12::text[] IS NULL AND $13::text[] IS NULL
    AND {_WHERE.format(user=_OF_USER)} {_WHERE_USER}
"""


def _with_edges(cells: str) -> str:
    edges = (
        f"""
UNION ALL
SELECT
    NULL::date AS day, user_id, endpoint, model, NULL::text AS service_tier,
    {_COUNTED}, created_at AS first_call, created_at AS last_call
FROM counted_usage
WHERE {rows} {_EDGE_WHERE}
"""
        for rows in _EDGE_ROWS
    )
    return cells + "".join(edges)


def _with_quarters(cells: str) -> str:
    edges = (
        f"""
UNION ALL
SELECT
    NULL::date AS day, NULL::text AS user_id, endpoint, model, service_tier,
    {_COUNTED}, first_call, last_call
FROM quarter_hours
WHERE {edge.format(moment="bucket")}
    AND ($9::text[] IS NULL OR service_tier = ANY ($9))
    AND $6::text[] IS NULL {_UNUSED_CALLS}
    AND {_WHERE.format(user="")}
"""
        for edge in _EDGES
    )
    return cells + "".join(edges)


_CELLS["day_pieces"] = _with_quarters(_CELLS["days"])
_CELLS["pieces"] = _with_edges(_CELLS["spans"])
_CELLS["feature_pieces"] = _with_edges(_CELLS["features"])

# Without calls a sum is 0; with calls it is NULL as long as none of them is known.
_COUNTS = ("calls", "errors", "unpriced_calls", "estimated_calls", "unavailable_calls")
_TOKENS = tuple(name for name in SUMS if name.endswith("_tokens"))
_MONEY = ("cost_usd", "tool_cost_usd")
_GROUPED_SUMS = ",\n        ".join(
    (
        *(f"coalesce(sum({name}), 0)::bigint AS {name}" for name in _COUNTS),
        *(
            f"CASE WHEN count(*) = 0 THEN 0 ELSE sum({name}) END::bigint AS {name}"
            for name in _TOKENS
        ),
        *(f"CASE WHEN count(*) = 0 THEN 0 ELSE sum({name}) END AS {name}" for name in _MONEY),
        "min(first_call) AS first_call",
        "max(last_call) AS last_call",
    )
)


# Everything that is sorted by is a number that grows downwards, and what is unknown comes last; the
# names decide among equals, so that the order is complete and a page can begin after any row.
_PLACE = """
    coalesce(
        $17::integer * CASE $16::text
            WHEN 'calls' THEN calls
            WHEN 'errors' THEN errors
            WHEN 'unpriced_calls' THEN unpriced_calls
            WHEN 'estimated_calls' THEN estimated_calls
            WHEN 'unavailable_calls' THEN unavailable_calls
            WHEN 'prompt_tokens' THEN prompt_tokens
            WHEN 'cached_tokens' THEN cached_tokens
            WHEN 'cache_write_tokens' THEN cache_write_tokens
            WHEN 'completion_tokens' THEN completion_tokens
            WHEN 'reasoning_tokens' THEN reasoning_tokens
            WHEN 'total_tokens' THEN total_tokens
            WHEN 'cost_usd' THEN cost_usd
            WHEN 'tool_cost_usd' THEN tool_cost_usd
            WHEN 'first_call' THEN extract(epoch FROM first_call)
            WHEN 'last_call' THEN extract(epoch FROM last_call)
            WHEN 'name' THEN 0
        END,
        'Infinity'
    )
"""


def sums(source: Source, keys: tuple[Key, ...]) -> str:
    """Return the statement that sums cells by some keys, in any order, a page at a time.

    Beyond `PLACES` it takes: sort column, direction (1 or -1), place and name of the row to begin
    after (or NULL), how many rows, and how many to pass over.
    """
    return _SUMS[source, keys]


def ranks(source: Source) -> str:
    """Return the statement that only says which users come in which order, of the same parameters.

    Sums that are not asked for are not made, which is most of the work over many users.
    """
    return _RANKS[source]


def totals(source: Source) -> str:
    """Return the statement that sums all cells: one row."""
    return _TOTALS[source]


def active_users(source: Source, keys: tuple[Key, ...]) -> str:
    """Return the statement that counts who is named in the cells, by some keys."""
    return _ACTIVE[source, keys]


def named(keys: tuple[Key, ...], *, edges: bool) -> str:
    """Return the statement that counts the same from sets of users, of endpoints or days alone."""
    return _NAMED[keys, edges]


def _sums(source: Source, keys: tuple[Key, ...]) -> str:
    names = ", ".join(keys)
    parts = (f"CASE WHEN {key} IS NULL THEN '1' ELSE '0' || {key} END" for key in keys)
    name = " || E'\\x01' || ".join(parts)
    found = f"{names}, {', '.join(SUMS)}, place::text AS after_place, name AS after_name"
    return _ordered(source, names, name, found)


def _ranks(source: Source) -> str:
    name = "CASE WHEN user_id IS NULL THEN '1' ELSE '0' || user_id END"
    return _ordered(
        source, "user_id", name, "user_id, place::text AS after_place, name AS after_name"
    )


def _ordered(source: Source, names: str, name: str, found: str) -> str:
    return f"""
WITH grouped AS (
    SELECT {names}, {_GROUPED_SUMS}
    FROM ({_CELLS[source]}) AS cell
    GROUP BY {names}
),
placed AS (
    SELECT *, {_PLACE} AS place, ({name}) COLLATE "C" AS name
    FROM grouped
)
SELECT {found}
FROM placed
WHERE CASE
    WHEN $19::text IS NULL THEN true
    WHEN $16 = 'name' AND $17 = -1 THEN name < $19
    ELSE (place, name) > ($18::numeric, $19)
END
ORDER BY place, CASE WHEN $16 = 'name' AND $17 = -1 THEN name END DESC, name
LIMIT $20
OFFSET $21
"""


def _totals(source: Source) -> str:
    return f"SELECT {_GROUPED_SUMS} FROM ({_CELLS[source]}) AS cell"


def _active_users(source: Source, keys: tuple[Key, ...]) -> str:
    names = "".join(f"{key}, " for key in keys)
    group = f"GROUP BY {', '.join(keys)}" if keys else ""
    return f"""
SELECT {names}count(*) AS users
FROM (
    SELECT DISTINCT {names}user_id
    FROM ({_CELLS[source]}) AS cell
    WHERE user_id IS NOT NULL
) AS named
{group}
"""


# Sets of the days that have some, one by one those of today: OR tells who is in any of them, and
# who of today's is in none is counted beside.
_NAMED_WHERE = """
    AND $6::text[] IS NULL AND $8::text[] IS NULL AND $9::text[] IS NULL AND $10::text[] IS NULL
    AND $12::text[] IS NULL AND $13::text[] IS NULL
    AND ($7::text[] IS NULL OR endpoint = ANY ($7))
    AND NOT ('endpoint' = ANY ($11::text[]) AND endpoint IS NOT NULL)
    AND ($14::text IS NULL OR $15::text = 'endpoint' AND strpos(lower(endpoint), lower($14)) > 0)
"""


def _named(keys: tuple[Key, ...], *, edges: bool) -> str:
    names = "".join(f"{key}, " for key in keys)
    same = "".join(f"AND sets.{key} IS NOT DISTINCT FROM single.{key} " for key in keys)
    rows = "".join(
        f"""
        UNION
        SELECT {names}user_id
        FROM counted_usage
        WHERE {rows} AND user_id IS NOT NULL {_NAMED_WHERE}
        """
        for rows in (_EDGE_ROWS if edges else ())
    )
    group = f"GROUP BY {', '.join(keys)}" if keys else ""
    return f"""
WITH sets AS MATERIALIZED (
    SELECT {names}block, bit_or(users) AS users
    FROM day_users
    WHERE {_IN_DAYS} {_UNUSED_TIME} {_NAMED_WHERE}
    GROUP BY {names}block
),
single AS MATERIALIZED (
    SELECT {names}user_id
    FROM days_without_users(coalesce($4::date, '-infinity'), $5::date + 1) AS open (day)
    JOIN user_days USING (day)
    WHERE user_id IS NOT NULL {_NAMED_WHERE}
    {rows or f"GROUP BY {names}user_id"}
)
SELECT {names}coalesce(sum(users), 0)::bigint AS users
FROM (
    SELECT {names}bit_count(users) AS users
    FROM sets
    UNION ALL
    SELECT {", ".join((*(f"single.{key}" for key in keys), "1"))}
    FROM single
    LEFT JOIN user_numbers USING (user_id)
    LEFT JOIN sets ON block = number / 8192 {same}
    WHERE users IS NULL OR get_bit(users, number % 8192) = 0
) AS counted
{group}
"""


_GROUPS: tuple[tuple[Key, ...], ...] = (
    ("user_id",),
    ("endpoint",),
    ("model",),
    ("model", "service_tier"),
    ("day",),
    ("day", "endpoint"),
    ("endpoint", "model"),
)
_SOURCES: tuple[Source, ...] = get_args(Source)
_SUMS = {(source, keys): _sums(source, keys) for source in _SOURCES for keys in _GROUPS}
_RANKS = {source: _ranks(source) for source in _SOURCES}
_TOTALS = {source: _totals(source) for source in _SOURCES}
_ACTIVE = {
    (source, keys): _active_users(source, keys) for source in _SOURCES for keys in ((), *_GROUPS)
}

_SETS: tuple[tuple[tuple[Key, ...], bool], ...] = (
    ((), False),
    ((), True),
    (("endpoint",), False),
    (("endpoint",), True),
    (("day",), False),
)
_NAMED = {(keys, edges): _named(keys, edges=edges) for keys, edges in _SETS}

_CALL_COLUMNS = """
    event_id, created_at, user_id, endpoint, api_path, operation_name, upstream, upstream_name,
    model, request_model, service_tier, stream, status, outcome, error_type, prompt_tokens,
    cached_tokens, cache_write_tokens, completion_tokens, reasoning_tokens, audio_prompt_tokens,
    audio_completion_tokens, total_tokens, cost_usd, tool_cost_usd, list_cost_usd, price_id,
    catalog_version, unpriced_reason, usage_source, usage_problem, latency_ms,
    time_to_first_byte_ms, request_bytes, response_bytes, retry_count, upstream_request_id,
    response_id, corrects, recorded_at, attribution_problem, metadata::text AS metadata,
    billed_units::text AS billed_units
"""
CALL = f"""
SELECT {_CALL_COLUMNS}
FROM calls
WHERE created_at = $1 AND event_id = $2
"""

# Calls are listed in the days in which they were made, also those that count later.
_ADMITTED = "created_at >= coalesce($1::timestamptz, '-infinity') AND created_at < $2::timestamptz"

# Beyond PLACES: created_at and event_id of the call to begin after (or NULL), and how many. Where
# users are named, by the index of each: looking for the newest of all would read those of others.
_CALL_NAMES = _CALL_COLUMNS.replace("metadata::text AS", "").replace("billed_units::text AS", "")
_OF_EACH = """
SELECT {names}
FROM (SELECT DISTINCT name FROM unnest($6::text[]) AS named (name)) AS wanted
CROSS JOIN LATERAL (
    SELECT {columns}
    FROM calls
    WHERE user_id = wanted.name AND {where}
        AND ($16::timestamptz IS NULL OR (created_at, event_id) {beyond} ($16, $17::uuid))
    ORDER BY {order}
    LIMIT $18
) AS call
ORDER BY {order}
LIMIT $18
"""
_EACH = {
    "names": _CALL_NAMES,
    "columns": _CALL_COLUMNS,
    # Said twice, it would be taken for twice as rare, and all calls of a user for a few.
    "where": f"{_ADMITTED} AND {ROWS_WHERE}".replace("OR user_id = ANY ($6)", "OR true"),
}
NEWEST_CALLS_OF_USERS = _OF_EACH.format(**_EACH, beyond="<", order="created_at DESC, event_id DESC")
OLDEST_CALLS_OF_USERS = _OF_EACH.format(**_EACH, beyond=">", order="created_at, event_id")
NEWEST_CALLS = f"""
SELECT {_CALL_COLUMNS}
FROM calls
WHERE {_ADMITTED} AND {ROWS_WHERE}
    AND ($16::timestamptz IS NULL OR (created_at, event_id) < ($16, $17::uuid))
ORDER BY created_at DESC, event_id DESC
LIMIT $18
"""
OLDEST_CALLS = f"""
SELECT {_CALL_COLUMNS}
FROM calls
WHERE {_ADMITTED} AND {ROWS_WHERE}
    AND ($16::timestamptz IS NULL OR (created_at, event_id) > ($16, $17::uuid))
ORDER BY created_at, event_id
LIMIT $18
"""

_PERCENTILES = """
    sum(calls)::bigint AS calls,
    min(at_most_ms) FILTER (WHERE so_far >= 0.5 * all_calls) AS p50_ms,
    min(at_most_ms) FILTER (WHERE so_far >= 0.95 * all_calls) AS p95_ms,
    min(at_most_ms) FILTER (WHERE so_far >= 0.99 * all_calls) AS p99_ms
"""

# How calls ended and how long they took, from the rollups; they know days and endpoints.
ANSWERS = """
SELECT outcome, status, sum(calls)::bigint AS calls
FROM answer_days
WHERE day >= coalesce($1::date, '-infinity')
    AND day <= $2::date
    AND ($3::text[] IS NULL OR endpoint = ANY ($3))
    AND NOT ($4::boolean AND endpoint IS NOT NULL)
GROUP BY outcome, status
ORDER BY calls DESC, outcome, status
"""
DURATIONS = f"""
WITH class AS (
    SELECT measure, at_most_ms, sum(calls) AS calls
    FROM duration_days
    WHERE day >= coalesce($1::date, '-infinity')
        AND day <= $2::date
        AND ($3::text[] IS NULL OR endpoint = ANY ($3))
        AND NOT ($4::boolean AND endpoint IS NOT NULL)
    GROUP BY measure, at_most_ms
),
running AS (
    SELECT
        measure,
        at_most_ms,
        calls,
        sum(calls) OVER (PARTITION BY measure ORDER BY at_most_ms) AS so_far,
        sum(calls) OVER (PARTITION BY measure) AS all_calls
    FROM class
)
SELECT measure, {_PERCENTILES}
FROM running
GROUP BY measure
ORDER BY measure DESC
"""

# Whether anything counts in the range that came when its own month was closed.
ANY_LATE = """
SELECT EXISTS (
    SELECT
    FROM calls
    WHERE accounted_at >= coalesce($1::timestamptz, '-infinity') AND accounted_at < $2::timestamptz
) AS any_late
"""

# Where slices of about $3 calls begin.
BOUNDS = """
SELECT min(bucket) AS begin
FROM (
    SELECT bucket, div(sum(sum(calls)) OVER (ORDER BY bucket) - sum(calls), $3::bigint) AS slice
    FROM quarter_hours
    WHERE bucket >= coalesce($1::timestamptz, '-infinity') AND bucket < $2::timestamptz
    GROUP BY bucket
) AS counted
GROUP BY slice
ORDER BY begin
"""

# What one call cost, component by component.
LINES = """
SELECT component, quantity, list_unit_price, list_cost_usd, cost_usd, price_id, catalog_version
FROM charge_lines
WHERE created_at = $1 AND event_id = $2
ORDER BY cost_usd DESC NULLS LAST, component
"""

# What each rate of the newest catalogue is, and since when there have been others.
PRICES = """
SELECT catalog_version, price_id, component, list_unit_price
FROM prices
ORDER BY catalog_version DESC, price_id, component
"""

# What a filter may be about: whom and what the newest calls name, and the endpoints and models of a
# month. Names that are long or cannot stand in a field are left out, and there are at most so many.
NAMES = """
WITH newest AS MATERIALIZED (
    SELECT user_id, metadata
    FROM calls
    WHERE created_at >= $1::timestamptz
    ORDER BY created_at DESC
    LIMIT 1000
),
named (kind, name, calls) AS (
    SELECT 'user', user_id, count(*)
    FROM newest
    GROUP BY user_id
    UNION ALL
    SELECT 'metadata', member.key || '=' || member.value, count(*)
    FROM newest
    CROSS JOIN LATERAL jsonb_each_text(metadata) AS member (key, value)
    GROUP BY member.key, member.value
    UNION ALL
    SELECT 'endpoint', endpoint, sum(calls)
    FROM days
    WHERE day >= $1::date
    GROUP BY endpoint
    UNION ALL
    SELECT 'model', model, sum(calls)
    FROM days
    WHERE day >= $1::date
    GROUP BY model
),
ranked AS (
    SELECT kind, name, row_number() OVER (PARTITION BY kind ORDER BY calls DESC, name) AS place
    FROM named
    WHERE length(name) <= 64 AND name !~ '[[:cntrl:]]'
)
SELECT kind, array_agg(name ORDER BY name) AS names
FROM ranked
WHERE place <= $2
GROUP BY kind
"""
