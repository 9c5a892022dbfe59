"""The SELECTs of ranks: packed sums of one column, and what is not packed, user by user.

Each is made of constants at import, for each column that users can be sorted by; `name` is one, of
which every value is 0. Who is asked for is a matter of parameters.
"""

EPOCH = 946_684_800 * 10**6  # of packed moments: 2000, in microseconds of Unix time

_COUNTS = (
    "calls", "errors", "unpriced_calls", "estimated_calls", "unavailable_calls", "prompt_tokens",
    "cached_tokens", "cache_write_tokens", "completion_tokens", "reasoning_tokens", "total_tokens",
)  # fmt: skip
SCALES = {"cost_usd": "cost_scale", "tool_cost_usd": "tool_cost_scale"}
_MOMENTS = {"first_call": "min", "last_call": "max"}

PARTS = """
SELECT kind, start, past, hour, since, until, (SELECT max(number) FROM user_numbers) AS most
FROM packed_between(coalesce($1::timestamptz, '-infinity'), $2::timestamptz)
"""

_CELLS = """
    ($1::text[] IS NULL OR endpoint = ANY ($1))
    AND ($2::text[] IS NULL OR model = ANY ($2))
    AND NOT ('endpoint' = ANY ($3::text[]) AND endpoint IS NOT NULL)
    AND NOT ('model' = ANY ($3) AND model IS NOT NULL)
"""

# Whole spans, of everything ($4) or of each endpoint and model; and hours, which have no totals.
_PACKED = f"""
SELECT block, users, {{sums}} AS sums, {{scale}} AS scale
FROM unnest($6::date[], $7::date[]) AS part (start, past)
JOIN packed_spans USING (start, past)
WHERE hour IS NULL AND is_total = $4 AND block = ANY ($5::integer[]) AND ($4 OR {_CELLS})
UNION ALL
SELECT block, users, {{sums}}, {{scale}}
FROM unnest($8::date[], $9::smallint[]) AS part (start, hour)
JOIN packed_spans USING (start, hour)
WHERE past = start + 1 AND NOT is_total AND block = ANY ($5) AND {_CELLS}
"""

_OPEN = f"""
WITH portion AS (
    SELECT user_id, {{of_day}} AS value
    FROM unnest($4::date[]) AS open (day)
    JOIN user_days USING (day)
    WHERE {_CELLS}
    UNION ALL
    SELECT user_id, {{of_row}}
    FROM unnest($5::date[], $6::timestamptz[], $7::timestamptz[]) AS part (day, since, until)
    JOIN counted_usage
        ON created_at >= since AND created_at < until AND accounted_at IS NULL
            AND (created_at AT TIME ZONE $8::text)::date = day
    WHERE {_CELLS}
    UNION ALL
    SELECT user_id, {{of_row}}
    FROM unnest($5::date[], $6::timestamptz[], $7::timestamptz[]) AS part (day, since, until)
    JOIN counted_usage
        ON counted_usage.accounted_at >= since AND counted_usage.accounted_at < until
            AND (counted_usage.accounted_at AT TIME ZONE $8)::date = day
    WHERE {_CELLS}
),
summed AS (
    SELECT user_id, {{total}} AS value
    FROM portion
    WHERE $9::text IS NULL OR strpos(lower(user_id), lower($9)) > 0
    GROUP BY user_id
)
SELECT user_id, number, value, {{scale}} AS scale
FROM summed
LEFT JOIN user_numbers USING (user_id)
"""

SEARCHED = """
SELECT number
FROM user_numbers
WHERE strpos(lower(user_id), lower($1::text)) > 0
"""

NAMES = """
SELECT number, user_id
FROM user_numbers
WHERE number = ANY ($1::integer[])
"""

# Of equals, of whom there are many, those that come first, from a name on.
_NAMED = """
SELECT number, user_id
FROM user_numbers
WHERE number = ANY ($1::integer[]) AND ($2::text IS NULL OR user_id COLLATE "C" {follows} $2)
ORDER BY user_id COLLATE "C" {direction}
LIMIT $3
"""
NAMED = {
    1: _NAMED.format(follows=">", direction=""),
    -1: _NAMED.format(follows="<", direction="DESC"),
}


def _packed(column: str) -> str:
    sums = "''::bytea" if column == "name" else column
    return _PACKED.format(sums=sums, scale=SCALES.get(column, "0"))


def _open(column: str) -> str:
    if column == "name":
        return _OPEN.format(of_day="0", of_row="0", total="0", scale="0")
    if column in _MOMENTS:
        moment = f"(extract(epoch FROM {_MOMENTS[column]}(value)) * 1000000)::bigint - {EPOCH}"
        return _OPEN.format(of_day=column, of_row="created_at", total=moment, scale="0")
    if column in SCALES:
        scale = "coalesce(max(min_scale(value)) OVER (), 0)"
        return _OPEN.format(of_day=column, of_row=column, total="sum(value)", scale=scale)
    return _OPEN.format(of_day=column, of_row=column, total="sum(value)::bigint", scale="0")


_COLUMNS = (*_COUNTS, *SCALES, *_MOMENTS, "name")
PACKED = {column: _packed(column) for column in _COLUMNS}
OPEN = {column: _open(column) for column in _COLUMNS}
