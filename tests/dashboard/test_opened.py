import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from dashboard import placing, presence, selects
from dashboard.filters import Filter
from dashboard.opened import OpenDays
from dashboard.presence import Calls, Part
from dashboard.together import both
from tests.dashboard.conftest import Asking, calls_of_day, record

FIRST, SECOND = date(2026, 10, 20), date(2026, 10, 21)
MIDNIGHT = datetime(2026, 10, 20, tzinfo=UTC)
NOON = MIDNIGHT + timedelta(hours=12)
MODEL = "gpt-5.4"
CALLS = (  # who, where, at which hour of the first day, and of which model
    ("ada", "hint", 6, MODEL), ("ada", "chat", 7, MODEL), ("bob", "hint", 13, MODEL),
    (None, "hint", 9, MODEL), (None, "hint", 15, MODEL), ("cyd", "chat", 30, None),
)  # fmt: skip
ALL = Filter(
    range="all", first=None, last=SECOND, zone=ZoneInfo("UTC"), report_zone=ZoneInfo("UTC")
)
OF_HINT = ALL.with_(endpoints=("hint",))
OF_MODEL = ALL.with_(models=(MODEL,))


@pytest.fixture
async def asking(database: str) -> AsyncIterator[Asking]:
    """Yield a ledger in which one user has a number."""
    await record(database, calls_of_day(MIDNIGHT, CALLS))
    connection = await asyncpg.connect(database)
    await connection.execute("INSERT INTO usage_user (number, user_id) VALUES (8200, 'ada')")
    yield Asking(connection)
    await connection.close()


def _parts(calls: Calls) -> list[Part]:
    """Return parts of both days; nobody with a name came before and after the one in the middle."""
    ends = (
        (FIRST, None, None), (FIRST, None, NOON), (FIRST, NOON, None), (SECOND, None, None),
        (FIRST, NOON - timedelta(hours=2), NOON),
    )  # fmt: skip
    return [Part(day, since, past, bool(calls.endpoints), calls) for day, since, past in ends]


async def _rank(days: OpenDays, wanted: Filter, ranked: list[date]) -> None:
    with days.expecting_ranks(wanted):
        await asyncio.sleep(0)
        await days.sums(wanted, "cost_usd", ranked)


@pytest.mark.parametrize(
    "wanted", [ALL, OF_HINT, OF_MODEL], ids=["all", "of-one-endpoint", "of-one-model"]
)
@pytest.mark.parametrize(
    "ranked", [[FIRST], [FIRST, SECOND], []], ids=["one-day", "both-days", "none"]
)
async def test_who_was_there_is_told_by_what_ranks_have_read(
    asking: Asking, wanted: Filter, ranked: list[date]
) -> None:
    """The same as when it is asked for by itself; days that no rank needs are asked for."""
    parts = _parts(Calls(wanted.endpoints, wanted.models))
    expected = await presence.of_open_days(OpenDays(asking.fetch).present, parts)
    asking.asked.clear()
    days = OpenDays(asking.fetch)
    _, told = await both(_rank(days, wanted, ranked), presence.of_open_days(days.present, parts))
    ranks = [placing.OF_DAYS["cost_usd"]] if ranked else []
    rest = [] if SECOND in ranked else [selects.OPEN_ROSTERS]
    assert asking.asked == [*ranks, *rest]
    assert {part: _plain(roster) for part, roster in told.items()} == {
        part: _plain(roster) for part, roster in expected.items()
    }
    numbered, nameless = zip(*(_plain(roster)[:2] for roster in expected.values()), strict=True)
    assert any(numbered)
    assert any(nameless)
    assert all(roster.known for roster in expected.values())


def _plain(roster: presence.Roster) -> tuple[object, object, bool]:
    """Return what a roster says: a set of nobody says nothing."""
    numbered = {name: bits for name, bits in roster.numbered.items() if bits}
    nameless = {name: names for name, names in roster.nameless.items() if names}
    return numbered, nameless, roster.known


@pytest.mark.parametrize(
    "wanted",
    [
        OF_MODEL,
        ALL.with_(without=("endpoint",)),
        ALL.with_(search="a"),
        ALL.with_(endpoints=("chat", "hint")),
        OF_HINT,
    ],
    ids=["model", "without", "search", "endpoints", "another-endpoint"],
)
async def test_ranks_of_other_calls_tell_nothing(asking: Asking, wanted: Filter) -> None:
    """So who was there is asked for at once, and does not wait for them."""
    days = OpenDays(asking.fetch)
    with days.expecting_ranks(wanted):
        rows = await days.present([FIRST], by_endpoint=False, in_parts=False)
    assert sorted(rows[0]["names"], key=str) == [None, "bob"]
    assert asking.asked == [selects.OPEN_ROSTERS]


async def test_of_several_ranks_those_tell_that_were_expected(asking: Asking) -> None:
    """Whichever come first."""
    days = OpenDays(asking.fetch)
    with days.expecting_ranks(ALL), days.expecting_ranks(OF_HINT):
        await days.sums(ALL.with_(models=("none",)), "cost_usd", [FIRST])
        await days.sums(ALL, "cost_usd", [FIRST])
        await days.sums(OF_HINT.with_(endpoints=("none",)), "cost_usd", [FIRST])
        rows = await days.present([FIRST], by_endpoint=False, in_parts=False)
    assert sorted(map(str, rows[0]["names"])) == ["None", "None", "bob"]  # and a nameless one
    assert rows[0]["endpoint"] is None


async def test_ranks_that_fail_are_not_waited_for(asking: Asking) -> None:
    """Nor those that have never begun to read."""
    days = OpenDays(asking.fetch)

    async def fail() -> None:
        with suppress(ArithmeticError), days.expecting_ranks(ALL):
            await asyncio.sleep(0)
            raise ArithmeticError

    _, rows = await both(fail(), days.present([FIRST], by_endpoint=False, in_parts=False))
    assert [row["day"] for row in rows] == [FIRST]
    assert asking.asked == [selects.OPEN_ROSTERS]


async def test_patience_with_ranks_has_an_end(asking: Asking) -> None:
    """Whoever waits asks by itself then."""
    days = OpenDays(asking.fetch, patience=0.01)
    with days.expecting_ranks(ALL):
        rows = await days.present([FIRST], by_endpoint=False, in_parts=False)
    assert [row["day"] for row in rows] == [FIRST]


async def test_ranks_of_all_do_not_tell_who_named_no_model(asking: Asking) -> None:
    """They are asked for by themselves."""
    days = OpenDays(asking.fetch)
    with days.expecting_ranks(ALL):
        await days.sums(ALL, "cost_usd", [FIRST])
        rows = await days.present(
            [FIRST], Calls(without_model=True), by_endpoint=False, in_parts=False
        )
    assert rows == []
    assert asking.asked[1:] == [selects.OPEN_ROSTERS]
