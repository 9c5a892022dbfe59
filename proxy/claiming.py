"""Claim what several calls tell of: which row charges it, and how much of it, for all recorders.

What was claimed stands in the database, so it holds after a restart and for recorders on other
hosts. A row that claims the same again, because its batch was interrupted, gets the same answer.
"""

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from proxy.core.claims import Claim, Use, charged

_NAME = """
INSERT INTO charge_claim (upstream, name, event_id)
SELECT DISTINCT ON (upstream, name) upstream, name, event_id
FROM unnest($1::text[], $2::text[], $3::uuid[]) AS claim (upstream, name, event_id)
ORDER BY upstream, name, event_id
ON CONFLICT (upstream, name) DO NOTHING
"""

_OWNED = """
SELECT event_id
FROM charge_claim
WHERE (upstream, name) IN (SELECT * FROM unnest($1::text[], $2::text[]))
"""

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('openai-meter containers', 0))"

_KNOWN = """
SELECT upstream, container_id, event_id, size, began_at, ended_at, minutes
FROM container_use
WHERE (upstream, container_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
"""

_USE = """
INSERT INTO container_use (upstream, container_id, event_id, size, began_at, ended_at, minutes)
SELECT *  -- what unnest makes of the parameters, in the order of the columns above
FROM unnest(
    $1::text[], $2::text[], $3::uuid[], $4::text[], $5::timestamptz[], $6::timestamptz[],
    $7::integer[]
)
ON CONFLICT (upstream, container_id, event_id) DO NOTHING
"""

_FORGET = """
WITH names AS (
    DELETE FROM charge_claim
    WHERE claimed_at < now() - interval '30 days'
)
DELETE FROM container_use
WHERE claimed_at < now() - interval '30 days'
"""


async def claim(
    connection: asyncpg.Connection, claims: Sequence[Claim]
) -> list[tuple[Use, ...] | None]:
    """Return for each claim the uses that it charges; None: another row charges all of it."""
    async with connection.transaction():
        names = [claim for claim in claims if claim.name is not None]
        owners = await _owners(connection, names) if names else set()
        granted = await claim_uses(connection, [claim.uses for claim in claims])
    return [
        None if claim.name is not None and claim.event_id not in owners else uses
        for claim, uses in zip(claims, granted, strict=True)
    ]


async def claim_uses(
    connection: asyncpg.Connection, calls: Sequence[Sequence[Use]]
) -> list[tuple[Use, ...]]:
    """Return each call's uses of containers with the minutes that they add; in a transaction."""
    granted = await _granted(connection, [use for uses in calls for use in uses])
    found = {(use.container_id, use.event_id): use for use in granted}
    return [tuple(found[use.container_id, use.event_id] for use in uses) for uses in calls]


async def forget(connection: asyncpg.Connection) -> None:
    """Drop claims from so long ago that nobody can tell of the same any more."""
    await connection.execute(_FORGET)


async def _granted(connection: asyncpg.Connection, uses: Sequence[Use]) -> list[Use]:
    if not uses:
        return []
    await connection.execute(_LOCK)
    keys = [use.upstream for use in uses], [use.container_id for use in uses]
    known: dict[tuple[str, str], dict[UUID, Use]] = {}
    for record in await connection.fetch(_KNOWN, *keys):
        use = Use(**dict(record))
        known.setdefault((use.upstream, use.container_id), {})[use.event_id] = use
    granted = []
    for use in sorted(uses, key=lambda use: use.began_at):
        mine = known.setdefault((use.upstream, use.container_id), {})
        granted.append(charged(use, list(mine.values())))
        mine[use.event_id] = granted[-1]
    await connection.execute(_USE, *_values(granted))
    return granted


async def _owners(connection: asyncpg.Connection, names: Sequence[Claim]) -> set[object]:
    keys = [claim.upstream for claim in names], [claim.name for claim in names]
    await connection.execute(_NAME, *keys, [claim.event_id for claim in names])
    return {record["event_id"] for record in await connection.fetch(_OWNED, *keys)}


def _values(uses: Sequence[Use]) -> list[list[object]]:
    return [
        [use.upstream for use in uses],
        [use.container_id for use in uses],
        [use.event_id for use in uses],
        [use.size for use in uses],
        [use.began_at for use in uses],
        [use.ended_at for use in uses],
        [use.minutes for use in uses],
    ]
