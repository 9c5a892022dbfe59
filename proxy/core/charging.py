"""From a journal record to a row of the ledger: facts become sums here, and nowhere else.

Pure, so that a record gives the same row however often it is replayed. What the provider did not
say stays None; a cost that cannot be known stays None and the row says why. An answer that failed
is not charged, whatever it says about usage. Where an answer counts no tokens and its model is
billed by images, characters or seconds, these are counted from the call and marked as estimated.
"""

from collections.abc import Mapping
from decimal import Decimal
from math import ceil

from proxy.core.catalog import FREE_PRICE_ID, TOOLS_PRICE_ID
from proxy.core.components import Quantities
from proxy.core.fees import CONTAINER_MAKER, tool_cost
from proxy.core.model import (
    BACKGROUND_TIER,
    BilledUnit,
    Closing,
    Cost,
    Estimate,
    LedgerRow,
    Opening,
    Outcome,
    ToolCost,
    Usage,
    UsageSource,
    created_at,
)
from proxy.core.operations import operation_of
from proxy.core.pricing import NOTHING, PriceBook
from proxy.core.registry import MEDIA_ELSEWHERE, SESSIONS, TIMED_SESSIONS
from proxy.core.rows import Reading, joined, row_of
from proxy.core.units import IMAGE_MAKERS, estimated_units, tokens_by_size
from proxy.core.usage import itemised, read_usage
from proxy.core.verdicts import UNPRICED
from proxy.errors import UnknownRateError, UnknownToolFeeError, UnpricedError, UsageError

_CONTRADICTORY = "contradictory_usage"
_ELSEWHERE = "media_passes_elsewhere"
_SESSION_LOST = "session_lost"  # with its worker: what was being made in it is not known
_FIRST_ERROR_STATUS = 400
_SUCCESS = range(200, 300)
_SWITCHED = 101
_SESSIONS = {name for _, name in SESSIONS}
_ANSWERED = {Outcome.OK, Outcome.CLIENT_DISCONNECTED, Outcome.TIMEOUT}
_BY_SIZE = "prompt_counted_by_size"


def charge(record: Closing, book: PriceBook) -> LedgerRow:
    """Return the row of an exchange that is over, priced at the moment it was sent."""
    book = book.of(record.opening.mount)
    tier = _tier(record)
    model = record.response_model or _asked_model(record.opening, book)
    reading = _reading(record, book)
    model = model or reading.model or _deployment(record.opening)
    return row_of(record, reading, model, book.tier(tier) if tier else None)


def charge_units(
    record: Closing, quantities: Mapping[str, int], book: PriceBook, *, model: str
) -> LedgerRow:
    """Return the row of an object that is billed by units which the provider has reported."""
    book = book.of(record.opening.mount)
    nothing = ToolCost(cost_usd=NOTHING, list_cost_usd=NOTHING)
    reading = Reading(source=UsageSource.REPORTED, tools=nothing)
    named = record.response_model or _asked_model(record.opening, book)
    try:
        reading = _by_units(reading, record, quantities, book, model=model)
    except UsageError as exc:
        reading = reading._replace(unpriced_reason=_CONTRADICTORY, problem=str(exc))
    return row_of(record, reading, named or _deployment(record.opening), None)


def _by_units(
    reading: Reading,
    record: Closing,
    quantities: Quantities,
    book: PriceBook,
    *,
    model: str | None,
) -> Reading:
    """Return a reading with the cost of units, or with the reason why there is none."""
    opening, reason = record.opening, UnknownRateError.reason
    at = created_at(opening.event_id)
    try:
        cost = book.unit_cost(quantities, model=model, upstream=opening.upstream, at=at)
    except UnpricedError as exc:
        cost, reason = None, exc.reason
    if cost is not None:
        return reading._replace(cost=cost)
    units = tuple(
        BilledUnit(component=component, quantity=quantity, price_id=None)
        for component, quantity in quantities.items()
    )
    return reading._replace(unpriced_reason=reason, units=units)


def _reading(record: Closing, book: PriceBook) -> Reading:
    name = record.opening.operation_name
    if name in MEDIA_ELSEWHERE and record.status in _SUCCESS:
        free = _free(book) if book.is_free(name) else Reading()
        return free._replace(problem=_ELSEWHERE)
    if name in _SESSIONS and (reading := _session(record, book)) is not None:
        return reading
    if book.is_free(name):
        return _free(book)
    if record.usage is None:
        by_units = _container(record, book) or _estimated(record, book)
        return _unpriced(record) or by_units or _counted(record, book)
    if (record.status or 0) >= _FIRST_ERROR_STATUS:
        return Reading(problem=record.usage_problem)
    return _reported(record, record.usage, book)


def _unpriced(record: Closing) -> Reading | None:
    """Return why there is no price for a kind of call that has succeeded; None: there may be."""
    name, status = record.opening.operation_name, record.status
    if name not in UNPRICED or not (status in _SUCCESS or status == _SWITCHED):
        return None
    return Reading(problem=UNPRICED[name][0])


def _session(record: Closing, book: PriceBook) -> Reading | None:
    """Return what a session costs; None: nothing by itself, for what is billed in it has rows."""
    if record.status is None and record.outcome == Outcome.INTERRUPTED:
        return Reading(problem=_SESSION_LOST)
    if record.opening.operation_name in TIMED_SESSIONS and record.status == _SWITCHED:
        return _timed(record, book)
    return Reading(problem=record.usage_problem) if record.usage_problem else None


def _timed(record: Closing, book: PriceBook) -> Reading:
    """Return what a session costs that is billed by its time: as reported, else as it lasted."""
    nothing = ToolCost(cost_usd=NOTHING, list_cost_usd=NOTHING)
    model = record.response_model or record.opening.request_model or _deployment(record.opening)
    reading = Reading(tools=nothing, problem=record.usage_problem)
    lasted = (record.latency_us or 0) - (record.time_to_first_byte_us or 0)
    quantities: Quantities = {"session_second": max(0, ceil(Decimal(lasted) / 1_000_000))}
    try:
        if record.usage is None:
            reading = reading._replace(source=UsageSource.ESTIMATED)
        else:
            quantities = {"session_second": _seconds_told(record.usage)}
            reading = reading._replace(source=UsageSource.REPORTED)
        return _by_units(reading, record, quantities, book, model=model)
    except UsageError as exc:
        return Reading(unpriced_reason=_CONTRADICTORY, problem=str(exc))


def _seconds_told(raw: bytes) -> Decimal:
    usage = read_usage(raw)
    if usage.audio_seconds is None:
        raise UsageError("The usage of a session counts no seconds.")
    return usage.audio_seconds


def _reported(record: Closing, raw: bytes, book: PriceBook) -> Reading:
    try:
        usage = itemised(read_usage(raw), record.opening.operation_name)
    except UsageError as exc:
        return Reading(unpriced_reason=_CONTRADICTORY, problem=str(exc))
    cost = reason = None
    problem, tools = _problem(record, usage), tool_cost(record, book)
    try:
        cost = _cost(record, usage, book, tier=_tier(record))
    except UnpricedError as exc:
        reason = exc.reason
    except UsageError as exc:
        reason, problem = _CONTRADICTORY, str(exc)
    reading = Reading(usage, UsageSource.REPORTED, cost, reason, problem, tools)
    return reading if cost is None else _with_tools(reading, record)


def _free(book: PriceBook) -> Reading:
    """Return what is known of a call that costs nothing, because the price list says so."""
    nothing = ToolCost(cost_usd=NOTHING, list_cost_usd=NOTHING)
    return Reading(cost=_nothing(book, FREE_PRICE_ID), tools=nothing)


def _container(record: Closing, book: PriceBook) -> Reading | None:
    """Return what a container costs that was made: the time that is billed in any case."""
    if record.opening.operation_name != CONTAINER_MAKER or record.status not in _SUCCESS:
        return None
    tools = tool_cost(record, book)
    if not tools.units:
        return None
    reading = Reading(source=UsageSource.ESTIMATED, tools=tools)
    if tools.cost_usd is None:
        return reading._replace(unpriced_reason=UnknownToolFeeError.reason)
    return reading._replace(cost=_nothing(book, TOOLS_PRICE_ID))


def _nothing(book: PriceBook, price_id: str) -> Cost:
    return Cost(cost_usd=NOTHING, price_id=price_id, catalog_version=book.catalog_version, lines=())


def _with_tools(reading: Reading, record: Closing) -> Reading:
    """Say so where tools were used and their fees are not known: the sum is not complete."""
    if reading.tools.cost_usd is not None or record.answer_units is None:
        return reading
    return reading._replace(unpriced_reason=UnknownToolFeeError.reason)


def _estimated(record: Closing, book: PriceBook) -> Reading | None:
    """Return what a call costs that is billed by the unit; None: it is not, or nobody knows."""
    opening = record.opening
    if record.estimate is not None and opening.operation_name in IMAGE_MAKERS:
        return None  # its model bills tokens
    quantities = estimated_units(opening.operation_name, record.request_units, record.answer_units)
    if quantities is None or record.status not in _SUCCESS or record.outcome not in _ANSWERED:
        return None
    named = record.response_model or opening.request_model
    named = named or _deployment(opening)
    model = named or book.default_model(opening.operation_name)
    estimated = Reading(
        source=UsageSource.ESTIMATED,
        tools=tool_cost(record, book),
        model=None if named else model,
    )
    try:
        cost = book.unit_cost(
            quantities,
            model=model,
            upstream=opening.upstream,
            at=created_at(opening.event_id),
        )
    except UnpricedError as exc:
        units = tuple(
            BilledUnit(component=component, quantity=quantity, price_id=None)
            for component, quantity in quantities.items()
        )
        return estimated._replace(unpriced_reason=exc.reason, units=units)
    return _with_tools(estimated._replace(cost=cost), record) if cost else None


def _counted(record: Closing, book: PriceBook) -> Reading:
    """Return what a call costs by the tokens that we have counted ourselves, if we have."""
    estimate = record.estimate or _estimate_by_size(record)
    if estimate is None:
        return Reading(problem=record.usage_problem)
    problem = joined(record.usage_problem, estimate.note)
    if not estimate.is_known:
        return Reading(problem=problem)
    tokens = (estimate.input_tokens, estimate.output_tokens)
    usage = Usage(
        input_tokens=estimate.input_tokens,
        output_tokens=estimate.output_tokens,
        total_tokens=sum(n for n in tokens if n) if None not in tokens else None,
        audio_input_tokens=estimate.audio_input_tokens,
        audio_output_tokens=estimate.audio_output_tokens,
    )
    usage = itemised(usage, record.opening.operation_name)
    counted = Reading(usage, UsageSource.ESTIMATED, problem=problem, tools=tool_cost(record, book))
    try:
        tier = record.response_service_tier or record.opening.request_service_tier
        return counted._replace(cost=_cost(record, usage, book, tier=tier))
    except UnpricedError as exc:
        return counted._replace(unpriced_reason=exc.reason)


def _estimate_by_size(record: Closing) -> Estimate | None:
    """Return what the opening of a call tells of which nothing else is left."""
    if record.outcome != Outcome.INTERRUPTED or record.latency_us is not None:
        return None
    opening = record.opening
    tokens = tokens_by_size(opening.operation_name, opening.request_bytes)
    return None if tokens is None else Estimate(input_tokens=tokens, note=_BY_SIZE)


def _problem(record: Closing, usage: Usage) -> str | None:
    if record.usage_problem or not usage.unknown_members:
        return record.usage_problem
    return f"not priced, for no rule knows it: {', '.join(usage.unknown_members)}"


def _asked_model(opening: Opening, book: PriceBook) -> str | None:
    return book.asked_model(
        deployment=_deployment(opening),
        request_model=opening.request_model,
        upstream=opening.upstream,
    )


def _tier(record: Closing) -> str | None:
    """Return the tier that is billed: the answer's, unless the request has agreed to wait."""
    asked = record.opening.request_service_tier
    return asked if asked and asked.startswith(BACKGROUND_TIER) else record.response_service_tier


def _deployment(opening: Opening) -> str | None:
    """Return the Azure deployment; records of earlier releases have it in their path alone."""
    return opening.deployment or operation_of(opening.method, opening.api_path).deployment


def _cost(record: Closing, usage: Usage, book: PriceBook, *, tier: str | None) -> Cost:
    opening = record.opening
    return book.cost(
        usage,
        response_model=record.response_model,
        request_model=opening.request_model,
        deployment=_deployment(opening),
        service_tier=tier,
        operation_name=opening.operation_name,
        upstream=opening.upstream,
        at=created_at(opening.event_id),
        requests=record.requests,
    )
