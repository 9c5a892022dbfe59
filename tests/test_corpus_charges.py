"""Every recorded exchange, from its bytes to its row: usage, cost, fees, and nothing twice."""

import base64
import gzip
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.core import evidence
from proxy.core.charging import charge
from proxy.core.estimates import estimate
from proxy.core.metering import AnswerMeter, RequestMeter
from proxy.core.model import Closing, LedgerRow, Opening
from proxy.core.operations import operation_of
from proxy.core.settling import merged, noted, settled
from proxy.estimating import count
from proxy.pricefile import load_price_book
from proxy.resources import resource

pytestmark = pytest.mark.corpus

BOOK = load_price_book(resource("pricing.yaml"))
SENT = int(datetime(2026, 11, 22, tzinfo=UTC).timestamp() * 1000)
EVENT_ID = SENT.to_bytes(6, "big") + bytes.fromhex("70008000000000000001")
FORMS = ("images.", "audio.")  # kinds whose model stands in the request alone


def recordings(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the exchanges that do not contradict themselves."""
    with gzip.open(path) as lines:
        for line in lines:
            exchange = json.loads(line)
            if "include_usage_mismatch" not in exchange["features"]:
                yield exchange


def pieces(body: bytes) -> Iterator[bytes]:
    """Cut a body somewhere, always at the same places."""
    generator = random.Random(len(body))  # noqa: S311 (cuts, not secrets)
    position = 0
    while position < len(body):
        size = generator.randrange(1, 4096)
        yield body[position : position + size]
        position += size


def row_of(exchange: dict[str, Any]) -> LedgerRow:
    """Return the row of an exchange, as a worker and the recorder would make it."""
    return charge(record_of(exchange), BOOK)


def record_of(exchange: dict[str, Any]) -> Closing:
    """Return what a worker notes of an exchange."""
    operation = operation_of(exchange["method"], exchange["path"])
    sent = exchange["request_body"] or ""
    request = RequestMeter(
        operation,
        content_type=exchange["request_headers"].get("content-type") or "",
        content_encoding="",
        max_bytes=1 << 20,
    )
    for piece in pieces(
        base64.b64decode(sent) if exchange["request_body_is_b64"] else sent.encode()
    ):
        request.feed(piece)
    answer = AnswerMeter(
        operation,
        status=exchange["status"],
        content_type=exchange["response_headers"].get("content-type") or "",
        content_encoding="",
        max_event_bytes=1 << 24,
        keep_bytes=1 << 18,
    )
    for piece in pieces(base64.b64decode(exchange["response_body_b64"])):
        answer.feed(piece)
    asked, seen = request.finish(), answer.finish()
    opening = Opening(
        event_id=EVENT_ID,
        operation_name=operation.name,
        method=exchange["method"],
        api_path=exchange["path"],
        upstream="api.openai.com",
        request_model=asked.model,
        request_service_tier=asked.service_tier,
        deployment=operation.deployment,
    )
    closing = Closing(
        opening=opening,
        outcome="upstream_error" if seen.failed else "ok",
        status=exchange["status"],
        response_model=seen.response_model,
        response_service_tier=seen.response_service_tier,
        usage=seen.usage,
        usage_problem=seen.usage_problem,
        error_type=seen.error_type,
        time_to_first_byte_us=1,
        request_units=asked.units,
        answer_units=seen.units,
        sightings=seen.sightings,
    )
    if closing.usage is None:
        question = evidence.question(closing, operation, seen, request.body)
        found = estimate(question, count) if question else None
        closing = msgspec.structs.replace(closing, estimate=found)
    return closing


def differences(exchange: dict[str, Any], row: LedgerRow) -> Iterator[str]:
    """Yield what a row says otherwise than the recording."""
    usage = json.loads(row.raw_usage) if row.raw_usage else None
    told = exchange["metering"] == "usage_in_body"
    if told and usage != exchange["usage"]:
        yield f"usage is {usage}, recorded {exchange['usage']}"
    if (row.usage_source == "reported") != told:
        yield f"usage is {row.usage_source}, but {exchange['metering']}"
    if exchange["metering"] not in {"usage_in_body", "usage_missing"} and row.cost_usd:
        yield f"{row.cost_usd} is charged, but {exchange['metering']}"
    if exchange["endpoint"].startswith(FORMS) and row.request_model != exchange["request_model"]:
        yield f"the model is {row.request_model}, recorded {exchange['request_model']}"
    reference = exchange.get("cost_reference")
    if told and reference is not None:
        cost = float((row.cost_usd or Decimal(0)) - (row.tool_cost_usd or Decimal(0)))
        if cost != pytest.approx(reference, rel=1e-9, abs=1e-12):
            yield f"tokens cost {cost}, recorded {reference}"


def test_every_exchange_is_charged_as_recorded(corpus_path: Path) -> None:
    """Usage and the cost of tokens are equal, and what is no charge is none."""
    found = [
        f"{exchange['id']} {exchange['endpoint']} {what}"
        for exchange in recordings(corpus_path)
        for what in differences(exchange, row_of(exchange))
    ]
    assert not found, "\n".join(found)


def test_every_kind_is_estimated_free_or_unknown_as_decided(corpus_path: Path) -> None:
    """Of the calls whose answers tell no usage: how it is known, and which have a cost."""
    decided: dict[str, set[tuple[str, bool]]] = {}
    for exchange in recordings(corpus_path):
        if exchange["metering"] not in {"usage_in_body", "error"}:
            row = row_of(exchange)
            outcome = (row.usage_source, row.cost_usd is not None)
            decided.setdefault(exchange["endpoint"], set()).add(outcome)
    free, unknown, estimated = ("unavailable", True), ("unavailable", False), ("estimated", True)
    expected = {
        "images.generations": {estimated},
        "images.edits": {estimated},
        "images.variations": {estimated},
        "audio.transcriptions": {estimated},
        "audio.translations": {estimated, unknown},  # one upload was not recorded
        "audio.speech": {estimated},
        "chat.completions": {estimated},
        "completions": {estimated},
        "responses": {unknown, estimated},  # in the background, and a stream that failed
        "responses.retrieve": {free},
        "files.content": {free},
        "chat.completions.list": {free},
        "threads.runs.create": {unknown},
        "threads.create_and_run": {unknown},
        "threads.runs.retrieve": {free},
        "threads.runs.list": {free},
        "threads.runs.steps": {free},
        "threads.runs.submit_tool_outputs": {free},
        "moderations": {free},
        "models": {free},
        "responses.input_tokens": {free},
        "conversations": {free},
        "vector_stores": {free},
        "batches": {free, unknown},  # to poll one, to make one
        "fine_tuning": {free, unknown},  # likewise
    }
    assert {kind: decided[kind] for kind in expected} == expected


def test_what_is_billed_when_it_is_done_is_charged_as_recorded(corpus_path: Path) -> None:
    """Of each object one charge, by the usage of its end; a repeat without a maker is none."""
    notes, makers, ends = [], {}, {}
    for exchange in recordings(corpus_path):
        record = record_of(exchange)
        told = noted(record, charge(record, BOOK))
        notes += told
        for note in told:
            if note.maker is not None:
                makers[note.object_id] = record.opening
            if note.seen:
                ends[note.object_id] = exchange
    found = {note.object_id: note for note in merged(notes)}
    charged = {
        name: settled(makers[name], name, note.seen[0], BOOK)
        for name, note in found.items()
        if note.maker is not None and note.seen and not note.is_charged
    }
    assert len(charged) == 15
    for name, row in charged.items():
        assert json.loads(row.raw_usage or b"") == ends[name]["usage"], name
        assert float(row.cost_usd or 0) == pytest.approx(ends[name]["cost_reference"]), name
    unmade = {name for name, note in found.items() if note.maker is None and note.seen}
    assert len(unmade) == 22  # made before their recordings began
    assert {found[name].kind for name in unmade} == {"response", "run", "job"}


def test_nothing_that_is_marked_as_a_repeat_is_charged_by_its_own_row(corpus_path: Path) -> None:
    """And of what is billed one call alone has no cost."""
    missing: dict[str, int] = {}
    for exchange in recordings(corpus_path):
        row, metering = row_of(exchange), exchange["metering"]
        if metering in {"usage_repeated_or_async", "usage_deferred", "not_metered", "error"}:
            assert not row.cost_usd, exchange["id"]
            assert row.raw_usage is None, exchange["id"]
        elif row.cost_usd is None:
            missing[f"{metering} {exchange['endpoint']}"] = (
                missing.get(f"{metering} {exchange['endpoint']}", 0) + 1
            )
    assert missing == {"usage_missing audio.translations": 1}  # whose upload was not recorded


def test_every_hosted_tool_that_was_used_is_billed_or_flagged(corpus_path: Path) -> None:
    """Searches and not pages, containers and not runs, and images whose tokens nobody told."""
    total: dict[tuple[str, str | None], Decimal] = {}
    for exchange in recordings(corpus_path):
        row = row_of(exchange)
        units = json.loads(row.billed_units or b"[]")
        if row.operation_name not in {"responses", "chat"}:
            continue
        flagged = any(unit["price_id"] is None for unit in units)
        assert (row.unpriced_reason == "unknown_tool_fee") == flagged
        assert row.usage_source != "reported" or (row.tool_cost_usd is None) == flagged
        for unit in units:
            key = unit["component"], unit["price_id"]
            total[key] = total.get(key, Decimal(0)) + Decimal(unit["quantity"])
    assert total == {
        ("chat_search_preview_model", "tools"): 1,
        ("code_interpreter_container/minute_1g", "tools"): 50,
        ("file_search", "tools"): 11,
        ("image_generation_call", None): 14,
        ("web_search", "tools"): 11,
        ("web_search_preview_nonreasoning", "tools"): 7,
        ("web_search_preview_reasoning", "tools"): 4,
    }
