import asyncio
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest

from dashboard.errors import DatabaseUnavailableError
from dashboard.queries import Ledger
from dashboard.report import Period
from proxy.core.charging import charge
from proxy.core.model import created_at
from proxy.core.pricing import PriceBook
from proxy.ledger import Ledger as Writer
from proxy.pricefile import load_price_book
from proxy.resources import resource
from tests.fakes.records import closing, opening

THEN = created_at(opening().event_id)


async def _record(dsn: str, count: int) -> None:
    """Put so many calls of one user into the ledger."""
    book = await asyncio.to_thread(_price_book)
    writer = Writer(dsn, report_timezone="UTC")
    await writer.insert([charge(closing(number), book) for number in range(count)])
    await writer.close()


def _price_book() -> PriceBook:
    return load_price_book(resource("pricing.yaml"))


def _named(periods: tuple[Period, ...], name: str) -> Period:
    return next(period for period in periods if period.name == name)


async def test_sums_are_those_of_the_ledger(database: str) -> None:
    """19 + 10 tokens a call, priced at 0.15 and 0.60 USD a million."""
    await _record(database, 2)
    stats = await Ledger(database).stats(THEN)
    assert [period.name for period in stats.periods] == ["today", "month", "overall"]
    assert stats.newest_call == THEN
    assert stats.report_timezone == "UTC"
    overall = _named(stats.periods, "overall")
    assert (overall.calls, overall.active_users, overall.errors) == (2, 1, 0)
    assert (overall.prompt_tokens, overall.completion_tokens) == (38, 20)
    assert overall.total_tokens == 58
    assert overall.cost_usd == Decimal("0.0000177")


async def test_what_is_earlier_is_not_of_today(database: str) -> None:
    """Without calls a sum is 0; without reports of cached tokens it is unknown."""
    await _record(database, 1)
    stats = await Ledger(database).stats(THEN + timedelta(days=1))
    today, overall = _named(stats.periods, "today"), _named(stats.periods, "overall")
    assert today.since == (THEN + timedelta(days=1)).date()
    assert (today.calls, today.total_tokens, today.cost_usd) == (0, 0, Decimal(0))
    assert _named(stats.periods, "month").since == date(THEN.year, THEN.month, 1)
    assert overall.calls == 1
    assert overall.cached_tokens is None


async def test_days_begin_in_the_zone_of_the_report(database: str) -> None:
    """In Kiritimati it is tomorrow already."""
    connection = await asyncpg.connect(database)
    await connection.execute("SELECT set_report_timezone('Pacific/Kiritimati')")
    await connection.close()
    stats = await Ledger(database).stats(datetime(2026, 8, 28, 12, tzinfo=UTC))
    assert stats.report_timezone == "Pacific/Kiritimati"
    assert _named(stats.periods, "today").since == date(2026, 8, 29)


async def test_reading_has_no_right_to_write_or_to_see_the_tables(database: str) -> None:
    """The role is taken on for each transaction, and so is the time limit."""
    async with Ledger(database)._transaction() as connection:  # noqa: SLF001 - what it may do
        assert await connection.fetchval("SELECT current_user") == "meter_dashboard"
        assert await connection.fetchval("SHOW statement_timeout") == "10s"
        assert await connection.fetchval("SHOW transaction_read_only") == "on"
    with pytest.raises(DatabaseUnavailableError) as caught:
        async with Ledger(database)._transaction() as connection:  # noqa: SLF001
            await connection.fetchval("SELECT count(*) FROM user_api_usage")
    assert "permission denied" in caught.value.cause


async def test_health_says_how_fresh_the_ledger_is(database: str) -> None:
    """The newest call, or that there is none."""
    ledger = Ledger(database)
    assert (await ledger.health()).newest_call is None
    await _record(database, 1)
    assert (await ledger.health()).newest_call == THEN


async def test_a_database_without_the_schema_is_not_ready(empty_database: str) -> None:
    """The recorder makes it as soon as it can."""
    with pytest.raises(DatabaseUnavailableError, match="not been made yet"):
        await Ledger(empty_database).health()


async def test_a_database_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    """What the library said is for the log."""
    with pytest.raises(DatabaseUnavailableError, match="does not answer") as caught:
        await Ledger(f"postgresql://nobody@/nowhere?host={tmp_path}").health()
    assert caught.value.cause


async def test_an_address_that_cannot_be_read_keeps_its_password() -> None:
    """The library quotes what it could not read."""
    with pytest.raises(DatabaseUnavailableError) as caught:
        await Ledger("postgresql://u:pa[ss@h:port/d").health()
    assert "pa[ss" not in f"{caught.value} {caught.value.cause}"
