from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.catalog import (
    Catalog,
    Contract,
    Deployment,
    Entry,
    LongContext,
    Period,
    Tool,
    Uplift,
)
from proxy.core.model import Cost, PriceLine, Usage
from proxy.core.pricing import PriceBook, PriceRate
from proxy.errors import (
    NoPricePeriodError,
    NoTokenCountError,
    UnknownModelError,
    UnknownRateError,
    UnknownTierError,
    UnknownToolFeeError,
    UnknownUpliftError,
    UnpricedError,
    UsageError,
)

TODAY = datetime(2026, 11, 22, tzinfo=UTC)
RATES = {"input": Decimal(2), "output": Decimal(8)}


def cost_of(usage: Usage, book: PriceBook, **facts: Any) -> Cost:
    """Price a call of today to OpenAI, unless said otherwise."""
    call: dict[str, Any] = {
        "response_model": None,
        "request_model": None,
        "deployment": None,
        "service_tier": None,
        "operation_name": "chat",
        "upstream": "api.openai.com",
        "at": TODAY,
    }
    return book.cost(usage, **{**call, **facts})


def tokens(read: int, written: int = 0, **parts: Any) -> Usage:
    """Return a usage with these totals."""
    return Usage(input_tokens=read, output_tokens=written, **parts)


def book_of(*entries: Entry, **sections: Any) -> PriceBook:
    """Return a book of these entries; of a model m at 2 and 8 dollars where there are none."""
    model = Entry(model_id="m", names=("m",), periods=(Period(rates=RATES),))
    return PriceBook(Catalog(version="t", entries=entries or (model,), **sections), "t+0")


LONG = LongContext(
    above=100,
    input_factor=Decimal(2),
    output_factor=Decimal("1.5"),
    only=frozenset({"default"}),
)
WHOLE = Period(
    start=datetime(2026, 6, 1, tzinfo=UTC),
    rates=RATES,
    tiers={"flex": Decimal("0.5")},
    long_context=LONG,
    operations={"decisions": {"output": Decimal(0)}},
)
LATER = Period(start=datetime(2027, 1, 1, tzinfo=UTC), rates={"input": Decimal(1)})
REGIONAL = Uplift(
    name="regional",
    factor=Decimal("1.10"),
    hosts=frozenset({"eu.api.openai.com"}),
    models=frozenset({"m"}),
    unpublished_for=frozenset({"n"}),
)


def whole_book() -> PriceBook:
    """Return a book with a bit of everything."""
    m = Entry(model_id="m", names=("m",), periods=(WHOLE, LATER))
    n = Entry(model_id="n", names=("n",), periods=(Period(rates=RATES),))
    o = Entry(model_id="o", names=("o",), periods=(Period(rates=RATES),))
    return book_of(m, n, o, uplifts=(REGIONAL,), tier_names={"auto": "default", "slow": "flex"})


@pytest.mark.parametrize(
    ("usage", "facts", "price_id"),
    [
        (tokens(100), {}, "m@2026-06-01/default/short"),
        (tokens(101), {}, "m@2026-06-01/default/long"),
        (tokens(1), {"service_tier": "auto"}, "m@2026-06-01/default/short"),
        (tokens(1), {"service_tier": "slow"}, "m@2026-06-01/flex/short"),
        (tokens(1), {"operation_name": "decisions"}, "m@2026-06-01/default/short/decisions"),
        (tokens(1), {"upstream": "EU.api.openai.com:443"}, "m@2026-06-01/default/short/regional"),
        (
            tokens(1),
            {"upstream": "eu.api.openai.com", "response_model": "o"},
            "o@start/default/short",
        ),
        (tokens(1), {"at": datetime(2027, 1, 1, tzinfo=UTC)}, "m@2027-01-01/default/short"),
    ],
)
def test_a_price_id_names_what_decided(usage: Usage, facts: dict[str, Any], price_id: str) -> None:
    """Period, tier, context, operation and surcharge can be read off the row."""
    assert cost_of(usage, whole_book(), **{"response_model": "m", **facts}).price_id == price_id


@pytest.mark.parametrize(
    ("usage", "facts", "error"),
    [
        (tokens(1), {"response_model": "m-2"}, UnknownModelError),
        (tokens(1), {"service_tier": "priority"}, UnknownTierError),
        (tokens(1, audio_input_tokens=1), {}, UnknownRateError),
        (tokens(101), {"service_tier": "flex"}, UnknownRateError),
        (tokens(1), {"at": datetime(2026, 5, 31, tzinfo=UTC)}, NoPricePeriodError),
        (
            tokens(1),
            {"response_model": "n", "upstream": "eu.api.openai.com"},
            UnknownUpliftError,
        ),
        (Usage(total_tokens=3), {}, NoTokenCountError),
    ],
)
def test_what_is_not_published_has_no_price(
    usage: Usage, facts: dict[str, Any], error: type[UnpricedError]
) -> None:
    """Nothing stands in for a price that is missing."""
    with pytest.raises(error):
        cost_of(usage, whole_book(), **{"response_model": "m", **facts})


def test_the_model_of_the_answer_decides_then_the_request_then_the_deployment() -> None:
    """The answer names the snapshot that an alias stood for."""
    other = Entry(model_id="n", names=("n",), periods=(Period(rates={"input": Decimal(3)}),))
    model = Entry(model_id="m", names=("m",), periods=(Period(rates=RATES),))
    book = book_of(model, other, deployments={"eu/chat": Deployment(model="n")})
    azure = {"deployment": "chat", "upstream": "eu.openai.azure.com"}

    def price_id(response: str | None, request: str | None, **facts: str) -> str:
        models = {"response_model": response, "request_model": request}
        return cost_of(tokens(1), book, **models, **facts).price_id

    assert price_id("m", "n").startswith("m@")
    assert price_id("router", "n").startswith("n@")
    assert price_id("", "m", **azure).startswith("m@")
    assert price_id(None, "chat", **azure).startswith("n@")
    assert price_id(None, "chat", upstream="eu.openai.azure.com").startswith("n@")
    with pytest.raises(UnknownModelError):
        price_id(None, "chat", upstream="api.openai.com")


def test_a_deployment_may_cost_more_whatever_names_the_model() -> None:
    """Azure's regional factor belongs to the deployment, the rates to the model."""
    book = book_of(deployments={"chat": Deployment(model="m", factor=Decimal("1.10"))})
    cost = cost_of(tokens(1_000_000), book, response_model="m", deployment="chat")
    assert cost.cost_usd == Decimal("2.2")
    assert cost.price_id == "m@start/default/short/x1.10"
    assert cost.lines[0].list_unit_price == Decimal("0.0000022")


def test_a_contract_is_applied_after_the_list_cost_which_stays_visible() -> None:
    """The lines hold the list cost, the sum what was negotiated, the price_id both."""
    contracts = (
        Contract(start=datetime(2026, 1, 1, tzinfo=UTC), factor=Decimal("0.93")),
        Contract(start=datetime(2027, 1, 1, tzinfo=UTC), factor=Decimal("0.90")),
    )
    book = book_of(contracts=contracts)
    now = cost_of(tokens(1, 1), book, response_model="m")
    assert sum(line.amount for line in now.lines) == Decimal("0.00001")
    assert now.cost_usd == Decimal("0.0000093")
    assert now.price_id == "m@start/default/short/contract-x0.93"
    later = cost_of(tokens(1, 1), book, response_model="m", at=datetime(2027, 1, 1, tzinfo=UTC))
    assert later.price_id == "m@start/default/short/contract-x0.90"
    before = cost_of(tokens(1, 1), book, response_model="m", at=datetime(2025, 1, 1, tzinfo=UTC))
    assert before.cost_usd == Decimal("0.00001")


def test_only_what_is_finer_than_the_ledger_is_rounded_half_to_even() -> None:
    """A factor may make a unit price that no list has."""
    fine = {"d": Deployment(model="m", factor=Decimal("1.00000025"))}
    book = book_of(deployments=fine)
    cost = cost_of(tokens(3), book, response_model="m", deployment="d")
    assert cost.lines[0].list_unit_price == Decimal("0.0000020000005")
    assert cost.cost_usd == Decimal("0.000006000002")


def test_the_lines_multiply_to_the_sum() -> None:
    """Anybody can recompute a cost from its lines."""
    rates = {"input": Decimal("1.25"), "cached_input": Decimal("0.125"), "output": Decimal(10)}
    book = book_of(Entry(model_id="m", names=("m",), periods=(Period(rates=rates),)))
    cost = cost_of(tokens(10, 5, cache_read_input_tokens=4), book, response_model="m")
    assert cost.lines == (
        PriceLine(
            component="input",
            quantity=6,
            list_unit_price=Decimal("0.00000125"),
            amount=Decimal("0.0000075"),
        ),
        PriceLine(
            component="cached_input",
            quantity=4,
            list_unit_price=Decimal("0.000000125"),
            amount=Decimal("0.0000005"),
        ),
        PriceLine(
            component="output",
            quantity=5,
            list_unit_price=Decimal("0.00001"),
            amount=Decimal("0.00005"),
        ),
    )


def test_every_price_of_a_cost_is_among_the_rates() -> None:
    """The table price_rate explains each row, under a contract too."""
    contract = Contract(
        start=datetime(2026, 1, 1, tzinfo=UTC), factor=Decimal("0.9"), models=frozenset({"m"})
    )
    n = Entry(model_id="n", names=("n",), periods=(Period(rates={"input": Decimal(1)}),))
    m = Entry(model_id="m", names=("m",), periods=(Period(rates={"input": Decimal(2)}),))
    assert list(book_of(m, n, contracts=(contract,)).rates()) == [
        PriceRate(price_id=price_id, component="input", list_unit_price=Decimal(price))
        for price_id, price in [
            ("m@start/default/short", "0.000002"),
            ("m@start/default/short/contract-x0.9", "0.000002"),
            ("n@start/default/short", "0.000001"),
        ]
    ]


def test_a_cost_that_the_ledger_cannot_hold_is_refused() -> None:
    """One absurd row must not stop the others of its batch."""
    dear = Entry(model_id="m", names=("m",), periods=(Period(rates={"input": Decimal(600)}),))
    with pytest.raises(UsageError, match=r"costs 600000000\.0+ USD; expected less than 100000000"):
        cost_of(tokens(10**12), book_of(dear), response_model="m")


COUNTS = st.integers(0, 10**7)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Draw a usage whose parts fit into their totals."""
    cached, written, fresh = draw(COUNTS), draw(COUNTS), draw(COUNTS)
    written_12h = draw(st.integers(0, written))
    return Usage(
        input_tokens=fresh + cached + written,
        cache_read_input_tokens=cached,
        cache_write_input_tokens=written,
        cache_write_12h_input_tokens=written_12h,
        output_tokens=draw(COUNTS),
    )


def added(one: Usage, other: Usage) -> Usage:
    """Return the usage of both together."""
    pairs = ((name, getattr(one, name), getattr(other, name)) for name in Usage.__slots__)
    counts: dict[str, Any] = {name: a + b for name, a, b in pairs if isinstance(a, int)}
    return Usage(**counts)


@given(usages(), usages(), st.sampled_from(["default", "batch", "priority"]))
def test_cost_is_additive(one: Usage, other: Usage, tier: str) -> None:
    """Two calls cost what one call with their tokens costs, to the last digit."""
    period = Period(
        rates={**RATES, "cached_input": Decimal("0.075"), "cache_write": Decimal("3.125")},
        tiers={"batch": Decimal("0.5"), "priority": {**RATES, "cached_input": Decimal("0.138")}},
    )
    fallback = {"cache_write": "input", "cache_write_12h": "cache_write"}
    entry = Entry(model_id="m", names=("m",), periods=(period,))
    book = book_of(entry, fallback=fallback)
    first, second, both = (
        cost_of(usage, book, response_model="m", service_tier=tier).cost_usd
        for usage in (one, other, added(one, other))
    )
    assert first + second == both


def test_units_have_prices_of_their_own() -> None:
    """A minute, an image, a character: what was used says how many; others bill tokens."""
    units = {
        "audio_minute": Decimal("0.017"),
        "million_characters": Decimal(15),
        "image/hd/1x1": Decimal("0.08"),
    }
    book = book_of(
        Entry(model_id="u", names=("u",), periods=(Period(units=units),)),
        Entry(model_id="t", names=("t",), periods=(Period(rates={"input": Decimal(1)}),)),
    )

    def cost(quantities: dict[str, int], model: str | None = "u") -> Cost | None:
        return book.unit_cost(quantities, model=model, upstream="api.openai.com", at=TODAY)

    spoken, minute = cost({"character": 13}), cost({"audio_second": 60})
    images = cost({"image/hd/1x1": 2})
    assert spoken is not None
    assert minute is not None
    assert images is not None
    assert (spoken.cost_usd, minute.cost_usd) == (Decimal("0.000195"), Decimal("0.017"))
    assert (images.cost_usd, images.price_id) == (Decimal("0.16"), "u@start/default/short")
    assert cost({"character": 13}, "t") is None
    with pytest.raises(UnknownModelError):
        cost({"character": 13}, None)
    with pytest.raises(UnknownRateError):
        cost({"image/hd/2x2": 1})


def test_fees_and_free_calls_are_among_the_rates() -> None:
    """So that a row that names them can be explained."""
    book = book_of(
        tools={"t": Tool(unit_prices={"t": Decimal("0.01")}, models=frozenset({"m"}))},
        free=frozenset({"models.list"}),
        default_models={"images.edits": "m"},
    )
    assert list(book.rates())[2:] == [
        PriceRate(price_id="tools", component="t", list_unit_price=Decimal("0.01")),
        PriceRate(price_id="free", component="call", list_unit_price=Decimal(0)),
    ]
    assert (book.tool_price("t"), book.is_tool_for("t", "m")) == (Decimal("0.01"), True)
    assert (book.is_free("models.list"), book.is_free("chat")) == (True, False)
    assert (book.default_model("images.edits"), book.default_model("chat")) == ("m", None)
    assert not book.is_tool_for("u", "m")
    assert not book.is_tool_for("t", "x")
    for component in ("t/other", "u"):
        with pytest.raises(UnknownToolFeeError):
            book.tool_price(component)


def test_units_of_an_azure_deployment_are_those_of_its_model() -> None:
    """With the factor of the deployment."""
    units = {"million_characters": Decimal(15)}
    book = book_of(
        Entry(model_id="u", names=("u",), periods=(Period(units=units),)),
        deployments={"voice": Deployment(model="u", factor=Decimal(2))},
    )
    upstream = "Res.openai.azure.com:443"
    cost = book.unit_cost({"character": 10}, model="voice", upstream=upstream, at=TODAY)
    assert cost is not None
    assert (cost.cost_usd, cost.price_id) == (Decimal("0.0003"), "u@start/default/short/x2")


def test_prices_of_mounted_upstreams_are_among_the_rates_once() -> None:
    """What two books share is one price under one name."""
    m = Entry(model_id="m", names=("m",), periods=(Period(rates=RATES),))
    own = Entry(model_id="vllm/m", names=("m",), periods=(Period(rates={"input": Decimal(1)}),))
    half = Contract(factor=Decimal("0.5"), start=TODAY)
    shared = Entry(model_id="m", names=(), prefixes=("ft:m:",), periods=m.periods)
    section = Catalog(version="t", entries=(own, shared), contracts=(half,), free=frozenset({"x"}))
    book = book_of(m, upstreams={"vllm": section})
    rates = [(rate.price_id, rate.component) for rate in book.rates()]
    assert len(rates) == len(set(rates))
    priced = {price_id for price_id, _ in rates}
    assert priced >= {"m@start/default/short", "vllm/m@start/default/short", "free"}
    assert "m@start/default/short/contract-x0.5" in priced
    assert book.of("vllm").cost(
        tokens(1_000_000),
        response_model="m",
        request_model=None,
        deployment=None,
        service_tier=None,
        operation_name="chat",
        upstream="10.0.0.7",
        at=TODAY,
    ).cost_usd == Decimal("0.5")
    assert book.of("other") is book.of(None) is book
    assert book.upstreams == ("vllm",)


def test_calls_that_are_alike_are_priced_by_what_is_in_force_then() -> None:
    """In whatever order they come: a period and a contract begin at their instants."""
    start, half = datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 9, 1, tzinfo=UTC)
    cheaper = Period(start=start, rates={"input": Decimal(1)})
    book = book_of(
        Entry(model_id="m", names=("m",), periods=(Period(rates=RATES), cheaper)),
        contracts=(Contract(factor=Decimal("0.5"), start=half),),
    )
    moments = (TODAY, start - timedelta(milliseconds=1), start, half, TODAY, start)
    costs = [cost_of(tokens(1_000_000), book, request_model="m", at=at).cost_usd for at in moments]
    assert costs == [Decimal(n) for n in ("0.5", "2", "1", "0.5", "0.5", "1")]


@pytest.mark.parametrize("read", [100, 101])
def test_a_long_context_is_told_call_by_call(read: int) -> None:
    """Calls that are alike in all else differ in it."""
    long = LongContext(above=100, input_factor=Decimal(2), output_factor=Decimal(2))
    periods = (Period(rates=RATES, long_context=long),)
    book = book_of(Entry(model_id="m", names=("m",), periods=periods))
    cost_of(tokens(201 - read), book, request_model="m")
    cost = cost_of(tokens(read), book, request_model="m")
    assert cost.price_id == f"m@start/default/{'short' if read == 100 else 'long'}"


def test_what_is_remembered_of_calls_is_bounded() -> None:
    """More names than fit are priced all the same."""
    entry = Entry(model_id="m", names=(), prefixes=("m:",), periods=(Period(rates=RATES),))
    tools = {"t": Tool(unit_prices={"t": Decimal("0.01")}, models=frozenset({"m"}))}
    book = book_of(entry, tools=tools)
    for number in range(4100):
        name = f"m:{number}"
        assert cost_of(tokens(1), book, request_model=name).cost_usd == Decimal("0.000002")
        assert book.tool_for(("u", "t"), name) == "t"
    assert book.tool_for(("u",), "m:1") is None
