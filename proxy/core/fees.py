"""What the hosted tools of an answer cost: searches, containers, images made on the way.

Their fees come on top of the tokens and do not depend on them. A fee that cannot be told is no
reason to forget the others: what was used is listed all the same, and the sum is unknown.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated

import msgspec

from proxy.core.catalog import TOOLS_PRICE_ID
from proxy.core.claims import apart
from proxy.core.model import (
    AnswerUnits,
    BilledUnit,
    Closing,
    Cost,
    ToolCost,
    Usage,
    created_at,
)
from proxy.core.pricing import NOTHING, PriceBook
from proxy.core.tariffs import grained
from proxy.core.usage import COUNT_LIMIT, itemised, read_usage
from proxy.errors import UnknownToolFeeError, UnpricedError, UsageError

NO_TOOLS = ToolCost(cost_usd=NOTHING, list_cost_usd=NOTHING)
UNKNOWN = ToolCost(cost_usd=None, list_cost_usd=None)
PREVIEWS = ("web_search_preview_reasoning", "web_search_preview_nonreasoning")
SEARCH_MODELS = ("chat_search_preview_model", "chat_search_model")
TOLD_NOTHING = AnswerUnits()
IMAGE_OPERATION = "images.generations"
SVG_AUTHOR = "svg_author"  # a model of which nothing more is known
CONTAINER_MAKER = "containers.create"
_Count = Annotated[int, msgspec.Meta(ge=0, lt=COUNT_LIMIT)]
CONTAINER_MINUTE = "code_interpreter_container/minute_"


class _Author(msgspec.Struct, frozen=True):
    """The usage of a model that has written an image; reasoning is in its output."""

    model: str
    input_tokens: _Count
    output_tokens: _Count
    reasoning_tokens: _Count = 0


_read_author = msgspec.json.Decoder(_Author).decode


def tool_cost(record: Closing, book: PriceBook) -> ToolCost:
    """Return what the hosted tools of a call cost on top of its tokens."""
    opening, units = record.opening, record.answer_units
    model = record.response_model or opening.request_model
    if opening.operation_name == "chat":
        tool = book.tool_for(SEARCH_MODELS, model)
        return _sum([(tool, 1)], book) if tool else NO_TOOLS
    has_tools = opening.operation_name in {"responses", CONTAINER_MAKER}
    if not has_tools and (units is None or not (units.is_partial or units.authored)):
        return NO_TOOLS
    if units is None:
        return UNKNOWN
    if units == TOLD_NOTHING:
        return NO_TOOLS
    fees = _sum(list(_uses(apart(record, units), model, book)), book)
    images = _images(record, units, book)
    for usage in units.authored:
        images = _added(images, _author(record, usage, book))
    return UNKNOWN if units.is_partial else _added(fees, images)


def _uses(units: AnswerUnits, model: str | None, book: PriceBook) -> Iterator[tuple[str, int]]:
    """Yield the components of what was used."""
    if units.web_searches:
        yield _web_search(units.web_search_tool, model, book), units.web_searches
    if units.file_searches:
        yield "file_search", units.file_searches
    for size in sorted(set(units.containers)):
        yield f"code_interpreter_container/session_{size}", units.containers.count(size)
    for size, minutes in units.container_minutes or ():
        yield CONTAINER_MINUTE + size, minutes


def _web_search(tool: str | None, model: str | None, book: PriceBook) -> str:
    """Return which price a search has: that of the preview tool depends on the model."""
    if tool is None or not tool.startswith("web_search_preview"):
        return tool.partition("_20")[0] if tool else "web_search_by_unknown_tool"
    return book.tool_for(PREVIEWS, model) or "web_search_preview"


def _sum(uses: list[tuple[str, int]], book: PriceBook) -> ToolCost:
    total: Decimal | None = NOTHING
    units = []
    for component, quantity in uses:
        try:
            amount: Decimal | None = grained(book.tool_price(component) * quantity)
        except UnknownToolFeeError:
            amount = None if quantity else NOTHING
        price_id = TOOLS_PRICE_ID if amount is not None else None
        units.append(BilledUnit(component=component, quantity=quantity, price_id=price_id))
        total = None if total is None or amount is None else total + amount
    return ToolCost(cost_usd=total, list_cost_usd=total, units=tuple(units))


def _images(record: Closing, units: AnswerUnits, book: PriceBook) -> ToolCost:
    """Return what images cost that were made on the way: tokens of a model of their own."""
    cost = _image_cost(record, units, book)
    if cost is None or (units.image_calls and not cost.lines):
        count = units.image_calls or 1
        unit = BilledUnit(component="image_generation_call", quantity=count, price_id=None)
        return ToolCost(cost_usd=None, list_cost_usd=None, units=(unit,))
    return _listed(cost)


def _image_cost(record: Closing, units: AnswerUnits, book: PriceBook) -> Cost | None:
    nothing = Cost(cost_usd=NOTHING, price_id="", catalog_version="", lines=())
    if units.image_usage is None:
        return nothing
    try:
        usage = itemised(read_usage(units.image_usage), IMAGE_OPERATION)
        if not usage.input_tokens and not usage.output_tokens:
            return nothing
        if usage.unknown_members:
            return None
        return book.cost(
            usage,
            response_model=units.image_model,
            request_model=None,
            deployment=None,
            service_tier=None,
            operation_name=IMAGE_OPERATION,
            upstream=record.opening.upstream,
            at=created_at(record.opening.event_id),
        )
    except (UnpricedError, UsageError):
        return None


def _author(record: Closing, raw: bytes, book: PriceBook) -> ToolCost:
    """Return what the model costs that has written an image (SVG): tokens at its own prices."""
    try:
        told = _read_author(raw)
        usage = Usage(
            input_tokens=told.input_tokens,
            output_tokens=told.output_tokens,
            reasoning_output_tokens=told.reasoning_tokens,
        )
        cost = book.cost(
            usage,
            response_model=told.model,
            request_model=None,
            deployment=None,
            service_tier=None,
            operation_name="responses",
            upstream=record.opening.upstream,
            at=created_at(record.opening.event_id),
        )
    except (UnpricedError, UsageError, msgspec.MsgspecError, UnicodeDecodeError):
        unit = BilledUnit(component=SVG_AUTHOR, quantity=1, price_id=None)
        return ToolCost(cost_usd=None, list_cost_usd=None, units=(unit,))
    return _listed(cost)


def _listed(cost: Cost) -> ToolCost:
    units = (
        BilledUnit(component=line.component, quantity=line.quantity, price_id=cost.price_id)
        for line in cost.lines
    )
    list_cost = sum((line.amount for line in cost.lines), NOTHING)
    return ToolCost(cost_usd=cost.cost_usd, list_cost_usd=list_cost, units=tuple(units))


def _added(one: ToolCost, other: ToolCost) -> ToolCost:
    return ToolCost(
        cost_usd=_plus(one.cost_usd, other.cost_usd),
        list_cost_usd=_plus(one.list_cost_usd, other.list_cost_usd),
        units=one.units + other.units,
    )


def _plus(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return None if one is None or other is None else one + other
