"""The other SELECTs: how a transaction begins, periods, answers, prices, names, slices of files.

As all of them they read the views of schema.sql alone, and are constants; sums are in `adding`,
calls in `listing`.
"""

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

# What is missing from sums: calls that were not metered, objects whose cost nobody has seen yet.
# Whose a call was that was not metered nobody knows. Of objects at most so many are looked at.
GAPS = """
SELECT started_at, ended_at, calls, writer
FROM metering_gaps
WHERE ended_at >= coalesce($1::timestamptz, '-infinity') AND started_at < $2::timestamptz
ORDER BY started_at DESC, writer
LIMIT 1000
"""
OPEN_OBJECTS = """
SELECT kind, count(*) AS objects, min(made_at) AS first_made, max(made_at) AS last_made
FROM (
    SELECT kind, made_at
    FROM open_objects
    WHERE made_at >= coalesce($1::timestamptz, '-infinity')
        AND made_at < $2::timestamptz
        AND ($3::text[] IS NULL OR user_id = ANY ($3))
        AND ($4::text[] IS NULL OR endpoint = ANY ($4))
        AND ($5::text[] IS NULL OR model = ANY ($5))
        AND NOT ('user' = ANY ($6::text[]) AND user_id IS NOT NULL)
        AND NOT ('endpoint' = ANY ($6) AND endpoint IS NOT NULL)
        AND NOT ('model' = ANY ($6) AND model IS NOT NULL)
    LIMIT 10000
) AS open
GROUP BY kind
ORDER BY objects DESC, kind
"""

# About half of the users have names before this one; NULL: there are too few to tell.
MIDDLE = """
SELECT CASE WHEN count(*) > 100 THEN (array_agg(user_id ORDER BY user_id))[51] END AS user_id
FROM generate_series(0, 100) AS part (place)
JOIN user_numbers ON number = place * (SELECT max(number) FROM user_numbers) / 100
"""

# One row: the days that have calls, and since when the sets of their users are known (NULL: not);
# and whether any row counts later than it came.
VERSIONS = """
SELECT
    array_agg(counted.day) AS days,
    array_agg(folded_at) AS folded,
    EXISTS (SELECT FROM calls WHERE accounted_at >= '-infinity') AS any_late
FROM (SELECT DISTINCT day FROM days) AS counted
LEFT JOIN spans ON start = counted.day AND past = counted.day + 1 AND span = 'users'
"""

# The sets of some days.
ROSTERS = """
SELECT day, endpoint, block, users
FROM day_users
WHERE day = ANY ($1::date[])
"""

# Who was there on days that have no sets yet; by endpoint ($2), of some of them ($4; NULL: of all)
# and of some models ($5), or none ($6); and with the first and last call of each ($3), in
# microseconds.
OPEN_ROSTERS = """
SELECT
    day,
    endpoint,
    array_agg(number) AS numbers,
    array_agg(CASE WHEN number IS NULL THEN user_id END) AS names,
    CASE WHEN $3::boolean THEN array_agg((date_part('epoch', first_call) * 1000000)::bigint) END
        AS first_calls,
    CASE WHEN $3 THEN array_agg((date_part('epoch', last_call) * 1000000)::bigint) END AS last_calls
FROM (
    SELECT
        day,
        CASE WHEN $2::boolean THEN endpoint END AS endpoint,
        user_id,
        min(first_call) AS first_call,
        max(last_call) AS last_call
    FROM user_days
    WHERE day = ANY ($1::date[])
        AND user_id IS NOT NULL
        AND ($4::text[] IS NULL OR endpoint = ANY ($4))
        AND ($5::text[] IS NULL OR model = ANY ($5))
        AND NOT ($6::boolean AND model IS NOT NULL)
    GROUP BY 1, 2, 3
) AS named
LEFT JOIN user_numbers USING (user_id)
GROUP BY day, endpoint
"""

# Who was there in parts of days, at some models ($4) or none ($5). Of somebody who came before it
# and went after it, it is not known.
_ROSTERS = """
SELECT
    place,
    endpoint,
    array_agg(number) FILTER (WHERE number IS NOT NULL) AS numbers,
    array_agg(user_id) FILTER (WHERE number IS NULL) AS names,
    bool_and(known) AS known
FROM (
    SELECT
        place,
        {endpoint} AS endpoint,
        user_id,
        bool_or(
            first_call >= coalesce(since, '-infinity') OR last_call < coalesce(past, 'infinity')
        ) AS known
    FROM unnest($1::date[], $2::timestamptz[], $3::timestamptz[])
        WITH ORDINALITY AS part (part_of, since, past, place)
    JOIN {sums}
    WHERE user_id IS NOT NULL
        AND last_call >= coalesce(since, '-infinity')
        AND first_call < coalesce(past, 'infinity')
    GROUP BY 1, 2, 3
) AS named
LEFT JOIN user_numbers USING (user_id)
GROUP BY place, endpoint
"""
_OF_MODELS = """
    ($4::text[] IS NULL OR model = ANY ($4)) AND NOT ($5::boolean AND model IS NOT NULL)
"""
ROSTERS_OF_DAYS = _ROSTERS.format(
    endpoint="endpoint", sums=f"user_days ON day = part_of AND {_OF_MODELS}"
)
ROSTERS_OF_SPANS = _ROSTERS.format(
    endpoint="NULL::text",
    sums="user_spans ON span = 'day' AND start = part_of AND $4::text[] IS NULL AND NOT $5::bool",
)

# The same of days that are packed: whoever has a number, and the first or last call of each where
# the part needs them. A row without users: nobody was there.
ROSTERS_PACKED = """
SELECT
    place,
    endpoint,
    block,
    packed.users,
    CASE WHEN wanted.past IS NOT NULL THEN first_call END AS first_calls,
    CASE WHEN since IS NOT NULL THEN last_call END AS last_calls
FROM unnest($1::date[], $2::timestamptz[], $3::timestamptz[])
    WITH ORDINALITY AS wanted (day, since, past, place)
JOIN spans AS listed ON listed.start = day AND listed.past = day + 1 AND listed.span = 'packed'
LEFT JOIN packed_spans AS packed
    ON packed.start = day
    AND packed.past = day + 1
    AND hour IS NULL
    AND block >= 0
    AND is_total <> $4::boolean
    AND ($5::text[] IS NULL OR endpoint = ANY ($5))
    AND ($6::text[] IS NULL OR model = ANY ($6))
    AND NOT ($7::boolean AND model IS NOT NULL)
"""

# Of a part that begins after its day does and ends before it, the hours that it touches tell more.
ROSTERS_OF_HOURS = """
SELECT place, endpoint, block, packed.users, first_call AS first_calls, last_call AS last_calls
FROM unnest($1::date[], $2::timestamptz[], $3::timestamptz[])
    WITH ORDINALITY AS wanted (day, since, past, place)
CROSS JOIN (SELECT report_timezone AS zone FROM ledger_status) AS report
CROSS JOIN LATERAL (SELECT date_begins(day, zone) AS begins) AS day_of
JOIN spans AS listed ON listed.start = day AND listed.past = day + 1 AND listed.span = 'hours'
LEFT JOIN packed_spans AS packed
    ON packed.start = day
    AND packed.past = day + 1
    AND hour BETWEEN
        floor(date_part('epoch', since - begins) / 3600)
        AND floor(date_part('epoch', wanted.past - begins) / 3600)
    AND block >= 0
    AND $4::boolean IS NOT NULL
    AND ($5::text[] IS NULL OR endpoint = ANY ($5))
    AND ($6::text[] IS NULL OR model = ANY ($6))
    AND NOT ($7::boolean AND model IS NOT NULL)
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
    WHERE strpos(member.key, '=') = 0
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
