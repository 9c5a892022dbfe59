"""What several calls tell of and is charged once: which of them charges it, and how much of it.

The end of a realtime response is told to every socket that attends its call (`?call_id=…`), on
whatever host it is read; the row of whoever is recorded first stays the only one. A container in
which one answer after another runs its code is billed by the time that it is in use, at least five
minutes: each row pays for the minutes that it adds. That time is told by nobody, so it goes from
the beginning of the first call in it to the end of the last, and the row says so.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from proxy.core.model import (
    AnswerUnits,
    Closing,
    Container,
    LedgerRow,
    Opening,
    UsageSource,
    created_at,
)

REPORTED = UsageSource.REPORTED.value
ATTENDED = ("realtime.response", "realtime.transcription")
LEAST_MINUTES = 5  # since 2026-06-02, by OpenAI's changelog
GONE_AFTER = timedelta(minutes=20)  # out of use; its id comes never again
UNKNOWN_SIZE = "unknown"
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A container was in use by a call. `minutes`: those that are charged to this call."""

    upstream: str
    container_id: str
    event_id: UUID  # of the row that charges them
    size: str | None  # None: the call does not tell
    began_at: datetime
    ended_at: datetime
    minutes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a row charges that other rows may charge as well."""

    upstream: str
    event_id: UUID
    name: str | None = None  # of what one row alone may charge
    uses: tuple[Use, ...] = ()  # of containers


def claim_of(record: Closing, row: LedgerRow) -> Claim | None:
    """Return what a row has to claim before it is recorded; None: nothing."""
    if row.operation_name in ATTENDED:
        if None in {record.call_id, row.response_id} or row.usage_source != REPORTED:
            return None
        name = f"{row.operation_name}/{record.call_id}/{row.response_id}"
        return Claim(upstream=row.upstream, event_id=row.event_id, name=name)
    units = record.answer_units
    if units is None or not units.ran_in:
        return None
    lasted = timedelta(microseconds=record.latency_us or 0)
    uses = uses_of(record.opening, row.event_id, units.ran_in, lasted)
    return Claim(upstream=row.upstream, event_id=row.event_id, uses=uses)


def uses_of(
    opening: Opening, event_id: UUID, ran_in: Sequence[Container], lasted: timedelta
) -> tuple[Use, ...]:
    """Return the uses of containers by a call, charged by the row of this id."""
    began_at = created_at(opening.event_id)
    return tuple(
        Use(
            upstream=opening.upstream,
            container_id=container.container_id or event_id.hex,
            event_id=event_id,
            size=container.size,
            began_at=began_at,
            ended_at=began_at + lasted,
        )
        for container in ran_in
    )


def charged(use: Use, known: Sequence[Use]) -> Use:
    """Return a use with the minutes that it adds to those that are charged already."""
    mine = [other for other in known if other.container_id == use.container_id]
    for other in mine:
        if other.event_id == use.event_id:
            return other
    began_at, ended_at = use.began_at, use.ended_at
    minutes, left = 0, list(mine)
    while near := [
        other
        for other in left
        if began_at - GONE_AFTER <= other.ended_at and other.began_at <= ended_at + GONE_AFTER
    ]:
        began_at = min(began_at, *(other.began_at for other in near))
        ended_at = max(ended_at, *(other.ended_at for other in near))
        minutes += sum(other.minutes for other in near)
        left = [other for other in left if other not in near]  # near what is near, perhaps
    sizes = (other.size for other in sorted(mine, key=lambda other: other.began_at))
    return dataclasses.replace(
        use,
        size=next((size for size in sizes if size), use.size),
        minutes=max(0, billed_minutes(ended_at - began_at) - minutes),
    )


def billed_minutes(in_use: timedelta) -> int:
    """Return for how many minutes a container is billed that was in use for so long."""
    return max(LEAST_MINUTES, -(-in_use // _MINUTE))


def counted(units: AnswerUnits, uses: Sequence[Use]) -> AnswerUnits:
    """Return what an answer tells with the minutes that its row charges."""
    minutes: dict[str, int] = {}
    for use in uses:
        size = use.size or UNKNOWN_SIZE
        minutes[size] = minutes.get(size, 0) + use.minutes
    return msgspec.structs.replace(units, container_minutes=tuple(sorted(minutes.items())))


def apart(record: Closing, units: AnswerUnits) -> AnswerUnits:
    """Return the same of a call by itself, whatever others have to do with its containers."""
    if units.container_minutes is not None or not units.ran_in:
        return units
    event_id = UUID(bytes=record.opening.event_id)
    lasted = timedelta(microseconds=record.latency_us or 0)
    uses = uses_of(record.opening, event_id, units.ran_in, lasted)
    return counted(units, [charged(use, ()) for use in uses])
