"""The SELECTs of calls: pages of them, one, and what it cost."""

from dashboard.cells import CELLS, ROWS_WHERE

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

# From which day to which a page of calls may reach, out of the sums of days: those with fewer than
# $16 calls between them and where the list begins, at its newest end or ($17) its oldest. NULL: no
# day has any. Without it, calls that are rare or do not exist would be looked for in all rows.
WINDOW = f"""
SELECT min(day) AS first, max(day) AS last
FROM (
    SELECT
        day,
        sum(sum(calls)) OVER (ORDER BY day) - sum(calls) AS older,
        sum(sum(calls)) OVER (ORDER BY day DESC) - sum(calls) AS newer
    FROM ({CELLS["days"]}) AS cell
    GROUP BY day
) AS counted
WHERE $16::bigint IS NULL OR CASE WHEN $17::boolean THEN older ELSE newer END < $16
"""

# What one call cost, component by component.
LINES = """
SELECT component, quantity, list_unit_price, list_cost_usd, cost_usd, price_id, catalog_version
FROM charge_lines
WHERE created_at = $1 AND event_id = $2
ORDER BY cost_usd DESC NULLS LAST, component
"""
