from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from proxy.core.catalog import Catalog, Deployment, Entry, LongContext, Period, Uplift
from proxy.core.tariffs import GRAIN, PriceTable, TableKey, Tariff, grained, tariffs

FALLBACK = {"cached_input": "input", "cache_write": "input", "cache_write_12h": "cache_write"}
RATES = {"input": Decimal(2), "cached_input": Decimal("0.075"), "output": Decimal(8)}
LONG = LongContext(above=272_000, input_factor=Decimal(2), output_factor=Decimal("1.5"))


def tariff_of(period: Period, **catalog: object) -> Tariff:
    """Return the only tariff of a model m."""
    entry = Entry(model_id="m", names=("m",), periods=(period,))
    whole = Catalog(version="1", entries=(entry,), fallback=FALLBACK, **catalog)  # type: ignore[arg-type]
    return tariffs(entry, whole)[0]


def prices(table: PriceTable) -> dict[str, str]:
    """Return the unit prices per million tokens, as short texts."""
    return {c: f"{(price * 10**6).normalize():f}" for c, price in table.unit_prices.items()}


def by_id(tables: Mapping[TableKey, PriceTable]) -> dict[str, dict[str, str]]:
    """Return the tables under their price_ids."""
    return {table.price_id: prices(table) for table in tables.values()}


def test_a_tier_is_a_factor_or_a_table_of_its_own() -> None:
    """Published tables are rounded, so a factor would not give them."""
    flex = {"input": Decimal(1), "cached_input": Decimal("0.04"), "output": Decimal(4)}
    tariff = tariff_of(Period(rates=RATES, tiers={"batch": Decimal("0.5"), "flex": flex}))
    shown = by_id(tariff.tables)
    assert shown["m@start/default/short"]["cached_input"] == "0.075"
    assert shown["m@start/batch/short"]["cached_input"] == "0.0375"
    assert shown["m@start/flex/short"]["cached_input"] == "0.04"
    assert tariff.tiers == {"default", "batch", "flex"}
    assert tariff.long_context_above is None


def test_long_context_multiplies_both_sides_by_their_own_factors() -> None:
    """Everything read costs twice, everything written half as much again."""
    tariff = tariff_of(Period(rates=RATES, long_context=LONG))
    assert prices(tariff.tables["default", True, "", ""]) == {
        "input": "4",
        "cached_input": "0.15",
        "cache_write": "4",
        "cache_write_12h": "4",
        "output": "12",
    }
    assert tariff.long_context_above == 272_000


def test_long_context_exists_only_for_published_tiers() -> None:
    """A tier without a long-context price has no table, so nothing is priced by the short one."""
    published = {"batch": {"input": Decimal(3)}}
    long = LongContext(
        above=272_000,
        input_factor=Decimal(2),
        output_factor=Decimal("1.5"),
        only=frozenset({"default", "batch"}),
        rates=published,
    )
    tiers = {"batch": Decimal("0.5"), "priority": Decimal(2)}
    shown = by_id(tariff_of(Period(rates=RATES, tiers=tiers, long_context=long)).tables)
    assert {price_id for price_id in shown if price_id.endswith("long")} == {
        "m@start/default/long",
        "m@start/batch/long",
    }
    assert shown["m@start/batch/long"]["input"] == "3"


def test_a_component_falls_back_unless_its_rate_is_unpublished() -> None:
    """What is known to be missing is not replaced by a neighbour."""
    rates = {"input": Decimal(2), "cache_write": Decimal("2.5"), "cache_write_12h": None}
    shown = prices(
        tariff_of(Period(rates=rates, tiers={"batch": Decimal("0.5")})).tables[
            "batch", False, "", ""
        ]
    )
    assert shown == {"input": "1", "cached_input": "1", "cache_write": "1.25"}


def test_an_operation_replaces_rates_in_every_tier() -> None:
    """Decisions do not charge their output, whatever the tier."""
    period = Period(
        start=datetime(2026, 9, 22, tzinfo=UTC),
        rates=RATES,
        tiers={"batch": Decimal("0.5")},
        operations={"decisions": {"output": Decimal(0)}},
    )
    tariff = tariff_of(period)
    shown = by_id(tariff.tables)
    assert shown["m@2026-09-22/batch/short/decisions"]["output"] == "0"
    assert shown["m@2026-09-22/batch/short"]["output"] == "4"
    assert tariff.operations == {"decisions"}


def test_surcharges_have_tables_and_price_ids_of_their_own() -> None:
    """A row that was sent to a regional host names the dearer price."""
    regional = Uplift(
        name="regional", factor=Decimal("1.10"), hosts=frozenset(), models=frozenset({"m"})
    )
    other = Uplift(name="other", factor=Decimal(9), hosts=frozenset(), models=frozenset({"n"}))
    deployments = {
        "a": Deployment(model="m", factor=Decimal("1.05")),
        "b": Deployment(model="m"),
    }
    shown = by_id(
        tariff_of(Period(rates=RATES), uplifts=(regional, other), deployments=deployments).tables
    )
    assert {price_id: table["input"] for price_id, table in shown.items()} == {
        "m@start/default/short": "2",
        "m@start/default/short/regional": "2.2",
        "m@start/default/short/x1.05": "2.1",
    }


def test_a_listed_price_has_twelve_places_and_a_finer_one_stays_exact() -> None:
    """Only products are rounded, never the price they are made of."""
    fine = {"a": Deployment(model="m", factor=Decimal("1.000001"))}
    tables = tariff_of(Period(rates=RATES), deployments=fine).tables
    listed = tables["default", False, "", ""].unit_prices["cached_input"]
    assert str(listed) == "7.5000E-8"
    finer = tables["default", False, "", "x1.000001"].unit_prices["cached_input"]
    assert finer == Decimal("0.000000075000075")


@pytest.mark.parametrize(
    ("amount", "rounded"), [("1.5", 2), ("2.5", 2), ("2.51", 3), ("-1.5", -2), ("7", 7)]
)
def test_rounding_is_half_to_even(amount: str, rounded: int) -> None:
    """Sums of many rounded products drift neither up nor down."""
    assert grained(Decimal(amount) * GRAIN) == rounded * GRAIN


def test_a_period_without_a_start_is_older_than_any_call() -> None:
    """The clock of the proxy may be behind a launch."""
    entry = Entry(
        model_id="m",
        names=("m",),
        periods=(Period(), Period(start=datetime(2026, 1, 1, tzinfo=UTC))),
    )
    first, second = tariffs(entry, Catalog(version="1", entries=(entry,)))
    assert first.start.year == 1
    assert second.start == datetime(2026, 1, 1, tzinfo=UTC)


def test_units_are_priced_by_what_is_counted() -> None:
    """In no tier but the default one; surcharges apply to them, too."""
    units = {
        "audio_minute": Decimal("0.017"),
        "million_characters": Decimal(15),
        "image/hd/1x1": Decimal("0.08"),
    }
    tariff = tariff_of(
        Period(units=units, tiers={"batch": Decimal("0.5")}),
        deployments={"d": Deployment(model="m", factor=Decimal(2))},
    )
    by_name = {table.price_id: table.unit_prices for table in tariff.tables.values()}
    assert by_name["m@start/default/short"] == {
        "audio_second": Decimal("0.017") / 60,
        "character": Decimal("0.000015"),
        "image/hd/1x1": Decimal("0.08"),
    }
    assert by_name["m@start/default/short/x2"]["image/hd/1x1"] == Decimal("0.16")
    assert by_name["m@start/batch/short"] == {}
    assert tariff.has_units
    assert not tariff_of(Period(rates=RATES)).has_units
