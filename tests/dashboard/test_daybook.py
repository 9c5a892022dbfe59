"""Sums of days that are kept are those that SQL makes, whatever is asked and comes late."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import asyncpg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dashboard import adding, selects
from dashboard.asking import PIECED, Row, places, source_of, summing
from dashboard.cells import SUMS, Key
from dashboard.daybook import Daybook, Question, Seen
from dashboard.filters import Filter
from proxy.core.model import LedgerRow
from tests.dashboard.conftest import empty, fold, record
from tests.fakes.rows import ledger_row, unavailable_row, unpriced_row

ZONES = ("UTC", "Europe/Berlin", "Asia/Kathmandu", "America/Havana", "Australia/Lord_Howe")
DAYS = (date(2026, 3, 8), date(2026, 3, 29), date(2026, 4, 5), date(2026, 10, 25))
KEYS: tuple[tuple[Key, ...], ...] = (
    ("endpoint",), ("model",), ("model", "service_tier"), ("day",), ("day", "endpoint"),
)  # fmt: skip
SORTS = (None, "name", "-name", "-cost_usd", "cost_usd", "-last_call", "first_call", "-calls")

_moments = st.builds(
    lambda day, minutes: (
        datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(minutes=minutes)
    ),
    st.sampled_from(DAYS),
    st.integers(-1500, 2880),
)


@dataclass
class Asking:
    """A database that notes what it is asked."""

    connection: "asyncpg.Connection[asyncpg.Record]"
    asked: list[str] = field(default_factory=list)

    async def all(self, questions: Sequence[Question]) -> Sequence[Sequence[Row]]:
        """Answer several questions."""
        self.asked += [statement for statement, *_ in questions]
        return [await self.fetch(*question) for question in questions]

    async def fetch(self, statement: str, *values: object) -> list[Row]:
        """Answer one."""
        return [dict(row) for row in await self.connection.fetch(statement, *values)]

    async def seen(self) -> Seen:
        """Return which days there are."""
        (row,) = await self.fetch(selects.VERSIONS)
        return Seen(dict(zip(row["days"] or (), row["folded"] or (), strict=True)))


@st.composite
def _filters(draw: st.DrawFn) -> Filter:
    first = draw(st.sampled_from(DAYS)) - timedelta(days=draw(st.integers(0, 3)))
    last = first + timedelta(days=draw(st.integers(0, 12)))
    until = datetime(last.year, last.month, last.day, tzinfo=UTC)
    return Filter(
        range="custom",
        first=draw(st.sampled_from((first, first, None))),
        last=last,
        zone=ZoneInfo(draw(st.sampled_from(ZONES))),
        report_zone=ZoneInfo("UTC"),
        until=draw(st.sampled_from((None, until + timedelta(minutes=draw(st.integers(0, 1440)))))),
        endpoints=draw(st.sampled_from(((), ("hint",)))),
        models=draw(st.sampled_from(((), (), ("gpt-b", "gpt-a")))),
        tiers=draw(st.sampled_from(((), (), ("flex",)))),
        without=draw(st.sampled_from(((), (), ("endpoint",)))),
        sort=draw(st.sampled_from(SORTS)),
    )


@st.composite
def _rows(draw: st.DrawFn) -> list[LedgerRow]:
    kinds = (ledger_row, ledger_row, unpriced_row, unavailable_row)
    return [
        draw(st.sampled_from(kinds))(
            number,
            created_at=draw(_moments),
            endpoint=draw(st.sampled_from(("hint", "chat\nresponse", None))),
            model=draw(st.sampled_from(("gpt-a", "gpt-b", None))),
            service_tier=draw(st.sampled_from(("default", "flex", None))),
        )
        for number in range(draw(st.integers(0, 20)))
    ]


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    rows=_rows(), folds=st.sampled_from((0, 3, 1000)), questions=st.lists(_filters(), max_size=8)
)
async def test_kept_days_tell_what_sql_tells(
    database: str, rows: list[LedgerRow], folds: int, questions: list[Filter]
) -> None:
    """In the same order, to the last digit, by any keys; also out of what is kept."""
    await empty(database, "UTC")
    await record(database, rows)
    await fold(database, folds)
    connection = await asyncpg.connect(database)
    asking, daybook = Asking(connection), Daybook()
    try:
        for wanted in questions:
            seen = await asking.seen()
            await daybook.read(asking.all, seen, [wanted], [wanted])
            for keys in KEYS:
                found = await daybook.sums(asking.all, seen, wanted, keys)
                assert found == await _summed(asking, wanted, keys), (wanted, keys)
            assert await daybook.total(asking.all, seen, wanted) == await _total(asking, wanted)
    finally:
        await connection.close()


async def _summed(asking: Asking, wanted: Filter, keys: tuple[Key, ...]) -> list[Row]:
    source = source_of(wanted, keys, "")
    values = summing(wanted, keys, "", source=source, limit=None)
    rows = await asking.fetch(adding.sums(source, keys), *values)
    return [{name: row[name] for name in (*keys, *SUMS)} for row in rows]


async def _total(asking: Asking, wanted: Filter) -> Row:
    source = source_of(wanted, (), "")
    values = places(wanted, "", pieced=source in PIECED)
    return (await asking.fetch(adding.totals(source), *values))[0]


async def test_what_is_over_is_read_once_and_again_when_a_row_comes_late(database: str) -> None:
    """A day that is open is read by each snapshot."""
    noon = datetime(2026, 10, 20, 12, tzinfo=UTC)
    await record(database, [ledger_row(0, created_at=noon, cost_usd=Decimal("0.5"))])
    wanted = Filter(
        range="all",
        first=None,
        last=noon.date(),
        zone=ZoneInfo("Asia/Kolkata"),
        report_zone=ZoneInfo("UTC"),
    )
    connection = await asyncpg.connect(database)
    asking, daybook = Asking(connection), Daybook()

    async def cost() -> tuple[Decimal, int]:
        asking.asked.clear()
        total = await daybook.total(asking.all, await asking.seen(), wanted)
        assert total is not None
        return total["cost_usd"], len(asking.asked)

    assert [await cost(), await cost()] == [(Decimal("0.5"), 1)] * 2
    await fold(database, 1000)
    assert [await cost(), await cost()] == [(Decimal("0.5"), 1), (Decimal("0.5"), 0)]
    await record(database, [ledger_row(1, created_at=noon, cost_usd=Decimal("0.25"))])
    assert await cost() == (Decimal("0.75"), 1)
    await fold(database, 1000)
    assert [await cost(), await cost()] == [(Decimal("0.75"), 1), (Decimal("0.75"), 0)]
    await connection.close()


async def test_a_sum_that_is_too_large_is_left_to_the_database(database: str) -> None:
    """Millions of dollars in a cell of a day are not rounded to fit."""
    noon = datetime(2026, 10, 20, 12, tzinfo=UTC)
    await record(database, [ledger_row(0, created_at=noon, cost_usd=Decimal(10**7))])
    zone = ZoneInfo("UTC")
    wanted = Filter(range="all", first=None, last=noon.date(), zone=zone, report_zone=zone)
    connection = await asyncpg.connect(database)
    asking, daybook = Asking(connection), Daybook()
    assert await daybook.total(asking.all, await asking.seen(), wanted) is None
    assert await daybook.sums(asking.all, await asking.seen(), wanted, ("endpoint",)) is None
    await connection.close()
