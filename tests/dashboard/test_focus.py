"""The file for FinOps tools, held against the rules of FOCUS 1.2 one by one.

The official validator's release on the package index knows no version after 1.0. So the rules that
apply to a provider of usage with list prices, contracts, sub-accounts and tags stand in
tests/data/focus_1_2_rules.tsv by the numbers of the published model: what a column must be, and
when. What a row cannot tell (whether a payment is covered by another row) is not among them.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from dashboard import focus
from dashboard.copying import statement_of
from dashboard.filters import Filter
from dashboard.queries import Ledger
from proxy.core.charging import charge
from proxy.core.model import AnswerUnits, Closing, RequestUnits
from proxy.core.pricing import PriceBook
from proxy.ledger import Ledger as Writer
from proxy.pricefile import load_price_book
from proxy.resources import resource
from tests.documents import ROOT
from tests.fakes.records import MOMENT_MS, closing
from tests.fakes.rows import correction

Row = Mapping[str, str | None]
UTC = ZoneInfo("UTC")
CONTRACT = "contract:\n  - {from: 2026-01-01, multiplier: x0.93, models: [gpt-4.1-mini]}\n"
MOMENT = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ"
NUMBER = r"-?\d+(\.\d+)?"  # no sign of a currency, no group of digits, no E+
UNITS = {"Tokens", "Characters", "Seconds", "Minutes", "Images", "Requests"}


@dataclass(frozen=True)
class Rule:
    """A rule of the published model: `asks` of a column, where `when` is so."""

    number: str
    asks: str
    when: str


def _rules() -> list[Rule]:
    text = (ROOT / "tests" / "data" / "focus_1_2_rules.tsv").read_text()
    return [Rule(*[*line.split("\t"), ""][:3]) for line in text.splitlines()]


RULES = _rules()


def breaks(rule: Rule, rows: list[Row]) -> list[Row]:
    """Return the rows that break a rule."""
    conditions = [part for part in rule.when.split(" & ") if part]
    return [
        row
        for row in rows
        if all(_holds(part, row, rows) for part in conditions) and not _holds(rule.asks, row, rows)
    ]


def _holds(words: str, row: Row, rows: list[Row]) -> bool:
    """Whether what is said of a column is so; a form is only asked of what is not null."""
    column, _, asked = words.partition(" ")
    value = row.get(column)
    if asked in _OF_NULL:
        return _OF_NULL[asked](column, row)
    verb, _, rest = asked.partition(" ")
    if asked in _FORMS:
        return value is None or _FORMS[asked](value, _day(row))
    if asked.startswith("is not "):
        return value != asked.removeprefix("is not ")
    return value is not None and _VERBS[verb](value, rest, row, rows)


def _day(row: Row) -> datetime:
    return datetime.fromisoformat(row["ChargePeriodStart"] or "")


def _is(value: str, rest: str, row: Row, _rows: list[Row]) -> bool:
    if "×" not in rest:
        return value == rest or (rest == "0" and Decimal(value) == 0)
    price, quantity = (Decimal(row[name] or "NaN") for name in rest.split(" × "))
    within = Decimal(row["x_Calls"] or 0).scaleb(-12)  # the cost of a call is rounded there
    return abs(Decimal(value) - price * quantity) <= within


def _has(value: str, rest: str, row: Row, rows: list[Row]) -> bool:
    other = rest.removeprefix("one ")
    owner = next(name for name, held in row.items() if held is value)
    return len({each[other] for each in rows if each[owner] == value}) == 1


_OF_NULL: Mapping[str, Callable[[str, Row], bool]] = {
    "present": lambda column, row: column in row,
    "null": lambda column, row: row[column] is None,
    "not null": lambda column, row: row[column] is not None,
}
_VERBS: Mapping[str, Callable[[str, str, Row, list[Row]], bool]] = {
    "is": _is,
    "in": lambda value, rest, *_: value in rest.split("|"),
    "has": _has,
    "differs": lambda value, rest, row, _: value != row[rest],
}
_FORMS: Mapping[str, Callable[[str, datetime], bool]] = {
    "decimal": lambda value, _: "." in value,  # readers take what has no point for an integer
    "number": lambda value, _: re.fullmatch(NUMBER, value) is not None,
    ">= 0": lambda value, _: Decimal(value) >= 0,
    "text": lambda value, _: value != "" and value.lower() not in {"null", "none"},
    "unit": lambda value, _: value in UNITS,
    "currency": lambda value, _: re.fullmatch("[A-Z]{3}", value) is not None,
    "moment": lambda value, _: re.fullmatch(MOMENT, value) is not None,
    "object": lambda value, _: all(
        isinstance(member, str | int | float | None) for member in json.loads(value).values()
    ),
    "begins a day": lambda value, _: value.endswith("T00:00:00Z"),
    "ends the day of ChargePeriodStart": lambda value, day: (
        datetime.fromisoformat(value) == day + timedelta(days=1)
    ),
    "begins the month of ChargePeriodStart": lambda value, day: (
        datetime.fromisoformat(value) == day.replace(day=1)
    ),
    "ends the month of ChargePeriodStart": lambda value, day: (
        datetime.fromisoformat(value) == (day.replace(day=1) + timedelta(days=31)).replace(day=1)
    ),
}


def _calls() -> list[Closing]:
    """Return calls of many kinds: all that makes a row of the file differ from another."""
    detailed = (
        b'{"prompt_tokens":1234,"completion_tokens":321,"total_tokens":1555,'
        b'"prompt_tokens_details":{"cached_tokens":1024}}'
    )
    embedded = b'{"prompt_tokens":77,"total_tokens":77}'
    kinds: list[dict[str, object]] = [
        {"usage": detailed, "response_model": model, "response_service_tier": tier}
        for model in ("gpt-5.4-mini-2026-03-17", "gpt-5.4-mini", "gpt-4.1-mini", "o4-mini")
        for tier in ("default", "flex", "priority", None)
    ]
    kinds += [
        {"response_model": "nobody-knows", "request_model": "nobody-knows"},
        {"usage": None, "outcome": "interrupted", "status": None},
        {
            "operation_name": "responses",
            "response_model": "gpt-5.4",
            "answer_units": AnswerUnits(web_searches=3, web_search_tool="web_search"),
        },
        {
            "operation_name": "embeddings",
            "response_model": "text-embedding-3-small",
            "usage": embedded,
        },
        {
            "operation_name": "images.generations",
            "usage": None,
            "response_model": None,
            "request_model": "dall-e-3",
            "request_units": RequestUnits(images=2, size="1024x1024", quality="hd"),
            "answer_units": AnswerUnits(images=2),
        },
        {
            "operation_name": "audio.speech",
            "usage": None,
            "response_model": None,
            "request_model": "tts-1",
            "request_units": RequestUnits(characters=999),
        },
        {"operation_name": "models.list", "usage": None},
        {"user_id": None, "endpoint": None},
        {"user_id": "=cmd()|x", "endpoint": "two\nlines"},
        {"upstream": "my-resource.openai.azure.com"},
        {"upstream": "vllm.internal"},
    ]
    return [_call(number, **changes) for number, changes in enumerate(kinds * 2)]


def _call(number: int, **changes: object) -> Closing:
    made = closing(number)
    of_opening = {
        name: changes.pop(name) for name in tuple(changes) if name in made.opening.__struct_fields__
    }
    at = (MOMENT_MS + number * 5_000_000).to_bytes(6, "big")  # some weeks, two months
    opening = msgspec.structs.replace(
        made.opening, event_id=at + made.opening.event_id[6:], **of_opening
    )
    return msgspec.structs.replace(made, opening=opening, **changes)


@pytest.fixture
def book(tmp_path: Path) -> PriceBook:
    """Return the prices that are shipped, and a contract."""
    prices = tmp_path / "pricing.yaml"
    prices.write_text(resource("pricing.yaml").read_text().replace("contract: []", CONTRACT))
    return load_price_book(prices)


@pytest.fixture
async def rows(database: str, book: PriceBook) -> list[Row]:
    """Return the file of a ledger with all of them, and with a correction."""
    made = [charge(call, book) for call in _calls()]
    writer = Writer(database, report_timezone="UTC")
    await writer.store_prices(book.catalog_version, book.rates())
    await writer.insert(made)
    await writer.correct([correction(made[0], cost_usd=Decimal("0.000000000007"))])
    await writer.close()
    return await _file(database)


async def _file(dsn: str) -> list[Row]:
    """Return the file as a reader of CSV has it; what is empty is null."""
    chunks: list[bytes] = []

    async def write(chunk: bytes) -> None:
        chunks.append(chunk)

    ledger = Ledger(dsn)
    wanted = Filter(range="all", first=None, last=date(2027, 1, 1), zone=UTC, report_zone=UTC)
    async with ledger.copying() as snapshot:
        statement, values = statement_of("focus-1.2", "raw", wanted)
        await snapshot.copy(statement, values, write)
    await ledger.close()
    read = csv.DictReader(io.StringIO(b"".join(chunks).decode(), newline=""))
    return [{name: value or None for name, value in row.items()} for row in read]


async def test_every_rule_is_kept(rows: list[Row]) -> None:
    """None of them by a file without rows, and none by a file without corrections."""
    assert len(RULES) > 150
    assert {row["ChargeClass"] for row in rows} == {None, "Correction"}
    assert {row["PricingUnit"] for row in rows} == {None, *UNITS} - {"Seconds", "Minutes"}
    assert {row["BillingPeriodStart"] for row in rows} >= {"2026-09-01T00:00:00Z"}
    broken = {rule.number: found[0] for rule in RULES if (found := breaks(rule, rows))}
    assert broken == {}


BREAKERS: tuple[tuple[str, dict[str, str | None]], ...] = (
    ("BilledCost-C-001-M", {"BilledCost": None}),
    ("BilledCost-C-002-M", {"BilledCost": "1"}),
    ("BilledCost-C-003-M", {"BilledCost": "$1.00"}),
    ("BilledCost-C-004-C", {"InvoiceIssuerName": "Reseller"}),
    ("BillingPeriodEnd-C-004-M", {"BillingPeriodEnd": "2026-11-30T00:00:00Z"}),
    ("ChargeCategory-C-003-M", {"ChargeCategory": "Fee"}),
    ("ChargePeriodStart-C-002-M", {"ChargePeriodStart": "2026-11-30 00:00:00+00"}),
    ("ContractedCost-C-009-C", {"ContractedCost": "1.0"}),
    ("ListCost-C-009-C", {"PricingQuantity": "1.0"}),
    ("ListUnitPrice-C-005-C", {"ListUnitPrice": None}),
    ("ListUnitPrice-C-008-M", {"ListUnitPrice": "-0.1"}),
    ("PricingQuantity-C-005-C", {"PricingQuantity": None}),
    ("PricingUnit-C-005-C", {"PricingQuantity": None}),
    ("SkuMeter-C-004-C", {"SkuId": None}),
    ("SkuPriceId-C-008-M", {"SkuId": "another"}),
    ("SubAccountName-C-004-C", {"SubAccountName": None}),
    ("Tags-C-001-M", {"Tags": '{"a": [1]}'}),
)


async def test_a_rule_that_is_broken_is_found(rows: list[Row]) -> None:
    """Rules that find nothing in whatever there is would prove nothing."""
    rules = {rule.number: rule for rule in RULES}
    [at, *_] = [
        place
        for place, row in enumerate(rows)
        if row["SubAccountId"] and row["ChargeClass"] is None and row["SkuId"] == "o4-mini/output"
    ]
    for number, change in BREAKERS:
        broken = [*rows[:at], {**rows[at], **change}, *rows[at + 1 :]]
        assert breaks(rules[number], broken), number


async def test_a_price_is_named_as_its_sku_whatever_its_day_and_contract(rows: list[Row]) -> None:
    """What the ledger calls it stands beside it."""
    [row, *_] = [row for row in rows if row["SkuPriceId"] == "gpt-4.1-mini/default/short/output"]
    assert row["x_PriceId"] == "gpt-4.1-mini@start/default/short/contract-x0.93"
    assert (row["SkuId"], row["SkuMeter"]) == ("gpt-4.1-mini/output", "output")
    assert Decimal(row["ListUnitPrice"] or 0) * Decimal("0.93") == Decimal(
        row["ContractedUnitPrice"] or 0
    )
    assert {row["SkuId"] for row in rows} >= {"tools/web_search", "tts-1/character"}


def test_columns_of_focus_come_first_and_ours_behind_them() -> None:
    """All 57, in their order; text that somebody has chosen is harmless in a spreadsheet."""
    names = [name for name, _ in focus.COLUMNS]
    own = ["x_CatalogVersion", "x_UsageSource", "x_Calls", "x_Model", "x_PriceId"]
    assert names[57:] == own
    assert names[:57] == sorted(names[:57])
    assert focus.statement(safe=True).count("|| regexp_replace") == 6
