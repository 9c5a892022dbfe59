"""Objects that are billed when they are done: gather what is known of each, charge it once.

Everything happens under one lock for all recorders, in one transaction: what was noted is merged
into `deferred_object`, and what has now both a maker and an end is handed to whoever prices it. The
rows that come back belong to the call that made the object; their ids follow from it, so that the
ledger would take none of them twice even if this table were lost.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import msgspec

from proxy.claiming import claim_uses
from proxy.core.model import Correction, LedgerRow, Lines, Opening, Sighting
from proxy.core.settling import (
    Noted,
    containers_of,
    extended,
    merged,
    taken_back,
    with_containers,
)

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('openai-meter deferred objects', 0))"

_NOTE = """
INSERT INTO deferred_object AS kept (
    upstream, object_id, kind, maker, made_at, tier, state, is_over, file_id, endpoint, lines,
    seen, charged, asked_seconds
)
SELECT *  -- what unnest makes of the parameters, in the order of the columns above
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::uuid[], $5::timestamptz[], $6::text[], $7::text[],
    $8::boolean[], $9::text[], $10::text[], $11::integer[], $12::bytea[], $13::text[],
    $14::integer[]
)
ON CONFLICT (upstream, object_id) DO UPDATE SET
    maker = coalesce(kept.maker, excluded.maker),
    made_at = coalesce(kept.made_at, excluded.made_at),
    tier = coalesce(kept.tier, excluded.tier),
    asked_seconds = coalesce(kept.asked_seconds, excluded.asked_seconds),
    state = CASE WHEN kept.is_over THEN kept.state ELSE coalesce(excluded.state, kept.state) END,
    is_over = kept.is_over OR excluded.is_over,
    file_id = coalesce(kept.file_id, excluded.file_id),
    endpoint = coalesce(kept.endpoint, excluded.endpoint),
    lines = coalesce(kept.lines, excluded.lines),
    seen = coalesce(kept.seen, excluded.seen),
    charged = CASE WHEN kept.charged = 'open' THEN excluded.charged ELSE kept.charged END
"""

_NOTE_LINES = """
INSERT INTO deferred_line (upstream, file_id, line_id, seen)
SELECT DISTINCT ON (upstream, file_id, line_id) upstream, file_id, line_id, seen
FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[])
    AS line (upstream, file_id, line_id, seen)
ON CONFLICT (upstream, file_id, line_id) DO NOTHING
"""

# Ledgers from before there was this table know who made a background response by its id.
_FIND_MAKERS = """
UPDATE deferred_object AS object
SET maker = call.event_id, made_at = call.created_at
FROM user_api_usage AS call
WHERE (object.upstream, object.object_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
    AND object.maker IS NULL
    AND object.seen IS NOT NULL
    AND object.kind = 'response'
    AND call.response_id = object.object_id
    AND call.upstream = object.upstream
    AND call.operation_name = 'responses'
    AND call.usage_problem = 'usage_deferred'
"""

_WHOLE = """
SELECT
    object.upstream, object.object_id, object.seen, object.tier, object.endpoint AS asked,
    object.asked_seconds,
    call.event_id, call.user_id, call.endpoint, call.api_path, call.operation_name,
    call.request_model, call.metadata, call.attribution_problem, call.upstream_name
FROM deferred_object AS object
JOIN user_api_usage AS call
    ON call.created_at = object.made_at AND call.event_id = object.maker
WHERE (object.upstream, object.object_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
    AND object.charged = 'open'
    AND object.seen IS NOT NULL
ORDER BY object.upstream, object.object_id
FOR UPDATE OF object
"""

_BY_LINES = """
SELECT
    batch.upstream, batch.object_id, batch.file_id, batch.charged, batch.tier,
    batch.endpoint AS asked, file.lines,
    call.event_id, call.created_at, call.user_id, call.endpoint, call.api_path,
    call.operation_name, call.request_model, call.metadata, call.attribution_problem,
    call.upstream_name
FROM deferred_object AS batch
JOIN deferred_object AS file
    ON file.upstream = batch.upstream AND file.object_id = batch.file_id
JOIN user_api_usage AS call
    ON call.created_at = batch.made_at AND call.event_id = batch.maker
WHERE (batch.upstream, batch.object_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
    AND batch.kind = 'batch'
    AND batch.charged IN ('open', 'whole', 'lines')
    AND file.kind = 'output'
ORDER BY batch.upstream, batch.object_id
FOR UPDATE OF batch
"""

_BATCHES_OF = """
SELECT upstream, object_id
FROM deferred_object
WHERE (upstream, file_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
"""

_LINES = """
DELETE FROM deferred_line
WHERE upstream = $1
    AND file_id = $2
    AND (SELECT count(*) FROM deferred_line WHERE upstream = $1 AND file_id = $2) >= $3
RETURNING seen
"""

_CHARGED_WHOLE = """
SELECT
    event_id, created_at, user_id, endpoint, api_path, operation_name, upstream, model,
    request_model, service_tier, prompt_tokens, completion_tokens, total_tokens, cached_tokens,
    cache_write_tokens, reasoning_tokens, audio_prompt_tokens, audio_completion_tokens, cost_usd,
    price_id, catalog_version, unpriced_reason, usage_source, usage_problem, status, outcome,
    error_type, stream, latency_ms, time_to_first_byte_ms, upstream_request_id, response_id,
    metadata, attribution_problem, raw_usage, retry_count, request_bytes, response_bytes,
    tool_cost_usd, list_cost_usd, billed_units, corrects, settles, upstream_name
FROM corrected_calls  -- what it costs now, should it have been priced anew
JOIN (
    SELECT
        created_at, event_id, error_type, latency_ms, time_to_first_byte_ms, upstream_request_id,
        attribution_problem, raw_usage, retry_count, request_bytes, response_bytes, corrects,
        settles
    FROM user_api_usage
    WHERE created_at = $1 AND settles = $2 AND corrects IS NULL
) AS charge USING (created_at, event_id)
WHERE NOT is_reversed
"""

_MARK = """
UPDATE deferred_object
SET charged = $3
WHERE upstream = $1 AND object_id = $2
"""

_FORGET = """
WITH lines AS (
    DELETE FROM deferred_line
    WHERE noted_at < now() - interval '30 days'
)
DELETE FROM deferred_object
WHERE noted_at < now() - interval '30 days' AND (charged <> 'open' OR maker IS NULL)
"""

_OPEN = """
SELECT count(*)
FROM deferred_object
WHERE charged = 'open' AND maker IS NOT NULL
"""

_encode = msgspec.msgpack.Encoder().encode
_read_parts = msgspec.msgpack.Decoder(tuple[Sighting, ...]).decode
_read_line = msgspec.msgpack.Decoder(Sighting).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """An object, or the lines of a batch, that can be charged to the call that made it."""

    maker: Opening
    object_id: str
    parts: tuple[Sighting, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The rows that follow from what was noted, and the charges that they take the place of."""

    rows: tuple[LedgerRow, ...] = ()
    taken_back: tuple[Correction, ...] = ()


Price = Callable[[Due], list[LedgerRow]]


async def settle(
    connection: asyncpg.Connection,
    notes: Sequence[Noted],
    lines: Sequence[Lines],
    price: Price,
) -> Settled:
    """Keep what was noted and return what follows; within a transaction of the caller's."""
    await connection.execute(_LOCK)
    notes = merged(list(notes))
    keys = [note.upstream for note in notes], [note.object_id for note in notes]
    if lines:
        await connection.execute(_NOTE_LINES, *_line_values(lines))
    if not notes:
        return Settled()
    await connection.execute(_NOTE, *keys, *_values(notes))
    await connection.execute(_FIND_MAKERS, *keys)
    batches = await connection.fetch(_BATCHES_OF, *keys)
    keys[0].extend(batch["upstream"] for batch in batches)
    keys[1].extend(batch["object_id"] for batch in batches)
    rows: list[LedgerRow] = []
    back: list[Correction] = []
    for batch in await connection.fetch(_BY_LINES, *keys):
        by_lines = await _charge_lines(connection, batch, price)
        rows += by_lines.rows
        back += by_lines.taken_back
    for found in await connection.fetch(_WHOLE, *keys):
        maker, seen = _maker(found), _read_parts(found["seen"])
        parts = tuple(extended(maker, part, found["asked_seconds"]) for part in seen)
        due = Due(maker=maker, object_id=found["object_id"], parts=parts)
        rows += await _priced(connection, due, price)
        await connection.execute(_MARK, found["upstream"], found["object_id"], "whole")
    return Settled(rows=tuple(rows), taken_back=tuple(back))


async def forget(connection: asyncpg.Connection) -> None:
    """Drop what is of no use any more: charged long ago, or made by nobody that was seen."""
    await connection.execute(_FORGET)


async def open_objects(connection: asyncpg.Connection) -> int:
    """Return how many objects were made here and not seen done: what they cost is not known yet."""
    return int(await connection.fetchval(_OPEN))


async def _charge_lines(
    connection: asyncpg.Connection, batch: asyncpg.Record, price: Price
) -> Settled:
    of_file = batch["upstream"], batch["file_id"], batch["lines"]
    seen = await connection.fetch(_LINES, *of_file)
    if not seen or batch["charged"] == "lines":  # downloaded again
        return Settled()
    whole: Iterable[asyncpg.Record] = ()
    if batch["charged"] == "whole":
        whole = await connection.fetch(_CHARGED_WHOLE, batch["created_at"], batch["event_id"])
    parts = (_read_line(line["seen"]) for line in seen)
    due = Due(
        maker=_maker(batch),
        object_id=batch["object_id"],
        parts=tuple(msgspec.structs.replace(part, endpoint=batch["asked"]) for part in parts),
    )
    await connection.execute(_MARK, batch["upstream"], batch["object_id"], "lines")
    return Settled(
        rows=tuple(await _priced(connection, due, price)),
        taken_back=tuple(taken_back(_row(record)) for record in whole),
    )


async def _priced(connection: asyncpg.Connection, due: Due, price: Price) -> list[LedgerRow]:
    asked = [containers_of(due.maker, due.object_id, part) for part in due.parts]
    if any(asked):
        granted = await claim_uses(connection, asked)
        parts = (with_containers(part, uses) for part, uses in zip(due.parts, granted, strict=True))
        due = replace(due, parts=tuple(parts))
    return await asyncio.to_thread(price, due)  # a batch has up to 50,000 lines


def _maker(found: asyncpg.Record) -> Opening:
    metadata = found["metadata"]
    return Opening(
        event_id=found["event_id"].bytes,
        operation_name=found["operation_name"],
        method="POST",
        api_path=found["api_path"],
        upstream=found["upstream"],
        user_id=found["user_id"],
        endpoint=found["endpoint"],
        metadata=json.loads(metadata) if metadata else None,
        attribution_problem=found["attribution_problem"],
        request_model=found["request_model"],
        request_service_tier=found["tier"],
        mount=found["upstream_name"],
    )


def _row(record: asyncpg.Record) -> LedgerRow:
    values: dict[str, Any] = dict(record)
    values["metadata"] = json.loads(values["metadata"]) if values["metadata"] else None
    for name in ("raw_usage", "billed_units"):
        values[name] = values[name].encode() if values[name] else None
    return LedgerRow(**values)


def _values(notes: Sequence[Noted]) -> list[list[object]]:
    return [
        [note.kind for note in notes],
        [note.maker for note in notes],
        [note.made_at for note in notes],
        [note.tier for note in notes],
        [note.state for note in notes],
        [note.is_over for note in notes],
        [note.file_id for note in notes],
        [note.endpoint for note in notes],
        [note.lines for note in notes],
        [_encode(note.seen) if note.seen else None for note in notes],
        [_charged(note) for note in notes],
        [note.asked_seconds for note in notes],
    ]


def _charged(note: Noted) -> str:
    if note.is_charged:
        return "by maker"
    return "nothing" if note.owes_nothing else "open"


def _line_values(lines: Sequence[Lines]) -> list[list[object]]:
    found = [(record, seen) for record in lines for seen in record.lines]
    return [
        [record.upstream for record, _ in found],
        [record.file_id for record, _ in found],
        [seen.part for _, seen in found],
        [_encode(seen) for _, seen in found],
    ]
