"""Rows of the ledger for calls that never were; the number makes the id and the moment."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from proxy.core.model import EPOCH, Correction, LedgerRow, StoredCall
from proxy.core.repricing import DIFFERENCES

MOMENT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def event_id(number: int, at: datetime = MOMENT) -> UUID:
    """Return the UUIDv7 of an event."""
    milliseconds = (at - EPOCH) // timedelta(milliseconds=1)
    return UUID(bytes=milliseconds.to_bytes(6, "big") + (0x7 << 76 | number).to_bytes(10, "big"))


def ledger_row(number: int = 0, /, **changes: object) -> LedgerRow:
    """Return a priced call, with some columns changed; its id follows its moment."""
    moment = changes.get("created_at", MOMENT)
    assert isinstance(moment, datetime)
    row = LedgerRow(
        event_id=event_id(number, moment),
        created_at=moment,
        user_id="ada",
        endpoint="analyze_homework",
        api_path="/v1/chat/completions",
        operation_name="chat",
        upstream="api.openai.com",
        model="gpt-4o-mini-2024-07-18",
        request_model="gpt-4o-mini",
        service_tier="default",
        prompt_tokens=1200,
        completion_tokens=300,
        total_tokens=1500,
        cached_tokens=1000,
        cache_write_tokens=None,
        reasoning_tokens=0,
        audio_prompt_tokens=None,
        audio_completion_tokens=None,
        cost_usd=Decimal("0.000285000001"),
        price_id="gpt-4o-mini@2024-07-18/default",
        catalog_version="2026-11-01",
        unpriced_reason=None,
        usage_source="reported",
        usage_problem=None,
        status=200,
        outcome="ok",
        error_type=None,
        stream=True,
        latency_ms=1234,
        time_to_first_byte_ms=321,
        upstream_request_id="req_1",
        response_id=f"chatcmpl-{number}",
        metadata={"course": "x12"},
        attribution_problem=None,
        raw_usage=b'{"prompt_tokens":1200,"completion_tokens":300,"total_tokens":1500}',
        retry_count=0,
        request_bytes=812,
        response_bytes=2048,
    )
    return replace(row, **changes)  # type: ignore[arg-type]  # the caller names real columns


def unpriced_row(number: int = 0, /, **changes: object) -> LedgerRow:
    """Return a call whose tokens are known and whose price is not."""
    unknown: dict[str, object] = {"cost_usd": None, "price_id": None, "catalog_version": None}
    return ledger_row(number, **(unknown | changes))


def unavailable_row(number: int = 0, /, **changes: object) -> LedgerRow:
    """Return a call of which no usage is known."""
    unknown: dict[str, object] = {
        "usage_source": "unavailable",
        "prompt_tokens": None,
        "completion_tokens": None,
        "total_tokens": None,
        "cached_tokens": None,
        "reasoning_tokens": None,
        "raw_usage": None,
    }
    return unpriced_row(number, **(unknown | changes))


def correction(row: LedgerRow, number: int = 1, /, **changes: object) -> Correction:
    """Return a correction of a call that adds nothing but what is named.

    Its id is a UUIDv8, as those that are made of the call's.
    """
    made = event_id(2**60 + number, row.created_at)
    kept = Correction(
        event_id=UUID(int=made.int & ~(0xF << 76) | 8 << 76),
        created_at=row.created_at,
        corrects=row.event_id,
        correction_number=number,
        usage_source=row.usage_source,
        prompt_tokens=None,
        completion_tokens=None,
        total_tokens=None,
        cached_tokens=None,
        cache_write_tokens=None,
        reasoning_tokens=None,
        audio_prompt_tokens=None,
        audio_completion_tokens=None,
        cost_usd=None,
        tool_cost_usd=None,
        list_cost_usd=None,
        price_id=row.price_id,
        catalog_version=row.catalog_version,
        unpriced_reason=row.unpriced_reason,
        usage_problem=row.usage_problem,
        billed_units=row.billed_units,
        unpriced_change=0,
        estimated_change=0,
        unavailable_change=0,
    )
    return replace(kept, **changes)  # type: ignore[arg-type]  # the caller names real columns


def stored(row: LedgerRow) -> StoredCall:
    """Return how a call stands in the ledger that nobody has corrected."""
    of_its_own: dict[str, Any] = {"corrections": 0, "is_reversed": False, "is_counted": True}
    names = {field.name for field in fields(StoredCall)} - of_its_own.keys()
    return StoredCall(**{name: getattr(row, name) for name in names}, **of_its_own)


def corrected(call: StoredCall, change: Correction) -> StoredCall:
    """Return how a call stands in the ledger after one more correction."""
    sums = {
        name: (getattr(call, name) or 0) + getattr(change, name)
        for name in DIFFERENCES
        if getattr(change, name) is not None
    }
    return replace(
        call,
        corrections=change.correction_number,
        usage_source=change.usage_source,
        usage_problem=change.usage_problem,
        unpriced_reason=change.unpriced_reason,
        price_id=change.price_id,
        billed_units=change.billed_units,
        **sums,
    )
