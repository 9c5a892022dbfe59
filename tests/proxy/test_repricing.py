"""Tests of proxy.repricing against a real ledger: whatever is interrupted, sums are exact."""

import asyncio
import io
import random
from collections.abc import AsyncIterator, Sequence
from datetime import date, timedelta
from decimal import Decimal

import asyncpg
import msgspec
import pytest
from typing_extensions import override

from proxy import rollups, seals
from proxy.core.catalog import Catalog, Entry, Period
from proxy.core.charging import charge
from proxy.core.identity import uuid7
from proxy.core.model import Closing
from proxy.core.pricing import PriceBook
from proxy.core.settling import taken_back
from proxy.correcting import Calls, Found, Span
from proxy.errors import OvertakenError
from proxy.ledger import Ledger
from proxy.repricing import Tally, report, reprice
from tests.fakes.records import closing
from tests.fakes.rows import MOMENT, correction

SPAN = Span(first=date(2026, 9, 1), until=date(2027, 1, 1))
ROLLUPS = ("usage_by_quarter_hour", "usage_by_user_day", "usage_by_month")


class Terminal(io.StringIO):
    """A stream that somebody looks at."""

    @override
    def isatty(self) -> bool:
        """Return whether a bar may be drawn on it."""
        return True


def book(version: str, **rates: str) -> PriceBook:
    """Return prices of models, a million tokens in or out for so many dollars."""
    entries = tuple(
        Entry(
            model_id=name,
            names=(name,),
            periods=(Period(rates={"input": Decimal(rate), "output": Decimal(rate)}),),
        )
        for name, rate in rates.items()
    )
    return PriceBook(Catalog(version=version, entries=entries), version)


def call(number: int, model: str, tokens: int, days: float = 0) -> Closing:
    """Return a call with so many tokens; the number makes its id, the days its moment."""
    moment = int((MOMENT + timedelta(days=days)).timestamp()) * 10**9
    opening = msgspec.structs.replace(
        closing().opening, event_id=uuid7(moment, number), request_model=model
    )
    usage = msgspec.json.encode({"prompt_tokens": tokens, "completion_tokens": 0})
    return msgspec.structs.replace(closing(), opening=opening, response_model=model, usage=usage)


@pytest.fixture
async def ledger(database: str) -> AsyncIterator[Ledger]:
    """Return a writer to an empty ledger."""
    writer = Ledger(database, report_timezone="UTC")
    yield writer
    await writer.close()


@pytest.fixture
async def reader(database: str) -> AsyncIterator[asyncpg.Connection]:
    """Return a connection to look at the ledger with."""
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


async def repriced(
    dsn: str, ledger: Ledger, prices: PriceBook, *, span: Span = SPAN, dry_run: bool = False
) -> Tally:
    """Reprice in small pages, without a bar."""
    calls = Calls(dsn, span, page_calls=7)
    try:
        return await reprice(calls, ledger, prices, dry_run=dry_run, bar=io.StringIO())
    finally:
        await calls.close()


async def sums(reader: asyncpg.Connection) -> list[tuple[object, ...]]:
    """Return calls, unpriced calls and cost, by each of the rollups and by the calls themselves."""
    found = []
    for name in ROLLUPS:
        query = f"SELECT sum(calls), sum(unpriced_calls), sum(cost_usd) FROM {name}"  # noqa: S608
        found.append(tuple(await reader.fetchrow(query) or ()))
    query = """
    SELECT count(*), count(*) FILTER (WHERE cost_usd IS NULL), sum(cost_usd) FROM corrected_calls
    """
    return [*found, tuple(await reader.fetchrow(query) or ())]


async def test_a_run_without_writing_says_what_would_change(
    database: str, ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """By model and month, with what had no price; then it is done, and then nothing is left."""
    first = book("1", m="1", n="3")
    records = [
        *(call(number, "m", 1_000_000) for number in range(10)),
        *(call(number, "m", 1_000_000, days=-30) for number in range(10, 13)),
        call(13, "n", 1_000_000),
        call(14, "new", 500_000),
        call(15, "nobody-knows-it", 5),
    ]
    await ledger.insert([charge(record, first) for record in records])
    second = book("2", m="1.5", new="2")
    for _ in range(2):
        text = report(await repriced(database, ledger, second, dry_run=True), dry_run=True)
        assert text == (
            "month    model  calls  changed  before USD  after USD  difference USD\n"
            "2026-10  m          3        3    3.000000   4.500000        1.500000\n"
            "2026-11  m         10       10   10.000000  15.000000        5.000000\n"
            "2026-11  new        1        1    0.000000   1.000000        1.000000\n"
            "total              16       14   16.000000  23.500000        7.500000\n"
            "\n"
            "14 calls would be corrected; nothing has been written.\n"
            "1 of them had no price before.\n"
            "1 call has no price still, or not all of it.\n"
            "1 call keeps a cost that this price file does not know.\n"
        )
    assert await sums(reader) == [(16, 2, Decimal(16))] * 4
    done = report(await repriced(database, ledger, second), dry_run=False)
    assert "14 corrections appended.\n" in done
    again = report(await repriced(database, ledger, second), dry_run=False)
    assert again.startswith("Nothing to correct: 16 calls cost what the price file says.\n")
    assert await sums(reader) == [(16, 1, Decimal("23.5"))] * 4
    rates = "SELECT count(*) FROM price_rate WHERE catalog_version = '2'"
    assert await reader.fetchval(rates) == 4


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (Span(first=date(2026, 11, 22), until=date(2026, 11, 23)), 1),
        (Span(first=date(2026, 11, 23), until=date(2026, 11, 24)), 1),
        (Span(first=date(2026, 11, 1), until=date(2026, 11, 22)), 0),
        (Span(first=date(2026, 11, 1), until=date(2026, 12, 1), model="m"), 1),
        (Span(first=date(2026, 11, 1), until=date(2026, 12, 1), model="x"), 0),
    ],
)
async def test_only_what_is_meant_is_priced_anew(
    database: str, ledger: Ledger, span: Span, expected: int
) -> None:
    """Days are half-open, and a model is itself."""
    records = [call(1, "m", 1_000_000), call(2, "n", 1_000_000, days=1)]
    await ledger.insert([charge(record, book("1", m="1", n="1")) for record in records])
    tally = await repriced(database, ledger, book("2", m="2", n="2"), span=span)
    assert tally.total.changed == expected
    nothing = "No calls of these days, or none of this model: nothing to correct.\n"
    assert (report(tally, dry_run=False) == nothing) == (expected == 0)


async def test_one_call_is_told_of_as_one(database: str, ledger: Ledger) -> None:
    """Before, when it is done, and after."""
    await ledger.insert([charge(call(1, "m", 1), book("1", m="1"))])
    dearer = book("2", m="2")
    told = report(await repriced(database, ledger, dearer, dry_run=True), dry_run=True)
    assert told.endswith("\n1 call would be corrected; nothing has been written.\n")
    told = report(await repriced(database, ledger, dearer), dry_run=False)
    assert told.endswith("\n1 correction appended.\n")
    told = report(await repriced(database, ledger, dearer), dry_run=False)
    assert told == "Nothing to correct: 1 call costs what the price file says.\n"


@pytest.mark.parametrize("count", [1, 3])
async def test_corrections_are_sealed(
    database: str, ledger: Ledger, reader: asyncpg.Connection, count: int
) -> None:
    """One by itself as well as several; whoever changes one is found out."""
    await ledger.insert([charge(call(n, "m", 1_000_000), book("1", m="1")) for n in range(count)])
    await repriced(database, ledger, book("2", m="2"))
    assert [finding async for finding in seals.findings(database, rollups.Period())] == []
    one = await reader.fetchval(
        "UPDATE user_api_usage SET cost_usd = 7 WHERE event_id ="
        " (SELECT event_id FROM user_api_usage WHERE corrects IS NOT NULL LIMIT 1)"
        " RETURNING event_id"
    )
    (finding,) = [text async for text in seals.findings(database, rollups.Period())]
    assert f"row {one} of " in finding
    assert "was changed" in finding


async def test_days_are_those_of_the_report_time_zone(database: str) -> None:
    """23:30 UTC is the next day in Berlin."""
    ledger = Ledger(database, report_timezone="Europe/Berlin")
    await ledger.set_report_timezone()
    await ledger.insert([charge(call(1, "m", 1, days=11.5 / 24), book("1", m="1"))])
    dearer = book("2", m="2")
    for day, expected in ((22, 0), (23, 1)):
        span = Span(first=date(2026, 11, day), until=date(2026, 11, day + 1))
        tally = await repriced(database, ledger, dearer, span=span, dry_run=True)
        assert tally.total.changed == expected
    await ledger.close()


async def test_corrections_of_a_closed_month_count_in_the_first_open_one(
    database: str, ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """Its own sums stay as they were reported."""
    await ledger.insert([charge(call(1, "m", 1_000_000, days=-30), book("1", m="1"))])
    await reader.execute(
        "INSERT INTO closed_month (month, starts_at, ends_at, report_timezone)"
        " VALUES ('2026-10-01', '2026-10-01Z', '2026-11-01Z', 'UTC')"
    )
    tally = await repriced(database, ledger, book("2", m="3"))
    assert "2026-10 is closed: its corrections count in 2026-11.\n" in report(tally, dry_run=False)
    query = "SELECT month::text, sum(cost_usd) FROM monthly_usage_summary GROUP BY 1 ORDER BY 1"
    assert [tuple(row) for row in await reader.fetch(query)] == [
        ("2026-10-01", Decimal(1)),
        ("2026-11-01", Decimal(2)),
    ]


async def test_a_call_that_was_taken_back_gets_no_price(
    database: str, ledger: Ledger, reader: asyncpg.Connection
) -> None:
    """Its rows make nothing, whatever it would cost now."""
    row = charge(call(1, "m", 1_000_000), book("1", m="1"))
    await ledger.insert([row])
    await ledger.correct([taken_back(row)])
    assert (await repriced(database, ledger, book("2", m="5"))).total.changed == 0
    assert (await sums(reader))[3] == (1, 0, Decimal(0))


async def test_of_two_who_correct_the_same_call_one_is_told(database: str, ledger: Ledger) -> None:
    """The second has worked with a state that is no more; run again, it finds the new one."""
    row = charge(call(1, "m", 1_000_000), book("1", m="1"))
    await ledger.insert([row])
    calls = Calls(database, SPAN)
    pages = [page async for page in calls.pages()]
    await calls.close()
    await repriced(database, ledger, book("2", m="2"))

    class Stale(Calls):
        """Calls as they were a while ago."""

        @override
        async def count(self) -> int:
            return 1

        @override
        async def pages(self) -> AsyncIterator[list[Found]]:
            for page in pages:
                yield page

    with pytest.raises(OvertakenError, match="run the same again"):
        await reprice(
            Stale(database, SPAN), ledger, book("3", m="3"), dry_run=False, bar=io.StringIO()
        )
    assert (await repriced(database, ledger, book("3", m="3"))).total.after == Decimal(3)


async def test_a_bar_shows_how_far_it_is(database: str, ledger: Ledger) -> None:
    """On a terminal only."""
    rows = [charge(call(number, "m", 1), book("1", m="1")) for number in range(10)]
    await ledger.insert(rows)
    bar = Terminal()
    calls = Calls(database, SPAN, page_calls=5)
    await reprice(calls, ledger, book("1", m="1"), dry_run=True, bar=bar)
    await calls.close()
    assert bar.getvalue() == (
        "\r[###############               ]  50 %  5 of 10 calls"
        "\r[##############################] 100 %  10 of 10 calls\n"
    )


def random_records(chance: random.Random) -> list[Closing]:
    """Return calls of four models over forty days."""
    return [
        call(number, chance.choice("abcd"), chance.randrange(10**6), days=chance.uniform(-40, 0))
        for number in range(60)
    ]


def random_book(chance: random.Random, version: int) -> PriceBook:
    """Return prices for some of the models."""
    names = [name for name in "abcd" if chance.random() < 0.7]
    return book(str(version), **{name: f"{chance.randrange(1, 900) / 100}" for name in names})


def expected_costs(records: Sequence[Closing], books: Sequence[PriceBook]) -> list[Decimal | None]:
    """Return what each call costs by the last book that knows its model."""
    costs: list[Decimal | None] = [None] * len(records)
    for each in books:
        fresh = [charge(record, each).cost_usd for record in records]
        costs = [old if new is None else new for old, new in zip(costs, fresh, strict=True)]
    return costs


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_is_interrupted_the_sums_are_those_of_the_last_prices(
    database: str, ledger: Ledger, reader: asyncpg.Connection, seed: int
) -> None:
    """Prices change and change again; each run is cancelled somewhere, then run to its end."""
    chance = random.Random(seed)  # noqa: S311 (nothing secret)
    records, books = random_records(chance), [random_book(chance, 0)]
    await ledger.insert([charge(record, books[0]) for record in records])
    for version in range(1, 4):
        books.append(random_book(chance, version))
        for _ in range(2):
            run = asyncio.ensure_future(repriced(database, ledger, books[-1]))
            await asyncio.sleep(chance.uniform(0, 0.15))
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
        await repriced(database, ledger, books[-1])
        assert (await repriced(database, ledger, books[-1])).total.changed == 0
        costs = expected_costs(records, books)
        whole = sum((cost for cost in costs if cost is not None), Decimal())
        expected = (60, costs.count(None), whole)
        for _ in range(2):
            assert [tuple(x or 0 for x in found) for found in await sums(reader)] == [expected] * 4
            await reader.execute("SELECT rebuild_rollups()")


async def test_an_interruption_says_how_far_it_came(database: str, ledger: Ledger) -> None:
    """And that the same command goes on."""
    rows = [charge(call(number, "m", 1), book("1", m="1")) for number in range(10)]
    await ledger.insert(rows)
    await ledger.correct([correction(row, cost_usd=Decimal(1)) for row in rows[5:]])

    class Broken(Calls):
        """Calls of which the second page never comes."""

        @override
        async def pages(self) -> AsyncIterator[list[Found]]:
            async for page in super().pages():
                yield page
                raise KeyboardInterrupt

    bar = io.StringIO()
    calls = Broken(database, SPAN, page_calls=5)
    with pytest.raises(KeyboardInterrupt):
        await reprice(calls, ledger, book("2", m="2"), dry_run=False, bar=bar)
    await calls.close()
    assert bar.getvalue() == (
        "interrupted after 5 calls, 5 of them corrected: run the same again for the rest\n"
    )
