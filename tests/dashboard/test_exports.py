from datetime import date
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from dashboard import exports
from dashboard.exports import DIALECTS, Dialect, Form, chunked, file_name, statement
from dashboard.filters import Filter

BERLIN = ZoneInfo("Europe/Berlin")
ASKED = Filter(
    range="custom",
    first=date(2026, 11, 1),
    last=date(2026, 11, 22),
    zone=BERLIN,
    report_zone=BERLIN,
)
MANDATORY = {  # of FOCUS 1.2
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd",
    "ChargePeriodStart", "ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost",
    "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "ServiceCategory",
    "ServiceName",
}  # fmt: skip


async def _columns(dsn: str, query: str) -> list[str]:
    connection = await asyncpg.connect(dsn)
    prepared = await connection.prepare(query)
    names = [attribute.name for attribute in prepared.get_attributes()]
    await connection.close()
    return names


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_the_columns_of_focus_are_those_of_its_version(
    database: str, dialect: Dialect
) -> None:
    """All 57, in their order, and ours behind them with their prefix."""
    names = await _columns(database, statement("focus-1.2", dialect))
    own = [name for name in names if name.startswith("x_")]
    standard = names[: -len(own)]
    assert own == ["x_CatalogVersion", "x_UsageSource", "x_Calls", "x_Model", "x_PriceId"]
    assert len(standard) == len(set(standard)) == 57
    assert sorted(standard) == standard
    assert set(standard) >= MANDATORY


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_the_columns_of_calls_stay_as_they_are(database: str, dialect: Dialect) -> None:
    """Of version 1: more may come behind them, none may go or change."""
    names = await _columns(database, statement("calls", dialect))
    assert names[:8] == [
        "event_id", "created_at", "day", "user_id", "endpoint", "api_path", "operation_name",
        "upstream",
    ]  # fmt: skip
    assert names[-2:] == ["metadata", "upstream_name"]
    assert len(names) == 40


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("calls", "usage-calls_2026-11-01_2026-11-22_Europe-Berlin_v1.csv"),
        ("summary", "usage-summary_2026-11-01_2026-11-22_Europe-Berlin_v1.csv"),
        ("focus-1.2", "focus-1.2_2026-11-01_2026-11-22_Europe-Berlin.csv"),
    ],
)
def test_a_file_says_in_its_name_what_it_holds(form: Form, name: str) -> None:
    """Range, zone and version."""
    assert file_name(form, ASKED) == name
    everything = ASKED.with_(range="all", first=None)
    assert "_beginning_2026-11-22_" in file_name(form, everything)


def test_lines_end_as_a_spreadsheet_likes_it() -> None:
    """A machine gets them as they are."""
    assert chunked("excel")(b"a,b\n1,2\n") == b"a,b\r\n1,2\r\n"
    assert chunked("raw")(b"a,b\n") == b"a,b\n"
    assert exports.BYTE_ORDER_MARK == b"\xef\xbb\xbf"
