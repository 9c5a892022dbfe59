"""What is billed when it is done: from what was seen of an object to the row that charges it.

The row belongs to the call that made the object: its user, its moment, the prices of that moment;
`settles` names it. Its id follows from that call and the object, so that whoever sees the end of
the object, at whatever time and however often, makes the same row. A batch is charged as a whole
where nothing but its own sum is known; that is taken back when its lines are charged.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeVar
from uuid import UUID

import msgspec

from proxy.core.charging import charge, charge_units
from proxy.core.claims import Use, counted, uses_of
from proxy.core.identity import derived
from proxy.core.model import (
    BACKGROUND_TIER,
    Closing,
    Correction,
    LedgerRow,
    Opening,
    Outcome,
    Sighting,
    UsageSource,
)
from proxy.core.objects import ENDS, file_of
from proxy.core.operations import operation_of
from proxy.core.outputs import COMPLETE, OUTPUT
from proxy.core.pricing import PriceBook

BATCH_TIER = "batch"
FAILED = "failed"
MOST_SECONDS = 86_400  # that a response is made
EXTENSION = "videos.extensions"
BY_LINES = "charged_by_its_lines"  # why the sum of a batch was taken back
Number = TypeVar("Number", int | None, Decimal | None)
_OK = 200
_decode = msgspec.json.decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """What is known of an object from one call or from several."""

    upstream: str
    object_id: str
    kind: str
    maker: UUID | None = None  # event_id of the call that made it
    made_at: datetime | None = None  # created_at of that call
    tier: str | None = None  # that it has asked for, where this is what is billed
    asked_seconds: int | None = None  # of a video that is extended: what is new of it
    is_charged: bool = False  # that call's own row charges it
    is_over: bool = False
    state: str | None = None
    file_id: str | None = None  # of a batch: its output
    endpoint: str | None = None  # of a batch: what its lines ask
    lines: int | None = None  # of an output: how many have a usage
    seen: tuple[Sighting, ...] = ()  # its usage, in parts

    @property
    def owes_nothing(self) -> bool:
        """Whether it came to an end that is not charged."""
        return self.is_over and self.state == FAILED and not self.seen


def noted(record: Closing, row: LedgerRow) -> list[Noted]:
    """Return what a call tells of objects that are billed when they are done."""
    return [note for seen in record.sightings if (note := _noted(record, row, seen))]


def _noted(record: Closing, row: LedgerRow, seen: Sighting) -> Noted | None:
    opening = record.opening
    object_id = file_of(opening.api_path) if seen.kind == OUTPUT else seen.object_id
    if not object_id:
        return None
    note = Noted(
        upstream=opening.upstream,
        object_id=object_id,
        kind=seen.kind,
        state=seen.state,
        file_id=seen.file_id,
        endpoint=seen.endpoint,
    )
    if seen.kind == OUTPUT:
        is_whole = seen.state == COMPLETE and record.outcome == Outcome.OK
        whole = dataclasses.replace(note, is_over=True, lines=seen.requests)
        return whole if is_whole else None
    if seen.is_new:
        is_charged = row.usage_source != UsageSource.UNAVAILABLE
        asked, units = opening.request_service_tier or "", record.request_units
        return dataclasses.replace(
            note,
            maker=row.event_id,
            made_at=row.created_at,
            tier=asked if asked.startswith(BACKGROUND_TIER) else None,
            asked_seconds=units.video_seconds if units else None,
            is_charged=is_charged,
        )
    is_over = seen.state in ENDS[seen.kind]
    return dataclasses.replace(note, is_over=is_over, seen=(seen,) if seen.usage else ())


def merged(notes: list[Noted]) -> list[Noted]:
    """Return one note for each object, in the order of their keys."""
    found: dict[tuple[str, str], Noted] = {}
    for note in notes:
        key = note.upstream, note.object_id
        found[key] = _merged(found[key], note) if key in found else note
    return [found[key] for key in sorted(found)]


def _merged(one: Noted, other: Noted) -> Noted:
    """Return both; what is over has the last word about its state."""
    last = one if one.is_over else other
    known = {seen.part for seen in one.seen}
    return dataclasses.replace(
        one,
        maker=one.maker or other.maker,
        made_at=one.made_at or other.made_at,
        tier=one.tier or other.tier,
        asked_seconds=one.asked_seconds or other.asked_seconds,
        is_charged=one.is_charged or other.is_charged,
        is_over=last.is_over,
        state=last.state,
        file_id=one.file_id or other.file_id,
        endpoint=one.endpoint or other.endpoint,
        lines=one.lines if other.lines is None else other.lines,
        seen=one.seen + tuple(seen for seen in other.seen if seen.part not in known),
    )


def settled(maker: Opening, object_id: str, seen: Sighting, book: PriceBook) -> LedgerRow:
    """Return the row that charges an object, or a part of it, to the call that made it."""
    is_batch = seen.kind in {"batch", OUTPUT}
    asked = operation_of("POST", seen.endpoint).name if seen.endpoint else maker.operation_name
    record = Closing(
        opening=msgspec.structs.replace(
            maker,
            event_id=row_id(maker, object_id, seen),
            operation_name=asked,
            api_path=seen.endpoint or maker.api_path,
            metadata=_metadata(maker, seen),
            deployment=maker.deployment or operation_of("POST", maker.api_path).deployment,
            stream=None,
            request_bytes=None,
            retry_count=None,
        ),
        outcome=Outcome.OK,
        status=_OK,
        response_model=seen.model,
        response_service_tier=BATCH_TIER if is_batch else seen.service_tier,
        response_id=seen.response_id or object_id,
        usage=seen.usage,
        answer_units=seen.units,
        requests=seen.requests,
    )
    row = _charged(record, seen, book)
    return dataclasses.replace(row, settles=UUID(bytes=maker.event_id))


def row_id(maker: Opening, object_id: str, seen: Sighting) -> bytes:
    """Return the id of the row that charges an object, or a part of it."""
    names = (object_id, seen.part) if seen.part else (object_id,)
    return derived(maker.event_id, *names)


def containers_of(maker: Opening, object_id: str, seen: Sighting) -> tuple[Use, ...]:
    """Return the uses of containers by an object, or a part of it, for as long as is told."""
    if seen.units is None or not seen.units.ran_in:
        return ()
    charged_by = UUID(bytes=row_id(maker, object_id, seen))
    lasted = timedelta(seconds=min(seen.seconds or 0, MOST_SECONDS))
    return uses_of(maker, charged_by, seen.units.ran_in, lasted)


def with_containers(seen: Sighting, uses: Sequence[Use]) -> Sighting:
    """Return what was seen, with the minutes in containers that are left to be charged."""
    if seen.units is None or not uses:
        return seen
    return msgspec.structs.replace(seen, units=counted(seen.units, uses))


def extended(maker: Opening, seen: Sighting, asked_seconds: int | None) -> Sighting:
    """Return what is new of a video that was extended, whose end tells the length of the whole."""
    if seen.usage is None or maker.operation_name != EXTENSION:
        return seen
    told = _decode(seen.usage) | {"is_whole": asked_seconds is None}
    if asked_seconds is not None:
        told["seconds"] = asked_seconds
    return msgspec.structs.replace(seen, usage=msgspec.json.encode(told))


def _charged(record: Closing, seen: Sighting, book: PriceBook) -> LedgerRow:
    numbers = _decode(seen.usage or b"{}")
    model = seen.model or record.opening.request_model or ""
    if seen.kind == "video":
        component = "video_second_of_whole" if numbers.get("is_whole") else "video_second"
        units = {f"{component}/{numbers['size']}": numbers["seconds"]}
        return charge_units(record, units, book, model=model)
    if seen.kind == "job":
        component = "training_token" if "trained_tokens" in numbers else "reinforced_token"
        tuned = model if model.startswith("ft:") else f"ft:{model}"
        units = {component: next(iter(numbers.values()))}
        return charge_units(record, units, book, model=tuned)
    return charge(record, book)


def _metadata(maker: Opening, seen: Sighting) -> dict[str, object] | None:
    """Return what the client said of the call, and of the line of a batch."""
    if seen.custom_id is None:
        return maker.metadata
    return {"custom_id": seen.custom_id, **(maker.metadata or {})}


def taken_back(charged: LedgerRow) -> Correction:
    """Return what takes a charge out of all sums again."""
    is_unpriced = charged.cost_usd is None or charged.unpriced_reason is not None
    return Correction(
        event_id=UUID(bytes=derived(charged.event_id.bytes, "taken back")),
        created_at=charged.created_at,
        corrects=charged.event_id,
        correction_number=1,
        usage_source=charged.usage_source,
        prompt_tokens=_negative(charged.prompt_tokens),
        completion_tokens=_negative(charged.completion_tokens),
        total_tokens=_negative(charged.total_tokens),
        cached_tokens=_negative(charged.cached_tokens),
        cache_write_tokens=_negative(charged.cache_write_tokens),
        reasoning_tokens=_negative(charged.reasoning_tokens),
        audio_prompt_tokens=_negative(charged.audio_prompt_tokens),
        audio_completion_tokens=_negative(charged.audio_completion_tokens),
        cost_usd=_negative(charged.cost_usd),
        tool_cost_usd=_negative(charged.tool_cost_usd),
        list_cost_usd=_negative(charged.list_cost_usd),
        price_id=charged.price_id,
        catalog_version=charged.catalog_version,
        unpriced_reason=None,
        usage_problem=BY_LINES,
        billed_units=None,
        unpriced_change=-1 if is_unpriced else 0,
        estimated_change=0,
        unavailable_change=0,
    )


def _negative(number: Number) -> Number:
    return None if number is None else -number
