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
SELECT
    kind,
    start,
    past,
    hour,
    since,
    until,
    (
        SELECT folded_at
        FROM spans AS listed
        WHERE listed.start = part.start AND listed.past = part.past AND span = kind
    ) AS version,
    (SELECT max(number) FROM user_numbers) AS most
FROM packed_between(coalesce($1::timestamptz, '-infinity'), $2::timestamptz) AS part
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

# What is not packed: days that are open, which also tell when each user came first and last (as in
# OPEN_ROSTERS of `selects`), and rows of a part of a day; those that came late are looked for only
# where there are any, because they may lie in any partition.
_OF_DAYS = f"""
    FROM user_days
    WHERE day = ANY ($5::date[]) AND {_CELLS}
"""
_OF_ROWS = f"""
    FROM counted_usage
    WHERE created_at >= $6::timestamptz AND created_at < $7::timestamptz
        AND accounted_at IS NULL
        AND (counted_at AT TIME ZONE $8::text)::date = $5::date
        AND {_CELLS}
"""
_OF_LATE_ROWS = f"""
    FROM (
        SELECT *
        FROM counted_usage
        WHERE created_at >= $6::timestamptz AND created_at < $7::timestamptz
            AND accounted_at IS NULL
        UNION ALL
        SELECT *
        FROM counted_usage
        WHERE accounted_at >= $6 AND accounted_at < $7
    ) AS counted
    WHERE (counted_at AT TIME ZONE $8::text)::date = $5::date AND {_CELLS}
"""
_UNPACKED = """
WITH summed AS MATERIALIZED (
    SELECT {day} user_id, {total} AS value {ends}
    {cells}
        AND ($4::text IS NULL OR strpos(lower(user_id), lower($4)) > 0)
    GROUP BY {day} user_id
),
{unit}
SELECT
    {day}
    array_agg(number) AS numbers,
    array_agg(CASE WHEN number IS NULL THEN user_id END) AS names,
    array_agg({value}) AS sums,
    {moments}
    coalesce(max(scale), 0) AS scale
FROM summed
CROSS JOIN unit
LEFT JOIN user_numbers USING (user_id)
{group}
"""
_BY_DAY = {
    "day": "day,",
    "ends": ", min(first_call) AS first_call, max(last_call) AS last_call",
    "moments": """
    array_agg((date_part('epoch', first_call) * 1000000)::bigint) AS first_calls,
    array_agg((date_part('epoch', last_call) * 1000000)::bigint) AS last_calls,
    """,
    "group": "GROUP BY day",
}
_AS_ONE = dict.fromkeys(_BY_DAY, "")

# Amounts become whole numbers of the last digit that any of them has. -1: these would be too large.
_UNIT = """unit AS (
    SELECT scale, ('1e' || scale)::numeric AS unit
    FROM (
        SELECT
            CASE
                WHEN max(abs(value)) * ('1e' || max(min_scale(value)))::numeric < 9e18
                    THEN max(min_scale(value))
                WHEN max(value) IS NULL THEN 0
                ELSE -1
            END AS scale
        FROM summed
    ) AS widest
)"""
_NO_UNIT = "unit AS (SELECT 0 AS scale)"

SEARCHED = """
SELECT coalesce(array_agg(number), '{}') AS numbers
FROM user_numbers
WHERE strpos(lower(user_id), lower($1::text)) > 0
"""

# Whom a search finds: of those who have numbers, and of days whose users may have none yet.
FOUND = """
SELECT user_id
FROM user_numbers
WHERE strpos(lower(user_id), lower($1::text)) > 0
UNION
SELECT user_id
FROM days_without_users(coalesce($2::date, '-infinity') - 2, $3::date + 3) AS open (day)
JOIN user_days USING (day)
WHERE strpos(lower(user_id), lower($1)) > 0
LIMIT $4
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


def _unpacked(column: str, cells: str) -> str:
    shape = {"cells": cells} | (_BY_DAY if cells is _OF_DAYS else _AS_ONE)
    if column in SCALES:
        value = "CASE WHEN scale >= 0 THEN (value * unit)::bigint END"
        return _UNPACKED.format(total=f"sum({column})", unit=_UNIT, value=value, **shape)
    if column == "name":
        total = "0::bigint"
    elif column in _MOMENTS:
        moment = column if cells is _OF_DAYS else "created_at"
        end = f"{_MOMENTS[column]}({moment})"
        total = f"(extract(epoch FROM {end}) * 1000000)::bigint - {EPOCH}"
    else:
        total = f"sum({column})::bigint"
    return _UNPACKED.format(total=total, unit=_NO_UNIT, value="value", **shape)


_COLUMNS = (*_COUNTS, *SCALES, *_MOMENTS, "name")
PACKED = {column: _packed(column) for column in _COLUMNS}
OF_DAYS = {column: _unpacked(column, _OF_DAYS) for column in _COLUMNS}
OF_ROWS = {column: _unpacked(column, _OF_ROWS) for column in _COLUMNS}
OF_LATE_ROWS = {column: _unpacked(column, _OF_LATE_ROWS) for column in _COLUMNS}
