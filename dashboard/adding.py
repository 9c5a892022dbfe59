"""The SELECTs of sums: cells grouped, in an order, from where on; and who is active in them.

All questions about sums are one question: which cells, grouped by what, in which order, from where
on. So there is one statement for each source of cells and each set of keys, put together from
constants at import, and every page, JSON, CSV and export reads through it. Who is active is counted
from sets of users, a day each, where these are known.
"""

from typing import get_args

from dashboard.cells import (
    CELLS,
    EDGE_ROWS,
    IN_DAYS,
    PUNCTUAL_CELLS,
    SUMS,
    UNUSED_TIME,
    Key,
    Source,
)

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


def sums(source: Source, keys: tuple[Key, ...], *, late: bool = True) -> str:
    """Return the statement that sums cells by some keys, in any order, a page at a time.

    `late`: whether rows may count later than they came.

    Beyond `PLACES` it takes: sort column, direction (1 or -1), place and name of the row to begin
    after (or NULL), how many rows, and how many to pass over.
    """
    return (_SUMS if late else _PUNCTUAL_SUMS)[source, keys]


def ranks(source: Source) -> str:
    """Return the statement that only says which of some users come in which order.

    It takes the same parameters, and between which names (or NULL), and whether only who was not
    named. Sums that are not asked for are not made, which is most of the work over many users.
    """
    return _RANKS[source]


def totals(source: Source, *, late: bool = True) -> str:
    """Return the statement that sums all cells: one row. `late` is as for `sums`."""
    return (_TOTALS if late else _PUNCTUAL_TOTALS)[source]


def active_users(source: Source, keys: tuple[Key, ...]) -> str:
    """Return the statement that counts who is named in the cells, by some keys."""
    return _ACTIVE[source, keys]


def named(keys: tuple[Key, ...], *, edges: bool) -> str:
    """Return the statement that counts the same from sets of users, of endpoints or days alone."""
    return _NAMED[keys, edges]


def _sums(cells: str, keys: tuple[Key, ...]) -> str:
    names = ", ".join(keys)
    parts = (f"CASE WHEN {key} IS NULL THEN '1' ELSE '0' || {key} END" for key in keys)
    name = " || E'\\x01' || ".join(parts)
    found = f"{names}, {', '.join(SUMS)}, place::text AS after_place, name AS after_name"
    return _ordered(cells, names, name, found)


def _ranks(cells: str) -> str:
    name = "CASE WHEN user_id IS NULL THEN '1' ELSE '0' || user_id END"
    found = "user_id, place::text AS after_place, name AS after_name"
    return _ordered(cells, "user_id", name, found, where=_AMONG)


# Some of the users: from one name on, up to another, or whoever was not named.
_AMONG = """
    WHERE ($22::text IS NULL OR user_id >= $22)
        AND ($23::text IS NULL OR user_id < $23)
        AND (NOT $24::boolean OR user_id IS NULL)
"""


def _ordered(cells: str, names: str, name: str, found: str, *, where: str = "") -> str:
    return f"""
WITH grouped AS (
    SELECT {names}, {_GROUPED_SUMS}
    FROM ({cells}) AS cell
    {where}
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


def _totals(cells: str) -> str:
    return f"SELECT {_GROUPED_SUMS} FROM ({cells}) AS cell"


def _active_users(source: Source, keys: tuple[Key, ...]) -> str:
    names = "".join(f"{key}, " for key in keys)
    group = f"GROUP BY {', '.join(keys)}" if keys else ""
    return f"""
SELECT {names}count(*) AS users
FROM (
    SELECT DISTINCT {names}user_id
    FROM ({CELLS[source]}) AS cell
    WHERE user_id IS NOT NULL
) AS named
{group}
"""


# The same of a range whose last day ends early: to the quarter of an hour, as sums of calls do.
_BEGAN = "date_bin('15 minutes', first_call, timestamptz '1970-01-01 00:00:00+00')"
ACTIVE_UNTIL = f"""
SELECT count(DISTINCT user_id) AS users
FROM ({CELLS["users"]}) AS cell
WHERE day < $5 OR {_BEGAN} < $2
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


def _named(keys: tuple[Key, ...], *, edges: bool, early: bool = False) -> str:
    """Return the statement; `early`: the last day ends early, and who was there by then counts."""
    names = "".join(f"{key}, " for key in keys)
    same = "".join(f"AND sets.{key} IS NOT DISTINCT FROM single.{key} " for key in keys)
    rows = "".join(
        f"""
        UNION
        SELECT {names}user_id
        FROM counted_usage
        WHERE {rows} AND user_id IS NOT NULL {_NAMED_WHERE}
        """
        for rows in (EDGE_ROWS if edges else ())
    )
    if early:
        rows = f"""
    UNION
    SELECT {names}user_id
    FROM user_days
    WHERE day = $5 + 1 AND {_BEGAN} < $2 AND user_id IS NOT NULL {_NAMED_WHERE}
    """
    group = f"GROUP BY {', '.join(keys)}" if keys else ""
    return f"""
WITH sets AS MATERIALIZED (
    SELECT {names}block, bit_or(users) AS users
    FROM day_users
    WHERE {IN_DAYS} {UNUSED_TIME} {_NAMED_WHERE}
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
_SUMS, _PUNCTUAL_SUMS = (
    {(source, keys): _sums(cells[source], keys) for source in _SOURCES for keys in _GROUPS}
    for cells in (CELLS, PUNCTUAL_CELLS)
)
_TOTALS, _PUNCTUAL_TOTALS = (
    {source: _totals(cells[source]) for source in _SOURCES} for cells in (CELLS, PUNCTUAL_CELLS)
)
_RANKS = {source: _ranks(CELLS[source]) for source in _SOURCES}
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
NAMED_UNTIL = _named((), edges=False, early=True)

# The cells of some days, and of other stretches of time; each says in which of them it is. They are
# read one by one: joined, two days would be looked for in the sums of all time.
_CELLS_OF = """
SELECT place, endpoint, model, service_tier, {names}
FROM unnest({wanted}, place)
CROSS JOIN LATERAL (
    SELECT endpoint, model, service_tier, {sums}
    FROM {cells}
    GROUP BY endpoint, model, service_tier
) AS cell
"""
CELLS_OF_DAYS = _CELLS_OF.format(
    names=", ".join(SUMS),
    sums=_GROUPED_SUMS,
    wanted="$1::date[]) WITH ORDINALITY AS wanted (part",
    cells="days WHERE day = part",
)
CELLS_OF_STRETCHES = _CELLS_OF.format(
    names=", ".join(SUMS),
    sums=_GROUPED_SUMS,
    wanted="$1::timestamptz[], $2::timestamptz[]) WITH ORDINALITY AS wanted (since, past",
    cells="quarter_hours WHERE bucket >= since AND bucket < past",
)
