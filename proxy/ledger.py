"""The INSERT: rows of the ledger, with their seal and, by a trigger of schema.sql, their sums.

Only what is really inserted is sealed and counted, so that a batch can be sent again (after a lost
connection, a crash, by two recorders at once) and changes nothing. Rows and sums are written in
the order of their keys: writers wait for each other and do not deadlock. Rows that Postgres
refuses for what is in them are found by halving the batch and handed back; they do not hold up the
others. A row that comes after its month was closed counts at the start of the first open month.

Like `database`, nothing here needs a session, so that pgbouncer may stand in between.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

import asyncpg

from proxy import claiming, deferring
from proxy.core.claims import Claim, Use
from proxy.core.gaps import Unmetered
from proxy.core.model import Correction, LedgerRow, Lines
from proxy.core.pricing import PriceRate
from proxy.core.settling import Noted
from proxy.core.storing import columns, correction_columns
from proxy.database import connect, translated
from proxy.deferring import Price
from proxy.errors import ReportTimezoneError, RowsRefusedError
from proxy.transacting import FAULTS, Transactions

_ROWS_AT_ONCE = 2000  # of a batch with very many lines
_REBUILD_SECONDS = 3600.0
_PACK_SECONDS = 3600.0

# A writer whose network is gone must not keep its locks. The advisory lock is shared among writers;
# rebuild_rollups() takes it alone.
_BEGIN = """
SET LOCAL idle_in_transaction_session_timeout = '60s';
SELECT pg_advisory_xact_lock_shared(hashtextextended('openai-meter rollups', 0));
"""

# What unnest makes of the parameters: the columns that rows have of their own, and those that all
# rows of a kind share. An array that is NULL is a column of NULLs.
_CALLS = """
WITH inserted AS (
    INSERT INTO user_api_usage (
        event_id, created_at, user_id, prompt_tokens, completion_tokens, total_tokens,
        cached_tokens, cache_write_tokens, reasoning_tokens, audio_prompt_tokens,
        audio_completion_tokens, cost_usd, latency_ms, time_to_first_byte_ms, upstream_request_id,
        response_id, metadata, raw_usage, request_bytes, response_bytes, tool_cost_usd,
        list_cost_usd, billed_units, corrects, settles, endpoint, api_path, operation_name,
        upstream, model, request_model, service_tier, price_id, catalog_version, unpriced_reason,
        usage_source, usage_problem, status, outcome, error_type, stream, attribution_problem,
        retry_count, upstream_name, accounted_at
    )
    SELECT
        event.event_id, event.created_at, event.user_id, event.prompt_tokens,
        event.completion_tokens, event.total_tokens, event.cached_tokens,
        event.cache_write_tokens, event.reasoning_tokens, event.audio_prompt_tokens,
        event.audio_completion_tokens, event.cost_usd::numeric, event.latency_ms,
        event.time_to_first_byte_ms, event.upstream_request_id, event.response_id, event.metadata,
        event.raw_usage, event.request_bytes, event.response_bytes, event.tool_cost_usd::numeric,
        event.list_cost_usd::numeric, event.billed_units, event.corrects, event.settles,
        kind.endpoint, kind.api_path, kind.operation_name, kind.upstream, kind.model,
        kind.request_model, kind.service_tier, kind.price_id, kind.catalog_version,
        kind.unpriced_reason, kind.usage_source, kind.usage_problem, kind.status, kind.outcome,
        kind.error_type, kind.stream, kind.attribution_problem, kind.retry_count,
        kind.upstream_name,
        CASE WHEN event.created_at < closed.ends_at THEN closed.ends_at END
    FROM unnest(
        $1::uuid[], $2::timestamptz[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[],
        $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::text[],
        $13::integer[], $14::integer[], $15::text[], $16::text[], $17::jsonb[], $18::jsonb[],
        $19::bigint[], $20::bigint[], $21::text[], $22::text[], $23::jsonb[], $24::uuid[],
        $25::uuid[], $26::integer[]
    ) AS event (
        event_id, created_at, user_id, prompt_tokens, completion_tokens, total_tokens,
        cached_tokens, cache_write_tokens, reasoning_tokens, audio_prompt_tokens,
        audio_completion_tokens, cost_usd, latency_ms, time_to_first_byte_ms, upstream_request_id,
        response_id, metadata, raw_usage, request_bytes, response_bytes, tool_cost_usd,
        list_cost_usd, billed_units, corrects, settles, kind
    )
    JOIN unnest(
        $27::text[], $28::text[], $29::text[], $30::text[], $31::text[], $32::text[], $33::text[],
        $34::text[], $35::text[], $36::text[], $37::text[], $38::text[], $39::smallint[],
        $40::text[], $41::text[], $42::boolean[], $43::text[], $44::integer[], $45::text[]
    ) WITH ORDINALITY AS kind (
        endpoint, api_path, operation_name, upstream, model, request_model, service_tier, price_id,
        catalog_version, unpriced_reason, usage_source, usage_problem, status, outcome, error_type,
        stream, attribution_problem, retry_count, upstream_name, number
    ) ON kind.number = event.kind
    CROSS JOIN (SELECT max(ends_at) AS ends_at FROM closed_month) AS closed
    ORDER BY 2, 1
    ON CONFLICT (created_at, event_id) DO NOTHING
    RETURNING event_id, created_at, row_digest(user_api_usage) AS digest
)
"""

# Who a call was for, and what it was, is copied from the call.
_CORRECTIONS = """
WITH inserted AS (
    INSERT INTO user_api_usage (
        event_id, created_at, corrects, correction_number, usage_source, prompt_tokens,
        completion_tokens, total_tokens, cached_tokens, cache_write_tokens, reasoning_tokens,
        audio_prompt_tokens, audio_completion_tokens, cost_usd, tool_cost_usd, list_cost_usd,
        price_id, catalog_version, unpriced_reason, usage_problem, billed_units, unpriced_change,
        estimated_change, unavailable_change,
        user_id, endpoint, api_path, operation_name, upstream, model, request_model, service_tier,
        status, outcome, stream, metadata, settles, upstream_name, accounted_at
    )
    SELECT
        change.*,  -- what unnest makes of the parameters, in the order of the columns above
        call.user_id, call.endpoint, call.api_path, call.operation_name, call.upstream,
        call.model, call.request_model, call.service_tier, call.status, call.outcome, call.stream,
        call.metadata, call.settles, call.upstream_name,
        CASE WHEN call.created_at < closed.ends_at THEN closed.ends_at END
    FROM unnest(
        $1::uuid[], $2::timestamptz[], $3::uuid[], $4::smallint[], $5::text[], $6::bigint[],
        $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[],
        $13::bigint[], $14::numeric[], $15::numeric[], $16::numeric[], $17::text[], $18::text[],
        $19::text[], $20::text[], $21::jsonb[], $22::smallint[], $23::smallint[], $24::smallint[]
    ) AS change (event_id, created_at, corrects)
    JOIN user_api_usage AS call
        ON call.created_at = change.created_at AND call.event_id = change.corrects
    CROSS JOIN (SELECT max(ends_at) AS ends_at FROM closed_month) AS closed
    ORDER BY 2, 1
    ON CONFLICT (created_at, event_id) DO NOTHING
    RETURNING event_id, created_at, row_digest(user_api_usage) AS digest
)
"""

# Both seal the rows that were really inserted; a trigger of schema.sql adds these to the sums.
_SEAL = """
SELECT
    count(*),
    seal_batch(
        array_agg(event_id ORDER BY created_at, event_id),
        string_agg(digest, '' ORDER BY created_at, event_id),
        min(created_at),
        max(created_at)
    )
FROM inserted
"""

_INSERT = _CALLS + _SEAL
_CORRECT = _CORRECTIONS + _SEAL

_STORE_PRICES = """
INSERT INTO price_rate (catalog_version, price_id, component, list_unit_price)
SELECT $1::text, price_id, component, list_unit_price
FROM unnest($2::text[], $3::text[], $4::numeric[]) AS rate (price_id, component, list_unit_price)
ORDER BY price_id, component
ON CONFLICT (catalog_version, price_id, component) DO NOTHING
"""

# A writer says the same again, or more; only that is sealed.
_NOTE_GAPS = """
INSERT INTO metering_gap AS kept (writer, started_at, ended_at, calls)
SELECT writer, started_at, max(ended_at), max(calls)
FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::bigint[])
    AS gap (writer, started_at, ended_at, calls)
GROUP BY writer, started_at
ORDER BY writer, started_at
ON CONFLICT (writer, started_at) DO UPDATE SET
    ended_at = greatest(kept.ended_at, excluded.ended_at),
    calls = greatest(kept.calls, excluded.calls)
WHERE kept.ended_at < excluded.ended_at OR kept.calls < excluded.calls
RETURNING id_of_gap(writer, started_at)
"""

_SEAL_NOTE = "SELECT seal_note($1)"

_UNMETERED = """
SELECT coalesce(sum(calls), 0)::bigint
FROM metering_gap
WHERE ended_at > now() - interval '400 days'
"""

Columns = Sequence[Sequence[object] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class InsertResult:
    """How many rows are new in the ledger, and which ones Postgres refused, and why."""

    inserted: int = 0
    refused: tuple[tuple[LedgerRow, str], ...] = ()


class Ledger:
    """One writer's way to the ledger."""

    def __init__(self, dsn: str, *, report_timezone: str) -> None:
        self._dsn = dsn
        self._report_timezone = report_timezone
        self._transactions = Transactions(dsn)

    async def insert(
        self, rows: Sequence[LedgerRow], values: Columns | None = None
    ) -> InsertResult:
        """Insert the rows that are not there yet, and add them to the rollups.

        `values`: the columns of the rows, where somebody has had the time to make them.
        """
        if not rows:
            return InsertResult()
        try:
            return InsertResult(inserted=await self._write(_INSERT, values or columns(rows)))
        except RowsRefusedError as exc:
            if len(rows) == 1:
                return InsertResult(refused=((rows[0], str(exc)),))
        middle = len(rows) // 2
        first, second = await self.insert(rows[:middle]), await self.insert(rows[middle:])
        return InsertResult(
            inserted=first.inserted + second.inserted, refused=first.refused + second.refused
        )

    async def correct(self, corrections: Sequence[Correction]) -> int:
        """Append corrections and return how many are new: a number of a call is taken once.

        Whoever finds one taken has worked with an older state of the call than there is.
        """
        if not corrections:
            return 0
        return await self._write(_CORRECT, correction_columns(corrections))

    async def claim(self, claims: Sequence[Claim]) -> list[tuple[Use, ...] | None]:
        """Claim what other rows may charge as well; None: another row charges all of it."""

        async def work(connection: asyncpg.Connection) -> list[tuple[Use, ...] | None]:
            return await claiming.claim(connection, claims)

        return await self._transactions.do(work)

    async def settle(self, notes: Sequence[Noted], lines: Sequence[Lines], price: Price) -> int:
        """Keep what was seen of objects that are billed when they are done; return the new rows.

        Raises RowsRefusedError where Postgres refuses one of them; nothing of it is kept then.
        """

        async def work(connection: asyncpg.Connection) -> int:
            inserted = 0
            async with connection.transaction():
                await connection.execute(_BEGIN)
                settled = await deferring.settle(connection, notes, lines, price)
                for start in range(0, len(settled.rows), _ROWS_AT_ONCE):
                    values = columns(settled.rows[start : start + _ROWS_AT_ONCE])
                    inserted += int(await connection.fetchval(_INSERT, *values))
                if settled.taken_back:
                    back = correction_columns(settled.taken_back)
                    inserted += int(await connection.fetchval(_CORRECT, *back))
            return inserted

        return await self._transactions.do(work)

    async def forget(self) -> None:
        """Drop what is known of objects that were charged long ago, or were never made here."""
        await self._transactions.do(deferring.forget)
        await self._transactions.do(claiming.forget)

    async def open_objects(self) -> int:
        """Return how many objects were made here whose cost is not in the ledger yet."""
        return await self._transactions.do(deferring.open_objects)

    async def store_prices(self, catalog_version: str, rates: Iterable[PriceRate]) -> None:
        """Keep the rates of a price catalogue, so that a cost can be made again by hand."""
        known = {(rate.price_id, rate.component): rate.list_unit_price for rate in rates}
        price_ids = [price_id for price_id, _ in known]
        components = [component for _, component in known]
        prices = list(known.values())

        async def store(connection: asyncpg.Connection) -> None:
            await connection.execute(_STORE_PRICES, catalog_version, price_ids, components, prices)

        await self._transactions.do(store)

    async def note_gaps(self, gaps: Sequence[Unmetered]) -> None:
        """Keep what could not be metered; what is known of a gap already does not count again."""
        values = [list(column) for column in zip(*gaps, strict=True)]

        async def note(connection: asyncpg.Connection) -> None:
            async with connection.transaction():
                for (note_id,) in await connection.fetch(_NOTE_GAPS, *values):
                    await connection.execute(_SEAL_NOTE, note_id)

        await self._transactions.do(note)

    async def unmetered_calls(self) -> int:
        """Return how many calls of the last 400 days were not metered."""

        async def count(connection: asyncpg.Connection) -> int:
            return int(await connection.fetchval(_UNMETERED))

        return await self._transactions.do(count)

    async def ensure_partitions(self) -> int:
        """Make the partitions of the months to come; return how many were new."""

        async def ensure(connection: asyncpg.Connection) -> int:
            return int(await connection.fetchval("SELECT ensure_partitions()"))

        return await self._transactions.do(ensure)

    async def fold_span(self) -> str | None:
        """Fold the sums of a span of days that is over into fewer rows; None: there is none."""

        async def fold(connection: asyncpg.Connection) -> str | None:
            folded: str | None = await connection.fetchval("SELECT fold_span()")
            return folded

        return await self._transactions.do(fold)

    async def pack_spans(self) -> AsyncIterator[str]:
        """Pack the sums of what was folded; yield what it was, one by one.

        It takes seconds each, over a connection of its own, and no writer waits for it. After each
        of them as much time is left to others as it has taken.
        """
        connection = await connect(self._dsn, statement_seconds=_PACK_SECONDS)
        try:
            begun = time.monotonic()
            while (packed := await connection.fetchval("SELECT pack_span()")) is not None:
                yield packed
                await asyncio.sleep(time.monotonic() - begun)
                begun = time.monotonic()
        except FAULTS as exc:
            raise translated(exc, self._dsn) from exc
        finally:
            connection.terminate()

    async def set_report_timezone(self) -> bool:
        """Let days begin in the report time zone; True: they did not, and the sums are new.

        Raises ReportTimezoneError where rows are gone whose sums would have to be made anew.
        """

        async def choose(connection: asyncpg.Connection) -> bool:
            query = "SELECT set_report_timezone($1)"
            zone = self._report_timezone
            try:
                return bool(await connection.fetchval(query, zone, timeout=_REBUILD_SECONDS))
            except asyncpg.ObjectNotInPrerequisiteStateError as exc:
                raise ReportTimezoneError(f"METER_REPORT_TIMEZONE is '{zone}': {exc}") from exc

        return await self._transactions.do(choose)

    async def close(self) -> None:
        """Give the connection back; a later call connects again."""
        await self._transactions.close()

    async def _write(self, statement: str, values: Columns) -> int:
        async def insert(connection: asyncpg.Connection) -> int:
            async with connection.transaction():
                await connection.execute(_BEGIN)
                return int(await connection.fetchval(statement, *values))

        return await self._transactions.do(insert)
