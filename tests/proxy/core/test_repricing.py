"""Tests of proxy.core.repricing: what was priced anew costs what it would have cost at once."""

from dataclasses import replace
from decimal import Decimal
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.catalog import Catalog, Entry, Period, Tool
from proxy.core.charging import charge
from proxy.core.model import AnswerUnits, Closing, Correction, RequestUnits, StoredCall
from proxy.core.pricing import PriceBook
from proxy.core.repricing import correction_of, recharged
from tests.fakes.records import closing
from tests.fakes.rows import corrected, ledger_row, stored, unpriced_row

CHEAP = {"input": "1", "cached_input": "0.5", "output": "4", "image_output": "8"}
DEAR = {"input": "2", "cached_input": "1", "output": "8", "image_output": "16"}


def book(
    version: str,
    *,
    rates: dict[str, str] | None = None,
    models: tuple[str, ...] = ("m",),
    tools: dict[str, str] | None = None,
    units: dict[str, str] | None = None,
    free: frozenset[str] = frozenset(),
    priority: str = "2",
) -> PriceBook:
    """Return a small price book."""
    period = Period(
        rates={name: Decimal(rate) for name, rate in (rates or {}).items()},
        tiers={"priority": Decimal(priority)},
        units={name: Decimal(price) for name, price in (units or {}).items()},
    )
    entries = tuple(Entry(model_id=name, names=(name,), periods=(period,)) for name in models)
    fees = {
        name.partition("/")[0]: Tool(unit_prices={name: Decimal(fee)})
        for name, fee in (tools or {}).items()
    }
    return PriceBook(Catalog(version=version, entries=entries, tools=fees, free=free), version)


def call(**changes: object) -> Closing:
    """Return a chat of the model m, or another call of it."""
    of_opening = {"operation_name", "api_path", "upstream", "request_model"}
    record = closing(1)
    opening = msgspec.structs.replace(
        record.opening,
        **({"request_model": "m"} | {k: v for k, v in changes.items() if k in of_opening}),
    )
    rest = {name: value for name, value in changes.items() if name not in of_opening}
    return msgspec.structs.replace(record, **({"opening": opening, "response_model": "m"} | rest))


def change_of(state: StoredCall, prices: PriceBook) -> Correction | None:
    """Return the correction of a call by a price book."""
    return correction_of(state, recharged(state, prices))


def test_a_price_that_was_wrong_is_corrected_by_the_difference() -> None:
    """The call stays as it is; the correction names the entry of the new price."""
    row = charge(call(), book("1", rates=CHEAP))
    assert row.cost_usd == Decimal("0.000059")
    change = change_of(stored(row), book("2", rates=DEAR))
    assert change is not None
    assert change.cost_usd == change.list_cost_usd == Decimal("0.000059")
    assert (change.corrects, change.created_at) == (row.event_id, row.created_at)
    assert (change.correction_number, change.catalog_version) == (1, "2")
    assert change.price_id == "m@start/default/short"
    assert (change.prompt_tokens, change.total_tokens, change.tool_cost_usd) == (None, None, None)
    assert (change.unpriced_change, change.unavailable_change) == (0, 0)


def test_a_call_without_a_price_gets_one() -> None:
    """And is not counted as unpriced any more."""
    row = charge(call(), book("1", rates=CHEAP, models=("other",)))
    assert (row.cost_usd, row.unpriced_reason) == (None, "unknown_model")
    change = change_of(stored(row), book("2", rates=CHEAP))
    assert change is not None
    assert (change.cost_usd, change.unpriced_reason) == (Decimal("0.000059"), None)
    assert change.unpriced_change == -1


def test_what_costs_the_same_is_left_alone() -> None:
    """Another version of the file is no reason to add rows."""
    row = charge(call(), book("1", rates=CHEAP))
    assert change_of(stored(row), book("2", rates=CHEAP)) is None


def test_a_known_cost_is_not_taken_back() -> None:
    """A file that forgot a model, or a fee, knows less than the ledger."""
    search = AnswerUnits(web_searches=1, web_search_tool="web_search")
    record = call(operation_name="responses", answer_units=search)
    full = book("1", rates=CHEAP, tools={"web_search": "0.01"})
    row = charge(record, full)
    assert row.cost_usd == Decimal("0.010059")
    assert change_of(stored(row), book("2", rates=DEAR, models=("other",))) is None
    assert change_of(stored(row), book("2", rates=DEAR)) is None
    incomplete = charge(record, book("1", rates=CHEAP))
    change = change_of(stored(incomplete), full)
    assert change is not None
    assert (change.cost_usd, change.tool_cost_usd) == (Decimal("0.01"), Decimal("0.01"))
    assert change.unpriced_change == -1


def test_a_kind_that_turned_out_to_be_free_costs_nothing() -> None:
    """Whether its usage was known or not."""
    free = book("2", free=frozenset({"chat"}))
    nothing_known = change_of(stored(charge(call(usage=None), book("1", rates=CHEAP))), free)
    assert nothing_known is not None
    assert (nothing_known.cost_usd, nothing_known.price_id) == (Decimal(0), "free")
    assert (nothing_known.usage_source, nothing_known.unavailable_change) == ("unavailable", -1)
    known = change_of(stored(charge(call(), book("1", rates=CHEAP))), free)
    assert known is not None
    assert (known.cost_usd, known.usage_source) == (Decimal("-0.000059"), "reported")


def test_a_call_that_was_taken_back_is_left_alone() -> None:
    """Nothing is left of it that could have a price."""
    reversed_call = replace(stored(unpriced_row(model="m")), is_reversed=True)
    assert change_of(reversed_call, book("1", rates=CHEAP)) is None


def test_a_usage_that_no_column_could_hold_is_not_guessed() -> None:
    """Its counts alone do not say which parts they have."""
    row = ledger_row(raw_usage=None, model="m")
    assert recharged(stored(row), book("1", rates=CHEAP)) is None
    assert change_of(stored(row), book("1", rates=CHEAP)) is None


def test_an_estimate_is_priced_by_its_counts() -> None:
    """And stays an estimate."""
    row = unpriced_row(raw_usage=None, model="m", usage_source="estimated")
    change = change_of(stored(row), book("1", rates=CHEAP))
    assert change is not None
    assert change.cost_usd == Decimal("0.0024")
    assert (change.usage_source, change.estimated_change) == ("estimated", 0)
    assert change.unpriced_change == -1


def test_what_settles_a_call_is_not_counted_as_one() -> None:
    """But it has no price either, until it has one."""
    settling = replace(stored(charge(call(usage=None), book("1"))), is_counted=False)
    change = change_of(settling, book("2", free=frozenset({"chat"})))
    assert change is not None
    assert change.unavailable_change == 0


def test_a_fault_of_ours_is_made_good() -> None:
    """Its usage was kept: counts, cost and source become known."""
    row = charge(call(usage=None, usage_problem="metering_fault"), book("1", rates=CHEAP))
    kept = replace(row, raw_usage=call().usage, unpriced_reason="metering_fault")
    change = change_of(stored(kept), book("1", rates=CHEAP))
    assert change is not None
    assert (change.prompt_tokens, change.completion_tokens) == (19, 10)
    assert (change.usage_source, change.unavailable_change) == ("reported", -1)


@pytest.mark.parametrize("number", [1, 2, 40_000])
def test_the_id_of_a_correction_is_the_same_whoever_makes_it(number: int) -> None:
    """Of two at the same time one is kept. Its moment is that of the call, its version 8."""
    row = stored(charge(call(), book("1", rates=CHEAP)))
    before = replace(row, corrections=number - 1)
    ids = {
        change.event_id
        for rates in (DEAR, CHEAP | {"input": "3"})
        if (change := change_of(before, book("2", rates=rates)))
    }
    assert len(ids) == 1
    made: UUID = ids.pop()
    assert made.bytes[:6] == row.event_id.bytes[:6]
    assert (made.version, made.variant) == (8, "specified in RFC 4122")
    assert made != row.event_id


AMOUNTS = st.decimals(Decimal("0.01"), Decimal(100), places=2).map(str)
RATES = st.fixed_dictionaries(dict.fromkeys(CHEAP, AMOUNTS))
TOOLS = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        (
            "web_search",
            "file_search",
            "code_interpreter_container/session_1g",
            "code_interpreter_container/minute_1g",
        ),
        AMOUNTS,
    ),
)
UNITS = st.fixed_dictionaries(
    {"audio_minute": AMOUNTS, "image/standard/1024x1024": AMOUNTS, "image/hd/1792x1024": AMOUNTS}
)
BOOKS = st.builds(
    book,
    st.sampled_from(["1", "2", "3"]),
    rates=RATES,
    models=st.sampled_from([("m", "paints"), ("other", "paints")]),
    tools=TOOLS,
    units=UNITS,
    free=st.sampled_from([frozenset[str](), frozenset({"embeddings"})]),
    priority=st.sampled_from(["1", "2.5"]),
)
COUNTS = st.integers(0, 5000)


@st.composite
def usages(draw: st.DrawFn) -> bytes | None:
    """Make a usage object; one in a while contradicts itself, or is none."""
    total, cached, output = draw(COUNTS), draw(COUNTS), draw(COUNTS)
    details = {"cached_tokens": min(total, cached) if draw(st.booleans()) else cached}
    usage = {"input_tokens": total, "output_tokens": output, "input_tokens_details": details}
    return draw(st.sampled_from([msgspec.json.encode(usage)] * 4 + [None, b"[]"]))


@st.composite
def calls(draw: st.DrawFn) -> Closing:
    """Make a call of any kind that has a price by tokens, by the unit or by tools."""
    name = draw(
        st.sampled_from(["chat", "responses", "embeddings", "images.edits", "audio.translations"])
    )
    by_unit = name in {"images.edits", "audio.translations"} and draw(st.booleans())
    tools = st.builds(
        AnswerUnits,
        web_searches=st.integers(0, 3),
        web_search_tool=st.sampled_from(["web_search", "web_search_preview", None]),
        file_searches=st.integers(0, 2),
        containers=st.sampled_from([(), ("1g",), ("1g", "1g")]),
        container_minutes=st.sampled_from([None, (("1g", 5),), (("1g", 0), ("unknown", 7))]),
        image_model=st.just("paints"),
        image_usage=st.sampled_from(
            [None, b'{"input_tokens":7,"output_tokens":30}', b'{"input_tokens":"x"}']
        ),
        is_partial=st.sampled_from([False, False, True]),
    )
    asked = st.builds(
        RequestUnits,
        images=st.integers(1, 3),
        quality=st.sampled_from(["hd", None]),
        size=st.sampled_from(["1792x1024", "auto"]),
        audio_seconds=st.floats(0.1, 100),
    )
    return call(
        operation_name=name,
        usage=None if by_unit else draw(usages()),
        response_service_tier=draw(st.sampled_from([None, "default", "priority"])),
        answer_units=draw(tools) if name == "responses" else None,
        request_units=draw(asked) if by_unit else None,
        status=draw(st.sampled_from([200, 200, 200, 429])),
    )


@given(record=calls(), books=st.lists(BOOKS, min_size=2, max_size=5))
def test_a_call_that_was_priced_anew_costs_what_it_would_have_cost_at_once(
    record: Closing, books: list[PriceBook]
) -> None:
    """Whatever the prices, however often they change; and doing it again adds nothing."""
    first = charge(record, books[0])
    state, expected, known_tokens = stored(first), first, first.prompt_tokens
    for each in books[1:]:
        change = change_of(state, each)
        state = corrected(state, change) if change else state
        assert change_of(state, each) is None
        fresh = charge(record, each)
        incomplete = fresh.unpriced_reason and not expected.unpriced_reason
        is_less = expected.cost_usd is not None and incomplete
        is_less = is_less or (fresh.tool_cost_usd is None and expected.tool_cost_usd is not None)
        if fresh.cost_usd is not None and not is_less:
            expected = fresh
            known_tokens = known_tokens if fresh.prompt_tokens is None else fresh.prompt_tokens
        assert state.cost_usd == expected.cost_usd
        assert state.tool_cost_usd == expected.tool_cost_usd
        assert state.list_cost_usd == expected.list_cost_usd
        assert state.prompt_tokens == known_tokens
        assert state.unpriced_reason == expected.unpriced_reason
