"""Tests of proxy.core.recalling: a row says all that its cost was made of."""

from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest

from proxy.core.model import AnswerUnits, Closing, Estimate, LedgerRow, RequestUnits
from proxy.core.recalling import record_of
from tests.fakes.rows import ledger_row, stored

FEE = Decimal("0.03")


def recalled(row: LedgerRow) -> Closing:
    """Return the record of a row."""
    return record_of(stored(row))


def units(*lines: str) -> bytes:
    """Return the column of lines such as `1 web_search tools`."""
    listed = []
    for line in lines:
        quantity, component, *price_id = line.split()
        listed.append(
            f'{{"component":"{component}","quantity":{quantity},'
            f'"price_id":{msgspec.json.encode(price_id[0] if price_id else None).decode()}}}'
        )
    return f"[{','.join(listed)}]".encode()


def test_the_facts_of_a_chat_are_recalled() -> None:
    """What decides on its price: model, tier, host, kind, time and usage."""
    row = ledger_row(7, usage_problem="odd")
    record = recalled(row)
    opening = record.opening
    assert opening.event_id == row.event_id.bytes
    assert (opening.operation_name, opening.api_path) == ("chat", "/v1/chat/completions")
    assert (opening.upstream, opening.request_model) == ("api.openai.com", "gpt-4o-mini")
    assert (record.status, record.outcome, record.usage_problem) == (200, "ok", "odd")
    assert (record.response_model, record.response_service_tier) == (row.model, "default")
    assert record.usage == row.raw_usage
    assert record.request_units is None
    assert record.answer_units is None


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("2 image/hd/1024x1024", RequestUnits(images=2, quality="hd", size="1024x1024")),
        ("12 character", RequestUnits(characters=12)),
        ("61 audio_second", RequestUnits(audio_seconds=61.0)),
        ("1 something_else", None),
    ],
)
def test_what_is_billed_by_the_unit_is_recalled(listed: str, expected: RequestUnits | None) -> None:
    """It was counted from a request that nobody has any more."""
    row = ledger_row(raw_usage=None, billed_units=units(listed), usage_source="estimated")
    assert recalled(row).request_units == expected


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ((), AnswerUnits()),
        (("3 web_search tools",), AnswerUnits(web_searches=3, web_search_tool="web_search")),
        (
            ("1 web_search_preview_reasoning tools", "2 file_search tools"),
            AnswerUnits(web_searches=1, web_search_tool="web_search_preview", file_searches=2),
        ),
        (("1 web_search_by_unknown_tool",), AnswerUnits(web_searches=1)),
        (
            (
                "2 code_interpreter_container/session_1g tools",
                "1 code_interpreter_container/session_4g tools",
                "1 image_generation_call",
            ),
            AnswerUnits(containers=("1g", "1g", "4g"), image_calls=1),
        ),
        (
            (
                "7 code_interpreter_container/minute_1g tools",
                "5 code_interpreter_container/minute_unknown",
            ),
            AnswerUnits(container_minutes=(("1g", 7), ("unknown", 5))),
        ),
    ],
)
def test_hosted_tools_are_recalled(listed: tuple[str, ...], expected: AnswerUnits) -> None:
    """Their fees may have changed, or become known."""
    row = ledger_row(
        operation_name="responses", tool_cost_usd=FEE, billed_units=units(*listed) or None
    )
    assert recalled(row).answer_units == expected


AUTHOR = b'{"model":"m","input_tokens":10,"output_tokens":30}'


@pytest.mark.parametrize("operation_name", ["responses", "images.generations"])
def test_who_has_written_an_image_is_recalled(operation_name: str) -> None:
    """A model of its own, or one of which nothing was known."""
    listed = units(
        "10 input m@start/default/short", "30 output m@start/default/short", "1 svg_author"
    )
    row = ledger_row(operation_name=operation_name, tool_cost_usd=FEE, billed_units=listed)
    assert recalled(row).answer_units == AnswerUnits(authored=(AUTHOR, b""))


def test_images_made_on_the_way_are_recalled() -> None:
    """As the usage of the model that made them, component by component."""
    listed = units(
        "50 input gpt-image-1@start/default/short",
        "7 cached_image_input gpt-image-1@start/default/short",
        "5 image_input gpt-image-1@start/default/short",
        "272 image_output gpt-image-1@start/default/short",
    )
    row = ledger_row(operation_name="responses", tool_cost_usd=FEE, billed_units=listed)
    told = recalled(row).answer_units
    assert told is not None
    assert told.image_model == "gpt-image-1"
    assert told.image_usage is not None
    usage = msgspec.json.decode(told.image_usage)
    assert (usage["input_tokens"], usage["output_tokens"]) == (62, 272)
    assert usage["input_tokens_details"]["cached_tokens"] == 7
    assert usage["input_tokens_details"]["image_tokens"] == 12
    assert usage["output_tokens_details"]["image_tokens"] == 272


def test_images_without_a_price_are_of_no_known_model() -> None:
    """A line without a price_id does not say which model it was."""
    row = ledger_row(
        operation_name="responses", tool_cost_usd=FEE, billed_units=units("9 image_output")
    )
    told = recalled(row).answer_units
    assert told is not None
    assert told.image_model == ""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"unpriced_reason": "unknown_tool_fee"}, AnswerUnits(is_partial=True)),
        ({"cost_usd": None, "unpriced_reason": "unknown_model"}, AnswerUnits(is_partial=True)),
    ],
)
def test_tools_that_nobody_counted_stay_unknown(
    changes: dict[str, object], expected: AnswerUnits | None
) -> None:
    """An answer too large to be counted in full; or a row from before tools were looked at."""
    row = replace(ledger_row(operation_name="responses"), **changes)  # type: ignore[arg-type]
    assert recalled(row).answer_units == expected


def test_a_fee_of_a_chat_that_is_not_known_is_still_asked_for() -> None:
    """Chat has its fee by the model, not by what the answer tells."""
    row = ledger_row(unpriced_reason="unknown_tool_fee")
    assert recalled(row).answer_units == AnswerUnits()


def test_an_estimate_is_in_its_columns() -> None:
    """It never had a usage object; its tier, where no answer told one, is in its price_id."""
    row = ledger_row(
        raw_usage=None,
        usage_source="estimated",
        audio_prompt_tokens=7,
        service_tier=None,
        price_id="gpt-4o-mini@2024-07-18/priority/short",
    )
    record = recalled(row)
    assert record.estimate == Estimate(input_tokens=1200, output_tokens=300, audio_input_tokens=7)
    assert record.opening.request_service_tier == "priority"


@pytest.mark.parametrize("price_id", [None, "free", "tools"])
def test_a_price_that_has_no_tier_tells_none(price_id: str | None) -> None:
    """Such as that of a free call."""
    row = ledger_row(service_tier=None, price_id=price_id)
    assert recalled(row).opening.request_service_tier is None
