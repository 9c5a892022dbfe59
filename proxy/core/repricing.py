"""What a stored call would cost by another price book, and the correction that says so.

The record of the call is made again from its row and goes through `charging` once more, so that a
call that is priced anew costs what it would have cost from the beginning. A cost that is known is
never taken back: where the new book knows none, or not all of it, the call stays as it is.
"""

from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from typing import Any, TypeVar
from uuid import UUID

from proxy.core.charging import charge
from proxy.core.model import Correction, LedgerRow, StoredCall, UsageSource
from proxy.core.pricing import PriceBook
from proxy.core.recalling import record_of

DIFFERENCES = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "audio_prompt_tokens",
    "audio_completion_tokens",
    "cost_usd",
    "tool_cost_usd",
    "list_cost_usd",
)
_DEFERRED = "usage_deferred"  # see `is_unavailable` in schema.sql
_VERSION = 0x8000  # of a UUID that is made by a rule of one's own (RFC 9562 section 5.8)
_VARIANT = 0x8000_0000_0000_0000


_Number = TypeVar("_Number", int, Decimal)


def correction_of(call: StoredCall, row: LedgerRow | None) -> Correction | None:
    """Return what makes the call cost what its new row says; None: it does, or that says less."""
    if row is None or call.is_reversed or not _is_better(row, call):
        return None
    if row.usage_source == UsageSource.UNAVAILABLE:  # free, whatever it has used
        row = replace(row, usage_source=call.usage_source)
    changes: dict[str, Any] = {
        name: _difference(getattr(row, name), getattr(call, name)) for name in DIFFERENCES
    }
    counts = _changes(row, call)
    if not any(counts.values()) and all(change is None for change in changes.values()):
        return None
    return Correction(
        event_id=_correction_id(call.event_id, call.corrections + 1),
        created_at=call.created_at,
        corrects=call.event_id,
        correction_number=call.corrections + 1,
        usage_source=row.usage_source,
        price_id=row.price_id,
        catalog_version=row.catalog_version,
        unpriced_reason=row.unpriced_reason,
        usage_problem=row.usage_problem,
        billed_units=row.billed_units,
        **(changes | counts),
    )


def recharged(call: StoredCall, book: PriceBook) -> LedgerRow | None:
    """Return the row that the call would have by this book; None: its usage cannot be read back."""
    if call.usage_source == UsageSource.REPORTED and call.raw_usage is None:
        return None  # a usage object that no column could hold
    return charge(record_of(call), book)


def _is_better(row: LedgerRow, call: StoredCall) -> bool:
    """Tell whether as much is known of the cost as before."""
    if row.cost_usd is None or (row.tool_cost_usd is None and call.tool_cost_usd is not None):
        return False
    return call.cost_usd is None or call.unpriced_reason is not None or row.unpriced_reason is None


def _difference(new: _Number | None, old: _Number | None) -> _Number | None:
    """Return what has to be added; None: nothing, or it is not known any more."""
    if new is None or old is None:
        return new
    return new - old or None


def _changes(row: LedgerRow, call: StoredCall) -> dict[str, int]:
    """Return how the call is counted from now on, less how it was."""
    counted = call.is_counted
    return {
        "unpriced_change": _is_unpriced(row) - _is_unpriced(call),
        "estimated_change": counted * (_is_estimated(row) - _is_estimated(call)),
        "unavailable_change": counted * (_is_unavailable(row) - _is_unavailable(call)),
    }


def _is_unpriced(row: LedgerRow | StoredCall) -> bool:
    """Tell what the function `unpriced` of schema.sql says."""
    return row.usage_source != UsageSource.UNAVAILABLE and (
        row.cost_usd is None or row.unpriced_reason is not None
    )


def _is_estimated(row: LedgerRow | StoredCall) -> bool:
    return row.usage_source == UsageSource.ESTIMATED


def _is_unavailable(row: LedgerRow | StoredCall) -> bool:
    """Tell what the function `is_unavailable` of schema.sql says."""
    return (
        row.usage_source == UsageSource.UNAVAILABLE
        and row.cost_usd is None
        and row.usage_problem != _DEFERRED
    )


def _correction_id(event_id: UUID, number: int) -> UUID:
    """Return the id that the correction of that number has, whoever makes it.

    Of two that correct a call at the same time only one is kept.
    """
    digest = sha256(event_id.bytes + number.to_bytes(2, "big")).digest()
    free = int.from_bytes(digest[:10], "big") & ~(0xF000 << 64 | 0xC000 << 48)
    return UUID(bytes=event_id.bytes[:6] + (free | _VERSION << 64 | _VARIANT).to_bytes(10, "big"))
