"""The record of a call that is stored, made again from its row.

A row holds everything that its cost was made of: the usage object, and how much of what else was
billed (`billed_units`). What a row does not hold, such as how long the call took, is left out.
"""

from collections.abc import Sequence
from decimal import Decimal

import msgspec

from proxy.core.catalog import COMPONENTS, INPUT_COMPONENTS, OUTPUT_COMPONENTS
from proxy.core.model import (
    AnswerUnits,
    Closing,
    Estimate,
    Opening,
    RequestUnits,
    StoredCall,
    UsageSource,
)
from proxy.errors import UnknownToolFeeError

_UNKNOWN_SEARCH = "web_search_by_unknown_tool"
_PREVIEW = "web_search_preview"
_CONTAINER = "code_interpreter_container/session_"
_CONTAINER_MINUTE = "code_interpreter_container/minute_"
_WITH_TOOLS = ("responses", "containers.create")
_IMAGE_CALL = "image_generation_call"
_SVG_AUTHOR = "svg_author"
_IMAGES = ("image_", "cached_image_")


class _Unit(msgspec.Struct, frozen=True):
    """One line of `billed_units`."""

    component: str
    quantity: Decimal
    price_id: str | None = None


_decode = msgspec.json.Decoder(list[_Unit]).decode


def record_of(call: StoredCall) -> Closing:
    """Return the journal record that the row was made from, as far as its cost goes."""
    units = _decode(call.billed_units) if call.billed_units else []
    opening = Opening(
        event_id=call.event_id.bytes,
        operation_name=call.operation_name,
        method="POST",
        api_path=call.api_path,
        upstream=call.upstream,
        request_model=call.request_model,
        request_service_tier=_asked_tier(call),
        mount=call.upstream_name,
    )
    return Closing(
        opening=opening,
        outcome=call.outcome,
        status=call.status,
        response_model=call.model,
        response_service_tier=call.service_tier,
        usage=call.raw_usage,
        usage_problem=call.usage_problem,
        request_units=None if call.raw_usage else _asked(units),
        answer_units=_told(call, units),
        estimate=_estimate(call),
    )


def _asked_tier(call: StoredCall) -> str | None:
    """Return the tier that an estimate was priced in, where no answer told one."""
    if call.service_tier is not None or call.price_id is None or "@" not in call.price_id:
        return None
    return call.price_id.rpartition("@")[2].split("/")[1]


def _estimate(call: StoredCall) -> Estimate | None:
    """Return what was counted by us; what could not be is in `usage_problem` already."""
    if call.usage_source != UsageSource.ESTIMATED or call.billed_units:
        return None
    return Estimate(
        input_tokens=call.prompt_tokens,
        output_tokens=call.completion_tokens,
        audio_input_tokens=call.audio_prompt_tokens,
        audio_output_tokens=call.audio_completion_tokens,
    )


def _asked(units: Sequence[_Unit]) -> RequestUnits | None:
    """Return what was counted of a call that is billed by the unit."""
    for unit in units:
        if unit.component.startswith("image/"):
            _, quality, size = unit.component.split("/", 2)
            return RequestUnits(images=int(unit.quantity), quality=quality, size=size)
        if unit.component == "character":
            return RequestUnits(characters=int(unit.quantity))
        if unit.component == "audio_second":
            return RequestUnits(audio_seconds=float(unit.quantity))
    return None


def _told(call: StoredCall, units: Sequence[_Unit]) -> AnswerUnits | None:
    """Return which hosted tools were used; None: nobody has looked."""
    if call.operation_name not in _WITH_TOOLS:
        written = [unit for unit in units if unit.component in (*COMPONENTS, _SVG_AUTHOR)]
        if written:
            return AnswerUnits(authored=_authored(written))
        return AnswerUnits() if call.unpriced_reason == UnknownToolFeeError.reason else None
    if call.tool_cost_usd is None and not units:
        is_complete = call.cost_usd is not None and call.unpriced_reason is None
        return None if is_complete else AnswerUnits(is_partial=True)
    searches = [unit for unit in units if unit.component.startswith("web_search")]
    files = [unit.quantity for unit in units if unit.component == "file_search"]
    containers = [
        size
        for unit in units
        for size in [unit.component.removeprefix(_CONTAINER)] * int(unit.quantity)
        if unit.component.startswith(_CONTAINER)
    ]
    minutes = tuple(
        (unit.component.removeprefix(_CONTAINER_MINUTE), int(unit.quantity))
        for unit in units
        if unit.component.startswith(_CONTAINER_MINUTE)
    )
    calls = [unit.quantity for unit in units if unit.component == _IMAGE_CALL]
    tokens = [unit for unit in units if unit.component in COMPONENTS]
    painters = {unit.price_id for unit in tokens if unit.component.startswith(_IMAGES)}
    painted = [unit for unit in tokens if unit.price_id in painters]
    written = [unit for unit in tokens if unit.price_id not in painters]
    written += [unit for unit in units if unit.component == _SVG_AUTHOR]
    return AnswerUnits(
        web_searches=int(sum(unit.quantity for unit in searches)),
        web_search_tool=_search_tool(searches[0].component) if searches else None,
        file_searches=int(sum(files)),
        containers=tuple(containers),
        image_calls=int(sum(calls)),
        image_model=(painted[0].price_id or "").partition("@")[0] if painted else None,
        image_usage=_usage_of_units(painted) if painted else None,
        container_minutes=minutes or None,
        authored=_authored(written),
    )


def _authored(units: Sequence[_Unit]) -> tuple[bytes, ...]:
    """Return usages of models that have written images; of an unknown one, that it is unknown."""
    models = dict.fromkeys(_model(unit) for unit in units if unit.component in COMPONENTS)
    usages = [
        msgspec.json.encode(
            {
                "model": model,
                "input_tokens": _count(units, model, INPUT_COMPONENTS),
                "output_tokens": _count(units, model, OUTPUT_COMPONENTS),
            }
        )
        for model in models
    ]
    return (*usages, *(b"" for unit in units if unit.component == _SVG_AUTHOR))


def _count(units: Sequence[_Unit], model: str, components: Sequence[str]) -> int:
    mine = (unit for unit in units if _model(unit) == model)
    return int(sum(unit.quantity for unit in mine if unit.component in components))


def _model(unit: _Unit) -> str:
    return (unit.price_id or "").partition("@")[0]


def _search_tool(component: str) -> str | None:
    """Return the type of tool; which price the preview one has is for the book to say."""
    if component == _UNKNOWN_SEARCH:
        return None
    return _PREVIEW if component.startswith(_PREVIEW) else component


def _usage_of_units(units: Sequence[_Unit]) -> bytes:
    """Return a usage object that counts these components."""
    count = {unit.component: int(unit.quantity) for unit in units}

    def of(*components: str) -> int:
        return sum(count.get(component, 0) for component in components)

    return msgspec.json.encode(
        {
            "input_tokens": of(*INPUT_COMPONENTS),
            "output_tokens": of(*OUTPUT_COMPONENTS),
            "input_tokens_details": {
                "cached_tokens": of("cached_input", "cached_audio_input", "cached_image_input"),
                "cache_write_tokens": of("cache_write", "cache_write_12h"),
                "cache_write_tokens_details": {"ttl_12h_tokens": of("cache_write_12h")},
                "audio_tokens": of("audio_input", "cached_audio_input"),
                "image_tokens": of("image_input", "cached_image_input"),
                "cached_tokens_details": {
                    "audio_tokens": of("cached_audio_input"),
                    "image_tokens": of("cached_image_input"),
                },
            },
            "output_tokens_details": {
                "audio_tokens": of("audio_output"),
                "image_tokens": of("image_output"),
            },
        }
    )
