"""Make a row of the ledger of what a record says and what was read of it: a column for each fact.

What it costs has been found before (`charging`). Here facts get the form that schema.sql takes:
names of a bounded size, JSON that jsonb can hold, milliseconds.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

import msgspec

from proxy.core.catalog import COMPONENTS
from proxy.core.fees import CONTAINER_MINUTE
from proxy.core.model import (
    BilledUnit,
    Closing,
    Cost,
    LedgerRow,
    ToolCost,
    Usage,
    UsageSource,
    created_at,
)
from proxy.core.pricing import list_cost_of

_UNPRICED_TOOLS = ToolCost(cost_usd=None, list_cost_usd=None)
_encode = msgspec.json.Encoder(decimal_format="number").encode
_NAME_OCTETS = 512  # what schema.sql lets into an index
_TIER_OCTETS = 64
_BY_THE_CLOCK = "container_time_estimated"


class Reading(NamedTuple):
    """What a record says about usage and cost."""

    usage: Usage = Usage()
    source: UsageSource = UsageSource.UNAVAILABLE
    cost: Cost | None = None
    unpriced_reason: str | None = None
    problem: str | None = None
    tools: ToolCost = _UNPRICED_TOOLS
    units: tuple[BilledUnit, ...] = ()
    model: str | None = None  # where neither answer nor request names it


def row_of(record: Closing, reading: Reading, model: str | None, tier: str | None) -> LedgerRow:
    """Return the row of a call: each fact in its column, in the form that the column takes."""
    opening, usage, cost, tools = record.opening, reading.usage, reading.cost, reading.tools
    reported = reading.source is UsageSource.REPORTED
    body_bytes = record.request_body_bytes
    clock = _BY_THE_CLOCK if any(_is_timed(unit) for unit in tools.units) else None
    return LedgerRow(
        event_id=UUID(bytes=opening.event_id),
        created_at=created_at(opening.event_id),
        user_id=opening.user_id,
        endpoint=opening.endpoint,
        api_path=opening.api_path,
        operation_name=opening.operation_name,
        upstream=opening.upstream,
        upstream_name=opening.mount,
        model=_fitting(model, _NAME_OCTETS),
        request_model=_fitting(opening.request_model, _NAME_OCTETS),
        service_tier=_fitting(tier, _TIER_OCTETS),
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        cached_tokens=usage.cache_read_input_tokens,
        cache_write_tokens=usage.cache_write_input_tokens,
        reasoning_tokens=usage.reasoning_output_tokens,
        audio_prompt_tokens=usage.audio_input_tokens,
        audio_completion_tokens=usage.audio_output_tokens,
        cost_usd=cost.cost_usd + (tools.cost_usd or 0) if cost else None,
        price_id=cost.price_id if cost else None,
        catalog_version=cost.catalog_version if cost else None,
        unpriced_reason=reading.unpriced_reason,
        usage_source=reading.source._value_,  # what `value` looks up slowly
        usage_problem=joined(reading.problem, clock) if clock else reading.problem,
        status=record.status,
        outcome=record.outcome,
        error_type=_fitting(record.error_type, _NAME_OCTETS),
        stream=opening.stream,
        latency_ms=_milliseconds(record.latency_us),
        time_to_first_byte_ms=_milliseconds(record.time_to_first_byte_us),
        upstream_request_id=record.upstream_request_id,
        response_id=_fitting(record.response_id, _NAME_OCTETS),
        metadata=opening.metadata,
        attribution_problem=opening.attribution_problem,
        raw_usage=_storable(record.usage, is_json=reported),
        retry_count=opening.retry_count,
        request_bytes=opening.request_bytes if body_bytes is None else body_bytes,
        response_bytes=record.response_body_bytes,
        tool_cost_usd=tools.cost_usd,
        list_cost_usd=_list_cost(cost) + (tools.list_cost_usd or 0) if cost else None,
        billed_units=_json_of((*_units(cost), *reading.units, *tools.units)),
    )


def joined(*problems: str | None) -> str | None:
    """Return what is wrong as one text; None: nothing."""
    return "; ".join(problem for problem in problems if problem) or None


def _is_timed(unit: BilledUnit) -> bool:
    """Tell minutes that we have measured, for nobody tells them."""
    return unit.component.startswith(CONTAINER_MINUTE) and bool(unit.quantity)


def _list_cost(cost: Cost) -> Decimal:
    """Return the cost before any contract."""
    return list_cost_of(cost.lines)


def _units(cost: Cost | None) -> Iterable[BilledUnit]:
    """Yield what a cost is made of beside tokens, which have columns of their own."""
    for line in cost.lines if cost else ():
        if line.component not in COMPONENTS and cost:
            yield BilledUnit(
                component=line.component, quantity=line.quantity, price_id=cost.price_id
            )


def _json_of(units: tuple[BilledUnit, ...]) -> bytes | None:
    return _encode(units) if units else None


def _milliseconds(microseconds: int | None) -> int | None:
    return None if microseconds is None else (microseconds + 500) // 1000


def _fitting(text: str | None, octets: int) -> str | None:
    """Return a text that its column takes: not too long, and without U+0000."""
    if text is None or (len(text) <= octets and text.isascii() and "\0" not in text):
        return text
    clean = text.replace("\0", "\ufffd").encode(errors="replace")
    return clean[:octets].decode(errors="ignore")


def _storable(raw: bytes | None, *, is_json: bool) -> bytes | None:
    """Return the bytes unless a jsonb column would refuse them: no JSON, or U+0000 in a text."""
    if raw is None or b"\\u0000" in raw:
        return None
    return raw if is_json or _is_json(raw) else None


def _is_json(raw: bytes) -> bool:
    try:
        msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True
