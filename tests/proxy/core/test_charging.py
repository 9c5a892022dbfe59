import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest

from proxy.core.catalog import Catalog, Contract, Deployment, Entry, Period, Tool
from proxy.core.charging import charge
from proxy.core.model import (
    AnswerUnits,
    Closing,
    Container,
    Estimate,
    LedgerRow,
    Opening,
    RequestUnits,
)
from proxy.core.pricing import NOTHING, PriceBook

SENT = datetime(2026, 11, 22, 12, 0, 0, 123_000, tzinfo=UTC)
EVENT_ID = int(SENT.timestamp() * 1000).to_bytes(6, "big") + bytes.fromhex("70008000000000000001")
USAGE = b"""{"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120,
 "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
 "completion_tokens_details": {"reasoning_tokens": 8, "audio_tokens": 0}}"""
PERIOD = Period(
    rates={"input": Decimal(2), "cached_input": Decimal(1), "output": Decimal(8)},
    tiers={"priority": Decimal(2)},
)
HEARD = Period(units={"audio_minute": Decimal("0.006")})
TALKED = Period(units={"session_minute": Decimal("0.06")})
PAINTED = Period(units={"image/standard/1024x1024": Decimal("0.02")})
BRUSHED = Period(rates={"image_output": Decimal(40), "input": Decimal(5)})
BOOK = PriceBook(
    Catalog(
        version="7",
        entries=(
            Entry(model_id="m", names=("m", "m-1"), periods=(PERIOD,)),
            Entry(model_id="hears", names=("hears",), periods=(HEARD,)),
            Entry(model_id="talks", names=("talks",), periods=(TALKED,)),
            Entry(model_id="paints", names=("paints",), periods=(PAINTED,)),
            Entry(model_id="brushes", names=("brushes",), periods=(BRUSHED,)),
        ),
        contracts=(
            Contract(
                factor=Decimal("0.5"),
                start=datetime(2026, 1, 1, tzinfo=UTC),
                models=frozenset({"hears"}),
            ),
        ),
        tier_names={"auto": "default", "fast": "priority"},
        tools={
            "web_search": Tool(unit_prices={"web_search": Decimal("0.01")}),
            "code_interpreter_container": Tool(
                unit_prices={"code_interpreter_container/minute_4g": Decimal("0.006")}
            ),
        },
        free=frozenset({"models.list", "realtime.connect", "realtime.client_secrets"}),
        default_models={"images.edits": "paints"},
        deployments={"chat": Deployment(model="m")},
    ),
    "7+abc",
)
OPENING = Opening(
    event_id=EVENT_ID,
    operation_name="chat",
    method="POST",
    api_path="/v1/chat/completions",
    upstream="api.openai.com",
    user_id="ada",
    endpoint="generate_hint",
    metadata={"course": "x12"},
    attribution_problem="X-Meter-Metadata is not JSON",
    request_model="m",
    request_service_tier="auto",
    stream=True,
    request_bytes=900,
    retry_count=1,
)
CLOSING = Closing(
    opening=OPENING,
    outcome="ok",
    status=200,
    response_model="m-1",
    response_service_tier="auto",
    response_id="chatcmpl-1",
    upstream_request_id="req_1",
    usage=USAGE,
    latency_us=1_234_500,
    time_to_first_byte_us=499,
    response_body_bytes=5_000,
)


def row_of(**changes: object) -> LedgerRow:
    """Charge the call above, changed a little."""
    return charge(msgspec.structs.replace(CLOSING, **changes), BOOK)


def test_a_call_becomes_a_row_with_its_cost() -> None:
    """Every fact has its column, and the price is that of the moment the call was sent."""
    assert charge(CLOSING, BOOK) == LedgerRow(
        event_id=UUID(bytes=EVENT_ID),
        created_at=SENT,
        user_id="ada",
        endpoint="generate_hint",
        api_path="/v1/chat/completions",
        operation_name="chat",
        upstream="api.openai.com",
        model="m-1",
        request_model="m",
        service_tier="default",
        prompt_tokens=100,
        completion_tokens=20,
        total_tokens=120,
        cached_tokens=64,
        cache_write_tokens=None,
        reasoning_tokens=8,
        audio_prompt_tokens=0,
        audio_completion_tokens=0,
        cost_usd=Decimal("0.000296"),
        price_id="m@start/default/short",
        catalog_version="7+abc",
        unpriced_reason=None,
        usage_source="reported",
        usage_problem=None,
        status=200,
        outcome="ok",
        error_type=None,
        stream=True,
        latency_ms=1235,
        time_to_first_byte_ms=0,
        upstream_request_id="req_1",
        response_id="chatcmpl-1",
        metadata={"course": "x12"},
        attribution_problem="X-Meter-Metadata is not JSON",
        raw_usage=USAGE,
        retry_count=1,
        request_bytes=900,
        response_bytes=5_000,
        tool_cost_usd=Decimal(0),
        list_cost_usd=Decimal("0.000296"),
        billed_units=None,
    )


def test_an_exchange_whose_worker_died_has_a_prompt_of_about_its_size() -> None:
    """Nobody knows what was answered."""
    row = charge(Closing(opening=OPENING, outcome="interrupted"), BOOK)
    assert (row.outcome, row.usage_source, row.status) == ("interrupted", "estimated", None)
    assert (row.prompt_tokens, row.completion_tokens, row.total_tokens) == (150, None, None)
    assert (row.cost_usd, row.usage_problem) == (Decimal("0.0003"), "prompt_counted_by_size")
    assert (row.event_id, row.created_at, row.model) == (UUID(bytes=EVENT_ID), SENT, "m")
    assert (row.user_id, row.metadata, row.request_bytes) == ("ada", {"course": "x12"}, 900)


@pytest.mark.parametrize(
    "changes",
    [
        {"request_bytes": None},
        {"request_bytes": 1 << 17},
        {"operation_name": "images.edits"},
    ],
)
def test_an_exchange_whose_worker_died_claims_nothing_where_its_size_says_nothing(
    changes: dict[str, object],
) -> None:
    """An image is large and has few tokens."""
    opening = msgspec.structs.replace(OPENING, **changes)
    row = charge(Closing(opening=opening, outcome="interrupted"), BOOK)
    assert (row.usage_source, row.cost_usd, row.prompt_tokens) == ("unavailable", None, None)
    assert (row.usage_problem, row.unpriced_reason) == (None, None)


def test_a_call_that_was_interrupted_by_a_stop_is_not_guessed_at() -> None:
    """Its closing has what could be counted."""
    row = row_of(usage=None, outcome="interrupted")
    assert (row.usage_source, row.prompt_tokens) == ("unavailable", None)


def test_without_usage_tokens_and_cost_are_unknown_and_not_zero() -> None:
    """A call whose usage never came is not a call for nothing."""
    row = row_of(usage=None, usage_problem="event too large")
    assert (row.usage_source, row.usage_problem) == ("unavailable", "event too large")
    assert (row.prompt_tokens, row.completion_tokens, row.cost_usd) == (None, None, None)
    assert (row.raw_usage, row.unpriced_reason) == (None, None)


def test_a_refused_request_is_not_charged_whatever_its_answer_says() -> None:
    """A rejected transcription answers 400 with a usage of zero seconds."""
    raw = b'{"type":"duration","seconds":0}'
    row = row_of(status=400, usage=raw, error_type="invalid_request_error")
    assert (row.usage_source, row.cost_usd, row.unpriced_reason) == ("unavailable", None, None)
    assert (row.error_type, row.raw_usage) == ("invalid_request_error", raw)


def test_an_unpriced_call_keeps_its_tokens_and_says_why() -> None:
    """Once the catalogue knows better, the row can still be priced."""
    opening = msgspec.structs.replace(OPENING, request_model="gpt-new")
    row = row_of(opening=opening, response_model="gpt-new-2026-11-01")
    assert (row.cost_usd, row.price_id, row.unpriced_reason) == (None, None, "unknown_model")
    assert (row.prompt_tokens, row.usage_source) == (100, "reported")


def test_contradictory_usage_keeps_its_tokens_without_a_cost() -> None:
    """The provider's words stay on the row, the sum does not follow them."""
    raw = b'{"prompt_tokens":10,"prompt_tokens_details":{"cached_tokens":11},"total_tokens":10}'
    row = row_of(usage=raw)
    assert (row.cost_usd, row.unpriced_reason) == (None, "contradictory_usage")
    assert row.usage_problem == "input_tokens is 10, but its parts make 11"
    assert (row.prompt_tokens, row.cached_tokens, row.raw_usage) == (10, 11, raw)
    assert row.usage_source == "reported"


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (b'{"prompt_tokens": "many"}', True),
        (b'{"prompt_tokens": 1', False),
        (b"\xff", False),
        (b"[" * 100_000, False),
        (b'{"prompt_tokens": "\\u0000"}', False),
    ],
    ids=["no count", "cut off", "no text", "endless", "not storable"],
)
def test_usage_that_cannot_be_read_is_unavailable(raw: bytes, *, kept: bool) -> None:
    """What is JSON is kept as it came; what Postgres would refuse must not stop a batch."""
    row = row_of(usage=raw)
    assert (row.usage_source, row.unpriced_reason) == ("unavailable", "contradictory_usage")
    assert row.prompt_tokens is None
    assert row.usage_problem
    assert (row.raw_usage == raw) is kept


def test_tokens_that_no_rule_knows_are_named_on_the_row() -> None:
    """A new kind of token may cost extra: nobody shall find out by the invoice."""
    row = row_of(usage=b'{"prompt_tokens":1,"completion_tokens":1,"dream_tokens":5}')
    assert row.usage_problem == "not priced, for no rule knows it: dream_tokens"
    assert row.cost_usd == Decimal("0.00001")
    kept = row_of(usage=b'{"prompt_tokens":1,"dream_tokens":5}', usage_problem="two usages")
    assert kept.usage_problem == "two usages"


def test_an_answer_without_output_count_is_priced_by_its_input() -> None:
    """Embeddings and empty completions say nothing about output: unknown, and nothing to pay."""
    row = row_of(usage=b'{"prompt_tokens":11,"total_tokens":11}')
    assert (row.prompt_tokens, row.completion_tokens, row.total_tokens) == (11, None, 11)
    assert row.cost_usd == Decimal("0.000022")


@pytest.mark.parametrize(
    ("said", "tier", "cost"),
    [(None, None, "0.000296"), ("fast", "priority", "0.000592"), ("turbo", "turbo", None)],
)
def test_the_tier_is_the_one_that_served(
    said: str | None, tier: str | None, cost: str | None
) -> None:
    """An answer without a tier is priced as default, and the row does not pretend it said so."""
    row = row_of(response_service_tier=said)
    assert row.service_tier == tier
    assert row.cost_usd == (Decimal(cost) if cost else None)


def test_an_azure_deployment_names_the_model_where_nothing_else_does() -> None:
    """The path is the only hint."""
    path = "/openai/deployments/chat/chat/completions"
    opening = msgspec.structs.replace(OPENING, api_path=path, request_model=None)
    row = row_of(opening=opening, response_model=None)
    assert (row.model, row.price_id) == ("m", "m@start/default/short")


# What is billed by another unit than the token.


def row_as(
    operation_name: str, model: str | None, path: str = "/v1/x", **changes: object
) -> LedgerRow:
    """Charge a call of another kind, without usage unless it is given."""
    opening = msgspec.structs.replace(
        OPENING, operation_name=operation_name, request_model=model, api_path=path
    )
    facts: dict[str, object] = {"response_model": None, "usage": None, "opening": opening}
    return row_of(**(facts | changes))


def billed(row: LedgerRow) -> object:
    """Return what is billed by the unit."""
    return None if row.billed_units is None else json.loads(row.billed_units)


def test_a_free_call_costs_nothing_because_the_price_list_says_so() -> None:
    """Whatever its answer was; its usage is not there, and not missed."""
    for status in (200, 404, None):
        row = row_as("models.list", None, status=status)
        assert (row.price_id, row.usage_source, row.catalog_version) == (
            "free",
            "unavailable",
            "7+abc",
        )
        assert (row.cost_usd, row.tool_cost_usd, row.list_cost_usd) == (NOTHING, NOTHING, NOTHING)


def test_seconds_that_are_reported_are_billed_by_the_minute() -> None:
    """The list cost is the one before the contract."""
    row = row_as("audio.transcriptions", "hears", usage=b'{"type":"duration","seconds":90}')
    assert (row.usage_source, row.prompt_tokens) == ("reported", None)
    assert (row.cost_usd, row.list_cost_usd) == (Decimal("0.0045"), Decimal("0.009"))
    price_id = "hears@start/default/short/contract-x0.5"
    assert billed(row) == [{"component": "audio_second", "quantity": 90, "price_id": price_id}]


def test_seconds_that_are_heard_are_an_estimate() -> None:
    """An answer in plain text counts nothing."""
    units = RequestUnits(audio_seconds=5.2)
    row = row_as("audio.transcriptions", "hears", request_units=units, usage_problem="no_usage")
    assert (row.usage_source, row.cost_usd) == ("estimated", Decimal("0.0003"))
    assert (row.usage_problem, row.prompt_tokens) == (None, None)


def test_an_image_is_billed_by_size_and_quality() -> None:
    """Of the model that the API takes, where nobody names one."""
    row = row_as(
        "images.edits",
        None,
        request_units=RequestUnits(),
        answer_units=AnswerUnits(images=2),
    )
    assert (row.usage_source, row.cost_usd, row.model) == ("estimated", Decimal("0.04"), "paints")
    component = "image/standard/1024x1024"
    price_id = "paints@start/default/short"
    assert billed(row) == [{"component": component, "quantity": 2, "price_id": price_id}]
    path = "/openai/deployments/d/images/edits"
    named = row_as("images.edits", None, path, request_units=RequestUnits())
    assert (named.cost_usd, named.unpriced_reason) == (None, "unknown_model")


@pytest.mark.parametrize(
    ("model", "size", "reason"),
    [("paints", "9x9", "unknown_rate"), ("nobody", "1024x1024", "unknown_model")],
)
def test_units_without_a_price_are_kept(model: str, size: str, reason: str) -> None:
    """So that the row can still be priced."""
    row = row_as("images.edits", model, request_units=RequestUnits(size=size))
    assert (row.usage_source, row.cost_usd, row.unpriced_reason) == ("estimated", None, reason)
    component = f"image/standard/{size}"
    assert billed(row) == [{"component": component, "quantity": 1, "price_id": None}]


@pytest.mark.parametrize(
    "changes",
    [
        {"status": 400},
        {"status": None, "outcome": "timeout"},
        {"outcome": "upstream_error"},
        {"request_units": None},
        {"opening": msgspec.structs.replace(OPENING, operation_name="images.edits")},
    ],
    ids=["refused", "unanswered", "broken", "unread", "billed by tokens"],
)
def test_nothing_is_estimated_where_nothing_was_delivered(changes: dict[str, object]) -> None:
    """Nor where tokens are billed and nobody counted them."""
    facts = {"request_units": RequestUnits()} | changes
    row = row_as("images.edits", "paints", **facts)  # type: ignore[arg-type]  # facts
    assert (row.usage_source, row.cost_usd, row.billed_units) == ("unavailable", None, None)


def test_fees_of_tools_are_a_part_of_the_cost() -> None:
    """And stand beside it, so that tokens alone can be compared."""
    units = AnswerUnits(web_searches=3, web_search_tool="web_search")
    row = row_as("responses", "m", usage=USAGE, answer_units=units)
    assert (row.cost_usd, row.tool_cost_usd) == (Decimal("0.030296"), Decimal("0.03"))
    assert (row.list_cost_usd, row.unpriced_reason) == (Decimal("0.030296"), None)
    assert billed(row) == [{"component": "web_search", "quantity": 3, "price_id": "tools"}]


def test_a_cost_without_an_unknown_fee_says_that_it_is_not_complete() -> None:
    """What is known is kept: leaving it out would be further from the truth."""
    row = row_as("responses", "m", usage=USAGE, answer_units=AnswerUnits(file_searches=1))
    assert (row.cost_usd, row.tool_cost_usd) == (Decimal("0.000296"), None)
    assert row.unpriced_reason == "unknown_tool_fee"
    assert billed(row) == [{"component": "file_search", "quantity": 1, "price_id": None}]
    nobody_looked = row_as("responses", "m", usage=USAGE)
    assert (nobody_looked.tool_cost_usd, nobody_looked.unpriced_reason) == (None, None)


def test_fees_are_known_where_the_model_is_not() -> None:
    """The reason is the greater gap."""
    units = AnswerUnits(web_searches=1, web_search_tool="web_search")
    row = row_as("responses", "nobody", usage=USAGE, answer_units=units)
    assert (row.cost_usd, row.unpriced_reason) == (None, "unknown_model")
    assert row.tool_cost_usd == Decimal("0.01")


@pytest.mark.parametrize("name", ["live.connect", "live.fork", "realtime.translations.connect"])
@pytest.mark.parametrize(
    ("usage", "source", "cost", "seconds"),
    [
        (b'{"seconds": 12.5}', "reported", "0.0125", 12.5),
        (None, "estimated", "0.062", 62),
    ],
)
def test_a_session_may_be_billed_by_its_time(
    name: str, usage: bytes | None, source: str, cost: str, seconds: float
) -> None:
    """As it is reported, or else as it has lasted since the upgrade."""
    row = row_as(
        name,
        "talks",
        usage=usage,
        status=101,
        latency_us=61_600_000,
        time_to_first_byte_us=100_000,
        usage_problem="event_too_large",
    )
    assert (row.usage_source, row.cost_usd) == (source, Decimal(cost))
    assert (row.usage_problem, row.prompt_tokens) == ("event_too_large", None)
    price_id = "talks@start/default/short"
    assert billed(row) == [
        {"component": "session_second", "quantity": seconds, "price_id": price_id}
    ]


@pytest.mark.parametrize("usage", [b'{"input_tokens": 1, "output_tokens": 1}', b'{"seconds": -1}'])
def test_a_session_whose_time_is_no_time_has_no_cost(usage: bytes) -> None:
    """Nothing is guessed where something else is said."""
    row = row_as("live.connect", "talks", usage=usage, status=101)
    assert (row.cost_usd, row.unpriced_reason) == (None, "contradictory_usage")


def test_a_session_by_time_of_a_model_without_such_a_price_is_flagged() -> None:
    """And one that was refused costs nothing that is known."""
    row = row_as("live.connect", "m", usage=b'{"seconds": 5}', status=101)
    assert (row.cost_usd, row.unpriced_reason) == (None, "unknown_rate")
    refused = row_as("live.connect", "talks", status=401, outcome="upstream_error")
    assert (refused.cost_usd, refused.usage_source) == (None, "unavailable")


def test_a_session_costs_nothing_itself() -> None:
    """What was billed in it has rows of its own."""
    row = row_as("realtime.connect", "m", status=101, outcome="client_disconnected")
    assert (row.cost_usd, row.price_id, row.usage_problem) == (NOTHING, "free", None)
    refused = row_as("realtime.connect", "m", status=401, outcome="upstream_error")
    assert (refused.cost_usd, refused.price_id) == (NOTHING, "free")


@pytest.mark.parametrize(
    ("status", "outcome", "problem", "told"),
    [
        (101, "ok", "event_too_large", "event_too_large"),
        (None, "interrupted", None, "session_lost"),
    ],
)
def test_a_session_in_which_something_was_missed_is_not_free(
    status: int | None, outcome: str, problem: str | None, told: str
) -> None:
    """What could not be read in it, or was under way when its worker died, may have been billed."""
    row = row_as("realtime.connect", "m", status=status, outcome=outcome, usage_problem=problem)
    assert (row.cost_usd, row.price_id, row.usage_source) == (None, None, "unavailable")
    assert row.usage_problem == told


@pytest.mark.parametrize(
    ("name", "status", "cost", "problem"),
    [
        ("realtime.calls", 201, None, "media_passes_elsewhere"),
        ("realtime.client_secrets", 200, NOTHING, "media_passes_elsewhere"),
        ("realtime.client_secrets", 401, NOTHING, None),
        ("realtime.calls", 401, None, None),
    ],
)
def test_what_sets_up_media_says_that_it_passes_elsewhere(
    name: str, status: int, cost: Decimal | None, problem: str | None
) -> None:
    """What is spoken over WebRTC or a telephone line is not seen here, and costs something."""
    row = row_as(name, None, status=status)
    assert (row.cost_usd, row.usage_source, row.usage_problem) == (cost, "unavailable", problem)


@pytest.mark.parametrize(
    ("deployment", "request_model", "upstream", "model"),
    [
        ("chat", None, "acme.openai.azure.com", "m"),
        ("chat", "x", "gateway.example", "m"),
        ("chat", "hears", "acme.openai.azure.com", "hears"),
        ("other", None, "acme.openai.azure.com", "other"),
        (None, "chat", "acme.openai.azure.com", "m"),
        (None, "other", "acme.openai.azure.com", "other"),
        (None, "chat", "api.openai.com", "chat"),
        (None, None, "acme.openai.azure.com", None),
    ],
)
def test_a_failed_call_to_azure_says_which_model_was_meant(
    deployment: str | None, request_model: str | None, upstream: str, model: str | None
) -> None:
    """Only the deployment tells: by the model that it stands for, else by its own name."""
    opening = msgspec.structs.replace(
        OPENING, deployment=deployment, request_model=request_model, upstream=upstream
    )
    failed = Closing(opening=opening, outcome="upstream_error", status=429)
    row = charge(failed, BOOK)
    assert (row.model, row.request_model, row.cost_usd) == (model, request_model, None)


def test_an_upstream_may_have_prices_of_its_own() -> None:
    """A row says by its name which upstream was called, and by its price_id whose price it has."""
    dear = Period(rates={"input": Decimal(4), "cached_input": Decimal(2), "output": Decimal(16)})
    own = Catalog(
        version="7",
        entries=(Entry(model_id="azure/m", names=("m-1",), periods=(dear,)),),
        tier_names={"auto": "default"},
    )
    book = PriceBook(
        Catalog(
            version="7",
            entries=(Entry(model_id="m", names=("m", "m-1"), periods=(PERIOD,)),),
            tier_names={"auto": "default"},
            upstreams={"azure": own},
        ),
        "7+abc",
    )
    found = {}
    for mount in (None, "vllm", "azure"):
        opening = msgspec.structs.replace(OPENING, mount=mount)
        row = charge(msgspec.structs.replace(CLOSING, opening=opening), book)
        found[row.upstream_name] = (row.price_id, row.cost_usd)
    assert found == {
        None: ("m@start/default/short", Decimal("0.000296")),
        "vllm": ("m@start/default/short", Decimal("0.000296")),
        "azure": ("azure/m@start/default/short", Decimal("0.000592")),
    }
    opening = msgspec.structs.replace(OPENING, mount="azure")
    row = charge(msgspec.structs.replace(CLOSING, opening=opening, response_model="m"), book)
    assert (row.cost_usd, row.unpriced_reason) == (None, "unknown_model")


def test_what_an_upstream_says_of_its_own_cost_is_kept_and_is_no_price() -> None:
    """OpenRouter tells what it took; the row has it as it came."""
    usage = (
        b'{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120,"cost":0.0021,'
        b'"is_byok":false,"cost_details":{"upstream_inference_cost":null,'
        b'"upstream_inference_prompt_cost":0.0001}}'
    )
    row = row_of(usage=usage)
    assert (row.cost_usd, row.usage_problem) == (Decimal("0.000360"), None)
    assert row.raw_usage == usage


@pytest.mark.parametrize(
    ("estimate", "tokens", "cost"),
    [
        (Estimate(input_tokens=100, output_tokens=20), (100, 20, 120), Decimal("0.00036")),
        (Estimate(input_tokens=100), (100, None, None), Decimal("0.0002")),
        (Estimate(input_tokens=0, output_tokens=0), (0, 0, 0), NOTHING),
    ],
)
def test_what_was_counted_is_an_estimate(
    estimate: Estimate, tokens: tuple[int | None, ...], cost: Decimal
) -> None:
    """It has its price, and never passes for a report."""
    row = row_of(usage=None, estimate=estimate, usage_problem="truncated")
    assert (row.prompt_tokens, row.completion_tokens, row.total_tokens) == tokens
    assert (row.usage_source, row.cost_usd, row.raw_usage) == ("estimated", cost, None)
    assert row.usage_problem == "truncated"


def test_an_estimate_names_its_gaps() -> None:
    """Beside the reason why it was needed."""
    row = row_of(
        usage=None,
        usage_problem="truncated",
        estimate=Estimate(input_tokens=1, output_tokens=1, note="image_size_assumed"),
    )
    assert row.usage_problem == "truncated; image_size_assumed"


def test_an_estimate_of_nothing_is_none() -> None:
    """The row says why."""
    row = row_of(usage=None, estimate=Estimate(note="estimator_busy"))
    assert (row.usage_source, row.cost_usd) == ("unavailable", None)
    assert (row.prompt_tokens, row.usage_problem) == (None, "estimator_busy")


def test_an_estimate_without_a_price_keeps_its_tokens() -> None:
    """As a report would."""
    row = row_of(
        usage=None,
        estimate=Estimate(input_tokens=9, output_tokens=1),
        response_model="unheard-of",
        opening=msgspec.structs.replace(OPENING, request_model=None),
    )
    assert (row.usage_source, row.prompt_tokens, row.cost_usd) == ("estimated", 9, None)
    assert row.unpriced_reason == "unknown_model"


def test_a_call_that_was_left_alone_has_the_tier_that_it_asked_for() -> None:
    """Nobody has said which one served it; the proxy itself has answered 504."""
    row = row_of(
        usage=None,
        status=504,
        outcome="timeout",
        response_service_tier=None,
        opening=msgspec.structs.replace(OPENING, request_service_tier="fast"),
        estimate=Estimate(input_tokens=100),
    )
    assert (row.usage_source, row.cost_usd) == ("estimated", Decimal("0.0004"))


@pytest.mark.parametrize(
    ("size", "cost", "reason"),
    [("4g", Decimal("0.03"), None), ("9g", None, "unknown_tool_fee")],
)
def test_a_container_that_was_made_costs_its_least_time(
    size: str, cost: Decimal | None, reason: str | None
) -> None:
    """By its size; what is not known of it is no zero."""
    units = AnswerUnits(ran_in=(Container(container_id="c", size=size),))
    row = row_as("containers.create", None, answer_units=units, usage_problem="no_usage")
    assert (row.usage_source, row.usage_problem) == ("estimated", "container_time_estimated")
    assert (row.cost_usd, row.tool_cost_usd, row.unpriced_reason) == (cost, cost, reason)


@pytest.mark.parametrize("changes", [{"answer_units": AnswerUnits()}, {"status": 400}])
def test_a_container_of_which_nothing_is_told_has_no_cost(changes: dict[str, Any]) -> None:
    """The answer was an error, or could not be read."""
    row = row_as("containers.create", None, usage_problem="no_usage", **changes)
    assert (row.usage_source, row.cost_usd, row.usage_problem) == ("unavailable", None, "no_usage")


@pytest.mark.parametrize(
    ("name", "status", "problem"),
    [
        ("vector_stores.search", 200, "no_published_price"),
        ("agents.sessions.create", 201, "usage_not_read"),
        ("agents.sessions.create", 400, None),
        ("live.attach", 101, "billed_elsewhere"),
        ("unknown", 200, "unknown_operation"),
        ("unknown", None, None),
    ],
)
def test_a_kind_without_a_price_says_why(
    name: str, status: int | None, problem: str | None
) -> None:
    """An answer that is no success has cost nothing, as far as is known."""
    row = row_as(name, None, status=status)
    assert (row.cost_usd, row.usage_source, row.usage_problem) == (None, "unavailable", problem)


def test_counted_images_have_the_price_of_images() -> None:
    """Of a model that bills tokens; what was asked for is no unit of its price list."""
    row = row_as(
        "images.generations",
        "brushes",
        request_units=RequestUnits(size="1024x1024", quality="high"),
        usage_problem="no_usage_in_answer",
        estimate=Estimate(input_tokens=20, output_tokens=4160),
    )
    assert (row.usage_source, row.cost_usd) == ("estimated", Decimal("0.1665"))
    assert (row.billed_units, row.usage_problem) == (None, "no_usage_in_answer")
