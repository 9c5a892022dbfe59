"""Works a price catalogue out into tables of unit prices, one for each price_id.

A table answers for one model, period, service tier, context (short or long), operation and
surcharge; after that nothing is left to decide but the quantity. Factors multiply, published tables
stand as they are, and a component without a rate takes the one that the catalogue lets it fall back
to. A combination that has no published price has no table.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal

from proxy.core.catalog import (
    COMPONENTS,
    DEFAULT_TIER,
    INPUT_COMPONENTS,
    Catalog,
    Entry,
    LongContext,
    Period,
    Rates,
)

# What a unit of the price list counts, under the component's own name, and how many make the unit.
_COUNTED = {
    "audio_minute": ("audio_second", 60),
    "session_minute": ("session_second", 60),
    "million_characters": ("character", 1_000_000),
    "training_million_tokens": ("training_token", 1_000_000),
}
GRAIN = Decimal("0.000000000001")  # USD; what the ledger's numeric(20,12) can tell apart
_EVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class PriceTable:
    """The unit prices, in USD per token, that one price_id stands for."""

    price_id: str
    unit_prices: Mapping[str, Decimal]


TableKey = tuple[str, bool, str, str]  # tier, long context, operation, surcharge; "" for none


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """One period of one model, worked out."""

    start: datetime
    tiers: frozenset[str]
    long_context_above: int | None
    operations: frozenset[str]  # those with rates of their own
    has_units: bool  # something else than tokens is priced
    tables: Mapping[TableKey, PriceTable]


def tariffs(entry: Entry, catalog: Catalog) -> list[Tariff]:
    """Return the tariffs of an entry in order of time."""
    surcharges = dict(_surcharges(entry, catalog))
    return [_tariff(entry, period, surcharges, catalog.fallback) for period in entry.periods]


def grained(amount: Decimal) -> Decimal:
    """Round half to even at 12 decimal places; what fits is merely written with all twelve."""
    return amount.quantize(GRAIN, ROUND_HALF_EVEN)


def surcharge_name(factor: Decimal) -> str:
    """Return how a deployment's factor is called in a price_id."""
    return f"x{factor}"


def _surcharges(entry: Entry, catalog: Catalog) -> Iterator[tuple[str, Decimal]]:
    yield "", Decimal(1)
    for uplift in catalog.uplifts:
        if entry.model_id in uplift.models:
            yield uplift.name, uplift.factor
    for deployment in catalog.deployments.values():
        if deployment.factor is not None:
            yield surcharge_name(deployment.factor), deployment.factor


def _tariff(
    entry: Entry, period: Period, surcharges: Mapping[str, Decimal], fallback: Mapping[str, str]
) -> Tariff:
    began = period.start.date().isoformat() if period.start else "start"
    tables = {}
    for (tier, is_long, operation), rates in _rate_tables(period):
        context = "long" if is_long else "short"
        for surcharge, factor in surcharges.items():
            segments = (f"{entry.model_id}@{began}", tier, context, operation, surcharge)
            units = period.units if tier == DEFAULT_TIER else {}
            unit_prices = {**_unit_prices(rates, fallback, factor), **dict(_counted(units, factor))}
            tables[tier, is_long, operation, surcharge] = PriceTable(
                "/".join(filter(None, segments)), unit_prices
            )
    return Tariff(
        start=period.start or _EVER,
        tiers=frozenset((DEFAULT_TIER, *period.tiers)),
        long_context_above=period.long_context.above if period.long_context else None,
        operations=frozenset(period.operations),
        has_units=bool(period.units),
        tables=tables,
    )


def _rate_tables(period: Period) -> Iterator[tuple[tuple[str, bool, str], Rates]]:
    """Yield the rates of each published tier, context and operation."""
    for tier, in_tier in _tiers(period):
        for is_long, rates in _contexts(period.long_context, tier, in_tier):
            yield (tier, is_long, ""), rates
            for operation, own in period.operations.items():
                yield (tier, is_long, operation), {**rates, **own}


def _tiers(period: Period) -> Iterator[tuple[str, Rates]]:
    yield DEFAULT_TIER, period.rates
    for tier, value in period.tiers.items():
        if isinstance(value, Decimal):
            yield tier, _multiplied(period.rates, value, value)
        else:
            yield tier, value


def _contexts(long: LongContext | None, tier: str, rates: Rates) -> Iterator[tuple[bool, Rates]]:
    yield False, rates
    if long is None or (long.only is not None and tier not in long.only):
        return
    yield True, long.rates.get(tier) or _multiplied(rates, long.input_factor, long.output_factor)


def _multiplied(rates: Rates, input_factor: Decimal, output_factor: Decimal) -> Rates:
    factors = {c: input_factor if c in INPUT_COMPONENTS else output_factor for c in rates}
    return {c: None if rate is None else rate * factors[c] for c, rate in rates.items()}


def _unit_prices(
    rates: Rates, fallback: Mapping[str, str], factor: Decimal
) -> Mapping[str, Decimal]:
    """Return USD per token of every component that has a rate, its own or one it falls back to."""
    found = {component: _rate(component, rates, fallback) for component in COMPONENTS}
    return {c: _unit_price(rate * factor) for c, rate in found.items() if rate is not None}


def _counted(units: Mapping[str, Decimal], factor: Decimal) -> Iterator[tuple[str, Decimal]]:
    """Yield the price of a second, a character, an image, … as components are counted."""
    for unit, price in units.items():
        component, number = _COUNTED.get(unit, (unit, 1))
        unit_price = price * factor / number
        yield component, grained(unit_price) if grained(unit_price) == unit_price else unit_price


def _rate(component: str, rates: Rates, fallback: Mapping[str, str]) -> Decimal | None:
    while component not in rates:
        if component not in fallback:
            return None
        component = fallback[component]
    return rates[component]


def _unit_price(rate: Decimal) -> Decimal:
    """Return a rate per million as a price per token, with twelve places where they suffice."""
    price = rate.scaleb(-6)
    return grained(price) if grained(price) == price else price
