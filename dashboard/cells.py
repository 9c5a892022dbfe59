"""The cells that sums are made of, and which of them a question is about.

The coarsest rows that can answer are read: `hours` know every zone and no user, `days` only the
report time zone, `users` and the longer `spans` and `features` know users, and the rows of the
ledger themselves know everything. A range of another zone is whole days of the report's and, at
both ends, less than a day of rows or quarters of hours: `pieces` of both. Values are parameters,
always the same ones in the same places (see `PLACES`); nothing that a client sent is ever a part
of a statement.
"""

from typing import Literal

Source = Literal[
    "hours", "days", "users", "spans", "features", "calls", "day_pieces", "pieces",
    "feature_pieces", "user_pieces",
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

_SUMMED = """
    prompt_tokens, cached_tokens, cache_write_tokens, completion_tokens, reasoning_tokens,
    audio_prompt_tokens, audio_completion_tokens, total_tokens, cost_usd, tool_cost_usd
"""

# Every source refers to every parameter, because Postgres wants to know the type of each. One that
# a source cannot honour has to be NULL there; `asking` sees to that.
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

IN_DAYS = "day >= coalesce($4::date, '-infinity') AND day <= $5::date"
UNUSED_TIME = "AND ($1::timestamptz IS NULL OR $2::timestamptz IS NOT NULL OR $3::text IS NULL)"
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
    AND $9::text[] IS NULL {UNUSED_TIME} {_UNUSED_CALLS}
    AND {_WHERE.format(user=_OF_USER)} {_WHERE_USER}
"""

_SPAN = f"""
    AND $7::text[] IS NULL AND $8::text[] IS NULL AND $9::text[] IS NULL
    AND ($14::text IS NULL OR strpos(lower(user_id), lower($14)) > 0)
    AND $15::text IS NOT NULL {UNUSED_TIME} {_UNUSED_CALLS} {_WHERE_USER}
"""

# First and last of single days that follow each other: asked for together, each user's are found at
# once, and the pages that they lie on are asked of the disk at once.
_OPEN_RUNS = """
    SELECT min(start) AS since, max(start) AS until
    FROM (
        SELECT start, start - (row_number() OVER (ORDER BY start))::integer AS run
        FROM part
        WHERE span = 'open'
    ) AS open
    GROUP BY run
"""

# What is folded and what is open are read apart: joined with both at once, each folded span would
# also read the first of its days, only to throw it away.
CELLS: dict[Source, str] = {
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
WHERE {IN_DAYS}
    AND ($9::text[] IS NULL OR service_tier = ANY ($9))
    AND $6::text[] IS NULL {UNUSED_TIME} {_UNUSED_CALLS}
    AND {_WHERE.format(user="")}
""",
    "users": f"""
SELECT
    day, user_id, endpoint, model, NULL::text AS service_tier, {_COUNTED}, first_call, last_call
FROM user_days
WHERE {IN_DAYS} {_FOLDED}
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
FROM ({_OPEN_RUNS}) AS run
JOIN user_days ON day >= since AND day <= until
WHERE true {_FOLDED}
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
    "user_pieces": "",
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
# midnights: its date decides, and the hours are for the index. They are added to the local time: a
# sum of an instant and an interval is unknown to the planner, who then plans for every partition.
# Of a day that a zone has skipped (Apia, 2011) only the next midnight is a time.
_DATE = "({moment} AT TIME ZONE $3::text)::date"
_EDGES = (
    f"""
    {{moment}} >= $1::timestamptz
    AND {{moment}} < least($2::timestamptz, timezone($3, $4::date + interval '3 hours'))
    AND {_DATE} < $4
    """,
    f"""
    {{moment}} >= greatest(
        $1,
        least(
            timezone($3, $5::date + interval '21 hours'), timezone($3, $5::date + interval '1 day')
        )
    )
    AND {{moment}} < $2
    AND {_DATE} > $5 AND {_DATE} >= $4
    """,
)
EDGE_ROWS = tuple(
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


def _with_edges(cells: str, rows_of_edges: tuple[str, ...] = EDGE_ROWS) -> str:
    edges = (
        f"""
UNION ALL
SELECT
    NULL::date AS day, user_id, endpoint, model, NULL::text AS service_tier,
    {_COUNTED}, created_at AS first_call, created_at AS last_call
FROM counted_usage
WHERE {rows} {_EDGE_WHERE}
"""
        for rows in rows_of_edges
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


CELLS["day_pieces"] = _with_quarters(CELLS["days"])
CELLS["pieces"] = _with_edges(CELLS["spans"])
CELLS["feature_pieces"] = _with_edges(CELLS["features"])
CELLS["user_pieces"] = _with_edges(CELLS["users"])

# The same for a ledger of which no row counts later than it came: half as much to plan for, which
# is most of the time where only a few users are asked for.
PUNCTUAL_CELLS = CELLS | {
    "pieces": _with_edges(CELLS["spans"], EDGE_ROWS[::2]),
    "feature_pieces": _with_edges(CELLS["features"], EDGE_ROWS[::2]),
    "user_pieces": _with_edges(CELLS["users"], EDGE_ROWS[::2]),
}
