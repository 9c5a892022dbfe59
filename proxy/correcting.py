"""Calls as they stand in the ledger, to be priced anew: page after page, in the order of time.

Only SELECTs; what comes of them is written by `ledger`. Days and months are those of the report
time zone, as everywhere else.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

import asyncpg

from proxy.core.model import StoredCall
from proxy.database import connect, translated

PAGE_CALLS = 1000

# To compile the question for a page takes thirty times as long as to answer it.
_BEGIN = """
SET LOCAL jit = off
"""

_RANGE = """
SELECT
    coalesce(
        $1::date, date_trunc('month', now() AT TIME ZONE value) - interval '1 month'
    )::timestamp AT TIME ZONE value AS starts_at,
    $2::date::timestamp AT TIME ZONE value AS ends_at
FROM meter_settings
WHERE name = 'report_timezone'
"""

_COUNT = """
SELECT count(*)
FROM user_api_usage
WHERE
    corrects IS NULL
    AND created_at >= $1
    AND created_at < $2
    AND ($3::text IS NULL OR $3 IN (model, request_model, split_part(price_id, '@', 1)))
"""

_PAGE = """
SELECT
    call.event_id,
    call.created_at,
    call.api_path,
    call.operation_name,
    call.upstream,
    call.upstream_name,
    call.model,
    call.request_model,
    call.service_tier,
    call.status,
    call.outcome,
    call.raw_usage,
    state.usage_problem,
    state.usage_source,
    state.unpriced_reason,
    state.price_id,
    state.billed_units,
    state.prompt_tokens,
    state.completion_tokens,
    state.total_tokens,
    state.cached_tokens,
    state.cache_write_tokens,
    state.reasoning_tokens,
    state.audio_prompt_tokens,
    state.audio_completion_tokens,
    state.cost_usd,
    state.tool_cost_usd,
    state.list_cost_usd,
    state.corrections,
    state.is_reversed,
    call.settles IS NULL AS is_counted,
    date_trunc('month', call.created_at AT TIME ZONE zone.value)::date AS month,
    date_trunc(
        'month',
        CASE WHEN call.created_at < closed.ends_at THEN closed.ends_at ELSE call.created_at END
            AT TIME ZONE zone.value
    )::date AS accounting_month
FROM user_api_usage AS call
JOIN corrected_calls AS state
    ON state.created_at = call.created_at AND state.event_id = call.event_id
JOIN meter_settings AS zone ON zone.name = 'report_timezone'
CROSS JOIN (SELECT max(ends_at) AS ends_at FROM closed_month) AS closed
WHERE
    call.corrects IS NULL
    AND call.created_at >= $1
    AND call.created_at < $2
    AND (
        $3::text IS NULL
        OR $3 IN (call.model, call.request_model, split_part(call.price_id, '@', 1))
    )
    AND (call.created_at, call.event_id) > ($1, $4)
ORDER BY call.created_at, call.event_id
LIMIT $5
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Which calls are meant: from the start of a day until before another one begins.

    `first` None: from the start of last month.
    """

    first: date | None
    until: date
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A call, the month that it was made in, and the one that a correction of it counts in."""

    call: StoredCall
    month: date
    accounting_month: date


class Calls:
    """The calls of a span; one connection, which the caller closes."""

    def __init__(self, dsn: str, span: Span, *, page_calls: int = PAGE_CALLS) -> None:
        self._dsn = dsn
        self._page_calls = page_calls
        self._span = span
        self._connection: asyncpg.Connection | None = None

    async def count(self) -> int:
        """Return how many there are."""
        starts_at, ends_at = await self._range()
        rows = await self._fetch(_COUNT, starts_at, ends_at, self._span.model)
        return int(rows[0][0])

    async def pages(self) -> AsyncIterator[list[Found]]:
        """Yield all of them, a page at a time."""
        at, ends_at = await self._range()
        last = UUID(int=0)
        model, size = self._span.model, self._page_calls
        while page := await self._fetch(_PAGE, at, ends_at, model, last, size):
            yield [_found(row) for row in page]
            at, last = page[-1]["created_at"], page[-1]["event_id"]

    async def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _range(self) -> tuple[datetime, datetime]:
        rows = await self._fetch(_RANGE, self._span.first, self._span.until)
        return rows[0]["starts_at"], rows[0]["ends_at"]

    async def _fetch(self, query: str, *values: object) -> Sequence[asyncpg.Record]:
        if self._connection is None:
            self._connection = await connect(self._dsn)
        try:
            async with self._connection.transaction(readonly=True):
                await self._connection.execute(_BEGIN)
                return await self._connection.fetch(query, *values)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
            raise translated(exc, self._dsn) from exc


def _found(row: asyncpg.Record) -> Found:
    values = dict(row)
    months = {name: values.pop(name) for name in ("month", "accounting_month")}
    for name in ("raw_usage", "billed_units"):  # jsonb comes as text
        values[name] = values[name].encode() if values[name] is not None else None
    return Found(call=StoredCall(**values), **months)
