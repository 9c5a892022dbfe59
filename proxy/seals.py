"""Check the seals: whether a row was changed, removed or put in since it was recorded.

Each seal holds the digests of a batch of rows, and hashes chain the seals (section 7 of
schema.sql). First the chains are followed, then each seal is compared with its rows, then rows are
looked for that no seal knows. What is found is named. Rows of months that were let go of are not
missed.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from uuid import UUID

import asyncpg

from proxy.core.model import created_at
from proxy.database import connect, translated
from proxy.rollups import Period

_STATEMENT_SECONDS = 3600.0
_SEALS_AT_ONCE = 50
_DIGEST_BYTES = 16

_CHAINS = """
WITH link AS (
    SELECT
        chain,
        number,
        lag(number, 1, 0::bigint) OVER (PARTITION BY chain ORDER BY number) AS before,
        hash = seal_hash(
            lag(hash, 1, ''::bytea) OVER (PARTITION BY chain ORDER BY number),
            chain, number, sealed_at, content_hash
        ) AS is_linked,
        event_ids IS NULL
        OR content_hash = sha256(array_send(event_ids) || digests) AS is_whole,
        event_ids IS NOT NULL OR is_let_go(first_created_at, last_created_at) AS has_its_rows,
        first_created_at <= last_created_at
        AND isfinite(first_created_at)
        AND isfinite(last_created_at)
        AND first_created_at = coalesce(event_moment(event_ids[1]), first_created_at)
        AND last_created_at
            = coalesce(event_moment(event_ids[cardinality(event_ids)]), last_created_at)
            AS has_its_time
    FROM seal
)
SELECT
    chain,
    number,
    CASE
        WHEN number <> before + 1
            THEN 'the seals before it are missing, from ' || before + 1 || ' on'
        WHEN NOT is_whole THEN 'its list of rows was changed'
        WHEN NOT has_its_rows THEN 'its list of rows was removed'
        WHEN NOT has_its_time THEN 'its stretch of time was changed'
        ELSE 'it does not follow from the seal before it: one of the two was changed'
    END AS finding
FROM link
WHERE number <> before + 1 OR NOT (is_whole AND is_linked AND has_its_rows AND has_its_time)
UNION ALL
SELECT
    seal_chain.chain,
    seal_chain.number,
    'it is the last of its chain, and missing or another one'
FROM seal_chain
LEFT JOIN seal ON seal.chain = seal_chain.chain AND seal.number = seal_chain.number
WHERE seal_chain.number > 0 AND seal.hash IS DISTINCT FROM seal_chain.hash
UNION ALL
SELECT seal.chain, seal.number, 'it stands behind the last of its chain'
FROM seal
LEFT JOIN seal_chain ON seal_chain.chain = seal.chain
WHERE seal.number > coalesce(seal_chain.number, 0)
ORDER BY 1, 2
"""

_SEALS = """
SELECT chain, number, event_ids, digests, first_created_at, last_created_at
FROM seal
WHERE (chain, number) > ($1::smallint, $2::bigint)
    AND event_ids IS NOT NULL
    AND NOT is_note(event_ids[1])
    AND isfinite(first_created_at)
    AND isfinite(last_created_at)
    AND last_created_at >= day_begins($3)
    AND first_created_at < day_begins($4)
ORDER BY chain, number
LIMIT $5
"""

_DIGESTS = """
SELECT usage.event_id, usage.created_at, row_digest(usage) AS digest
FROM user_api_usage AS usage
WHERE created_at >= $1 AND created_at <= $2 AND event_id = ANY($3::uuid[])
"""

_GONE = """
SELECT month
FROM retired_month
"""

# The next month that has rows, as far as its days are asked for.
_NEXT_MONTH = """
SELECT
    greatest(month AT TIME ZONE 'UTC', day_begins($2)) AS since,
    least((month + interval '1 month') AT TIME ZONE 'UTC', day_begins($3)) AS past
FROM (
    SELECT date_trunc('month', min(created_at) AT TIME ZONE 'UTC') AS month
    FROM user_api_usage
    WHERE created_at >= greatest($1, day_begins($2)) AND created_at < day_begins($3)
) AS next
WHERE month IS NOT NULL
"""

_UNSEALED = """
SELECT usage.event_id, usage.created_at, usage.recorded_at
FROM user_api_usage AS usage
LEFT JOIN (
    SELECT unnest(event_ids) AS event_id, first_created_at, last_created_at
    FROM seal
    WHERE last_created_at >= $1 AND first_created_at < $2
) AS sealed
    ON sealed.event_id = usage.event_id
    AND usage.created_at BETWEEN sealed.first_created_at AND sealed.last_created_at
WHERE sealed.event_id IS NULL AND usage.created_at >= $1 AND usage.created_at < $2
ORDER BY usage.created_at, usage.event_id
"""


_NOTES = """
SELECT
    CASE (get_byte(uuid_send(note_id), 6)) & 15
        WHEN 1 THEN 'the gap that began'
        WHEN 2 THEN 'the closing of the month that began'
        WHEN 3 THEN 'the letting go of the month that began'
    END AS kind,
    moment,
    CASE
        WHEN chain IS NULL THEN 'was put in beside openai-meter'
        WHEN is_there THEN 'was changed (seal ' || chain || '/' || number || ')'
        ELSE 'is missing (seal ' || chain || '/' || number || ')'
    END AS finding
FROM ledger_note_check
WHERE NOT is_as_sealed
ORDER BY moment, kind
"""

# No call was ever made then, and no range of days has it.
_OUT_OF_TIME = """
SELECT event_id
FROM user_api_usage
WHERE created_at < '0001-01-01Z' OR created_at >= '9999-12-31Z'
"""

_GAPS = """
SELECT writer, started_at, ended_at, calls
FROM metering_gap
WHERE ended_at >= day_begins($1) AND started_at < day_begins($2)
ORDER BY started_at, writer
"""


async def gaps(dsn: str, period: Period) -> Sequence[str]:
    """Return a sentence for each stretch of time in which calls were not metered.

    It is known and stated, and nothing that anybody has done to the ledger since.
    """
    connection = await connect(dsn, statement_seconds=_STATEMENT_SECONDS)
    try:
        return [
            f"{gap['calls']} {'call was' if gap['calls'] == 1 else 'calls were'} not metered "
            f"between {_shown(gap['started_at'])} and "
            f"{_shown(gap['ended_at'])}: {gap['writer']} could not write them down"
            for gap in await connection.fetch(_GAPS, period.first, period.past)
        ]
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
        raise translated(exc, dsn) from exc
    finally:
        connection.terminate()


async def findings(dsn: str, period: Period) -> AsyncIterator[str]:
    """Yield a sentence for each seal or row that is not as it was recorded."""
    connection = await connect(dsn, statement_seconds=_STATEMENT_SECONDS)
    try:
        for row in await connection.fetch(_CHAINS):
            yield f"seal {row['chain']}/{row['number']}: {row['finding']}"
        for row in await connection.fetch(_NOTES):
            yield f"{row['kind']} at {_shown(row['moment'])} {row['finding']}"
        async for finding in _of_rows(connection, period):
            yield finding
        async for finding in _unsealed(connection, period):
            yield finding
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
        raise translated(exc, dsn) from exc
    finally:
        connection.terminate()


async def _of_rows(connection: asyncpg.Connection, period: Period) -> AsyncIterator[str]:
    """Compare each seal with its rows, some seals at a time."""
    gone = {row["month"] for row in await connection.fetch(_GONE)}
    chain, number = 0, 0
    days = (period.first, period.past)
    while seals := await connection.fetch(_SEALS, chain, number, *days, _SEALS_AT_ONCE):
        chain, number = seals[-1]["chain"], seals[-1]["number"]
        found = await connection.fetch(
            _DIGESTS,
            min(seal["first_created_at"] for seal in seals),
            max(seal["last_created_at"] for seal in seals),
            [event_id for seal in seals for event_id in seal["event_ids"]],
        )
        rows: defaultdict[UUID, list[asyncpg.Record]] = defaultdict(list)
        for row in found:
            rows[row["event_id"]].append(row)
        for seal in seals:
            for finding in _compared(seal, rows, gone):
                yield finding


def _compared(
    seal: asyncpg.Record, rows: Mapping[UUID, Sequence[asyncpg.Record]], gone: set[date]
) -> Iterator[str]:
    """Yield what is wrong with the rows of a seal."""
    where = f"(seal {seal['chain']}/{seal['number']})"
    for place, event_id in enumerate(seal["event_ids"]):
        at = _DIGEST_BYTES * place
        sealed, present = seal["digests"][at : at + _DIGEST_BYTES], rows.get(event_id, ())
        others = [row for row in present if row["digest"] != sealed]
        moment = created_at(event_id.bytes)
        name = f"row {event_id} of {_shown(moment)}"
        if not present and moment.date().replace(day=1) not in gone:
            yield f"{name} is missing {where}"
        elif present and len(others) == len(present):
            yield f"{name} was changed {where}"
        elif others:
            yield from (f"{name} stands again at {row['created_at']} {where}" for row in others)


async def _unsealed(connection: asyncpg.Connection, period: Period) -> AsyncIterator[str]:
    """Look for rows that no seal knows, a month at a time."""
    for row in await connection.fetch(_OUT_OF_TIME):
        yield f"row {row['event_id']} was put in beside the recorder, at a time that there is not"
    past = datetime.min.replace(tzinfo=UTC)
    days = (period.first, period.past)
    while month := await connection.fetchrow(_NEXT_MONTH, past, *days):
        since, past = month
        for row in await connection.fetch(_UNSEALED, since, past):
            yield (
                f"row {row['event_id']} of {_shown(row['created_at'])} was put in beside the "
                f"recorder, it says at {_shown(row['recorded_at'])}"
            )


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
