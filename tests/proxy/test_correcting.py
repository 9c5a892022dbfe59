"""Tests of proxy.correcting against a real Postgres; what follows is in test_repricing.py."""

from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest

from proxy.correcting import Calls, Found, Span
from proxy.errors import DatabaseError
from proxy.ledger import Ledger
from tests.fakes.rows import MOMENT, correction, ledger_row, stored

NOVEMBER = Span(first=date(2026, 11, 1), until=date(2026, 12, 1))


async def found_in(dsn: str, span: Span) -> list[Found]:
    """Return all calls of a span, read two at a time."""
    calls = Calls(dsn, span, page_calls=2)
    try:
        pages = [page async for page in calls.pages()]
        assert all(0 < len(page) <= 2 for page in pages)
        assert await calls.count() == sum(len(page) for page in pages)
        return [found for page in pages for found in page]
    finally:
        await calls.close()


async def test_calls_come_as_they_stand(database: str) -> None:
    """In the order of time, page after page; what came of corrections is in them."""
    ledger = Ledger(database, report_timezone="UTC")
    rows = [ledger_row(number) for number in range(5)]
    await ledger.insert(rows)
    cost = rows[3].cost_usd
    assert cost is not None
    change = correction(rows[3], cost_usd=Decimal(2), price_id="p", catalog_version="9")
    await ledger.correct([change])
    await ledger.close()
    found = await found_in(database, NOVEMBER)
    raw = b'{"total_tokens": 1500, "prompt_tokens": 1200, "completion_tokens": 300}'
    expected = [replace(stored(row), raw_usage=raw) for row in rows]
    expected[3] = replace(expected[3], cost_usd=cost + 2, price_id="p", corrections=1)
    assert [each.call for each in found] == expected
    months = {(each.month, each.accounting_month) for each in found}
    assert months == {(date(2026, 11, 1), date(2026, 11, 1))}


async def test_without_a_first_day_it_is_last_month(database: str) -> None:
    """For a look at what a new price file would change."""
    ledger = Ledger(database, report_timezone="UTC")
    await ledger.insert([ledger_row(1, created_at=MOMENT.replace(year=2001)), ledger_row(2)])
    await ledger.close()
    ever = date(9999, 1, 1)
    assert len(await found_in(database, Span(first=None, until=ever))) <= 1
    assert len(await found_in(database, Span(first=date(2000, 1, 1), until=ever))) == 2


async def test_a_ledger_that_is_not_there_is_an_error(empty_database: str) -> None:
    """In our words."""
    calls = Calls(empty_database, NOVEMBER)
    with pytest.raises(DatabaseError, match="meter_settings"):
        await calls.count()
    await calls.close()
